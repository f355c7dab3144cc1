//! The gate passes correct packages, fails packages with planted faults, and names the cause.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use crate::support::{checkpoint, oracle_of, package, write_tables};
use aimodel::bytecode::layout::Layout;
use aimodel::bytecode::reader::{BlobRange, Bytecode};
use aimodel::{Attribute, Definition, Element, Module, OpId, Opcode, ValueId};
use checkpoint::source::LocalSource;
use interpreter::Session;
use oracle::feeding::Feeding;
use oracle::gate::{self, Cause, Failure, GateReport};
use oracle::reference::Reference;
use oracle::stepper::Stepper;
use oracle::tables::Tables;
use progress::Silent;

const F16: &str = "provider.f16";
const INT8: &str = "provider.int8-symmetric";
const INT4: &str = "provider.int4-symmetric";

fn tables() -> Tables {
    let dir = tempfile::tempdir().unwrap();
    write_tables(&checkpoint(), dir.path());
    Tables::open(dir.path()).unwrap()
}

fn gate_with(package: &Path, tables: Tables, cases: usize, layers: bool) -> GateReport {
    let source = LocalSource::open(&checkpoint()).unwrap();
    let mut reference = Reference::open(&source).unwrap();
    let mut stepper = Stepper::new(Session::open(package).unwrap(), Some(tables)).unwrap();
    gate::run(&mut stepper, &oracle_of(cases), Some(&mut reference), layers, &Silent).unwrap()
}

/// A copy of a stored package with a change in its graph or its blobs.
pub(crate) struct Faulty {
    dir: tempfile::TempDir,
}

impl Faulty {
    fn new(name: &str, change: impl FnOnce(&mut Module, &mut [Vec<u8>])) -> Faulty {
        Faulty::of(&package(name), change)
    }

    pub(crate) fn of(package: &Path, change: impl FnOnce(&mut Module, &mut [Vec<u8>])) -> Faulty {
        let path = package.join("main.mlirb");
        let bytes = fs::read(&path).unwrap();
        let Bytecode { mut module, blobs, .. } = Bytecode::open(&path).unwrap();
        let cut = |blob: &BlobRange| bytes[blob.offset as usize..][..blob.length as usize].to_vec();
        let mut contents: Vec<Vec<u8>> = blobs.iter().map(cut).collect();
        change(&mut module, &mut contents);
        let layout = Layout::new(&module).unwrap();
        let mut file = layout.prefix.clone();
        for placement in &layout.placements {
            file.extend(&placement.head);
            file.extend(&contents[placement.resource.index()]);
        }
        file.extend(&layout.suffix);
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("faulty.aimodel")).unwrap();
        fs::write(dir.path().join("faulty.aimodel/main.mlirb"), file).unwrap();
        Faulty { dir }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("faulty.aimodel")
    }

    fn report(&self, layers: bool) -> GateReport {
        gate_with(&self.path(), tables(), 1, layers)
    }
}

pub(crate) fn ops(module: &Module, opcode: Opcode) -> Vec<OpId> {
    ops_of(module, 0, opcode)
}

fn ops_of(module: &Module, function: usize, opcode: Opcode) -> Vec<OpId> {
    let body = module.body(module.graphs()[function]).unwrap();
    module.block(body).ops.iter().copied().filter(|op| module.op(*op).opcode == opcode).collect()
}

pub(crate) fn maker(module: &Module, value: ValueId) -> OpId {
    match module.value(value).definition {
        Definition::Result { op, .. } => op,
        Definition::Argument { .. } => panic!("an argument"),
    }
}

/// Blob of an operand of the `at`-th dequantization.
fn blob(module: &Module, at: usize, operand: usize) -> usize {
    let op = ops(module, Opcode::BlockwiseShiftScale)[at];
    match module.constant(module.op(op).operands[operand]) {
        Some(Attribute::DenseResource(resource)) => resource.index(),
        other => panic!("{other:?} is not a blob"),
    }
}

/// Replaces the inline bytes of a constant.
pub(crate) fn set_bytes(module: &mut Module, op: OpId, bytes: Vec<u8>, splat: bool) {
    let value = module.intern(Attribute::DenseElements { splat, bytes });
    module.op_mut(op).properties[0] = Some(value);
}

pub(crate) fn named(report: &GateReport, cause: impl Fn(&Cause) -> bool) {
    assert!(!report.passed);
    assert_eq!(report.exit_code(), 1);
    assert!(report.causes.iter().any(cause), "{:?}", report.causes);
}

#[test]
fn correct_packages_have_no_findings_and_pass() {
    for name in [F16, INT8] {
        let report = gate_with(&package(name), tables(), 6, true);
        assert_eq!(report.causes, [], "{name}");
        assert_eq!((report.qualified, report.agreed), (182, 182), "{name}: 187, 5 of them repeated");
        assert!(report.passed, "{name}: {report:?}");
        assert_eq!(report.exit_code(), 0);
        let layers = report.layers.unwrap();
        assert_eq!(layers.layers.len(), 12);
        assert_eq!(layers.first_departing, None, "{layers:?}");
    }
}

/// int4 codes off the lattice change winners, but the graph has no fault.
#[test]
fn int4_off_the_lattice_fails_without_a_finding() {
    let report = gate_with(&package(INT4), tables(), 6, true);
    assert_eq!((report.qualified, report.agreed), (182, 176));
    assert_eq!(report.causes, []);
    assert!(!report.passed);
    assert!(report.failures.contains(&Failure::Flips { flips: 6, of: 182 }), "{:?}", report.failures);
    assert!(
        report.failures.iter().any(|failure| matches!(failure, Failure::MeanKl { .. })),
        "{:?}",
        report.failures
    );
    assert_eq!(report.layers.unwrap().first_departing, None);
}

#[test]
fn without_the_checkpoint_only_winners_are_compared() {
    let mut stepper = Stepper::new(Session::open(&package(F16)).unwrap(), Some(tables())).unwrap();
    let report = gate::run(&mut stepper, &oracle_of(3), None, false, &Silent).unwrap();
    assert!(report.passed && report.cases.iter().all(|case| case.distances.is_none()));
}

#[test]
fn swapped_blobs() {
    // Matrices 5 and 6 are the first layer's gate and up projection, which have the same shape.
    let faulty = Faulty::new(INT8, |module, blobs| {
        for operand in [0, 1] {
            let (gate, up) = (blob(module, 5, operand), blob(module, 6, operand));
            blobs.swap(gate, up);
        }
    });
    let report = faulty.report(true);
    named(&report, |cause| {
        matches!(cause, Cause::SwappedWeights { used_as, belongs_to }
        if used_as.contains("layers.0.mlp.gate_proj") && belongs_to.contains("layers.0.mlp.up_proj"))
    });
    assert_eq!(report.layers.unwrap().first_departing, Some(0));
}

#[test]
fn doubled_scales() {
    let faulty = Faulty::new(INT8, |module, blobs| {
        let scales = blob(module, 6 + 9 * 2, 1);
        for scale in blobs[scales].as_chunks_mut::<2>().0 {
            *scale = half::f16::from_f32(half::f16::from_le_bytes(*scale).to_f32() * 2.0).to_le_bytes();
        }
    });
    let report = faulty.report(true);
    named(&report, |cause| {
        matches!(cause, Cause::WrongScale { matrix, factor }
        if matrix.contains("layers.2.") && (factor - 2.0).abs() < 0.01)
    });
}

#[test]
fn swapped_nibbles() {
    let faulty = Faulty::new(INT4, |module, blobs| {
        let codes = blob(module, 1, 0);
        blobs[codes].iter_mut().for_each(|byte| *byte = byte.rotate_left(4));
    });
    let report = faulty.report(true);
    named(
        &report,
        |cause| matches!(cause, Cause::SwappedNibbles { matrix } if matrix.contains("layers.0.self_attn.q_proj")),
    );
    assert_eq!(report.layers.unwrap().first_departing, Some(0));
}

#[test]
fn tables_of_another_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    write_tables(&checkpoint(), dir.path());
    let path = dir.path().join("embed_per_layer.i8");
    let mut codes = fs::read(&path).unwrap();
    codes.rotate_left(5 * 384);
    fs::write(&path, codes).unwrap();
    let report = gate_with(&package(F16), Tables::open(dir.path()).unwrap(), 1, false);
    named(&report, |cause| matches!(cause, Cause::ForeignTables { .. }));
}

#[test]
fn window_off_by_one() {
    let faulty = Faulty::new(F16, |module, _| {
        let constants = ops(module, Opcode::Constant);
        let width = constants.into_iter().find(|op| {
            let bytes = 17_i32.to_le_bytes().to_vec();
            let value = module.op(*op).results[0];
            module.constant(value) == Some(&Attribute::DenseElements { splat: true, bytes })
        });
        set_bytes(module, width.unwrap(), 18_i32.to_le_bytes().to_vec(), true);
    });
    named(&faulty.report(false), |cause| *cause == Cause::Window { found: Some(17), expected: 16 });
}

#[test]
fn wrong_rotary_base() {
    let faulty = Faulty::new(F16, |module, _| {
        let cosine = ops(module, Opcode::Cos)[0];
        let product = maker(module, module.op(cosine).operands[0]);
        let constant = maker(module, module.op(product).operands[1]);
        let frequencies = (0..16).flat_map(|pair| 20_000_f32.powf(-(pair as f32) / 16.0).to_le_bytes());
        let bytes = frequencies.collect();
        set_bytes(module, constant, bytes, false);
    });
    named(
        &faulty.report(false),
        |cause| matches!(cause, Cause::RotaryBase { found, .. } if (found - 20_000.0).abs() < 20.0),
    );
}

#[test]
fn cache_slot_off_by_one() {
    let faulty = Faulty::new(F16, |module, _| {
        // The second layer reads its keys from the third layer's slot.
        let reads: Vec<OpId> = ops(module, Opcode::Slice)
            .into_iter()
            .filter(|op| {
                let tensor = module.tensor(module.op(*op).operands[0]).unwrap();
                tensor.rank() == 5 && tensor.shape[0].fixed() == Some(7) && tensor.element == Element::F16
            })
            .collect();
        let third = module.op(reads[4]).operands[1..3].to_vec();
        module.op_mut(reads[2]).operands[1..3].copy_from_slice(&third);
    });
    named(&faulty.report(true), |cause| {
        matches!(cause, Cause::CacheSlot { layer: 1, does: "reads", found: Some(2), expected: 1 })
    });
}

#[test]
fn missing_soft_cap() {
    let faulty = Faulty::new(F16, |module, _| {
        let tanh = ops(module, Opcode::Tanh)[0];
        let quotient = maker(module, module.op(tanh).operands[0]);
        let head = module.op(quotient).operands[0];
        let output = ops(module, Opcode::Output)[0];
        *module.op_mut(output).operands.last_mut().unwrap() = head;
    });
    let report = faulty.report(false);
    named(&report, |cause| *cause == Cause::Softcap { found: None, expected: 30.0 });
    assert!(report.cases[0].flips.is_empty(), "no winner changes: the cap is monotonic");
}

/// Every 256th weight is zero: no qualified position has another winner, and no matrix is recognized as wrong.
#[test]
fn subtle_damage_fails_the_bounds_of_distances() {
    let faulty = Faulty::new(F16, |_, blobs| {
        for blob in blobs {
            blob.as_chunks_mut::<2>().0.iter_mut().step_by(256).for_each(|weight| *weight = [0, 0]);
        }
    });
    let report = gate_with(&faulty.path(), tables(), 3, false);
    assert_eq!((report.qualified, report.agreed), (92, 92));
    assert_eq!(report.causes, []);
    let cosine = |failure: &Failure| matches!(failure, Failure::MinCosine { found, .. } if *found < 0.995);
    assert!(report.failures.iter().any(cosine), "{:?}", report.failures);
    assert!(!report.passed);
}

#[test]
fn nan_logits_fail() {
    let faulty = Faulty::new(F16, |_, blobs| {
        let largest = blobs.iter_mut().max_by_key(|blob| blob.len()).unwrap();
        for weight in largest.as_chunks_mut::<2>().0 {
            *weight = half::f16::NAN.to_le_bytes();
        }
    });
    let mut stepper = Stepper::new(Session::open(&faulty.path()).unwrap(), Some(tables())).unwrap();
    let report = gate::run(&mut stepper, &oracle_of(1), None, false, &Silent).unwrap();
    assert!(report.failures.contains(&Failure::NotFinite { positions: 34 }), "{:?}", report.failures);
    assert_eq!((report.qualified, report.agreed), (33, 0));
}

/// Only `prefill` has a window of 2 tokens: it leaves other keys and values in the caches than `main`, which is correct.
#[test]
fn comparing_feedings_finds_a_fault_that_only_prefill_has() {
    let faulty = Faulty::new("stock-dyn-prefill.f16", |module, _| {
        let bytes = 16_i32.to_le_bytes().to_vec();
        let window = Attribute::DenseElements { splat: true, bytes };
        let mut widths = ops_of(module, 1, Opcode::BroadcastingSub).into_iter().filter_map(|op| {
            let amount = module.op(op).operands[1];
            (module.constant(amount) == Some(&window)).then(|| maker(module, amount))
        });
        let width = widths.next().unwrap();
        assert_eq!(widths.next(), None);
        set_bytes(module, width, 2_i32.to_le_bytes().to_vec(), true);
    });
    let open = || Stepper::new(Session::open(&faulty.path()).unwrap(), None).unwrap();
    let (mut one, mut other) = (open(), open());
    other.set_feeding(Feeding::Prefill(NonZeroUsize::new(512).unwrap())).unwrap();
    let report = gate::compare_feedings(&mut one, &mut other, &oracle_of(2), &Silent).unwrap();
    assert!(!report.passed);
    assert!(report.caches.iter().all(|cache| cache.min_cosine < 0.999), "{:?}", report.caches);
}
