//! Packages whose tables are codes on the lattice: rows are exact, however they are looked up, and planted faults are named.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use crate::dense::{gate_of, insert};
use crate::gate::{Faulty, maker, named, ops, set_bytes};
use aimodel::package::PackageMetadata;
use aimodel::{Element, Module, OpId, Opcode, TensorType};
use checkpoint::config::CacheForm;
use checkpoint::source::LocalSource;
use converter::decoder::{Functions, Prefill, Sequence, Variant};
use converter::embedding::TableForms;
use converter::journal::Journal;
use converter::quant::Int4Rule;
use converter::recipe::{EmbeddingForm, PerLayerForm, Treatment};
use converter::{Model, Outputs, Request};
use fixtures::{Lattice, Shape, SyntheticCheckpoint, Weights};
use oracle::feeding::Feeding;
use oracle::file::{Oracle, Prompt, make_case};
use oracle::gate::Cause;
use oracle::interpreter::Session;
use oracle::reference::Reference;
use oracle::stepper::Stepper;

const FORMS: [EmbeddingForm; 3] = [EmbeddingForm::Shared, EmbeddingForm::Dequantized, EmbeddingForm::Si4];

/// A checkpoint with everything on a lattice with f32 scales, and what the fp32 reference says of it.
fn on_lattice(folder: &Path) -> (PathBuf, Oracle) {
    let checkpoint = folder.join("checkpoint");
    let on = Weights::On(Lattice::F32Div75);
    let recipe = SyntheticCheckpoint::new(Shape::small());
    SyntheticCheckpoint { body: on, embedding: on, per_layer: on, ..recipe }.write(&checkpoint).unwrap();
    let source = LocalSource::open(&checkpoint).unwrap();
    let mut reference = Reference::open(&source).unwrap();
    let case = |first: u32| {
        let ids: Vec<u32> = (0..30).map(|at| 1 + (at * at * 37 + at * 11 + first) % 90).collect();
        let prompt = Prompt { text: format!("from {first}"), ids };
        make_case(&mut reference, &prompt, 6, &|_| String::new()).unwrap()
    };
    let cases = [5, 44].into_iter().map(case).collect();
    (checkpoint, Oracle { reference: "fp32".to_owned(), checkpoint: None, cases })
}

/// An int4 package with both tables as codes.
fn converted(checkpoint: &Path, folder: &Path, embedding: EmbeddingForm, main: Sequence) -> PathBuf {
    let source = LocalSource::open(checkpoint).unwrap();
    let model = Model::open(&source).unwrap();
    let int4 = Treatment::Int4(Int4Rule::Lattice);
    let request = Request {
        graphs: vec![(Variant::Stock, Functions { main, prefill: Some(Prefill::Caches) })],
        caches: CacheForm::Padded,
        tables: false,
        projections: int4,
        head: Some(int4),
        table_forms: TableForms {
            embedding: Some(embedding),
            per_layer: Some(PerLayerForm::Int4(Int4Rule::Lattice)),
        },
    };
    let plan = model.plan(&request).unwrap();
    let package = folder.join(format!("{}-{main:?}.aimodel", embedding.name()));
    let metadata = PackageMetadata::new("test", "20260101T000000Z");
    let packages = [package.clone()];
    let outputs = Outputs { packages: &packages, tables: None, scratch: folder, metadata: &metadata };
    let written = model.write(&plan, &outputs, 2, &progress::Silent, &mut Journal::off()).unwrap();
    for table in ["lm_head.weight", "embed_tokens_per_layer.weight"] {
        let found = written.statistics.tensors.iter().find(|tensor| tensor.name == table).unwrap();
        assert_eq!(found.statistics.blocks_on_lattice, found.statistics.blocks, "{table}");
    }
    package
}

#[test]
fn every_form_computes_the_checkpoint_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let (checkpoint, oracle) = on_lattice(folder.path());
    let seven = NonZeroUsize::new(7).unwrap();
    let mut logits: Vec<Vec<u32>> = Vec::new();
    for form in FORMS {
        for (main, feeding) in
            [(Sequence::One, Feeding::Prefill(seven)), (Sequence::Dynamic, Feeding::Main(seven))]
        {
            let package = converted(&checkpoint, folder.path(), form, main);
            let report = gate_of(&package, &checkpoint, &oracle, feeding);
            assert_eq!(report.causes, [], "{form:?} {main:?}");
            assert_eq!(report.agreed, report.qualified, "{form:?} {main:?}");
            assert!(report.distances.unwrap().min_cosine >= 0.9995, "{form:?}: {:?}", report.distances);
            let mut stepper = Stepper::new(Session::open(&package).unwrap(), None).unwrap();
            stepper.set_feeding(feeding).unwrap();
            let last = stepper.read_prompt(&oracle.cases[0].prompt_ids).unwrap().unwrap();
            logits.push(last.into_iter().map(f32::to_bits).collect());
        }
    }
    assert!(logits.iter().all(|other| *other == logits[0]), "the same rows, however they are looked up");
}

/// The table that maps a byte to its two codes.
fn pairs(module: &Module) -> OpId {
    let is_pairs = |op: &OpId| {
        let ty = module.op(*op).results.first().and_then(|result| module.tensor(*result));
        ty.is_some_and(|ty| ty.element == Element::F16 && ty.to_string().contains("256x2"))
    };
    ops(module, Opcode::Constant).into_iter().find(is_pairs).unwrap()
}

#[test]
fn planted_faults_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (checkpoint, oracle) = on_lattice(folder.path());
    let package = converted(&checkpoint, folder.path(), EmbeddingForm::Shared, Sequence::One);
    let nibbles = Faulty::of(&package, |module, _| {
        let code = |half: u8| half::f16::from_f32(f32::from((half << 4) as i8 >> 4));
        let exchanged = (0..=u8::MAX).flat_map(|byte| [code(byte >> 4), code(byte & 15)]);
        let constant = pairs(module);
        set_bytes(module, constant, exchanged.flat_map(half::f16::to_le_bytes).collect(), false);
    });
    let report = gate_of(&nibbles.path(), &checkpoint, &oracle, Feeding::ONE_BY_ONE);
    for table in ["embed_tokens.weight", "embed_tokens_per_layer.weight"] {
        named(&report, |cause| matches!(cause, Cause::SwappedNibbles { matrix } if matrix == table));
    }
    // The scales of the row of token 3, whatever the token.
    let scales = Faulty::of(&package, |module, _| {
        let gathers = ops(module, Opcode::GatherNd);
        let of_scales = gathers.into_iter().find(|op| {
            let ty = module.tensor(module.op(*op).operands[0]).unwrap();
            ty.element == Element::F16
                && module.constant(module.op(*op).operands[0]).is_some()
                && !ty.to_string().contains("256x2")
        });
        let of_scales = of_scales.unwrap();
        let ty = TensorType::fixed(&[1, 1, 1], Element::Si32);
        let other = insert(module, of_scales, Opcode::Constant, Vec::new(), &ty);
        let constant = maker(module, other);
        set_bytes(module, constant, 3_i32.to_le_bytes().to_vec(), false);
        module.op_mut(of_scales).operands[1] = other;
    });
    let report = gate_of(&scales.path(), &checkpoint, &oracle, Feeding::ONE_BY_ONE);
    assert!(
        report.causes.iter().any(|cause| matches!(cause, Cause::ForeignScales { .. })),
        "{:?}",
        report.causes
    );
}
