//! Two packages are equal except for what was planted in one of them, and that is found.

use std::collections::HashMap;
use std::fs;

use aimodel::bytecode::layout::Layout;
use aimodel::package::{Package, PackageMetadata, PackageWriter};
use aimodel::{
    Attribute, BlockId, Definition, Element, Module, OpId, Opcode, Resource, TensorType, TypeId, ValueId,
};
use coreai_bundle::diff::{ChangeKind, ProgramDifference, compare_packages};
use fixtures::data::ReferencePackage;

/// Contents of blobs by their keys.
type Blobs = HashMap<String, Vec<u8>>;

/// A published package compared with a version of it in which something was changed.
fn plant(edit: impl FnOnce(&mut Module, &mut Blobs)) -> Option<ProgramDifference> {
    let reference = ReferencePackage::ProviderInt4.path();
    let package = Package::open(&reference).unwrap();
    let program = fs::read(package.program()).unwrap();
    let mut module = package.bytecode.module.clone();
    let content = |at: usize, length: u64| program[at..at + length as usize].to_vec();
    let places = module.resources().zip(&package.bytecode.blobs);
    let mut blobs: Blobs = places
        .map(|(resource, blob)| (resource.key.clone(), content(blob.offset as usize, blob.length)))
        .collect();
    edit(&mut module, &mut blobs);
    let scratch = tempfile::tempdir().unwrap();
    let changed = scratch.path().join("changed.aimodel");
    let layout = Layout::new(&module).unwrap();
    let mut writer = PackageWriter::create(&changed, &layout).unwrap();
    for placement in &layout.placements {
        writer.write(&blobs[&module.resource(placement.resource).key]).unwrap();
    }
    writer.finish(&PackageMetadata::new("test", "19700101T000000Z")).unwrap();
    let found = compare_packages(&reference, &changed).unwrap();
    // Either may be on the left.
    assert_eq!(compare_packages(&changed, &reference).unwrap().is_some(), found.is_some());
    found
}

/// What was found in the graph: lines that were added, removed and changed.
fn lines(found: Option<ProgramDifference>) -> [usize; 3] {
    let found = found.expect("a difference");
    assert!(found.only_left.is_empty() && found.only_right.is_empty());
    [ChangeKind::Added, ChangeKind::Removed, ChangeKind::Changed].map(|kind| found.graphs[0].count(kind))
}

fn body(module: &Module) -> BlockId {
    module.body(module.graphs()[0]).unwrap()
}

/// The ops of the graph.
fn ops(module: &Module) -> Vec<OpId> {
    module.block(body(module)).ops.clone()
}

/// The first op of a kind that fits.
fn find(module: &Module, opcode: Opcode, fits: impl Fn(OpId) -> bool) -> OpId {
    let of_kind = |op: &OpId| module.op(*op).opcode == opcode && fits(*op);
    ops(module).into_iter().find(of_kind).unwrap_or_else(|| panic!("no such {opcode}"))
}

/// Replaces one value with another, wherever it is used.
fn replace(module: &mut Module, old: ValueId, new: ValueId) {
    for op in ops(module) {
        let operands = &mut module.op_mut(op).operands;
        operands.iter_mut().filter(|operand| **operand == old).for_each(|operand| *operand = new);
    }
}

/// Changes the type of an op's only result.
fn retype(module: &mut Module, op: OpId, ty: TypeId) {
    let new = module.add_result(op, ty);
    let old = module.op(op).results[0];
    module.op_mut(op).results = vec![new];
    replace(module, old, new);
}

/// Inline bytes of a constant op.
fn inline(module: &Module, op: OpId) -> Option<(bool, Vec<u8>)> {
    match module.attribute(module.op(op).properties[0]?) {
        Attribute::DenseElements { splat, bytes } => Some((*splat, bytes.clone())),
        _ => None,
    }
}

fn set_value(module: &mut Module, op: OpId, value: Attribute) {
    let value = module.intern(value);
    module.op_mut(op).properties[0] = Some(value);
}

fn is_used(module: &Module, op: OpId) -> bool {
    let result = module.op(op).results[0];
    ops(module).iter().any(|user| module.op(*user).operands.contains(&result))
}

/// A blob for a constant, instead of what it had.
fn put_in_a_blob(module: &mut Module, blobs: &mut Blobs, op: OpId, bytes: Vec<u8>) {
    let key = format!("moved_{}", blobs.len());
    let resource = Resource { key: key.clone(), alignment: 64, length: bytes.len() as u64 };
    let id = module.add_resource(resource);
    blobs.insert(key, bytes);
    set_value(module, op, Attribute::DenseResource(id));
}

#[test]
fn a_package_that_was_written_again_is_equal() {
    assert!(plant(|_, _| ()).is_none());
}

#[test]
fn another_op_is_found() {
    let found = lines(plant(|module, _| {
        let op = find(module, Opcode::BroadcastingAdd, |_| true);
        module.op_mut(op).opcode = Opcode::BroadcastingSub;
    }));
    assert_eq!(found[..2], [1, 1], "{found:?}");
}

#[test]
fn another_type_is_found() {
    let found = lines(plant(|module, _| {
        let op = find(module, Opcode::BroadcastingMul, |_| true);
        let ty = module.tensor(module.op(op).results[0]).unwrap().with_element(Element::F32);
        let ty = module.tensor_type(&ty);
        retype(module, op, ty);
    }));
    assert!(found[2] >= 1, "{found:?}");
    // Of a constant whose number is written alike, in an op whose result stays the same.
    let found = lines(plant(|module, _| {
        let is_integer = |op: OpId| {
            let ty = module.tensor(module.op(op).results[0]);
            ty.is_some_and(|ty| ty.element == Element::Si32)
                && inline(module, op).is_some()
                && is_used(module, op)
        };
        let op = find(module, Opcode::Constant, is_integer);
        let ty = module.tensor(module.op(op).results[0]).unwrap().with_element(Element::Ui32);
        let ty = module.tensor_type(&ty);
        retype(module, op, ty);
    }));
    assert!(found[2] >= 1, "{found:?}");
}

#[test]
fn another_property_is_found() {
    let found = lines(plant(|module, _| {
        let op = find(module, Opcode::Gelu, |_| true);
        let other = module.string("other");
        module.op_mut(op).properties[0] = Some(other);
    }));
    assert_eq!(found, [0, 0, 1]);
    // Of the graph itself.
    let found = plant(|module, _| {
        let graph = module.graphs()[0];
        let at = Opcode::Graph.properties().iter().position(|name| *name == "noInline").unwrap();
        let other = module.string("other");
        module.op_mut(graph).properties[at] = Some(other);
    });
    let graph = &found.unwrap().graphs[0];
    assert_eq!((graph.ports.len(), graph.ops.len()), (1, 0), "{graph:?}");
    assert_eq!(graph.ports[0].details[0].what, "noInline");
}

/// A bit of each kind of constant: few elements, many of them, all of them alike, and blobs.
#[test]
fn another_constant_is_found() {
    let kinds: [fn(bool, usize) -> bool; 3] =
        [|splat, length| !splat && length <= 64, |splat, length| !splat && length > 64, |splat, _| splat];
    for (at, kind) in kinds.into_iter().enumerate() {
        let found = plant(|module, _| {
            let fits = |op: OpId| {
                inline(module, op).is_some_and(|(splat, bytes)| kind(splat, bytes.len()))
                    && is_used(module, op)
            };
            let op = find(module, Opcode::Constant, fits);
            let (splat, mut bytes) = inline(module, op).unwrap();
            bytes[0] ^= 1;
            set_value(module, op, Attribute::DenseElements { splat, bytes });
        });
        let found = found.unwrap_or_else(|| panic!("kind {at}"));
        let different = found.weights.different.len() + found.graphs[0].ops.len();
        assert!(different >= 1, "kind {at}: {found:?}");
    }
    let keys = Package::open(&ReferencePackage::ProviderInt4.path()).unwrap().bytecode.module;
    for resource in keys.resources().step_by(7) {
        let found = plant(|_, blobs| blobs.get_mut(&resource.key).unwrap()[1] ^= 0x10).unwrap();
        assert!(found.graphs[0].is_equal(), "{found:?}");
        assert!(!found.weights.different.is_empty(), "{}", resource.key);
    }
}

#[test]
fn an_extra_op_and_a_missing_op_are_found() {
    let is_neutral = |module: &Module, op: OpId| {
        let op = module.op(op);
        module.tensor(op.operands[0]) == module.tensor(op.results[0])
    };
    let found = lines(plant(|module, _| {
        let op = find(module, Opcode::BroadcastingMul, |op| is_neutral(module, op));
        let (result, operand) = (module.op(op).results[0], module.op(op).operands[0]);
        replace(module, result, operand);
        let body = body(module);
        module.block_mut(body).ops.retain(|other| *other != op);
    }));
    assert_eq!(found[..2], [0, 1], "{found:?}");
    assert!(found[2] >= 1, "{found:?}");
    // An unused one.
    let found = lines(plant(|module, _| {
        let old = find(module, Opcode::Cast, |_| true);
        let (op, body) = (module.op(old).clone(), body(module));
        let new = module.add_op(op.opcode, op.location);
        let ty = module.value(op.results[0]).ty;
        module.add_result(new, ty);
        module.op_mut(new).operands = op.operands;
        let at = module.block(body).ops.iter().position(|other| *other == old).unwrap();
        module.block_mut(body).ops.insert(at + 1, new);
    }));
    assert_eq!(found, [1, 0, 0]);
}

#[test]
fn other_operands_and_another_decomposition_are_found() {
    let found = lines(plant(|module, _| {
        let has_two = |op: OpId| {
            let operands = &module.op(op).operands;
            let made = |value: &ValueId| matches!(module.value(*value).definition, Definition::Result { op, .. } if module.op(op).opcode != Opcode::Constant);
            operands.iter().all(made) && operands[0] != operands[1]
        };
        let op = find(module, Opcode::BroadcastingMul, has_two);
        module.op_mut(op).operands.swap(0, 1);
    }));
    assert!(found[2] >= 1, "{found:?}");
    let found = lines(plant(|module, _| {
        let op = find(module, Opcode::BroadcastingMul, |_| true);
        let inner = module.block(module.body(op).unwrap()).ops.clone();
        let product = inner.into_iter().find(|op| module.op(*op).opcode == Opcode::Mul).unwrap();
        module.op_mut(product).opcode = Opcode::Add;
    }));
    assert_eq!(found, [0, 0, 1]);
}

/// As in the parity check with the published packages: Apple's tools and ours put constants into different places.
#[test]
fn keys_and_places_of_constants_are_ignored() {
    let in_blobs = plant(|module, blobs| {
        for op in
            ops(module).into_iter().filter(|op| module.op(*op).opcode == Opcode::Constant).collect::<Vec<_>>()
        {
            let ty = module.tensor(module.op(op).results[0]).unwrap();
            let Some((splat, bytes)) = inline(module, op) else { continue };
            if ty.element.bits() < 8 {
                continue;
            }
            let count = if splat { ty.elements().unwrap() as usize } else { 1 };
            put_in_a_blob(module, blobs, op, bytes.repeat(count));
        }
    });
    assert!(in_blobs.is_none(), "{in_blobs:?}");
    let renamed_and_inline = plant(|module, blobs| {
        let constants: Vec<OpId> =
            ops(module).into_iter().filter(|op| module.op(*op).opcode == Opcode::Constant).collect();
        for op in constants {
            let Some(Attribute::DenseResource(id)) =
                module.op(op).properties[0].map(|id| module.attribute(id).clone())
            else {
                continue;
            };
            let bytes = blobs[&module.resource(id).key].clone();
            let ty: TensorType = module.tensor(module.op(op).results[0]).unwrap();
            if ty.element.bits() == 8 || ty.element == Element::F16 {
                set_value(module, op, Attribute::DenseElements { splat: false, bytes });
            } else {
                put_in_a_blob(module, blobs, op, bytes);
            }
        }
    });
    assert!(renamed_and_inline.is_none(), "{renamed_and_inline:?}");
}
