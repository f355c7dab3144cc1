//! A bundle from the reference packages and a separate stand-in toolchain for each test.

#![allow(clippy::print_stderr)]

pub(crate) mod ssh;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use aotc::{
    Architecture, CompileOutcome, CompileRequest, Error, Interrupt, Platform, Stage, Toolchain,
    ToolchainOptions,
};
use fixtures::data::{self, PrefillReference, ReferencePackage};
use fixtures::toolchain::StandInXcode;
use output::{KeepExisting, StagedDirectory};
use packer::bundle::{self, BundleParts};
use packer::manifest::{Provenance, SourceRecord};
use packer::metadata::{
    BundleMetadata, EngineInputs, LanguageBundle, PromptReading, QueryLength, SourceMetadata,
};
use packer::template::Conversation;
use packer::tokenizer::{self, Purpose};
use progress::Progress;
use tempfile::TempDir;

pub(crate) const NAME: &str = "gemma4_tiny_decode_int4lin";

/// A scratch folder with a bundle and a stand-in Xcode.
pub(crate) struct Scene {
    scratch: TempDir,
    pub(crate) bundle: PathBuf,
    pub(crate) xcode: StandInXcode,
    pub(crate) interrupt: Interrupt,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self::named("work", NAME)
    }

    /// A scene whose folder and bundle have these names.
    pub(crate) fn named(folder: &str, name: &str) -> Self {
        Self::with_package(folder, name, &ReferencePackage::ProviderInt4.path(), PromptReading::ONE_BY_ONE)
    }

    /// A scene whose bundle has two functions.
    pub(crate) fn with_prefill() -> Self {
        let (main, prefill) = (QueryLength::Dynamic, Some(QueryLength::Dynamic));
        let prompts = PromptReading { main, prefill, chunk: 512 };
        Self::with_package("work", NAME, &PrefillReference::Int4.path(), prompts)
    }

    fn with_package(folder: &str, name: &str, package: &Path, prompts: PromptReading) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let bundle = scratch.path().join(folder).join(name);
        write_bundle(&bundle, name, package, prompts);
        let xcode = StandInXcode::install(&scratch.path().join("Xcode.app/Contents/Developer")).unwrap();
        Self { scratch, bundle, xcode, interrupt: Interrupt::new() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    pub(crate) fn fault(&self, name: &str) -> &Self {
        self.xcode.set("COREAI_BUILD_FAULT", name).unwrap();
        self
    }

    pub(crate) fn options(&self) -> ToolchainOptions {
        ToolchainOptions { xcrun: Some(self.xcode.xcrun()), developer_dir: None }
    }

    pub(crate) fn toolchain(&self) -> Toolchain {
        Toolchain::find(&self.options(), &self.interrupt).unwrap()
    }

    pub(crate) fn request(&self, architectures: &[&str]) -> CompileRequest {
        let known = |name: &&str| Architecture::known(name, Platform::Ios).unwrap();
        let mut request = CompileRequest::new(&self.bundle, architectures.iter().map(known).collect());
        request.timeout = Duration::from_secs(60);
        request
    }

    pub(crate) fn run(&self, request: CompileRequest) -> CompileOutcome {
        self.run_reporting(request).0
    }

    /// Runs the request; returns what was reported too.
    pub(crate) fn run_reporting(&self, request: CompileRequest) -> (CompileOutcome, Vec<String>) {
        let reported = Reported::default();
        let stage = Stage::open(request).unwrap();
        let outcome = stage.run(&mut self.toolchain(), &self.interrupt, &reported);
        (outcome, reported.0.into_inner().unwrap())
    }

    /// Runs the request, which must fail, and checks that nothing is left.
    pub(crate) fn failure(&self, request: CompileRequest) -> Error {
        let before = listing(self.bundle.parent().unwrap());
        let outcome = self.run(request);
        let (_, error) = outcome.failure.expect("the run should fail");
        assert_eq!(listing(self.bundle.parent().unwrap()), before, "left behind after: {error}");
        forget_log(&error);
        error
    }

    pub(crate) fn sibling(&self, architecture: &str) -> PathBuf {
        let name = self.bundle.file_name().unwrap().to_str().unwrap();
        self.bundle.with_file_name(format!("{name}_aotc_{architecture}"))
    }
}

/// What a run reports, in order.
#[derive(Default)]
struct Reported(Mutex<Vec<String>>);

impl Progress for Reported {
    fn begin(&self, item: &str) {
        self.note(item);
    }
    fn note(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

/// Removes the log that a failure keeps for the user.
pub(crate) fn forget_log(error: &Error) {
    let text = error.to_string();
    if let Some((_, path)) = text.split_once("whole log: ") {
        let path = Path::new(path.trim());
        assert!(path.is_file(), "{text}");
        fs::remove_file(path).unwrap();
    }
}

/// Every file and folder below `root`, with sizes of the files.
pub(crate) fn listing(root: &Path) -> Vec<(String, u64)> {
    let mut entries = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().flatten() {
            let metadata = entry.metadata().unwrap();
            let size = if metadata.is_dir() { 0 } else { metadata.len() };
            entries.push((entry.path().strip_prefix(root).unwrap().display().to_string(), size));
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    entries.sort();
    entries
}

fn copy_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn write_bundle(bundle: &Path, name: &str, package: &Path, prompts: PromptReading) {
    let staged = StagedDirectory::new(bundle, KeepExisting).unwrap();
    let asset = format!("{name}.aimodel");
    copy_files(package, &staged.path().join(&asset));
    let read = |file: &&str| {
        let bytes = fs::read(data::tiny_checkpoint().join(file)).ok()?;
        Some(((*file).to_owned(), bytes))
    };
    let files = tokenizer::SOURCE_FILES.iter().filter_map(read).collect();
    let purpose = Purpose { vocab_size: 512, allow_no_template: false, render: &Conversation::render };
    let tokenizer = tokenizer::prepare(files, &purpose).unwrap();
    let metadata = BundleMetadata::language_bundle(&LanguageBundle {
        name,
        asset: &asset,
        tokenizer: "owner/tiny",
        vocab_size: 512,
        max_context_length: 1024,
        eos_token_ids: &tokenizer.eos_token_ids,
        engine_inputs: EngineInputs::PerToken,
        prompts,
        source: SourceMetadata::default(),
        scheme: Some("int4"),
        tool: "coreai-bundle 0.1.0",
    });
    let provenance = Provenance {
        tool: "coreai-bundle 0.1.0".into(),
        source: Some(SourceRecord { repository: Some("owner/tiny".into()), ..SourceRecord::default() }),
        ..Provenance::default()
    };
    bundle::assemble(&staged, BundleParts { metadata, tokenizer, provenance, known_files: Vec::new() })
        .unwrap();
    staged.commit().unwrap();
}

/// A program that not every machine has; `.ci/run` installs it, and it is required only there.
pub(crate) fn checker(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let found = folders.map(|folder| folder.join(name)).find(|file| file.is_file());
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "{name} is not installed, and CI needs it");
        eprintln!("skipped: {name} is not installed");
    }
    found
}
