//! Types and attributes as text that does not depend on ids: for listings, for messages and for comparing two modules.
//!
//! Entries refer to each other, and one entry may be referred to many times: a hostile file of a few hundred bytes can
//! describe a text of 2^64 characters. So texts are cut at a limit, and writing stops there.

use std::fmt::{self, Write};

use crate::attribute::{Attribute, AttributeId};
use crate::module::Module;
use crate::types::{Type, TypeId};

/// Bytes after which a text is cut. In a normal module, only the bytes of large inline constants come near it.
const LONGEST: usize = 1 << 20;

/// A type as text, such as `tensor<1x?xsi32>`.
pub fn describe_type(module: &Module, id: TypeId) -> String {
    within(LONGEST, |text| write_type(module, id, text))
}

/// [`describe_type`], cut with an ellipsis after `limit` bytes.
pub fn describe_type_within(module: &Module, id: TypeId, limit: usize) -> String {
    within(limit, |text| write_type(module, id, text))
}

/// An attribute as text. Bytes of constants are written in hexadecimal. Cut with an ellipsis after 1 MiB.
pub fn describe_attribute(module: &Module, id: AttributeId) -> String {
    within(LONGEST, |text| write_attribute(module, id, text))
}

/// [`describe_attribute`], cut with an ellipsis after `limit` bytes.
pub fn describe_attribute_within(module: &Module, id: AttributeId, limit: usize) -> String {
    within(limit, |text| write_attribute(module, id, text))
}

fn within(limit: usize, write: impl FnOnce(&mut Text) -> fmt::Result) -> String {
    let mut text = Text { written: String::new(), room: limit };
    if write(&mut text).is_err() {
        text.written.push('…');
    }
    text.written
}

/// Text with a limit: writing past it fails, which ends the description.
struct Text {
    written: String,
    room: usize,
}

impl Write for Text {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        if let Some(room) = self.room.checked_sub(piece.len()) {
            self.room = room;
            self.written.push_str(piece);
            return Ok(());
        }
        let cut = (0..=self.room).rev().find(|at| piece.is_char_boundary(*at)).unwrap_or(0);
        self.written.push_str(&piece[..cut]);
        self.room = 0;
        Err(fmt::Error)
    }
}

/// Writes `items` with commas between them.
fn list<T>(items: &[T], out: &mut Text, mut one: impl FnMut(&T, &mut Text) -> fmt::Result) -> fmt::Result {
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.write_str(", ")?;
        }
        one(item, out)?;
    }
    Ok(())
}

fn write_type(module: &Module, id: TypeId, out: &mut Text) -> fmt::Result {
    let types = |types: &[TypeId], out: &mut Text| list(types, out, |ty, out| write_type(module, *ty, out));
    match module.ty(id) {
        Type::Element(element) => write!(out, "{element}"),
        Type::Tensor { shape, element } => {
            out.write_str("tensor<")?;
            shape.iter().try_for_each(|dim| write!(out, "{dim}x"))?;
            write_type(module, *element, out)?;
            out.write_str(">")
        }
        Type::Function { results, operands } => {
            out.write_str("(")?;
            types(operands, out)?;
            out.write_str(") -> (")?;
            types(results, out)?;
            out.write_str(")")
        }
        Type::Handle(inner) => {
            out.write_str("handle<")?;
            write_type(module, *inner, out)?;
            out.write_str(">")
        }
        Type::Token => out.write_str("token"),
        Type::DebugUnresolved(inner) => {
            out.write_str("unresolved<")?;
            write_type(module, *inner, out)?;
            out.write_str(">")
        }
    }
}

fn write_attributes(module: &Module, ids: &[AttributeId], out: &mut Text) -> fmt::Result {
    list(ids, out, |id, out| write_attribute(module, *id, out))
}

fn write_attribute(module: &Module, id: AttributeId, out: &mut Text) -> fmt::Result {
    match module.attribute(id) {
        Attribute::String(text) => write!(out, "{text:?}"),
        Attribute::Integer { width, unsigned, value } => {
            write!(out, "{value} : {}{width}", if *unsigned { "ui" } else { "i" })
        }
        Attribute::Float { width, bits } => write!(out, "{bits:#x} : f{width}"),
        Attribute::Type(ty) => write_type(module, *ty, out),
        Attribute::Array(items) => {
            out.write_str("[")?;
            write_attributes(module, items, out)?;
            out.write_str("]")
        }
        Attribute::DenseElements { splat, bytes } => {
            write!(out, "dense<{}0x", if *splat { "splat " } else { "" })?;
            bytes.chunks(256).try_for_each(|bytes| out.write_str(&hex::encode(bytes)))?;
            out.write_str(">")
        }
        Attribute::DenseResource(resource) => write!(out, "@{}", module.resource(*resource).key),
        Attribute::Opaque { name, parameters } => {
            write!(out, "{name} = [")?;
            write_attributes(module, parameters, out)?;
            out.write_str("]")
        }
        Attribute::ParameterDeclaration { name, ty } => {
            write!(out, "{name}: ")?;
            write_type(module, *ty, out)
        }
        Attribute::SymbolReference(path) => path
            .iter()
            .enumerate()
            .try_for_each(|(at, name)| write!(out, "{}@{name}", if at > 0 { "::" } else { "" })),
        Attribute::Enumeration { of, value } => match of.case(*value) {
            Some(case) => write!(out, "{}<{case}>", of.name()),
            None => write!(out, "{}<{value}>", of.name()),
        },
        Attribute::Dictionary(entries) => {
            out.write_str("{")?;
            write_attributes(module, entries, out)?;
            out.write_str("}")
        }
        Attribute::Unit => out.write_str("unit"),
        debug => write_debug_information(module, debug, out),
    }
}

fn write_debug_information(module: &Module, attribute: &Attribute, out: &mut Text) -> fmt::Result {
    let one = |id: &AttributeId, out: &mut Text| write_attribute(module, *id, out);
    let many = |ids: &[AttributeId], out: &mut Text| {
        out.write_str(", [")?;
        write_attributes(module, ids, out)?;
        out.write_str("]")
    };
    match attribute {
        Attribute::File { name, directory, sha256 } => {
            return write!(out, "file({name:?}, {directory:?}, {sha256:?})");
        }
        Attribute::SourceLocation { file, range } => {
            out.write_str("source(")?;
            one(file, out)?;
            write!(out, ", {range:?}")?;
        }
        Attribute::CompileUnit { language, file, producer, optimized, flags, files } => {
            write!(out, "compile_unit({language:?}, ")?;
            one(file, out)?;
            write!(out, ", {producer:?}, {optimized}, {flags:?}")?;
            many(files, out)?;
        }
        Attribute::MetadataData(data) => {
            out.write_str("data(")?;
            one(data, out)?;
        }
        Attribute::Metadata { name, data } => {
            write!(out, "metadata({name:?}, ")?;
            one(data, out)?;
        }
        Attribute::Subprogram { ty, unit, file, name, linkage_name, entries } => {
            out.write_str("subprogram(")?;
            write_type(module, *ty, out)?;
            for part in [unit, file] {
                out.write_str(", ")?;
                one(part, out)?;
            }
            write!(out, ", {name:?}, {linkage_name:?}")?;
            many(entries, out)?;
        }
        Attribute::Location { source, scope, fused, metadata } => {
            out.write_str("location(")?;
            one(source, out)?;
            out.write_str(", ")?;
            one(scope, out)?;
            many(fused, out)?;
            many(metadata, out)?;
        }
        _ => unreachable!("all other attributes are written by write_attribute"),
    }
    out.write_str(")")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::element::Element;

    #[test]
    fn a_type_that_doubles_sixty_times_is_cut() {
        let mut module = Module::new();
        let mut ty = module.intern_type(Type::Element(Element::F16));
        for _ in 0..60 {
            ty = module.intern_type(Type::Function { results: vec![ty], operands: vec![ty] });
        }
        assert_eq!(describe_type_within(&module, ty, 10), "((((((((((…");
        assert_eq!(describe_type(&module, ty).len(), LONGEST + '…'.len_utf8());
    }

    #[test]
    fn texts_are_cut_between_characters() {
        let mut module = Module::new();
        let text = module.string("äöü");
        assert_eq!(describe_attribute_within(&module, text, 4), "\"ä…");
        assert_eq!(describe_attribute_within(&module, text, 8), "\"äöü\"");
    }
}
