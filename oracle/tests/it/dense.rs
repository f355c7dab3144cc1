//! Packages of models without per-layer embeddings: they pass the gate in every form, and planted faults fail it with their names.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use crate::gate::{Faulty, maker, named, ops, set_bytes};
use aimodel::package::PackageMetadata;
use aimodel::{Dim, Element, Module, OpId, Opcode, TensorType, ValueId};
use checkpoint::config::{DecoderConfig, LayerKind};
use checkpoint::source::LocalSource;
use converter::decoder::{CacheForm, Functions, Prefill, Sequence, Variant};
use converter::embedding::TableForms;
use converter::journal::Journal;
use converter::recipe::Treatment;
use converter::{Model, Outputs, Request};
use fixtures::data::{self, DenseReference};
use fixtures::{Shape, SyntheticCheckpoint};
use interpreter::Session;
use oracle::feeding::Feeding;
use oracle::file::{Oracle, Prompt, make_cases};
use oracle::gate::{self, Cause, GateReport, ValueSource};
use oracle::reference::Reference;
use oracle::stepper::Stepper;
use progress::Silent;

pub(crate) fn gate_of(package: &Path, checkpoint: &Path, oracle: &Oracle, feeding: Feeding) -> GateReport {
    let source = LocalSource::open(checkpoint).unwrap();
    let mut reference = Reference::open(&source).unwrap();
    let mut stepper = Stepper::new(Session::open(package).unwrap(), None).unwrap();
    stepper.set_feeding(feeding).unwrap();
    gate::run(&mut stepper, oracle, Some(&mut reference), false, &Silent).unwrap()
}

fn stored(package: DenseReference, checkpoint: &Path, file: &str) -> GateReport {
    let oracle = Oracle::read(&checkpoint.join(file)).unwrap();
    gate_of(&package.path(), checkpoint, &oracle, Feeding::ONE_BY_ONE)
}

#[test]
fn stored_packages_pass() {
    let tiny = data::tiny_dense_checkpoint();
    for package in [DenseReference::F16, DenseReference::Int8, DenseReference::TwoPairs] {
        let report = stored(package, &tiny, "oracle.json");
        assert_eq!(report.causes, [], "{package:?}");
        assert_eq!(report.agreed, report.qualified, "{package:?}");
        assert!(report.passed, "{package:?}: {:?}", report.failures);
        assert!(report.distances.unwrap().min_cosine >= 0.9999, "{package:?}: {:?}", report.distances);
    }
    let report = stored(DenseReference::Probe, &data::probe_checkpoint(), "oracle.json");
    assert_eq!((report.causes.as_slice(), report.agreed), ([].as_slice(), report.qualified));
    assert!(report.distances.unwrap().min_cosine >= 0.9995, "{:?}", report.distances);
}

#[test]
fn stored_packages_pass_far_beyond_the_window() {
    for package in [DenseReference::F16, DenseReference::TwoPairs] {
        let report = stored(package, &data::tiny_dense_checkpoint(), "oracle-long.json");
        assert_eq!(
            (report.causes.as_slice(), report.agreed),
            ([].as_slice(), report.qualified),
            "{package:?}"
        );
        assert!(report.distances.unwrap().min_cosine >= 0.9995, "{package:?}: {:?}", report.distances);
    }
}

/// A package of a checkpoint without per-layer embeddings, in f16, with `prefill`; `change` may make the configuration wrong.
fn converted(
    checkpoint: &Path,
    folder: &Path,
    (caches, main): (CacheForm, Sequence),
    change: impl FnOnce(&mut DecoderConfig),
) -> PathBuf {
    let source = LocalSource::open(checkpoint).unwrap();
    let mut model = Model::open(&source).unwrap();
    change(&mut model.config);
    let request = Request {
        graphs: vec![(Variant::Stock, Functions { main, prefill: Some(Prefill::Caches) })],
        caches,
        tables: false,
        projections: Treatment::F16,
        overrides: Vec::new(),
        head: None,
        table_forms: TableForms::PUBLISHED,
    };
    let plan = model.plan(&request).unwrap();
    let package = folder.join(format!("{}-{main:?}.aimodel", caches.name()));
    let metadata = PackageMetadata::new("test", "20260101T000000Z");
    let packages = [package.clone()];
    let outputs = Outputs { packages: &packages, tables: None, scratch: folder, metadata: &metadata };
    model.write(&plan, &outputs, 2, &progress::Silent, &mut Journal::off()).unwrap();
    package
}

/// A checkpoint whose full layers have two KV heads where the cache has four, and what the fp32 reference says of it.
fn dense_like(folder: &Path) -> (PathBuf, Oracle) {
    let checkpoint = folder.join("checkpoint");
    SyntheticCheckpoint::new(Shape::dense_like()).write(&checkpoint).unwrap();
    let source = LocalSource::open(&checkpoint).unwrap();
    let reference = Reference::open(&source).unwrap();
    let prompt = |first: u32| {
        let ids: Vec<u32> = (0..30).map(|at| 1 + (at * at * 37 + at * 11 + first) % 700).collect();
        Prompt { text: format!("from {first}"), ids }
    };
    let prompts = [5, 90, 333].map(prompt);
    let cases = make_cases(&reference, &prompts, 6, &|_| String::new(), &Silent).unwrap();
    (checkpoint, Oracle { reference: "fp32".to_owned(), checkpoint: None, cases })
}

fn width(tokens: usize) -> NonZeroUsize {
    NonZeroUsize::new(tokens).unwrap()
}

/// Both forms of the caches, one position at a time or many, through `main` and through `prefill`.
#[test]
fn every_form_computes_the_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let (checkpoint, oracle) = dense_like(folder.path());
    for caches in CacheForm::ALL {
        for (main, feedings) in [
            (Sequence::One, [Feeding::ONE_BY_ONE, Feeding::Prefill(width(7))]),
            (Sequence::Dynamic, [Feeding::Main(width(7)), Feeding::Prefill(width(64))]),
        ] {
            let package = converted(&checkpoint, folder.path(), (caches, main), |_| {});
            for feeding in feedings {
                let report = gate_of(&package, &checkpoint, &oracle, feeding);
                assert_eq!(report.causes, [], "{caches:?} {main:?} {feeding:?}");
                assert_eq!(report.agreed, report.qualified, "{caches:?} {main:?} {feeding:?}");
                let distances = report.distances.unwrap();
                assert!(distances.min_cosine >= 0.9995, "{caches:?} {main:?} {feeding:?}: {distances:?}");
            }
        }
    }
}

/// However the tiny checkpoint's packages are fed, all logits and caches have the same bits.
#[test]
fn feedings_agree_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = data::tiny_dense_checkpoint();
    let mut oracle = Oracle::read(&checkpoint.join("oracle.json")).unwrap();
    oracle.cases.truncate(2);
    for caches in CacheForm::ALL {
        let package = converted(&checkpoint, folder.path(), (caches, Sequence::Dynamic), |_| {});
        let open = || Stepper::new(Session::open(&package).unwrap(), None).unwrap();
        for feeding in [Feeding::Main(width(5)), Feeding::Prefill(width(16))] {
            let (mut one, mut other) = (open(), open());
            other.set_feeding(feeding).unwrap();
            let report = gate::compare_feedings(&mut one, &mut other, &oracle, &Silent).unwrap();
            assert_eq!((report.passed, report.min_cosine), (true, 1.0), "{caches:?} {feeding:?}");
            assert!(
                report.caches.iter().all(|cache| cache.largest_difference == 0.0),
                "{caches:?} {feeding:?}"
            );
        }
    }
}

/// Inserts an op before another one.
pub(crate) fn insert(
    module: &mut Module,
    before: OpId,
    opcode: Opcode,
    operands: Vec<ValueId>,
    ty: &TensorType,
) -> ValueId {
    let location = module.op(before).location;
    let op = module.add_op(opcode, location);
    module.op_mut(op).operands = operands;
    let ty = module.tensor_type(ty);
    let result = module.add_result(op, ty);
    let body = module.body(module.graphs()[0]).unwrap();
    let at = module.block(body).ops.iter().position(|other| *other == before).unwrap();
    module.block_mut(body).ops.insert(at, op);
    result
}

/// Inserts a constant vector.
fn insert_integers(module: &mut Module, before: OpId, element: Element, values: &[i32]) -> ValueId {
    let ty = TensorType::new(vec![Dim::Fixed(values.len() as u64)], element);
    let value = insert(module, before, Opcode::Constant, Vec::new(), &ty);
    let constant = maker(module, value);
    let splat = values.len() == 1;
    set_bytes(module, constant, values.iter().flat_map(|value| value.to_le_bytes()).collect(), splat);
    value
}

/// The first full layer.
const FULL: usize = 5;

/// Keys of the first full layer after their norm, and after their rotation.
fn keys(module: &Module) -> [ValueId; 2] {
    let written = module.op(ops(module, Opcode::SliceUpdate)[2 * FULL]).operands[4];
    let mut rotated = written;
    while module.op(maker(module, rotated)).opcode != Opcode::Concat {
        rotated = module.op(maker(module, rotated)).operands[0];
    }
    let first_half = |value: ValueId| {
        let sub = maker(module, module.op(maker(module, value)).operands[1]);
        let product = maker(module, module.op(sub).operands[0]);
        maker(module, module.op(product).operands[1])
    };
    [module.op(first_half(rotated)).operands[0], rotated]
}

/// Values of a full layer that are taken from the keys after their norm, or after their rotation too.
#[test]
fn values_from_the_wrong_place() {
    for (at, found) in [(0, ValueSource::NormedKeys), (1, ValueSource::RotatedKeys)] {
        let faulty = Faulty::of(&DenseReference::Probe.path(), |module, _| {
            let key = keys(module)[at];
            // Each layer's values have two powers: the square, and the root's reciprocal.
            let powers = ops(module, Opcode::BroadcastingPow);
            let (square, root) = (powers[2 * FULL], powers[2 * FULL + 1]);
            let (wide, factor) = (module.op(square).operands[0], module.op(root).results[0]);
            let product = ops(module, Opcode::BroadcastingMul)
                .into_iter()
                .find(|op| module.op(*op).operands[1] == factor)
                .unwrap();
            let ty = module.tensor(wide).unwrap();
            let wrong = insert(module, square, Opcode::Cast, vec![key], &ty);
            module.op_mut(square).operands[0] = wrong;
            module.op_mut(product).operands[0] = wrong;
        });
        let checkpoint = data::probe_checkpoint();
        let oracle = Oracle::read(&checkpoint.join("oracle.json")).unwrap();
        let report = gate_of(&faulty.path(), &checkpoint, &oracle, Feeding::ONE_BY_ONE);
        named(&report, |cause| *cause == Cause::Values { layer: FULL, found });
        assert!(report.distances.unwrap().min_cosine < 0.9995, "{:?}", report.distances);
    }
}

/// Query heads that share KV heads in turn, and not in a row.
#[test]
fn wrong_sharing_of_heads() {
    let faulty = Faulty::of(&DenseReference::F16.path(), |module, _| {
        let gather = ops(module, Opcode::GatherAlongAxis)[0];
        let indices = maker(module, module.op(gather).operands[1]);
        let constant = maker(module, module.op(indices).operands[0]);
        set_bytes(module, constant, [0_i32, 1, 0, 1].into_iter().flat_map(i32::to_le_bytes).collect(), false);
    });
    let checkpoint = data::tiny_dense_checkpoint();
    let oracle = Oracle::read(&checkpoint.join("oracle.json")).unwrap();
    let report = gate_of(&faulty.path(), &checkpoint, &oracle, Feeding::ONE_BY_ONE);
    named(&report, |cause| *cause == Cause::HeadSharing { layer: 0, head: 1, found: 1, expected: 0 });
}

/// KV heads that are repeated in turn, and not in a row: 0, 1, 0, 1 instead of 0, 0, 1, 1.
#[test]
fn wrong_repetition_of_heads() {
    let folder = tempfile::tempdir().unwrap();
    let (checkpoint, oracle) = dense_like(folder.path());
    let package = converted(&checkpoint, folder.path(), (CacheForm::Padded, Sequence::One), |_| {});
    let faulty = Faulty::of(&package, |module, _| {
        // The first full layer is the third: its keys are the fifth entry that is written.
        let written = maker(module, module.op(ops(module, Opcode::SliceUpdate)[4]).operands[4]);
        let repeated = maker(module, module.op(written).operands[0]);
        let apart = maker(module, module.op(repeated).operands[0]);
        let heads = module.op(apart).operands[0];
        let shape = insert_integers(module, repeated, Element::Ui32, &[1, 1, 2, 1, 64]);
        let ty = TensorType::new([1, 1, 2, 1, 64].map(Dim::Fixed).to_vec(), Element::F16);
        let together = insert(module, repeated, Opcode::Reshape, vec![heads, shape], &ty);
        let axes = insert_integers(module, repeated, Element::Si32, &[1]);
        module.op_mut(repeated).operands[0] = together;
        module.op_mut(repeated).operands[2] = axes;
    });
    let report = gate_of(&faulty.path(), &checkpoint, &oracle, Feeding::ONE_BY_ONE);
    named(&report, |cause| *cause == Cause::HeadRepetition { layer: 2, heads: 2, cached: 4 });
}

/// Slots in the order of the E-series. The logits are the same, but other tools read the caches.
#[test]
fn wrong_order_of_slots() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = data::tiny_dense_checkpoint();
    let package = converted(&checkpoint, folder.path(), (CacheForm::Padded, Sequence::One), |config| {
        config.slot_owners.sort_by_key(|owner| (config.layers[*owner].kind == LayerKind::Full, *owner));
        let owners = config.slot_owners.clone();
        for layer in &mut config.layers {
            layer.slot = owners.iter().position(|owner| *owner == layer.index).unwrap();
        }
    });
    let oracle = Oracle::read(&checkpoint.join("oracle.json")).unwrap();
    let report = gate_of(&package, &checkpoint, &oracle, Feeding::ONE_BY_ONE);
    for does in ["writes", "reads"] {
        named(&report, |cause| {
            *cause == Cause::CacheSlot { layer: FULL, does, found: Some(10), expected: FULL }
        });
    }
}

/// Keys that are kept in the cache of values, and the other way round.
#[test]
fn keys_in_the_cache_of_values() {
    let faulty = Faulty::of(&DenseReference::F16.path(), |module, _| {
        let writes = ops(module, Opcode::WriteHandle);
        let [keys, values] = [0, 1].map(|at: usize| module.op(writes[at]).operands[0]);
        let body = module.body(module.graphs()[0]).unwrap();
        for op in module.block(body).ops.clone() {
            for operand in &mut module.op_mut(op).operands {
                *operand = if *operand == keys {
                    values
                } else if *operand == values {
                    keys
                } else {
                    *operand
                };
            }
        }
        let output = ops(module, Opcode::Output)[0];
        module.op_mut(output).operands.swap(0, 1);
    });
    let checkpoint = data::tiny_dense_checkpoint();
    let oracle = Oracle::read(&checkpoint.join("oracle.json")).unwrap();
    let report = gate_of(&faulty.path(), &checkpoint, &oracle, Feeding::ONE_BY_ONE);
    named(&report, |cause| {
        let Cause::CacheState { layer: 0, does: "writes", found, expected } = cause else { return false };
        (found.as_str(), *expected) == ("valueCache", "keyCache")
    });
}
