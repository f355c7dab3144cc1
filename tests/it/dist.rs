//! The release archive: what is in it, and that it is the same each time.

#[path = "../../xtask/src/dist/archive.rs"]
mod archive;

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use crate::common::golden;
use flate2::read::GzDecoder;

#[test]
fn the_archive_holds_what_a_release_needs_and_is_the_same_each_time() {
    let scratch = tempfile::tempdir().unwrap();
    let (binary, root) =
        (Path::new(env!("CARGO_BIN_EXE_coreai-bundle")), Path::new(env!("CARGO_MANIFEST_DIR")));
    // A debug build is large: the archive gets a script that runs it instead.
    let stand_in = scratch.path().join("coreai-bundle");
    fs::write(&stand_in, format!("#!/bin/sh\nexec '{}' \"$@\"\n", binary.display())).unwrap();
    fs::set_permissions(&stand_in, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let pack = |name: &str| {
        let output = scratch.path().join(name);
        fs::create_dir(&output).unwrap();
        archive::pack(&stand_in, root, "some-triple", 1_767_225_600, &output).unwrap()
    };
    let (first, second) = (pack("first"), pack("second"));
    assert_eq!(fs::read(&first).unwrap(), fs::read(&second).unwrap());
    let stem = format!("coreai-bundle-{}-some-triple", env!("CARGO_PKG_VERSION"));
    assert_eq!(first.file_name().unwrap().to_str().unwrap(), format!("{stem}.tar.gz"));
    let digest = fs::read_to_string(first.with_file_name(format!("{stem}.tar.gz.sha256"))).unwrap();
    assert!(digest.ends_with(&format!("  {stem}.tar.gz\n")), "{digest}");

    let mut tar = tar::Archive::new(GzDecoder::new(File::open(&first).unwrap()));
    let mut listing = String::new();
    for entry in tar.entries().unwrap() {
        let entry = entry.unwrap();
        let header = entry.header();
        assert_eq!(
            (header.mtime().unwrap(), header.uid().unwrap(), header.gid().unwrap()),
            (1_767_225_600, 0, 0)
        );
        assert!(header.size().unwrap() > 0);
        let path =
            entry.path().unwrap().to_str().unwrap().strip_prefix(&format!("{stem}/")).unwrap().to_owned();
        listing.push_str(&format!("{:o} {path}\n", header.mode().unwrap()));
    }
    golden::check("dist", &listing);
}

/// Crates below the command, without what only tests ask for.
fn below_the_command(options: &[&str]) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--package", "coreai-bundle", "--edges", "normal", "--prefix", "none"])
        .args(options)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8_lossy(&output.stdout);
    tree.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn without_publishing_the_program_holds_no_client_of_the_storage() {
    let program = below_the_command(&["--no-default-features"]);
    assert!(program.iter().any(|name| name == "reqwest") && !program.iter().any(|name| name == "hf-xet"));
}

#[test]
fn the_program_holds_no_test_server_and_one_http_client() {
    let program = below_the_command(&[]);
    let has = |name: &str| program.iter().any(|held| held == name);
    assert!(has("hf-xet") && has("reqwest"), "{program:?}");
    for name in ["aws-lc-sys", "axum", "fixtures", "ureq"] {
        assert!(!has(name), "{name} is in the program");
    }
}
