//! The stage as a whole: source in, sibling bundles out.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use output::{StagedDirectory, StagedFile, WrittenFile, available_bytes};
use packer::manifest::ManifestKind;
use packer::replace::{FileKind, Outputs};
use progress::Progress;

use crate::architecture::{Architecture, Platform};
use crate::artifact::{self, Artifact, CompiledSource};
use crate::compile::CompileSettings;
use crate::error::Error;
use crate::interrupt::Interrupt;
use crate::log::{Log, LogExcerpt};
use crate::prefill::LeftOut;
use crate::script::CompileRecord;
use crate::sibling::{self, Existing, SiblingSpec};
use crate::source::SourceBundle;

/// A compile of gigabytes takes minutes; one that takes hours is stuck.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2 * 3600);

/// The compiler in manifests of artifacts without a record.
const UNRECORDED: &str = "unrecorded";
/// Folder of a staged sibling that the compiler writes into.
const COMPILED: &str = "compiled";
/// Folder of a staged sibling that holds the graph without what is left out.
const REDUCED: &str = "reduced";

/// What to compile, and where to.
#[derive(Clone, Debug)]
pub struct CompileRequest {
    /// The bundle with the portable graph.
    pub bundle: PathBuf,
    /// Folder that the siblings are made in; that of the bundle otherwise.
    pub output: Option<PathBuf>,
    /// One sibling each, made in this order.
    pub architectures: Vec<Architecture>,
    /// Options for the compiler.
    pub settings: CompileSettings,
    /// Compile the `prefill` function for iOS too, which is left out otherwise.
    pub keep_prefill: bool,
    /// Longest time for one architecture.
    pub timeout: Duration,
    /// Replace another bundle of this tool, compile again what is up to date, and ignore the disk-space estimate.
    pub force: bool,
    /// Where the compiler's output goes; kept only after a failure otherwise.
    pub log: Option<PathBuf>,
    /// What siblings record as `compilation.date`. None leaves the source's: same input, same bytes.
    pub date: Option<String>,
}

impl CompileRequest {
    /// A request with the defaults for an iPhone.
    pub fn new(bundle: impl Into<PathBuf>, architectures: Vec<Architecture>) -> Self {
        Self {
            bundle: bundle.into(),
            output: None,
            architectures,
            settings: CompileSettings::default(),
            keep_prefill: false,
            timeout: DEFAULT_TIMEOUT,
            force: false,
            log: None,
            date: None,
        }
    }
}

/// Something that compiles a package: the toolchain of this machine, or of another.
pub trait Compiler {
    /// First line of `coreai-build --version`.
    fn version(&self) -> &str;

    /// Compiles `source` for one architecture. On success the artifact should be in the existing folder `into`.
    ///
    /// # Errors
    /// When the compiler reports a failure, is stopped, or cannot be run.
    fn compile(
        &mut self,
        task: &CompileTask<'_>,
        log: &mut Log,
        progress: &dyn Progress,
    ) -> Result<(), Error>;

    /// Whether artifacts carry times of this machine's clock.
    fn shares_clock(&self) -> bool;
}

/// One run of the compiler.
#[derive(Debug)]
pub struct CompileTask<'a> {
    /// What is compiled.
    pub source: &'a SourceBundle,
    /// For which architecture.
    pub architecture: &'a Architecture,
    /// How.
    pub settings: &'a CompileSettings,
    /// Where the artifact goes.
    pub into: &'a Path,
    /// Longest time.
    pub timeout: Duration,
    /// Stops the compile.
    pub interrupt: &'a Interrupt,
}

/// A complete sibling bundle.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sibling {
    /// Its folder.
    pub path: PathBuf,
    /// Its architecture.
    pub architecture: Architecture,
    /// Time of the compile; None for one that was up to date.
    pub compiled_in: Option<Duration>,
    /// The artifact, checked in this run; None for one that was up to date.
    pub artifact: Option<Artifact>,
}

/// What a run did. Siblings made before a failure stay: each is complete.
#[derive(Debug)]
pub struct CompileOutcome {
    /// In the order of the request.
    pub siblings: Vec<Sibling>,
    /// What stopped the run, and for which architecture.
    pub failure: Option<(Architecture, Error)>,
}

/// What would be done for one architecture.
#[derive(Debug)]
pub struct PlannedSibling {
    /// Its architecture.
    pub architecture: Architecture,
    /// Its folder.
    pub path: PathBuf,
    /// What is there now.
    pub existing: Existing,
    /// The command, ready for a shell.
    pub command: String,
    /// Bytes that the compile may need.
    pub needed: u64,
    /// Bytes that are free.
    pub available: u64,
}

/// A request whose source has been read and is complete.
#[derive(Debug)]
pub struct Stage {
    pub(crate) request: CompileRequest,
    pub(crate) source: SourceBundle,
    left_out: Option<LeftOut>,
}

impl Stage {
    /// Opens the source.
    ///
    /// # Errors
    /// [`Error::NoArchitecture`], and those of [`SourceBundle::open`].
    pub fn open(mut request: CompileRequest) -> Result<Self, Error> {
        let mut seen = Vec::new();
        request.architectures.retain(|architecture| {
            let new = !seen.contains(architecture);
            seen.push(architecture.clone());
            new
        });
        if request.architectures.is_empty() {
            return Err(Error::NoArchitecture);
        }
        let source = SourceBundle::open(&request.bundle)?;
        let is_reduced = request.settings.platform == Platform::Ios && !request.keep_prefill;
        let left_out = if is_reduced { LeftOut::find(&source)? } else { None };
        Ok(Self { request, source, left_out })
    }

    /// Whether the source has a `prefill` function that is not compiled.
    pub fn leaves_out_prefill(&self) -> bool {
        self.left_out.is_some()
    }

    /// Refuses a source of which a part is left out, where others run the compiler on it.
    pub(crate) fn require_whole(&self) -> Result<(), Error> {
        match self.left_out {
            Some(_) => Err(Error::HasPrefill { path: self.source.path.clone() }),
            None => Ok(()),
        }
    }

    /// Bytes that a compile may need.
    fn needed_bytes(&self) -> u64 {
        let copy = self.left_out.as_ref().map_or(0, |_| self.source.package_bytes());
        self.source.needed_bytes().saturating_add(copy)
    }

    /// The opened source.
    pub fn source(&self) -> &SourceBundle {
        &self.source
    }

    /// What [`Self::run`] would do with a compiler of this version.
    ///
    /// # Errors
    /// When the free space of the output cannot be asked for.
    pub fn plan(&self, compiler: &str) -> Result<Vec<PlannedSibling>, Error> {
        let planned = |architecture: &Architecture| {
            let path = self.target(architecture);
            Ok(PlannedSibling {
                existing: self.spec(architecture, compiler).existing(&path),
                command: crate::script::command_line(self, architecture),
                needed: self.needed_bytes(),
                available: available_bytes(&path)?,
                architecture: architecture.clone(),
                path,
            })
        };
        self.request.architectures.iter().map(planned).collect()
    }

    /// Makes every sibling that is not up to date.
    pub fn run(
        &self,
        compiler: &mut dyn Compiler,
        interrupt: &Interrupt,
        progress: &dyn Progress,
    ) -> CompileOutcome {
        let mut outcome = CompileOutcome { siblings: Vec::new(), failure: None };
        let mut log = match self.log() {
            Ok(log) => log,
            Err(error) => {
                outcome.failure = self.first_failure(error);
                return outcome;
            }
        };
        for architecture in &self.request.architectures {
            match self.make(architecture, compiler, &mut log, interrupt, progress) {
                Ok(sibling) => outcome.siblings.push(sibling),
                Err(error) => {
                    outcome.failure = Some((architecture.clone(), error));
                    break;
                }
            }
        }
        outcome
    }

    /// Makes the sibling for an artifact that was compiled elsewhere, with the record that the script left beside it
    /// or without one.
    ///
    /// # Errors
    /// [`Error::BadForeignArtifact`] for one that is not usable for the request's only architecture, or that was made
    /// from another source or with other options; [`Error::HasPrefill`].
    pub fn adopt(&self, artifact: &Path) -> Result<Sibling, Error> {
        self.require_whole()?;
        let [architecture] = self.request.architectures.as_slice() else { return Err(Error::NoArchitecture) };
        let refused = |defects| Error::BadForeignArtifact { path: artifact.to_path_buf(), defects };
        let origin = CompiledSource { modified: None, ..CompiledSource::from(&self.source) };
        let checked = artifact::verify(artifact, architecture, Some(origin)).map_err(refused)?;
        let strays = artifact::strays(&checked, architecture);
        if !strays.is_empty() {
            return Err(refused(strays));
        }
        let record = CompileRecord::beside(artifact)?;
        let defects = record.as_ref().map(|record| self.mismatches(record, architecture, &checked));
        if let Some(defects) = defects.filter(|defects| !defects.is_empty()) {
            return Err(refused(defects));
        }
        let compiler = record.map_or_else(|| UNRECORDED.into(), |record| record.compiler);
        let spec = self.spec(architecture, &compiler);
        let target = self.target(architecture);
        let staged = self.stage(&target, spec.existing(&target), Some(artifact))?;
        let copy = staged.path().join(spec.artifact_name());
        copy_artifact(artifact, &copy, &checked)?;
        spec.assemble(&staged, &checked)?;
        let path = staged.commit()?;
        let architecture = architecture.clone();
        Ok(Sibling { path, architecture, compiled_in: None, artifact: Some(checked) })
    }

    /// What in a record does not match this source, these settings and that artifact.
    fn mismatches(
        &self,
        record: &CompileRecord,
        architecture: &Architecture,
        artifact: &Artifact,
    ) -> Vec<String> {
        let mut defects = Vec::new();
        if record.source_main_sha256 != self.source.program_sha256 {
            defects.push("it was compiled from another graph: its record names another SHA-256".into());
        }
        let options = self.request.settings.options(architecture);
        if record.options != options {
            let (theirs, ours) = (record.options.join(" "), options.join(" "));
            defects.push(format!("it was compiled with `{theirs}`, but `{ours}` is asked for"));
        }
        if record.program_sha256 != artifact.program_sha256 {
            defects.push("its program is not the one that its record describes".into());
        }
        defects
    }

    fn first_failure(&self, error: Error) -> Option<(Architecture, Error)> {
        self.request.architectures.first().map(|architecture| (architecture.clone(), error))
    }

    pub(crate) fn target(&self, architecture: &Architecture) -> PathBuf {
        sibling::target(&self.source, architecture, self.request.output.as_deref())
    }

    fn spec<'a>(&'a self, architecture: &'a Architecture, compiler: &'a str) -> SiblingSpec<'a> {
        let CompileRequest { settings, date, .. } = &self.request;
        let (left_out, date) = (self.left_out.as_ref(), date.as_deref());
        SiblingSpec { source: &self.source, architecture, settings, compiler, left_out, date }
    }

    fn check_space(&self, target: &Path) -> Result<(), Error> {
        let (needed, available) = (self.needed_bytes(), available_bytes(target)?);
        if available < needed && !self.request.force {
            let path = target.parent().unwrap_or(target).to_path_buf();
            return Err(Error::DiskSpace { path, needed, available });
        }
        Ok(())
    }

    /// Opens a hidden folder for the sibling, unless something else has its name.
    fn stage(
        &self,
        target: &Path,
        existing: Existing,
        artifact: Option<&Path>,
    ) -> Result<StagedDirectory, Error> {
        let is_asked = self.request.force || existing != Existing::Foreign;
        let outputs = Outputs::new(artifact.into_iter().chain([&*self.source.path]), is_asked);
        Ok(StagedDirectory::new(target, outputs.folder(ManifestKind::Bundle))?)
    }

    /// The log, which replaces an older one.
    fn log(&self) -> Result<Log, Error> {
        let path = self.request.log.as_deref();
        if let Some(path) = path {
            let output = Outputs::new([&self.source.path], true).file(FileKind::CompileLog);
            StagedFile::check(path, output)?;
        }
        let shown = path.map_or_else(std::env::temp_dir, Path::to_path_buf);
        Log::create(path).map_err(Error::io("write the log", &shown))
    }

    fn make(
        &self,
        architecture: &Architecture,
        compiler: &mut dyn Compiler,
        log: &mut Log,
        interrupt: &Interrupt,
        progress: &dyn Progress,
    ) -> Result<Sibling, Error> {
        let version = compiler.version().to_owned();
        let spec = self.spec(architecture, &version);
        let target = self.target(architecture);
        let existing = spec.existing(&target);
        if existing == Existing::UpToDate && !self.request.force {
            progress.note(&format!("{} is up to date", target.display()));
            let architecture = architecture.clone();
            return Ok(Sibling { path: target, architecture, compiled_in: None, artifact: None });
        }
        self.check_space(&target)?;
        let staged = self.stage(&target, existing, None)?;
        let into = staged.path().join(COMPILED);
        fs::create_dir(&into).map_err(Error::io("create", &into))?;
        let folder = staged.path().join(REDUCED);
        let reduced = self.left_out.as_ref().map(|left_out| left_out.write(&self.source, &folder, interrupt));
        let reduced = reduced.transpose()?;
        let source = reduced.as_ref().unwrap_or(&self.source);
        progress.begin(&format!("compiling for {architecture}"));
        let started = Instant::now();
        let CompileRequest { settings, timeout, .. } = &self.request;
        let task = CompileTask { source, architecture, settings, into: &into, timeout: *timeout, interrupt };
        compiler.compile(&task, log, progress)?;
        let compiled_in = Some(started.elapsed());

        progress.begin(&format!("checking the artifact for {architecture}"));
        let name = spec.artifact_name();
        let (compiled, beside) = find_artifact(&into, &name, log)?;
        if !beside.is_empty() {
            let beside = beside.join(", ");
            progress.note(&format!("left out what the compiler wrote beside {name}: {beside}"));
        }
        let modified = compiler.shares_clock().then_some(source.modified);
        let origin = CompiledSource { modified, ..CompiledSource::from(source) };
        let artifact = artifact::verify(&compiled, architecture, Some(origin)).map_err(|defects| {
            Error::BadArtifact { name: name.clone(), defects, log: Box::new(log.excerpt()) }
        })?;
        let place = staged.path().join(&name);
        fs::rename(&compiled, &place).map_err(Error::io("move the artifact to", &place))?;
        for folder in std::iter::once(&into).chain(reduced.as_ref().map(|_| &folder)) {
            fs::remove_dir_all(folder).map_err(Error::io("remove", folder))?;
        }
        spec.assemble(&staged, &artifact)?;
        if interrupt.is_raised() {
            return Err(Error::Interrupted);
        }
        let path = staged.commit()?;
        progress.note(&format!("wrote {}", path.display()));
        Ok(Sibling { path, architecture: architecture.clone(), compiled_in, artifact: Some(artifact) })
    }
}

/// The artifact among what the compiler wrote, and the names of everything else.
fn find_artifact(folder: &Path, name: &str, log: &mut Log) -> Result<(PathBuf, Vec<String>), Error> {
    let entries = fs::read_dir(folder).map_err(Error::io("list", folder))?;
    let mut found: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    found.sort();
    let expected = folder.join(name);
    if expected.is_dir() {
        found.retain(|other| other != name);
        return Ok((expected, found));
    }
    let log: Box<LogExcerpt> = Box::new(log.excerpt());
    Err(Error::NoArtifact { expected: name.to_owned(), found, log })
}

/// Copies the checked files and verifies the copies.
fn copy_artifact(from: &Path, to: &Path, artifact: &Artifact) -> Result<(), Error> {
    for file in &artifact.files {
        let (source, copy) = (from.join(&file.path), to.join(&file.path));
        if let Some(folder) = copy.parent() {
            fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        }
        fs::copy(&source, &copy).map_err(Error::io("copy to", &copy))?;
        if packer::measure(&copy)? != (WrittenFile { digest: file.sha256, bytes: file.size }) {
            let reason = format!("{} changed while it was copied", source.display());
            return Err(Error::NotCompilable { path: from.to_path_buf(), reason });
        }
    }
    Ok(())
}
