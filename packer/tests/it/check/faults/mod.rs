//! One planted fault a test: the check must find it, and nothing else.

mod bundle;
mod compiled;
mod files;
mod functions;
mod graph;
mod metadata;
mod package;
mod release;
mod tables;
mod tokenizer;

use packer::check::RULES;

/// Tests that plant a fault in a folder of a good release, seal the folder again and name what must be found.
macro_rules! faults {
    ($folder:expr; $($name:ident: $plant:expr => [$($id:literal),*];)*) => {
        $(#[test]
        fn $name() {
            let release = crate::check::fixture::Release::new();
            let folder = $folder(&release);
            let plant: fn(&crate::check::fixture::Folder) = $plant;
            plant(&folder);
            if folder.path("manifest.json").exists() {
                folder.seal();
            }
            crate::check::fixture::assert_found(&folder.check(), &[$($id),*]);
        })*
    };
}
pub(crate) use faults;

#[test]
fn every_rule_has_a_planted_fault() {
    let planted = [
        include_str!("bundle.rs"),
        include_str!("compiled.rs"),
        include_str!("files.rs"),
        include_str!("functions.rs"),
        include_str!("graph.rs"),
        include_str!("metadata.rs"),
        include_str!("package.rs"),
        include_str!("release.rs"),
        include_str!("tables.rs"),
        include_str!("tokenizer.rs"),
    ]
    .concat();
    for rule in RULES {
        assert!(planted.contains(&format!("\"{}\"", rule.id)), "no fault is planted for {}", rule.id);
    }
}

#[test]
fn rules_have_unique_names() {
    let mut ids: Vec<&str> = RULES.iter().map(|rule| rule.id).collect();
    ids.sort_unstable();
    let count = ids.len();
    ids.dedup();
    assert_eq!(ids.len(), count);
}
