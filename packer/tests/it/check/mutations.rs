//! Damaged JSON files: the check finds something in most of them and never fails itself.

use std::path::Path;

use fixtures::mutate;
use packer::check::{Options, check};
use packer::manifest::{self, Manifest};
use packer::metadata::BundleMetadata;
use packer::template::Conversation;

use crate::check::fixture::{Folder, PROVIDER, Release};

/// Damaged copies of each file.
const SEEDS: u64 = 25;

/// Largest size of a report.
const LONGEST: usize = 1 << 20;

/// Checks a folder with each of its JSON files damaged in turn; returns how often that was found.
fn found(folder: &Folder, files: &[&str]) -> usize {
    let mut found = 0;
    let options = Options { digests: false, ..Options::new(&Conversation::render) };
    for file in files {
        let sound = folder.read(file);
        for seed in 0..SEEDS {
            folder.write(file, mutate::json(&sound, seed));
            // Only a folder that is no longer recognizable cannot be checked.
            let Ok(report) = check(&folder.0, &options) else { continue };
            let length: usize = report.findings.iter().map(|finding| finding.what.len()).sum();
            assert!(length < LONGEST, "{file}, seed {seed}: {length} bytes");
            found += usize::from(!report.findings.is_empty());
            read(&folder.0);
        }
        folder.write(file, sound);
    }
    found
}

/// What other commands read of such a folder.
fn read(folder: &Path) {
    let _ = Manifest::read(folder);
    let _ = BundleMetadata::read(folder);
}

#[test]
fn files_of_bundles() {
    let release = Release::new();
    let files = [
        "metadata.json",
        manifest::FILE_NAME,
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
        "tokenizer/special_tokens_map.json",
        "tokenizer/generation_config.json",
    ];
    let found = found(&release.bundle(PROVIDER), &files);
    assert!(found > 110, "{found} of {}", SEEDS as usize * files.len());
}

#[test]
fn files_of_tables_and_releases() {
    let release = Release::new();
    let found_in_tables = found(&release.tables(), &["meta.json", manifest::FILE_NAME]);
    assert!(found_in_tables > 35, "{found_in_tables}");
    let in_release = found(&release.whole(), &[manifest::FILE_NAME]);
    assert!(in_release > 18, "{in_release}");
}
