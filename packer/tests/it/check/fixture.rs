//! Good bundles, tables and releases of the tiny checkpoint, and ways to damage them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use output::{Digest, KeepExisting, StagedDirectory, WrittenFile};
use packer::bundle::{BundleParts, assemble};
use packer::check::facts::GraphFacts;
use packer::check::{CheckReport, Options, check};
use packer::manifest::{self, CompiledFrom, Manifest, ManifestKind, Provenance, SourceRecord};
use packer::metadata::{
    BundleMetadata, Compilation, EngineInputs, LanguageBundle, PromptReading, QueryLength, SourceMetadata,
};
use packer::template::Conversation;
use packer::tokenizer::{self, SOURCE_FILES};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Extents of the tiny checkpoint.
const VOCABULARY: usize = 512;
const HIDDEN: usize = 128;
const LAYERS: usize = 12;
const PER_LAYER: usize = 32;

const TOOL: &str = "coreai-bundle 0.1.0";
const MODEL: &str = "google/gemma-4-tiny-it-qat-q4_0-unquantized";
pub(crate) const PROVIDER: &str = "gemma4_tiny_qat_decode_int4lin";
pub(crate) const TBL: &str = "gemma4_tiny_qat_decode_int4lin_tbl";
pub(crate) const COMPILED: &str = "gemma4_tiny_qat_decode_int4lin_aotc_h18p";
pub(crate) const TABLES: &str = "gemma4_tiny_qat_gather_raw";

pub(crate) fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/data")
}

pub(crate) fn reference(name: &str) -> PathBuf {
    data().join("reference").join(format!("{name}.aimodel"))
}

/// A release of the tiny checkpoint in a scratch folder.
pub(crate) struct Release {
    scratch: TempDir,
    pub(crate) root: PathBuf,
}

impl Release {
    /// Provider and tbl bundles, a compiled sibling, tables, card, license, manifest.
    pub(crate) fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("release");
        let stamp = write_tables(&root.join("ios-frontend").join(TABLES), 1);
        for (name, package, inputs) in [
            (PROVIDER, "provider.int4-symmetric", EngineInputs::PerToken),
            (TBL, "tbl.int4-symmetric", EngineInputs::Static),
        ] {
            let target = root.join("gpu-pipelined").join(name);
            write_bundle(&target, package, inputs, PromptReading::ONE_BY_ONE, Some(stamp));
        }
        write_compiled(
            &root.join("gpu-pipelined").join(COMPILED),
            &root.join("gpu-pipelined").join(PROVIDER),
        );
        fs::write(root.join("README.md"), CARD).unwrap();
        fs::write(root.join("LICENSE"), "Apache License 2.0\n").unwrap();
        let provenance = Provenance { tool: TOOL.into(), ..Provenance::default() };
        manifest::seal(&root, ManifestKind::Release, "release", provenance, &[]).unwrap();
        Self { scratch, root }
    }

    pub(crate) fn bundle(&self, name: &str) -> Folder {
        Folder(self.root.join("gpu-pipelined").join(name))
    }

    pub(crate) fn tables(&self) -> Folder {
        Folder(self.root.join("ios-frontend").join(TABLES))
    }

    pub(crate) fn whole(&self) -> Folder {
        Folder(self.root.clone())
    }

    /// A place outside of the release.
    pub(crate) fn elsewhere(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }
}

/// A bundle for Apple's engine: its `main` and its `prefill` take any number of tokens.
pub(crate) struct Stock {
    _scratch: TempDir,
    pub(crate) bundle: Folder,
}

impl Stock {
    pub(crate) fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let bundle = scratch.path().join("gemma4_tiny_qat_decode_int4lin_stock");
        let prompts =
            PromptReading { main: QueryLength::Dynamic, prefill: Some(QueryLength::Dynamic), chunk: 512 };
        write_bundle(&bundle, "stock-dyn-prefill.int4-symmetric", EngineInputs::None, prompts, None);
        Self { _scratch: scratch, bundle: Folder(bundle) }
    }
}

const CARD: &str = "---\nlicense: apache-2.0\nbase_model: google/gemma-4-tiny-it-qat-q4_0-unquantized\n\
    pipeline_tag: text-generation\nlibrary_name: coreai\ntags:\n- coreai\n- aimodel\n- apple-silicon\n- on-device\n\
    - gemma-4\n- qat\n---\n# Tiny\n";

/// A folder to be damaged.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    pub(crate) fn read(&self, file: &str) -> Vec<u8> {
        fs::read(self.path(file)).unwrap()
    }

    pub(crate) fn write(&self, file: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(file), bytes).unwrap();
    }

    pub(crate) fn remove(&self, file: &str) {
        let path = self.path(file);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
    }

    pub(crate) fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    /// Edits a JSON file.
    pub(crate) fn json(&self, file: &str, edit: impl FnOnce(&mut Value)) {
        let mut value: Value = serde_json::from_slice(&self.read(file)).unwrap();
        edit(&mut value);
        self.write(file, serde_json::to_vec_pretty(&value).unwrap());
    }

    /// Edits `metadata.json`.
    pub(crate) fn metadata(&self, edit: impl FnOnce(&mut Value)) {
        self.json("metadata.json", edit);
    }

    /// Edits the `language` block of `metadata.json`.
    pub(crate) fn language(&self, edit: impl FnOnce(&mut Value)) {
        self.metadata(|metadata| edit(&mut metadata["language"]));
    }

    /// Edits a text file.
    pub(crate) fn replace(&self, file: &str, from: &str, to: &str) {
        let text = String::from_utf8(self.read(file)).unwrap();
        assert!(text.contains(from), "{file} holds no '{from}'");
        self.write(file, text.replace(from, to));
    }

    /// Name of the graph package.
    pub(crate) fn asset(&self) -> String {
        let metadata: Value = serde_json::from_slice(&self.read("metadata.json")).unwrap();
        metadata["assets"]["main"].as_str().unwrap().to_owned()
    }

    /// A file of the graph package.
    pub(crate) fn in_asset(&self, file: &str) -> String {
        format!("{}/{file}", self.asset())
    }

    /// Writes the manifest again, as if the folder had been made as it is now.
    pub(crate) fn seal(&self) {
        let manifest = Manifest::read(&self.0).unwrap();
        let provenance = Provenance {
            tool: manifest.tool,
            source: manifest.source,
            conversion: manifest.conversion,
            tables_digest: manifest.tables_digest,
            compiled_from: manifest.compiled_from,
            gate: manifest.gate,
            checksums: manifest.checksums,
            recipe: serde_json::Value::Null,
        };
        manifest::seal(&self.0, manifest.kind, &manifest.name, provenance, &[]).unwrap();
    }

    pub(crate) fn check(&self) -> CheckReport {
        check(&self.0, &Options::new(&Conversation::render)).unwrap()
    }

    /// Checks with facts of the graph that `edit` has changed.
    pub(crate) fn check_graph(&self, edit: impl Fn(&mut GraphFacts)) -> CheckReport {
        let reader = |path: &Path| {
            let mut facts = GraphFacts::read(path)?;
            edit(&mut facts);
            Ok(facts)
        };
        check(&self.0, &Options { graph_reader: &reader, ..Options::new(&Conversation::render) }).unwrap()
    }

    /// Checks with the facts of another graph.
    pub(crate) fn check_graph_as(&self, facts: &GraphFacts) -> CheckReport {
        let reader = |_: &Path| Ok(facts.clone());
        check(&self.0, &Options { graph_reader: &reader, ..Options::new(&Conversation::render) }).unwrap()
    }
}

/// Asserts that a report holds exactly the findings with these ids, in any order, and that each has texts.
#[track_caller]
pub(crate) fn assert_found(report: &CheckReport, expected: &[&str]) {
    let count = |ids: &mut dyn Iterator<Item = &str>| {
        ids.fold(BTreeMap::<String, usize>::new(), |mut counts, id| {
            *counts.entry(id.to_owned()).or_default() += 1;
            counts
        })
    };
    let found = count(&mut report.findings.iter().map(|finding| finding.id));
    assert_eq!(found, count(&mut expected.iter().copied()), "{:#?}", report.findings);
    for finding in &report.findings {
        assert!(!finding.what.is_empty() && !finding.why.is_empty() && !finding.fix.is_empty());
        assert!(!finding.fix.contains('{') || finding.fix.contains("{\"main\""), "{}", finding.fix);
    }
}

fn write_bundle(
    target: &Path,
    package: &str,
    engine_inputs: EngineInputs,
    prompts: PromptReading,
    stamp: Option<Digest>,
) {
    let name = target.file_name().unwrap().to_str().unwrap();
    let asset = format!("{name}.aimodel");
    let staged = StagedDirectory::new(target, KeepExisting).unwrap();
    copy(&reference(package), &staged.path().join(&asset));
    let source = data().join("tiny-e4b-qat");
    let files = SOURCE_FILES
        .iter()
        .filter_map(|&name| Some((name.to_owned(), fs::read(source.join(name)).ok()?)))
        .collect();
    let purpose = tokenizer::Purpose {
        vocab_size: VOCABULARY as u64,
        allow_no_template: false,
        render: &Conversation::render,
    };
    let tokenizer = tokenizer::prepare(files, &purpose).unwrap();
    let metadata = BundleMetadata::language_bundle(&LanguageBundle {
        name,
        asset: &asset,
        tokenizer: MODEL,
        vocab_size: VOCABULARY as u64,
        max_context_length: 4096,
        eos_token_ids: &tokenizer.eos_token_ids,
        engine_inputs,
        prompts,
        source: SourceMetadata { hf_model_id: Some(MODEL.into()), ..SourceMetadata::default() },
        scheme: Some("int4-absmax-block32"),
        tool: TOOL,
    });
    let provenance = Provenance {
        tool: TOOL.into(),
        source: Some(SourceRecord { repository: Some(MODEL.into()), ..SourceRecord::default() }),
        conversion: json!({"rule": "absmax"}),
        tables_digest: stamp,
        compiled_from: None,
        recipe: Value::Null,
        checksums: std::collections::BTreeMap::new(),
        gate: serde_json::Value::Null,
    };
    let parts = BundleParts { metadata, tokenizer, provenance, known_files: Vec::new() };
    assemble(&staged, parts).unwrap();
    // Syncing hundreds of bundles takes most of a minute; what is published is tested elsewhere.
    copy(staged.path(), target);
}

fn write_compiled(target: &Path, source: &Path) {
    let (name, source_name) = (target.file_name().unwrap(), source.file_name().unwrap().to_str().unwrap());
    copy(&source.join("tokenizer"), &target.join("tokenizer"));
    let asset = format!("{source_name}.h18p.aimodelc");
    let folder = target.join(&asset);
    fs::create_dir_all(folder.join("main-h18p-delegates/gpu")).unwrap();
    fs::write(folder.join("main-h18p-delegates/gpu/segment"), "compiled").unwrap();
    fs::write(folder.join("main-h18p.mlirb"), "program").unwrap();
    fs::write(folder.join("main.hash"), Digest::of_bytes(b"program").as_bytes()).unwrap();
    fs::write(folder.join("metadata.json"), "{}").unwrap();
    fs::write(folder.join("stats.json"), "{}").unwrap();

    let mut metadata = BundleMetadata::read(source).unwrap();
    metadata.name = name.to_str().unwrap().to_owned();
    metadata.assets.insert("main".into(), asset);
    metadata.compilation = Some(Compilation { targets: vec!["h18p".into()], ..Compilation::default() });
    metadata.write(target).unwrap();
    let program = source.join(format!("{source_name}.aimodel/main.mlirb"));
    let provenance = Provenance {
        tool: TOOL.into(),
        tables_digest: metadata.tables_digest(),
        compiled_from: Some(CompiledFrom {
            bundle: source_name.to_owned(),
            main_sha256: WrittenFile::of(&program).unwrap().digest,
            architecture: "h18p".into(),
            toolchain: Value::Null,
        }),
        ..Provenance::default()
    };
    manifest::seal(target, ManifestKind::Bundle, &metadata.name, provenance, &[]).unwrap();
}

/// Writes tables whose content depends on `seed` and returns their stamp.
pub(crate) fn write_tables(target: &Path, seed: u8) -> Digest {
    fs::create_dir_all(target).unwrap();
    let width = LAYERS * PER_LAYER;
    let codes = |count: usize| (0..count).map(|at| (at as u8).wrapping_mul(seed)).collect::<Vec<u8>>();
    let floats = |count: usize| 0.01_f32.to_le_bytes().repeat(count);
    let files = [
        ("embed_per_layer.i8", codes(VOCABULARY * width)),
        ("embed_per_layer.scale.f32", floats(VOCABULARY)),
        ("embed_tokens.i8", codes(VOCABULARY * HIDDEN)),
        ("embed_tokens.scale.f32", floats(VOCABULARY)),
        ("proj.f32", floats(width * HIDDEN)),
        ("proj_norm.f32", floats(PER_LAYER)),
    ];
    for (name, bytes) in files {
        fs::write(target.join(name), bytes).unwrap();
    }
    let meta = json!({
        "V": VOCABULARY, "D": HIDDEN, "PLD": width, "L": LAYERS, "ld": PER_LAYER,
        "embed_scale_main": (HIDDEN as f64).sqrt(), "embed_scale_pl": (PER_LAYER as f64).sqrt(),
        "proj_scale": (HIDDEN as f64).powf(-0.5), "input_scale": 0.5_f64.sqrt(), "rms_eps": 1e-6,
    });
    fs::write(target.join("meta.json"), meta.to_string()).unwrap();
    let provenance = Provenance { tool: TOOL.into(), ..Provenance::default() };
    let name = target.file_name().unwrap().to_str().unwrap();
    let manifest = manifest::seal(target, ManifestKind::Tables, name, provenance, &[]).unwrap();
    manifest.tables_digest.unwrap()
}

/// Copies a folder.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
