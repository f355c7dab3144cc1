//! Attributes and types as sequences of fields: one description that numbering and writing both walk.

use super::{DYNAMIC, code};
use crate::attribute::{Attribute, AttributeId, ResourceId};
use crate::module::Module;
use crate::types::{Dim, Type, TypeId};

/// Takes the fields of an attribute or type, in encoding order.
pub(crate) trait Fields {
    fn varint(&mut self, value: u64);
    fn signed(&mut self, value: i64);
    fn byte(&mut self, value: u8);
    fn bytes(&mut self, bytes: &[u8]);
    fn string(&mut self, text: &str);
    fn attribute(&mut self, id: AttributeId);
    fn ty(&mut self, id: TypeId);
    fn resource(&mut self, id: ResourceId);

    fn attributes(&mut self, ids: &[AttributeId]) {
        self.varint(ids.len() as u64);
        ids.iter().for_each(|id| self.attribute(*id));
    }

    fn types(&mut self, ids: &[TypeId]) {
        self.varint(ids.len() as u64);
        ids.iter().for_each(|id| self.ty(*id));
    }
}

/// Passes an attribute's code and fields to `out`.
pub(crate) fn attribute_fields(attribute: &Attribute, out: &mut impl Fields) {
    match attribute {
        Attribute::String(text) => {
            out.varint(code::STRING);
            out.string(text);
        }
        Attribute::Integer { width, unsigned, value } => {
            out.varint(code::INTEGER);
            out.varint(*width);
            out.byte(u8::from(*unsigned));
            integer(*width, *value, out);
        }
        Attribute::Float { width, bits } => {
            out.varint(code::FLOAT);
            out.varint(*width);
            integer(*width, *bits, out);
        }
        Attribute::Type(ty) => {
            out.varint(code::TYPE);
            out.ty(*ty);
        }
        Attribute::Array(items) => {
            out.varint(code::ARRAY);
            out.attributes(items);
        }
        Attribute::DenseElements { splat, bytes } => {
            out.varint(code::DENSE_ELEMENTS);
            out.byte(u8::from(*splat));
            out.varint(bytes.len() as u64);
            out.bytes(bytes);
        }
        Attribute::DenseResource(resource) => {
            out.varint(code::DENSE_RESOURCE);
            out.resource(*resource);
        }
        Attribute::Opaque { name, parameters } => {
            out.varint(code::OPAQUE);
            out.string(name);
            out.attributes(parameters);
        }
        Attribute::ParameterDeclaration { name, ty } => {
            out.varint(code::PARAMETER_DECLARATION);
            out.string(name);
            out.ty(*ty);
        }
        Attribute::SymbolReference(path) => {
            out.varint(code::SYMBOL_REFERENCE);
            out.varint(path.len() as u64);
            path.iter().for_each(|name| out.string(name));
        }
        Attribute::Enumeration { of, value } => {
            out.varint(of.code());
            out.varint(*value);
        }
        Attribute::Dictionary(entries) => {
            out.varint(code::DICTIONARY);
            out.attributes(entries);
        }
        Attribute::Unit => out.varint(code::UNIT),
        _ => debug_information_fields(attribute, out),
    }
}

fn debug_information_fields(attribute: &Attribute, out: &mut impl Fields) {
    match attribute {
        Attribute::File { name, directory, sha256 } => {
            out.varint(code::FILE);
            [name, directory, sha256].into_iter().for_each(|text| out.string(text));
        }
        Attribute::SourceLocation { file, range } => {
            out.varint(code::SOURCE_LOCATION);
            out.attribute(*file);
            range.iter().for_each(|number| out.varint(*number));
        }
        Attribute::CompileUnit { language, file, producer, optimized, flags, files } => {
            out.varint(code::COMPILE_UNIT);
            out.string(language);
            out.attribute(*file);
            out.string(producer);
            out.varint(*optimized);
            out.string(flags);
            out.attributes(files);
        }
        Attribute::MetadataData(data) => {
            out.varint(code::METADATA_DATA);
            out.attribute(*data);
        }
        Attribute::Metadata { name, data } => {
            out.varint(code::METADATA);
            out.string(name);
            out.attribute(*data);
        }
        Attribute::Subprogram { ty, unit, file, name, linkage_name, entries } => {
            out.varint(code::SUBPROGRAM);
            out.ty(*ty);
            out.attribute(*unit);
            out.attribute(*file);
            out.string(name);
            out.string(linkage_name);
            out.attributes(entries);
        }
        Attribute::Location { source, scope, fused, metadata } => {
            out.varint(code::LOCATION);
            out.attribute(*source);
            out.attribute(*scope);
            out.attributes(fused);
            out.attributes(metadata);
        }
        _ => unreachable!("all other attributes are written by attribute_fields"),
    }
}

/// Up to 8 bits are one raw byte, up to 64 a signed varint.
fn integer(width: u64, value: i64, out: &mut impl Fields) {
    if width <= 8 {
        out.byte(value as u8);
    } else {
        out.signed(value);
    }
}

/// Passes a type's code and fields to `out`.
pub(crate) fn type_fields(ty: &Type, out: &mut impl Fields) {
    match ty {
        Type::Element(element) => out.varint(element.code()),
        Type::Tensor { shape, element } => {
            out.varint(code::TENSOR);
            out.varint(shape.len() as u64);
            for dim in shape {
                match dim {
                    Dim::Fixed(extent) => out.signed(*extent as i64),
                    Dim::Dynamic => out.signed(DYNAMIC),
                }
            }
            out.ty(*element);
        }
        Type::Function { results, operands } => {
            out.varint(code::FUNCTION);
            out.types(results);
            out.types(operands);
        }
        Type::Handle(inner) => {
            out.varint(code::HANDLE);
            out.ty(*inner);
        }
        Type::Token => out.varint(code::TOKEN),
        Type::DebugUnresolved(inner) => {
            out.varint(code::DEBUG_UNRESOLVED);
            out.ty(*inner);
        }
    }
}

/// The attributes, types and resources that an attribute or type refers to directly, in encoding order.
#[derive(Default)]
pub(super) struct References {
    pub(super) items: Vec<Reference>,
}

/// Something that an attribute or type refers to.
#[derive(Clone, Copy)]
pub(super) enum Reference {
    Attribute(AttributeId),
    Type(TypeId),
    Resource(ResourceId),
}

impl References {
    pub(super) fn of_attribute(module: &Module, id: AttributeId) -> Vec<Reference> {
        let mut references = References::default();
        attribute_fields(module.attribute(id), &mut references);
        references.items
    }

    pub(super) fn of_type(module: &Module, id: TypeId) -> Vec<Reference> {
        let mut references = References::default();
        type_fields(module.ty(id), &mut references);
        references.items
    }
}

impl Fields for References {
    fn varint(&mut self, _: u64) {}
    fn signed(&mut self, _: i64) {}
    fn byte(&mut self, _: u8) {}
    fn bytes(&mut self, _: &[u8]) {}
    fn string(&mut self, _: &str) {}

    fn attribute(&mut self, id: AttributeId) {
        self.items.push(Reference::Attribute(id));
    }

    fn ty(&mut self, id: TypeId) {
        self.items.push(Reference::Type(id));
    }

    fn resource(&mut self, id: ResourceId) {
        self.items.push(Reference::Resource(id));
    }
}
