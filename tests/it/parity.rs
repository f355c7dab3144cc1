//! Our graphs are those of the Python pipeline behind the published bundles: same ops, operands, types, attributes, regions and
//! constants, weights included. Only numbering, the place of constants and the names of blobs may differ.

use std::path::Path;

use crate::common::{Dir, package, tiny};
use aimodel::describe::describe_attribute;
use aimodel::package::Package;
use fixtures::data::Reference;
use workflow::diff::{GraphDifference, ProgramDifference, WeightVerdict, compare_packages};

fn differences(ours: &Path, theirs: &Path) -> Option<ProgramDifference> {
    compare_packages(ours, theirs).unwrap()
}

/// What a package says of itself beside its graphs.
fn asset(package: &Path) -> Vec<Option<String>> {
    let module = Package::open(package).unwrap().bytecode.module;
    let properties = &module.op(module.root().unwrap()).properties;
    properties.iter().map(|property| property.map(|id| describe_attribute(&module, id))).collect()
}

/// Converts the tiny checkpoint and compares every op and every weight with a stored package.
fn check(options: &[&str], name: &str, reference: Reference) {
    let dir = Dir::new();
    let source = tiny();
    dir.ok(&[&["convert", &source, "-o", "out", "--no-tables"], options].concat());
    let ours = package(&dir.path("out").join(name));
    let found = differences(&ours, &reference.path());
    assert!(found.is_none(), "{found:#?}");
    assert_eq!(asset(&ours), asset(&reference.path()));
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
    let found = differences(&ours, &Reference::ProviderInt4.path()).unwrap();
    assert!(found.graphs.iter().all(GraphDifference::is_equal), "{found:#?}");
    let weights = &found.weights;
    assert!(weights.only_left.is_empty() && weights.only_right.is_empty(), "{weights:#?}");
    assert!(!weights.different.is_empty());
    for weight in &weights.different {
        assert!(
            matches!(weight.verdict, WeightVerdict::Different | WeightVerdict::OtherScales),
            "{weight:?}"
        );
    }
    let table = package(&dir.path("out/gemma4_e4b_qat_decode_int4lin_tbl"));
    assert!(!differences(&ours, &table).unwrap().graphs[0].ops.is_empty());
}
