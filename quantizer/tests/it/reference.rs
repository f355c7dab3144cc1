//! The `absmax` rule, its int8 form and rounding to f16 against the packages that the Python pipeline wrote for the tiny checkpoint.

use std::collections::BTreeMap;
use std::fs;

use aimodel::package::Package;
use aimodel::{Attribute, Module, Opcode, ValueId};
use checkpoint::config::DecoderConfig;
use checkpoint::source::{LocalSource, Source};
use checkpoint::{Checkpoint, Role};
use fixtures::data::{self, ReferencePackage};
use half::{bf16, f16};
use quantizer::{BLOCK, Int4Rule, quantize_int4, quantize_int8, to_f16};

/// Shape and bytes of a constant.
type Constant = (Vec<u64>, Vec<u8>);

/// Names and weights of the matrices that become codes; the head is the tied embedding.
fn matrices() -> BTreeMap<String, (Vec<u64>, Vec<bf16>)> {
    let source = LocalSource::open(&data::tiny_checkpoint()).unwrap();
    let config = DecoderConfig::read(&source).unwrap();
    let checkpoint = Checkpoint::new(&config, source.tensors()).unwrap();
    let roles = Role::needed(&config).filter(|role| role.is_projection());
    let read = |role: Role| {
        let tensor = checkpoint.require(role).unwrap();
        let mut weights = vec![bf16::ZERO; tensor.byte_len() as usize / 2];
        source.read_at(tensor, 0, bytemuck::cast_slice_mut(&mut weights)).unwrap();
        let shape = role.shape(&config).into_iter().map(|extent| extent as u64).collect();
        (role.short_name(), (shape, weights))
    };
    roles.map(read).collect()
}

/// Bytes of a constant; those of the small ones are in the graph.
fn constant(package: &Package, program: &[u8], value: ValueId) -> Constant {
    let module: &Module = &package.bytecode.module;
    let shape = module.tensor(value).unwrap().shape.iter().map(|dim| dim.fixed().unwrap()).collect();
    let bytes = match module.constant(value).unwrap() {
        Attribute::DenseElements { splat: false, bytes } => bytes.clone(),
        Attribute::DenseResource(resource) => {
            let range = package.bytecode.blobs[resource.index()];
            program[range.offset as usize..(range.offset + range.length) as usize].to_vec()
        }
        other => panic!("not a constant of its own: {other:?}"),
    };
    (shape, bytes)
}

/// Codes and scales of every quantized matrix of a package.
fn quantized(reference: ReferencePackage) -> Vec<(Constant, Constant)> {
    let package = Package::open(&reference.path()).unwrap();
    let program = fs::read(package.program()).unwrap();
    let module = &package.bytecode.module;
    let body = module.body(module.graphs()[0]).unwrap();
    let ops = module.block(body).ops.iter().map(|op| module.op(*op));
    let quantized = ops.filter(|op| op.opcode == Opcode::BlockwiseShiftScale);
    quantized
        .map(|op| {
            (constant(&package, &program, op.operands[0]), constant(&package, &program, op.operands[1]))
        })
        .collect()
}

/// Every matrix of the package must be one of ours, bit for bit, and every one of ours must be in it.
fn compare(reference: ReferencePackage, quantize: impl Fn(&[bf16]) -> (Vec<u8>, Vec<f16>)) {
    let mut ours: BTreeMap<String, (Constant, Constant)> = BTreeMap::new();
    for (name, (shape, weights)) in matrices() {
        let (codes, scales) = quantize(&weights);
        let scale_shape = vec![shape[0], shape[1] / BLOCK as u64];
        ours.insert(name, ((shape, codes), (scale_shape, bytemuck::cast_slice(&scales).to_vec())));
    }
    let theirs = quantized(reference);
    assert_eq!(theirs.len(), ours.len(), "{}", reference.name());
    assert!(ours.len() > 50);
    for matrix in theirs {
        let name = ours.iter().find(|(_, ours)| **ours == matrix).map(|(name, _)| name.clone());
        let name = name
            .unwrap_or_else(|| panic!("{}: no matrix has the codes of {:?}", reference.name(), matrix.0.0));
        ours.remove(&name);
    }
}

fn int4(weights: &[bf16]) -> (Vec<u8>, Vec<f16>) {
    let (mut codes, mut scales) = (vec![0; weights.len() / 2], vec![f16::ZERO; weights.len() / BLOCK]);
    quantize_int4(Int4Rule::Absmax, weights, &mut codes, &mut scales).unwrap();
    (codes, scales)
}

#[test]
fn absmax_is_the_symmetric_rule_of_the_published_bundles() {
    compare(ReferencePackage::ProviderInt4, int4);
    compare(ReferencePackage::TblInt4, int4);
}

#[test]
fn int8_is_the_symmetric_rule_of_the_published_bundles() {
    compare(ReferencePackage::ProviderInt8, |weights| {
        let (mut codes, mut scales) = (vec![0_i8; weights.len()], vec![f16::ZERO; weights.len() / BLOCK]);
        quantize_int8(weights, &mut codes, &mut scales).unwrap();
        (bytemuck::cast_slice(&codes).to_vec(), scales)
    });
}

#[test]
fn weights_in_half_precision_are_those_of_the_published_form() {
    let package = Package::open(&ReferencePackage::ProviderF16.path()).unwrap();
    let program = fs::read(package.program()).unwrap();
    let blobs: Vec<&[u8]> = package
        .bytecode
        .blobs
        .iter()
        .map(|range| &program[range.offset as usize..(range.offset + range.length) as usize])
        .collect();
    for (name, (_, weights)) in matrices() {
        let mut halves = vec![f16::ZERO; weights.len()];
        to_f16(&weights, &mut halves).unwrap();
        assert!(blobs.contains(&bytemuck::cast_slice(&halves)), "{name}");
    }
}

#[test]
fn the_tiny_checkpoint_is_on_its_lattice() {
    for (name, (_, weights)) in matrices() {
        let (mut codes, mut scales) = (vec![0; weights.len() / 2], vec![f16::ZERO; weights.len() / BLOCK]);
        let statistics = quantize_int4(Int4Rule::Lattice, &weights, &mut codes, &mut scales).unwrap();
        assert_eq!(statistics.blocks_exact, statistics.blocks, "{name}");
        assert_eq!(statistics.weights_exact, weights.len() as u64, "{name}");
        let counted: u64 = statistics.extremum_codes.iter().sum();
        assert_eq!(counted + statistics.zero_blocks, statistics.blocks, "{name}");
        let mut exponents = [0; 32];
        for scale in scales.iter().filter(|scale| **scale >= f16::MIN_POSITIVE) {
            exponents[(15.0 + scale.to_f32().log2().floor()) as usize] += 1;
        }
        assert_eq!(statistics.scale_exponents[1..], exponents[1..], "{name}");
        assert_eq!(statistics.scale_exponents[0], statistics.subnormal_scales, "{name}");
    }
}
