//! Good folders pass without findings.

use std::path::Path;

use packer::check::facts::GraphFacts;
use packer::check::{CheckError, Options, check};
use packer::contents::FolderKind;
use packer::template::Conversation;

use crate::check::fixture::{COMPILED, Folder, PROVIDER, Release, TBL, assert_found, reference};

#[test]
fn good_release_passes_without_findings() {
    let release = Release::new();
    let report = release.whole().check();
    assert_eq!(report.target, FolderKind::Release);
    assert_found(&report, &[]);
}

#[test]
fn good_bundles_and_tables_pass_without_findings() {
    let release = Release::new();
    for name in [PROVIDER, TBL, COMPILED] {
        let report = release.bundle(name).check();
        assert_eq!(report.target, FolderKind::Bundle);
        assert_found(&report, &[]);
    }
    let report = release.tables().check();
    assert_eq!(report.target, FolderKind::Tables);
    assert_found(&report, &[]);
}

#[test]
fn reference_packages_lack_only_their_bundle() {
    let dense = ["dense.int4-symmetric", "dense.int8-symmetric", "dense.f16"];
    let names = ["provider.int4-symmetric", "provider.int8-symmetric", "provider.f16", "tbl.int4-symmetric"];
    for name in names.into_iter().chain(dense) {
        let report = Folder(reference(name)).check();
        assert_eq!(report.target, FolderKind::Package);
        assert_found(&report, &["package.bare"]);
    }
    let report = Folder(reference("dense.two-pairs.f16")).check();
    assert_found(&report, &["package.bare", "graph.split-caches-not-run"]);
}

#[test]
fn facts_of_the_reference_packages_are_read() {
    let facts = |name: &str| GraphFacts::read(&reference(name)).unwrap();
    let provider = facts("provider.int4-symmetric");
    let main = provider.main().unwrap();
    let signature: Vec<String> =
        main.inputs.iter().chain(&main.states).chain(&main.outputs).map(ToString::to_string).collect();
    assert_eq!(
        signature,
        [
            "input_ids si32 [1,1]",
            "position_ids si32 [1,?]",
            "ple_tokens f16 [1,1,12,32]",
            "keyCache f16 [7,1,2,?,64]",
            "valueCache f16 [7,1,2,?,64]",
            "logits f16 [1,1,512]",
        ]
    );
    let tbl = facts("tbl.int4-symmetric");
    assert!(tbl.main().unwrap().input("ple_table").unwrap().is("si8", &[Some(512), Some(384)]));
    assert!(tbl.main().unwrap().input("ple_scale").unwrap().is("f32", &[Some(512)]));

    // 12 layers of q, o, gate, up, down, per-layer gate and projection; k and v of 7 owners; projection and head.
    for (name, element, count) in [
        ("provider.int4-symmetric", "si4", 100),
        ("provider.int8-symmetric", "si8", 100),
        ("provider.f16", "", 0),
    ] {
        let facts = facts(name);
        assert_eq!(facts.weights.len(), count, "{name}");
        for weight in &facts.weights {
            assert_eq!(weight.element, element);
            assert_eq!(weight.block.as_deref(), Some(&[1, 32][..]), "{}", weight.name);
            assert_eq!((weight.shifted, weight.bad_scales), (false, 0));
        }
        assert_eq!(facts.rotations.len(), 4, "sine and cosine of two kinds of layers");
        assert!(facts.rotations.iter().all(|rotation| rotation.elements == ["f32"]));
        assert_eq!((facts.debug_locations, facts.invalid), (0, None));
    }
}

#[test]
fn only_sizes_are_compared_without_digests() {
    let release = Release::new();
    let tables = release.tables();
    let mut bytes = tables.read("embed_tokens.i8");
    bytes[1000] ^= 1;
    tables.write("embed_tokens.i8", bytes);
    let report =
        check(&tables.0, &Options { digests: false, ..Options::new(&Conversation::render) }).unwrap();
    assert_found(&report, &[]);
    assert_found(&tables.check(), &["manifest.digest"]);
}

#[test]
fn tables_can_be_named() {
    let release = Release::new();
    let alone = Folder(release.elsewhere("alone").join(PROVIDER));
    crate::check::fixture::copy(&release.bundle(PROVIDER).0, &alone.0);
    assert_found(&alone.check(), &["tables.not-found"]);
    let with = |tables: &Path| {
        check(&alone.0, &Options { tables: Some(tables), ..Options::new(&Conversation::render) }).unwrap()
    };
    assert_found(&with(&release.tables().0), &[]);
    assert_found(&with(&release.elsewhere("nowhere")), &["tables.not-found"]);
}

#[test]
fn other_folders_are_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let error = check(scratch.path(), &Options::new(&Conversation::render)).unwrap_err();
    assert!(matches!(error, CheckError::Unrecognized { .. }), "{error}");
    let error = check(&scratch.path().join("missing"), &Options::new(&Conversation::render)).unwrap_err();
    assert!(matches!(error, CheckError::File(_)), "{error}");
}

#[test]
fn commands_name_what_they_fix() {
    let release = Release::new();
    let bundle = release.bundle(TBL);
    bundle.remove("tokenizer/tokenizer.json");
    let report = bundle.check();
    let finding = report.defects().find(|finding| finding.id == "tokenizer.file-missing").unwrap();
    let root = release.root.canonicalize().unwrap();
    assert_eq!(
        finding.fix,
        format!(
            "coreai-bundle convert SOURCE --variant tbl --name {} -o DIR, then coreai-bundle release BUNDLES.. TABLES.. -o {} \
             --force",
            TBL.split("_decode_").next().unwrap(),
            root.display()
        )
    );
    assert_eq!(finding.path, "tokenizer/tokenizer.json");
    assert!(report.has_defects());

    let compiled = release.bundle(COMPILED);
    compiled.remove("tokenizer/tokenizer.json");
    let report = compiled.check();
    let finding = report.defects().find(|finding| finding.id == "tokenizer.file-missing").unwrap();
    let source = root.join("gpu-pipelined").join(PROVIDER);
    assert_eq!(finding.fix, format!("coreai-bundle aotc {} --arch h18p", source.display()));
}
