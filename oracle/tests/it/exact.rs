//! Packages whose tables are codes on the lattice: rows are exact, however they are looked up, and planted faults are named.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use crate::dense::{gate_of, insert};
use crate::gate::{Faulty, maker, named, ops, set_bytes};
use aimodel::package::PackageMetadata;
use aimodel::{Attribute, Element, Module, OpId, Opcode, TensorType};
use checkpoint::Role;
use checkpoint::config::CacheForm;
use checkpoint::source::LocalSource;
use converter::decoder::{Functions, Prefill, Sequence, Variant};
use converter::embedding::TableForms;
use converter::journal::Journal;
use converter::recipe::{EmbeddingForm, PerLayerForm, Treatment};
use converter::{Model, Outputs, Request};
use fixtures::data::TableReference;
use fixtures::{Lattice, Shape, SyntheticCheckpoint, WeightKind};
use interpreter::{Session, Tensor};
use oracle::feeding::Feeding;
use oracle::file::{Oracle, Prompt, make_cases};
use oracle::gate::{Cause, PartExactness, exactness};
use oracle::reference::Reference;
use oracle::stepper::Stepper;
use progress::Silent;
use quantizer::Int4Rule;

const FORMS: [EmbeddingForm; 3] = [EmbeddingForm::Shared, EmbeddingForm::Dequantized, EmbeddingForm::Si4];

/// A checkpoint with everything on a lattice with f32 scales, and what the fp32 reference says of it.
fn on_lattice(folder: &Path) -> (PathBuf, Oracle) {
    let checkpoint = folder.join("checkpoint");
    let on = WeightKind::On(Lattice::F32Div75);
    let recipe = SyntheticCheckpoint::new(Shape::small());
    SyntheticCheckpoint { body: on, embedding: on, per_layer: on, ..recipe }.write(&checkpoint).unwrap();
    let source = LocalSource::open(&checkpoint).unwrap();
    let reference = Reference::open(&source).unwrap();
    let prompt = |first: u32| {
        let ids: Vec<u32> = (0..30).map(|at| 1 + (at * at * 37 + at * 11 + first) % 90).collect();
        Prompt { text: format!("from {first}"), ids }
    };
    let prompts = [5, 44].map(prompt);
    let cases = make_cases(&reference, &prompts, 6, &|_| String::new(), &Silent).unwrap();
    (checkpoint, Oracle { reference: "fp32".to_owned(), checkpoint: None, cases })
}

const PER_LAYER: PerLayerForm = PerLayerForm::Int4(Int4Rule::Lattice);

/// An int4 package with both tables as codes.
fn converted(checkpoint: &Path, folder: &Path, embedding: EmbeddingForm, main: Sequence) -> PathBuf {
    converted_with(
        checkpoint,
        folder,
        TableForms { embedding: Some(embedding), per_layer: Some(PER_LAYER) },
        main,
    )
}

/// An int4 package with tables in these forms.
fn converted_with(checkpoint: &Path, folder: &Path, table_forms: TableForms, main: Sequence) -> PathBuf {
    let source = LocalSource::open(checkpoint).unwrap();
    let model = Model::open(&source).unwrap();
    let int4 = Treatment::Int4(Int4Rule::Lattice);
    let request = Request {
        graphs: vec![(Variant::Stock, Functions { main, prefill: Some(Prefill::Caches) })],
        caches: CacheForm::Padded,
        tables: false,
        projections: int4,
        overrides: Vec::new(),
        head: Some(int4),
        table_forms,
    };
    let plan = model.plan(&request).unwrap();
    let package = folder.join(format!("{:?}-{main:?}.aimodel", table_forms.embedding));
    let metadata = PackageMetadata::new("test", "20260101T000000Z");
    let packages = [package.clone()];
    let outputs = Outputs { packages: &packages, tables: None, scratch: folder, metadata: &metadata };
    let written = model.write(&plan, &outputs, 2, &progress::Silent, &mut Journal::off()).unwrap();
    for found in &written.statistics.tensors {
        assert_eq!(found.statistics.blocks_on_lattice, found.statistics.blocks, "{}", found.name);
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

/// How many weights a package holds exactly, by part.
fn counted(package: &Path, checkpoint: &Path) -> Vec<PartExactness> {
    let source = LocalSource::open(checkpoint).unwrap();
    let reference = Reference::open(&source).unwrap();
    let stepper = Stepper::new(Session::open(package).unwrap(), None).unwrap();
    let parts = exactness(&stepper, &reference, &Silent).unwrap();
    let config = reference.config();
    let of_checkpoint: usize =
        Role::needed(config).map(|role| role.shape(config).iter().product::<usize>()).sum();
    assert_eq!(parts.iter().map(|part| part.weights).sum::<u64>(), of_checkpoint as u64);
    parts
}

fn share(parts: &[PartExactness], part: &str) -> f64 {
    let found = parts.iter().find(|found| found.part == part).unwrap();
    found.weights_exact as f64 / found.weights as f64
}

#[test]
fn every_trained_weight_is_counted_in_the_package() {
    let folder = tempfile::tempdir().unwrap();
    let (checkpoint, _) = on_lattice(folder.path());
    for form in FORMS {
        let parts = counted(&converted(&checkpoint, folder.path(), form, Sequence::One), &checkpoint);
        for part in &parts {
            // Scales are rounded to f16, which moves a few numbers next to the middle between two bf16 ones.
            assert!(share(&parts, part.part) >= 0.994, "{form:?} {part:?}");
        }
        assert_eq!(share(&parts, "norms and factors"), 1.0);
        assert_eq!(share(&parts, "embedding"), share(&parts, "head"), "{form:?}: the same codes");
    }
    let published = converted_with(&checkpoint, folder.path(), TableForms::PUBLISHED, Sequence::One);
    let parts = counted(&published, &checkpoint);
    assert_eq!(share(&parts, "embedding"), 1.0, "f16 holds every bf16 number of this size");
    assert!(share(&parts, "per-layer table") < 0.9, "8 bits a row are not the trained codes");
    let off = Faulty::of(&published, |module, _| {
        let width = Shape::small().hidden;
        let (norm, mut bytes) = ops(module, Opcode::Constant)
            .into_iter()
            .find_map(|op| match module.constant(module.op(op).results[0])? {
                Attribute::DenseElements { splat: false, bytes } => {
                    let is_half =
                        module.tensor(module.op(op).results[0]).is_some_and(|ty| ty.element == Element::F16);
                    (is_half && bytes.len() as u64 == 2 * width).then(|| (op, bytes.clone()))
                }
                _ => None,
            })
            .unwrap();
        bytes[1] ^= 1;
        set_bytes(module, norm, bytes, false);
    });
    assert!(share(&counted(&off.path(), &checkpoint), "norms and factors") < 1.0);
}

/// The opcodes of `main` without what computes weights and shapes.
fn opcodes(session: &Session) -> Vec<Opcode> {
    let module = session.module();
    let ops = module.block(session.body()).ops.iter().map(|op| module.op(*op).opcode);
    let is_left_out =
        |opcode: &Opcode| matches!(opcode, Opcode::Constant | Opcode::BlockwiseShiftScale | Opcode::Concat);
    ops.filter(|opcode| !is_left_out(opcode)).collect()
}

/// Apple's tools gather rows by the same ops in the same order. (Those of 4-bit codes are reshaped in another order.)
#[test]
fn lookups_are_those_of_the_reference_packages() {
    let folder = tempfile::tempdir().unwrap();
    let (checkpoint, _) = on_lattice(folder.path());
    for (form, reference) in [
        (EmbeddingForm::Shared, TableReference::SharedHead),
        (EmbeddingForm::Dequantized, TableReference::DequantizedHead),
    ] {
        let expected = opcodes(&Session::open(&reference.path()).unwrap());
        // The head begins with the transposition of its weights.
        let before_head = expected.into_iter().take_while(|opcode| *opcode != Opcode::Transpose);
        let lookup: Vec<Opcode> = before_head.skip_while(|opcode| *opcode != Opcode::GatherNd).collect();
        let package = converted(&checkpoint, folder.path(), form, Sequence::Dynamic);
        let found = opcodes(&Session::open(&package).unwrap());
        assert!(found.windows(lookup.len()).any(|ops| *ops == lookup), "{form:?}: {lookup:?}\n{found:?}");
    }
}

/// The reference packages look up rows that equal those of their dequantized head.
#[test]
fn reference_packages_look_up_their_heads_rows() {
    for reference in [TableReference::SharedHead, TableReference::DequantizedHead, TableReference::Si4Head] {
        let mut session = Session::open(&reference.path()).unwrap();
        let ids = [0_i64, 1, 77, 2047, 1024, 3, 3, 512];
        let input = Tensor::from_integers(Element::Si32, &[1, ids.len()], &ids).unwrap();
        let name = session.inputs().next().unwrap().name.clone();
        let outputs = session.step(&[(name.as_str(), input)]).unwrap();
        let found = outputs.get("o").unwrap().to_floats().unwrap();
        let module = session.module();
        let head = ops_of(&session, Opcode::BlockwiseShiftScale)[0];
        let head = module.op(head).results[0];
        let mut expected = Vec::new();
        for id in ids {
            expected.extend(session.matrix_rows(head, id as usize, 1).unwrap());
        }
        assert_eq!(found, expected, "{}", reference.name());
    }
}

fn ops_of(session: &Session, opcode: Opcode) -> Vec<OpId> {
    let module = session.module();
    let ops = module.block(session.body()).ops.iter().copied();
    ops.filter(|op| module.op(*op).opcode == opcode).collect()
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
