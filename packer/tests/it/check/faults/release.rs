//! Faults of a release tree.

use std::os::unix::fs::symlink;

use super::faults;
use crate::check::fixture::{COMPILED, PROVIDER, Release, TBL, assert_found, write_tables};

faults! {
    |release: &Release| release.whole();

    no_card: |r| r.remove("README.md") => ["release.card"];
    card_without_front_matter: |r| r.write("README.md", "# Tiny\n") => ["release.card"];
    card_without_a_license: |r| r.replace("README.md", "license: apache-2.0\n", "") => ["release.card-field"];
    card_of_another_library: |r| r.replace("README.md", "library_name: coreai", "library_name: mlx") =>
        ["release.card-field"];
    card_without_a_tag: |r| r.replace("README.md", "- aimodel\n", "") => ["release.card-field"];
    no_license_file: |r| r.remove("LICENSE") => ["release.license"];
    no_manifest: |r| r.remove("manifest.json") => ["release.manifest"];
    no_compiled_bundle: |r| r.remove(&format!("gpu-pipelined/{COMPILED}")) => ["release.no-compiled-bundle"];
    no_bundle: |r| {
        for name in [PROVIDER, TBL, COMPILED] {
            r.remove(&format!("gpu-pipelined/{name}"));
        }
    } => ["release.no-bundle"];
    no_tables: |r| r.remove("ios-frontend") =>
        ["tables.not-in-release", "tables.not-in-release", "tables.not-in-release"];
    stray_file: |r| {
        r.write("notes.txt", "x");
        r.remove("manifest.json");
    } => ["files.unexpected", "release.manifest"];
}

#[test]
fn fault_in_a_bundle_is_found_with_its_path() {
    let release = Release::new();
    let bundle = release.bundle(TBL);
    bundle.replace(
        "tokenizer/tokenizer_config.json",
        "\"eos_token\": \"<turn|>\"",
        "\"eos_token\": \"<eos>\"",
    );
    bundle.seal();
    release.whole().seal();
    let report = release.whole().check();
    assert_found(&report, &["tokenizer.eos-token"]);
    let path = format!("gpu-pipelined/{TBL}/tokenizer/tokenizer_config.json");
    assert_eq!(report.findings[0].path, path);
}

#[test]
fn damage_is_reported_once_though_two_manifests_list_the_file() {
    let release = Release::new();
    release.bundle(PROVIDER).replace("tokenizer/chat_template.jinja", "model", "MODEL");
    assert_found(&release.whole().check(), &["manifest.digest", "tokenizer.template-differs"]);
}

#[test]
fn link_is_reported_once() {
    let release = Release::new();
    symlink("README.md", release.bundle(PROVIDER).path("link")).unwrap();
    assert_found(&release.whole().check(), &["files.symlink"]);
}

#[test]
fn tables_of_another_checkpoint() {
    let release = Release::new();
    release.tables().remove("");
    write_tables(&release.tables().0, 3);
    release.whole().seal();
    assert_found(&release.whole().check(), &["tables.foreign"; 3]);
}
