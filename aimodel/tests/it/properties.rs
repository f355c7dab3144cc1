//! Attributes and types of any kind, written and read.

use crate::common::{file_with_any_blobs, rewritten};
use aimodel::build::AssetBuilder;
use aimodel::bytecode::reader::Bytecode;
use aimodel::describe::{describe_attribute, describe_type};
use aimodel::{
    Attribute, AttributeId, Dim, Element, Enumeration, Module, Resource, TensorType, Type, TypeId,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// An attribute or a type, to be interned in a module.
#[derive(Clone, Debug)]
enum Tree {
    String(String),
    Integer { width: u64, unsigned: bool, value: i64 },
    Float { width: u64, bits: i64 },
    Type(TypeTree),
    Array(Vec<Tree>),
    Dense { splat: bool, bytes: Vec<u8> },
    Resource(String),
    Opaque(String, Vec<Tree>),
    Parameter(String, TypeTree),
    Symbol(Vec<String>),
    Enumeration(Enumeration, u64),
    File([String; 3]),
    Source(Box<Tree>, [u64; 4]),
    Unit([String; 3], u64, Box<Tree>, Vec<Tree>),
    Data(Box<Tree>),
    Metadata(String, Box<Tree>),
    Subprogram([String; 2], TypeTree, Box<[Tree; 2]>, Vec<Tree>),
    Location(Box<[Tree; 2]>, Vec<Tree>, Vec<Tree>),
    Dictionary(Vec<Tree>),
    Nothing,
}

#[derive(Clone, Debug)]
enum TypeTree {
    Element(Element),
    Tensor(TensorType),
    Function(Vec<TypeTree>, Vec<TypeTree>),
    Handle(Box<TypeTree>),
    Token,
    Unresolved(Box<TypeTree>),
}

fn any_type() -> impl Strategy<Value = TypeTree> {
    let element = || proptest::sample::select(Element::ALL);
    let dim = prop_oneof![
        Just(Dim::Dynamic),
        (0..u64::MAX >> 1).prop_map(Dim::Fixed),
        (0..10_u64).prop_map(Dim::Fixed)
    ];
    let tensor = (vec(dim, 0..6), element()).prop_map(|(shape, element)| TensorType::new(shape, element));
    let leaf = prop_oneof![
        element().prop_map(TypeTree::Element),
        tensor.prop_map(TypeTree::Tensor),
        Just(TypeTree::Token)
    ];
    leaf.prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            (vec(inner.clone(), 0..4), vec(inner.clone(), 0..4)).prop_map(|(a, b)| TypeTree::Function(a, b)),
            inner.clone().prop_map(|inner| TypeTree::Handle(Box::new(inner))),
            inner.prop_map(|inner| TypeTree::Unresolved(Box::new(inner))),
        ]
    })
}

fn any_attribute() -> impl Strategy<Value = Tree> {
    let text = || prop_oneof!["[ -~]{0,12}", "\\PC{0,12}", Just("aicode".to_owned())];
    let enumerations = [
        Enumeration::PaddingMode,
        Enumeration::Approximate,
        Enumeration::ScatterMode,
        Enumeration::FourCc,
        Enumeration::Intent,
    ];
    let leaf = prop_oneof![
        text().prop_map(Tree::String),
        (0..=8_u64, any::<bool>(), 0..=255_i64).prop_map(|(width, unsigned, value)| Tree::Integer {
            width,
            unsigned,
            value
        }),
        (9..=64_u64, any::<bool>(), any::<i64>()).prop_map(|(width, unsigned, value)| Tree::Integer {
            width,
            unsigned,
            value
        }),
        (proptest::sample::select(&[16_u64, 32, 64][..]), any::<i64>())
            .prop_map(|(width, bits)| Tree::Float { width, bits }),
        any_type().prop_map(Tree::Type),
        (any::<bool>(), vec(any::<u8>(), 0..300)).prop_map(|(splat, bytes)| Tree::Dense { splat, bytes }),
        text().prop_map(Tree::Resource),
        (text(), any_type()).prop_map(|(name, ty)| Tree::Parameter(name, ty)),
        vec(text(), 0..4).prop_map(Tree::Symbol),
        (proptest::sample::select(enumerations.to_vec()), any::<u64>())
            .prop_map(|(of, value)| Tree::Enumeration(of, value)),
        [text(), text(), text()].prop_map(Tree::File),
        Just(Tree::Nothing),
    ];
    leaf.prop_recursive(5, 24, 4, move |inner| {
        let list = || vec(inner.clone(), 0..4);
        let one = || inner.clone().prop_map(Box::new);
        let two = || [inner.clone(), inner.clone()].prop_map(Box::new);
        prop_oneof![
            list().prop_map(Tree::Array),
            (text(), list()).prop_map(|(name, parameters)| Tree::Opaque(name, parameters)),
            (one(), any::<[u64; 4]>()).prop_map(|(file, range)| Tree::Source(file, range)),
            ([text(), text(), text()], any::<u64>(), one(), list())
                .prop_map(|(texts, optimized, file, files)| Tree::Unit(texts, optimized, file, files)),
            one().prop_map(Tree::Data),
            (text(), one()).prop_map(|(name, data)| Tree::Metadata(name, data)),
            ([text(), text()], any_type(), two(), list())
                .prop_map(|(names, ty, parts, entries)| Tree::Subprogram(names, ty, parts, entries)),
            (two(), list(), list())
                .prop_map(|(parts, fused, metadata)| Tree::Location(parts, fused, metadata)),
            list().prop_map(Tree::Dictionary),
        ]
    })
}

impl TypeTree {
    fn intern(self, module: &mut Module) -> TypeId {
        let ty = match self {
            TypeTree::Element(element) => Type::Element(element),
            TypeTree::Tensor(tensor) => return module.tensor_type(&tensor),
            TypeTree::Function(results, operands) => {
                let mut intern =
                    |types: Vec<TypeTree>| types.into_iter().map(|ty| ty.intern(module)).collect();
                Type::Function { results: intern(results), operands: intern(operands) }
            }
            TypeTree::Handle(inner) => Type::Handle(inner.intern(module)),
            TypeTree::Token => Type::Token,
            TypeTree::Unresolved(inner) => Type::DebugUnresolved(inner.intern(module)),
        };
        module.intern_type(ty)
    }
}

fn intern_all(trees: Vec<Tree>, module: &mut Module) -> Vec<AttributeId> {
    trees.into_iter().map(|tree| tree.intern(module)).collect()
}

impl Tree {
    fn intern(self, module: &mut Module) -> AttributeId {
        let attribute = match self {
            Tree::String(text) => Attribute::String(text),
            Tree::Integer { width, unsigned, value } => Attribute::Integer { width, unsigned, value },
            Tree::Float { width, bits } => Attribute::Float { width, bits },
            Tree::Type(ty) => Attribute::Type(ty.intern(module)),
            Tree::Array(items) => Attribute::Array(intern_all(items, module)),
            Tree::Dense { splat, bytes } => Attribute::DenseElements { splat, bytes },
            Tree::Resource(key) => {
                let length = 1 + key.len() as u64;
                Attribute::DenseResource(module.add_resource(Resource { key, length, alignment: 16 }))
            }
            Tree::Opaque(name, parameters) => {
                Attribute::Opaque { name, parameters: intern_all(parameters, module) }
            }
            Tree::Parameter(name, ty) => Attribute::ParameterDeclaration { name, ty: ty.intern(module) },
            Tree::Symbol(path) => Attribute::SymbolReference(path),
            Tree::Enumeration(of, value) => Attribute::Enumeration { of, value },
            Tree::File([name, directory, sha256]) => Attribute::File { name, directory, sha256 },
            Tree::Source(file, range) => Attribute::SourceLocation { file: file.intern(module), range },
            Tree::Unit([language, producer, flags], optimized, file, files) => Attribute::CompileUnit {
                language,
                file: file.intern(module),
                producer,
                optimized,
                flags,
                files: intern_all(files, module),
            },
            Tree::Data(data) => Attribute::MetadataData(data.intern(module)),
            Tree::Metadata(name, data) => Attribute::Metadata { name, data: data.intern(module) },
            Tree::Subprogram([name, linkage_name], ty, parts, entries) => {
                let [unit, file] = parts.map(|part| part.intern(module));
                let (ty, entries) = (ty.intern(module), intern_all(entries, module));
                Attribute::Subprogram { ty, unit, file, name, linkage_name, entries }
            }
            Tree::Location(parts, fused, metadata) => {
                let [source, scope] = parts.map(|part| part.intern(module));
                let (fused, metadata) = (intern_all(fused, module), intern_all(metadata, module));
                Attribute::Location { source, scope, fused, metadata }
            }
            Tree::Dictionary(entries) => Attribute::Dictionary(intern_all(entries, module)),
            Tree::Nothing => Attribute::Unit,
        };
        module.intern(attribute)
    }
}

/// A module with any attribute as the asset's source.
fn module_with(tree: Tree) -> (Module, AttributeId) {
    let mut module = AssetBuilder::new().function("main").finish(&[], &[]).unwrap().finish();
    let attribute = tree.intern(&mut module);
    let root = module.root().unwrap();
    module.op_mut(root).properties[0] = Some(attribute);
    (module, attribute)
}

fn source_of(module: &Module) -> AttributeId {
    module.op(module.root().unwrap()).properties[0].unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn attributes_survive_writing_and_reading(tree in any_attribute()) {
        let (module, attribute) = module_with(tree);
        let bytes = file_with_any_blobs(&module);
        let read = Bytecode::read(bytes.as_slice()).unwrap();
        let again = source_of(&read.module);
        prop_assert_eq!(describe_attribute(&module, attribute), describe_attribute(&read.module, again));
        prop_assert_eq!(rewritten(&bytes, &read), bytes);
    }

    #[test]
    fn types_survive_writing_and_reading(tree in any_type()) {
        let (module, attribute) = module_with(Tree::Type(tree));
        let read = Bytecode::read(file_with_any_blobs(&module).as_slice()).unwrap();
        let ty = |module: &Module, attribute: AttributeId| match module.attribute(attribute) {
            Attribute::Type(ty) => describe_type(module, *ty),
            other => panic!("{other:?} is not a type"),
        };
        prop_assert_eq!(ty(&module, attribute), ty(&read.module, source_of(&read.module)));
    }
}
