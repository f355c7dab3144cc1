//! Our graphs are those of the Python pipeline behind the published bundles: same ops, operands, types, attributes, regions and
//! constants, weights included. Only numbering, the place of constants and the names of blobs may differ.

use std::path::Path;

use crate::common::{Dir, package, tiny};
use aimodel::describe::describe_attribute;
use aimodel::package::Package;
use coreai_bundle::diff::{ChangeKind, GraphDifference, ProgramDifference, WeightVerdict, compare_packages};
use fixtures::data::{self, DenseReference, PrefillReference, ReferencePackage};
use interpreter::Session;
use oracle::stepper::Stepper;

fn differences(ours: &Path, theirs: &Path) -> Option<ProgramDifference> {
    compare_packages(ours, theirs).unwrap()
}

/// What a package says about itself besides its graphs.
fn asset(package: &Path) -> Vec<Option<String>> {
    let module = Package::open(package).unwrap().bytecode.module;
    let properties = &module.op(module.root().unwrap()).properties;
    properties.iter().map(|property| property.map(|id| describe_attribute(&module, id))).collect()
}

/// Converts the tiny checkpoint and compares every op and every weight with a stored package.
fn check(options: &[&str], name: &str, reference: ReferencePackage) {
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
    check(&options, "gemma4_e4b_qat_decode_int4absmax", ReferencePackage::ProviderInt4);
}

#[test]
fn tbl_int4_absmax_equals_the_pipelines_symmetric() {
    let options = ["--rule", "absmax", "--head", "int4", "--variant", "tbl"];
    check(&options, "gemma4_e4b_qat_decode_int4absmax_tbl", ReferencePackage::TblInt4);
}

#[test]
fn provider_int8_equals_the_pipelines() {
    check(&["--weights", "int8"], "gemma4_e4b_qat_decode_int8lin", ReferencePackage::ProviderInt8);
}

#[test]
fn provider_f16_equals_the_pipelines() {
    check(&["--weights", "f16"], "gemma4_e4b_qat_decode_f16", ReferencePackage::ProviderF16);
}

/// A `main` that takes any number of tokens equals the pipeline's, and so does `prefill`, except for what the pipeline computes without using it:
/// the inputs of layers after the last one that owns a cache slot, 6 of 12.
fn check_dynamic(options: &[&str], name: &str, reference: PrefillReference) {
    let dir = Dir::new();
    dir.ok(&[
        &[
            "convert",
            &tiny(),
            "-o",
            "out",
            "--variant",
            "stock",
            "--main",
            "dynamic",
            "--embedding",
            "f16",
            "--per-layer",
            "int8",
        ],
        options,
    ]
    .concat());
    let ours = package(&dir.path("out").join(name));
    assert_eq!(asset(&ours), asset(&reference.path()));
    let found = differences(&ours, &reference.path()).unwrap();
    assert!(found.only_left.is_empty() && found.only_right.is_empty(), "{found:#?}");
    assert!(found.weights.different.is_empty() && found.weights.only_left.is_empty(), "{:#?}", found.weights);
    let [main, prefill] = &found.graphs[..] else { panic!("{:#?}", found.graphs) };
    assert!(main.is_equal(), "{main:#?}");
    assert!(prefill.ports.is_empty(), "{prefill:#?}");
    let of = |kind| prefill.ops.iter().filter(move |line| line.change == kind);
    let (cuts, lookups): (Vec<_>, Vec<_>) =
        (of(ChangeKind::Removed).collect(), of(ChangeKind::Added).collect());
    assert!(matches!(&cuts[..], [cut] if cut.left.as_ref().unwrap().contains("slice")), "{cuts:#?}");
    assert_eq!(lookups.len(), 6, "{lookups:#?}");
    assert!(
        lookups.iter().all(|line| line.right.as_ref().unwrap().contains("gather_along_axis")),
        "{lookups:#?}"
    );
    for line in of(ChangeKind::Changed) {
        let (left, right) = (line.left.as_ref().unwrap(), line.right.as_ref().unwrap());
        let is_cut = left.replace("x6x32x", "x12x32x").replace("x192x", "x384x").replace("192x", "384x");
        assert!(is_cut != *left || right.contains("concat") || right.contains("12"), "{line:#?}");
    }
    let kept = caches(&ours);
    assert!(kept == caches(&reference.path()), "what is cut away changes no cache");
    assert!(kept.iter().all(|cache| cache.iter().any(|bits| *bits != 0)));
}

/// What `prefill` leaves in the caches of a package, in two calls.
fn caches(package: &Path) -> Vec<Vec<u32>> {
    let mut stepper = Stepper::new(Session::open(package).unwrap(), None).unwrap();
    for tokens in [2..25, 25..42] {
        stepper.prefill(&tokens.map(|at| at * 7 % 512).collect::<Vec<u32>>()).unwrap();
    }
    let session = stepper.session();
    let bits = |at| {
        let values = session.state(at, stepper.positions()).unwrap().to_floats().unwrap();
        values.into_iter().map(f32::to_bits).collect()
    };
    (0..session.states().count()).map(bits).collect()
}

#[test]
fn dynamic_int4_absmax_equals_the_pipelines_symmetric() {
    let options = ["--rule", "absmax", "--head", "int4"];
    check_dynamic(&options, "gemma4_e4b_qat_decode_int4absmax_stock", PrefillReference::Int4);
}

#[test]
fn dynamic_f16_equals_the_pipelines() {
    check_dynamic(&["--weights", "f16"], "gemma4_e4b_qat_decode_f16_stock", PrefillReference::F16);
}

/// Converts a checkpoint without per-layer embeddings and compares it with a stored package.
fn check_dense(checkpoint: &Path, options: &[&str], name: &str, reference: DenseReference) {
    let dir = Dir::new();
    let source = checkpoint.display().to_string();
    dir.ok(&[&["convert", &source, "-o", "out", "--prefill", "none", "--embedding", "f16"], options].concat());
    let ours = package(&dir.path("out").join(name));
    let found = differences(&ours, &reference.path());
    assert!(found.is_none(), "{found:#?}");
    assert_eq!(asset(&ours), asset(&reference.path()));
}

#[test]
fn dense_int4_absmax_equals_the_pipelines_symmetric() {
    let options = ["--rule", "absmax", "--head", "int4"];
    check_dense(
        &data::tiny_dense_checkpoint(),
        &options,
        "gemma4_12b_qat_decode_int4absmax",
        DenseReference::Int4,
    );
}

#[test]
fn dense_int8_equals_the_pipelines() {
    let name = "gemma4_12b_qat_decode_int8lin";
    check_dense(&data::tiny_dense_checkpoint(), &["--weights", "int8"], name, DenseReference::Int8);
}

#[test]
fn dense_f16_equals_the_pipelines() {
    let name = "gemma4_12b_qat_decode_f16";
    check_dense(&data::tiny_dense_checkpoint(), &["--weights", "f16"], name, DenseReference::F16);
    check_dense(
        &data::probe_checkpoint(),
        &["--weights", "f16"],
        "probe-12b_decode_f16",
        DenseReference::Probe,
    );
}

#[test]
fn two_pairs_of_caches_equal_the_pipelines() {
    let options = ["--weights", "f16", "--cache", "split"];
    let name = "gemma4_12b_qat_decode_f16_split";
    check_dense(&data::tiny_dense_checkpoint(), &options, name, DenseReference::TwoPairs);
}

/// The comparison does find differences: another rule changes constants and nothing else, another variant changes ops.
#[test]
fn other_weights_and_other_graphs_differ() {
    let dir = Dir::new();
    dir.ok(&["convert", &tiny(), "-o", "out", "--variant", "both", "--no-tables"]);
    let ours = package(&dir.path("out/gemma4_e4b_qat_decode_int4lin"));
    let found = differences(&ours, &ReferencePackage::ProviderInt4.path()).unwrap();
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
