//! Our graphs are those of the Python pipeline behind the published bundles: same ops, operands, types, attributes, regions and
//! constants, weights included. Only numbering, the place of constants and the names of blobs may differ.

use std::fs::File;
use std::path::Path;

use crate::common::{Dir, package, tiny};
use aimodel::bytecode::reader::Bytecode;
use aimodel::compare::{Difference, Side, compare};
use aimodel::package::PROGRAM;
use fixtures::data::Reference;

fn differences(ours: &Path, theirs: &Path) -> Vec<Difference> {
    let open = |package: &Path| {
        let path = package.join(PROGRAM);
        (Bytecode::open(&path).unwrap(), File::open(&path).unwrap())
    };
    let ((ours, our_file), (theirs, their_file)) = (open(ours), open(theirs));
    compare(&Side::new(&ours, &our_file).unwrap(), &Side::new(&theirs, &their_file).unwrap(), 10_000)
}

/// Converts the tiny checkpoint and compares every op and every weight with a stored package.
fn check(options: &[&str], name: &str, reference: Reference) {
    let dir = Dir::new();
    let source = tiny();
    dir.ok(&[&["convert", &source, "-o", "out", "--no-tables"], options].concat());
    let found = differences(&package(&dir.path("out").join(name)), &reference.path());
    assert!(found.is_empty(), "{} differences, the first: {:#?}", found.len(), found.first());
}

#[test]
fn provider_int4_absmax_equals_the_pipelines_symmetric() {
    let options = ["--rule", "absmax", "--head", "int4"];
    check(&options, "gemma4_e4b_qat_decode_int4lin", Reference::ProviderInt4);
}

#[test]
fn tbl_int4_absmax_equals_the_pipelines_symmetric() {
    let options = ["--rule", "absmax", "--head", "int4", "--variant", "tbl"];
    check(&options, "gemma4_e4b_qat_decode_int4lin_tbl", Reference::TblInt4);
}

#[test]
fn provider_int8_equals_the_pipelines() {
    check(&["--weights", "int8"], "gemma4_e4b_qat_decode_int8lin", Reference::ProviderInt8);
}

#[test]
fn provider_f16_equals_the_pipelines() {
    check(&["--weights", "f16"], "gemma4_e4b_qat_decode_f16", Reference::ProviderF16);
}

/// The comparison is not a rubber stamp: another rule changes constants and nothing else, another variant changes ops.
#[test]
fn other_weights_and_other_graphs_differ() {
    let dir = Dir::new();
    dir.ok(&["convert", &tiny(), "-o", "out", "--variant", "both", "--no-tables"]);
    let ours = package(&dir.path("out/gemma4_e4b_qat_decode_int4lin"));
    let found = differences(&ours, &Reference::ProviderInt4.path());
    assert!(!found.is_empty());
    for difference in &found {
        assert!(difference.place.contains("blockwise_shift_scale"), "{difference:?}");
        for constant in difference.left.split("; ").chain(difference.right.split("; ")) {
            assert!(constant.starts_with("constant tensor<"), "{difference:?}");
        }
    }
    let table = package(&dir.path("out/gemma4_e4b_qat_decode_int4lin_tbl"));
    assert!(
        differences(&ours, &table)
            .iter()
            .any(|difference| difference.place.ends_with("ops") || difference.left.contains("ops"))
    );
}
