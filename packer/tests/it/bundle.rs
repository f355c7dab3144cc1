//! Assembly of a bundle around a graph package.

use std::fs;
use std::path::Path;

use output::{Digest, KeepExisting, StagedDirectory, WrittenFile};
use packer::bundle::{BundleError, BundleParts, assemble};
use packer::manifest::{FileRecord, Manifest, ManifestKind, Provenance};
use packer::metadata::{BundleMetadata, EngineInputs, LanguageBundle, PromptReading, SourceMetadata};
use packer::template::Conversation;
use packer::tokenizer::{Purpose, SOURCE_FILES, prepare};

const PROGRAM: &[u8] = b"a program";

fn parts() -> BundleParts {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/data/tiny-e4b-qat");
    let files = SOURCE_FILES
        .iter()
        .filter_map(|&name| Some((name.to_owned(), fs::read(source.join(name)).ok()?)))
        .collect();
    let purpose = Purpose { vocab_size: 512, allow_no_template: false, render: &Conversation::render };
    let tokenizer = prepare(files, &purpose).unwrap();
    let metadata = BundleMetadata::language_bundle(&LanguageBundle {
        name: "bundle",
        asset: "bundle.aimodel",
        tokenizer: "owner/name",
        vocab_size: 512,
        max_context_length: 4096,
        eos_token_ids: &tokenizer.eos_token_ids,
        engine_inputs: EngineInputs::PerToken,
        prompts: PromptReading::ONE_BY_ONE,
        source: SourceMetadata::default(),
        scheme: None,
        tool: "coreai-bundle 0.1.0",
    });
    let provenance = Provenance {
        tool: "coreai-bundle 0.1.0".into(),
        tables_digest: Some(Digest::of_bytes(b"tables")),
        ..Provenance::default()
    };
    let known_files = vec![FileRecord {
        path: "bundle.aimodel/main.mlirb".into(),
        size: PROGRAM.len() as u64,
        sha256: Digest::of_bytes(PROGRAM),
    }];
    BundleParts { metadata, tokenizer, provenance, known_files }
}

fn stage(target: &Path) -> StagedDirectory {
    let staged = StagedDirectory::new(target, KeepExisting).unwrap();
    fs::create_dir(staged.path().join("bundle.aimodel")).unwrap();
    fs::write(staged.path().join("bundle.aimodel/main.mlirb"), PROGRAM).unwrap();
    staged
}

#[test]
fn bundle_is_complete_and_its_manifest_lists_every_file() {
    let scratch = tempfile::tempdir().unwrap();
    let target = scratch.path().join("bundle");
    let staged = stage(&target);
    let manifest = assemble(&staged, parts()).unwrap();
    assert!(!target.exists());
    staged.commit().unwrap();

    let listed: Vec<&str> = manifest.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(
        listed,
        [
            "bundle.aimodel/main.mlirb",
            "metadata.json",
            "tokenizer/chat_template.jinja",
            "tokenizer/generation_config.json",
            "tokenizer/special_tokens_map.json",
            "tokenizer/tokenizer.json",
            "tokenizer/tokenizer_config.json",
        ]
    );
    for file in &manifest.files {
        assert_eq!(
            WrittenFile::of(&target.join(&file.path)).unwrap(),
            WrittenFile { digest: file.sha256, bytes: file.size }
        );
    }
    assert_eq!(Manifest::read(&target).unwrap(), manifest);
    assert_eq!((manifest.kind, manifest.name.as_str()), (ManifestKind::Bundle, "bundle"));
    // The stamp of the tables is in both places.
    let stamp = Some(Digest::of_bytes(b"tables"));
    assert_eq!(manifest.tables_digest, stamp);
    assert_eq!(BundleMetadata::read(&target).unwrap().tables_digest(), stamp);
}

#[test]
fn same_parts_give_the_same_bytes() {
    let scratch = tempfile::tempdir().unwrap();
    let write = |name: &str| {
        let staged = stage(&scratch.path().join(name));
        assemble(&staged, parts()).unwrap();
        let target = staged.commit().unwrap();
        ["manifest.json", "metadata.json", "tokenizer/tokenizer_config.json"]
            .map(|file| fs::read(target.join(file)).unwrap())
    };
    assert_eq!(write("first"), write("second"));
}

#[test]
fn missing_asset_is_an_error_and_nothing_is_left() {
    let scratch = tempfile::tempdir().unwrap();
    let staged = stage(&scratch.path().join("bundle"));
    fs::remove_dir_all(staged.path().join("bundle.aimodel")).unwrap();
    let error = assemble(&staged, parts()).unwrap_err();
    assert!(matches!(&error, BundleError::NoAsset { role, .. } if role == "main"), "{error}");
    drop(staged);
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[test]
fn linked_asset_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let staged = stage(&scratch.path().join("bundle"));
    std::os::unix::fs::symlink("main.mlirb", staged.path().join("bundle.aimodel/link")).unwrap();
    let error = assemble(&staged, parts()).unwrap_err();
    assert!(error.to_string().contains("symbolic link"), "{error}");
}
