//! Types and attributes as text that does not depend on ids: for messages and for comparing two modules.

use std::fmt::Write as _;

use crate::attribute::{Attribute, AttributeId};
use crate::module::Module;
use crate::types::{Dim, Type, TypeId};

/// A type as text, such as `tensor<1x?xsi32>`.
pub fn describe_type(module: &Module, id: TypeId) -> String {
    match module.ty(id) {
        Type::Element(element) => element.to_string(),
        Type::Tensor { shape, element } => {
            let shape = shape.iter().fold(String::new(), |mut text, dim: &Dim| {
                let _ = write!(text, "{dim}x");
                text
            });
            format!("tensor<{shape}{}>", describe_type(module, *element))
        }
        Type::Function { results, operands } => {
            let list = |types: &[TypeId]| {
                types.iter().map(|ty| describe_type(module, *ty)).collect::<Vec<_>>().join(", ")
            };
            format!("({}) -> ({})", list(operands), list(results))
        }
        Type::Handle(inner) => format!("handle<{}>", describe_type(module, *inner)),
        Type::Token => "token".to_owned(),
        Type::DebugUnresolved(inner) => format!("unresolved<{}>", describe_type(module, *inner)),
    }
}

/// An attribute as text. Bytes of constants are written in hexadecimal, whole.
pub fn describe_attribute(module: &Module, id: AttributeId) -> String {
    let list = |ids: &[AttributeId]| {
        ids.iter().map(|id| describe_attribute(module, *id)).collect::<Vec<_>>().join(", ")
    };
    let one = |id: &AttributeId| describe_attribute(module, *id);
    match module.attribute(id) {
        Attribute::String(text) => format!("{text:?}"),
        Attribute::Integer { width, unsigned, value } => {
            format!("{value} : {}{width}", if *unsigned { "ui" } else { "i" })
        }
        Attribute::Float { width, bits } => format!("{bits:#x} : f{width}"),
        Attribute::Type(ty) => describe_type(module, *ty),
        Attribute::Array(items) => format!("[{}]", list(items)),
        Attribute::DenseElements { splat, bytes } => {
            let hex = bytes.iter().fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            });
            format!("dense<{}0x{hex}>", if *splat { "splat " } else { "" })
        }
        Attribute::DenseResource(resource) => format!("@{}", module.resource(*resource).key),
        Attribute::Opaque { name, parameters } => format!("{name} = [{}]", list(parameters)),
        Attribute::ParameterDeclaration { name, ty } => format!("{name}: {}", describe_type(module, *ty)),
        Attribute::SymbolReference(path) => format!("@{}", path.join("::@")),
        Attribute::Enumeration { of, value } => match of.case(*value) {
            Some(case) => format!("{}<{case}>", of.name()),
            None => format!("{}<{value}>", of.name()),
        },
        Attribute::File { name, directory, sha256 } => format!("file({name:?}, {directory:?}, {sha256:?})"),
        Attribute::SourceLocation { file, range } => format!("source({}, {range:?})", one(file)),
        Attribute::CompileUnit { language, file, producer, optimized, flags, files } => format!(
            "compile_unit({language:?}, {}, {producer:?}, {optimized}, {flags:?}, [{}])",
            one(file),
            list(files)
        ),
        Attribute::MetadataData(data) => format!("data({})", one(data)),
        Attribute::Metadata { name, data } => format!("metadata({name:?}, {})", one(data)),
        Attribute::Subprogram { ty, unit, file, name, linkage_name, entries } => format!(
            "subprogram({}, {}, {}, {name:?}, {linkage_name:?}, [{}])",
            describe_type(module, *ty),
            one(unit),
            one(file),
            list(entries)
        ),
        Attribute::Location { source, scope, fused, metadata } => {
            format!("location({}, {}, [{}], [{}])", one(source), one(scope), list(fused), list(metadata))
        }
        Attribute::Dictionary(entries) => format!("{{{}}}", list(entries)),
        Attribute::Unit => "unit".to_owned(),
    }
}
