//! Tables of a file: strings, op names, attributes, types.

use super::cursor::{Cursor, Fault};
use super::{Body, ReadError, check_encoding, is_dialect};
use crate::attribute::{Attribute, AttributeId, Enumeration, ResourceId};
use crate::bytecode::{DYNAMIC, code, section};
use crate::element::Element;
use crate::module::Module;
use crate::opcode::Opcode;
use crate::types::{Dim, Type, TypeId};

/// Deepest nesting of attributes and types. Apple's files nest ten deep.
const DEEPEST: usize = 64;

/// Largest plausible number of axes.
const MOST_AXES: usize = 256;

/// How often attributes may repeat the text of a file, on average: each holds its own copy, and a few bytes of an entry
/// could repeat all the text in the file. The reference packages repeat a fifth of theirs, one with debug information a fourth.
const MOST_REPEATS: usize = 16;

/// Strings by id. Lengths come first, in reverse order.
pub(super) fn strings(body: &Body) -> Result<Vec<String>, ReadError> {
    body.parse(|cursor| {
        let mut lengths = cursor.list(Cursor::varint)?;
        lengths.reverse();
        lengths.into_iter().map(|length| string(cursor, length)).collect()
    })
}

fn string(cursor: &mut Cursor<'_>, length: u64) -> Result<String, Fault> {
    let length = usize::try_from(length).map_err(|_| cursor.fault("a string longer than memory"))?;
    match cursor.take(length)?.split_last() {
        Some((0, text)) => {
            String::from_utf8(text.to_vec()).map_err(|_| cursor.fault("a string is not UTF-8"))
        }
        _ => Err(cursor.fault("a string does not end in NUL")),
    }
}

/// Op names by id.
pub(super) fn dialects(body: &Body, strings: &[String]) -> Result<Vec<Opcode>, ReadError> {
    body.parse(|cursor| {
        let count = cursor.count()?;
        if count != 1 {
            return Err(cursor.fault(format!("{count} dialects, but this format has one")));
        }
        let (name, versioned) = cursor.flagged()?;
        let name = &strings[cursor.check_index(name, strings.len(), "string")?];
        if !is_dialect(name) {
            return Err(cursor.fault(format!("the dialect {name:?} is unknown")));
        }
        let version = if versioned { cursor.section(section::DIALECT_VERSION)? } else { Cursor::new(&[], 0) };
        let mut version_bytes = version.clone();
        if !check_encoding(version_bytes.take(version.remaining())?) {
            return Err(cursor.fault("the dialect has an encoding version other than 2"));
        }
        op_names(cursor, strings)
    })
}

fn op_names(cursor: &mut Cursor<'_>, strings: &[String]) -> Result<Vec<Opcode>, Fault> {
    let total = cursor.count()?;
    let mut names = Vec::new();
    while cursor.remaining() > 0 {
        cursor.index(1, "dialect")?;
        let group = cursor.list(|cursor| {
            let (name, _registered) = cursor.flagged()?;
            let name = &strings[cursor.check_index(name, strings.len(), "string")?];
            Opcode::from_name(name)
                .ok_or_else(|| cursor.fault(format!("the op {name:?} is unknown to this reader")))
        })?;
        names.extend(group);
    }
    if names.len() != total {
        return Err(cursor.fault(format!("{total} op names announced, {} found", names.len())));
    }
    Ok(names)
}

/// State of one entry while tables are decoded.
#[derive(Clone, Copy)]
enum Decoded<T> {
    Waiting,
    /// Being decoded further up the stack: reaching it again is a cycle.
    Open,
    Done(T),
}

/// Attributes and types: entries refer to each other in any order, so they are decoded on demand.
pub(super) struct Tables<'b> {
    body: &'b Body,
    strings: &'b [String],
    resources: usize,
    /// Start and end of each attribute's bytes, then of each type's.
    attribute_spans: Vec<(usize, usize)>,
    type_spans: Vec<(usize, usize)>,
    attributes: Vec<Decoded<AttributeId>>,
    types: Vec<Decoded<TypeId>>,
    /// Bytes of text that attributes may still copy.
    text_left: usize,
}

impl<'b> Tables<'b> {
    pub(super) fn new(
        offsets: &Body,
        body: &'b Body,
        strings: &'b [String],
        resources: usize,
    ) -> Result<Self, ReadError> {
        let (mut spans, attribute_count) = offsets.parse(|cursor| spans(cursor, body.bytes.len()))?;
        let type_spans = spans.split_off(attribute_count);
        let text = strings.iter().fold(body.bytes.len(), |sum, text| sum.saturating_add(text.len()));
        Ok(Tables {
            body,
            strings,
            resources,
            attributes: vec![Decoded::Waiting; spans.len()],
            types: vec![Decoded::Waiting; type_spans.len()],
            attribute_spans: spans,
            type_spans,
            text_left: text.saturating_mul(MOST_REPEATS),
        })
    }

    /// Decodes every entry, used or not.
    pub(super) fn decode_all(&mut self, module: &mut Module) -> Result<(), ReadError> {
        let body = self.body;
        let mut all = || {
            (0..self.types.len()).try_for_each(|at| self.decode_type(module, at, 0).map(|_| ()))?;
            (0..self.attributes.len()).try_for_each(|at| self.decode_attribute(module, at, 0).map(|_| ()))
        };
        all().map_err(|fault| body.error(fault))
    }

    /// The attribute with an id in the file.
    pub(super) fn attribute(&self, cursor: &mut Cursor<'_>) -> Result<AttributeId, Fault> {
        let at = cursor.index(self.attributes.len(), "attribute")?;
        self.known_attribute(cursor, at)
    }

    /// An attribute that may be absent.
    pub(super) fn optional_attribute(&self, cursor: &mut Cursor<'_>) -> Result<Option<AttributeId>, Fault> {
        let (at, present) = cursor.flagged()?;
        if !present {
            return Ok(None);
        }
        let at = cursor.check_index(at, self.attributes.len(), "attribute")?;
        self.known_attribute(cursor, at).map(Some)
    }

    fn known_attribute(&self, cursor: &Cursor<'_>, at: usize) -> Result<AttributeId, Fault> {
        match self.attributes[at] {
            Decoded::Done(id) => Ok(id),
            _ => Err(cursor.fault(format!("attribute {at} was not decoded"))),
        }
    }

    /// The type with an id in the file.
    pub(super) fn ty(&self, cursor: &mut Cursor<'_>) -> Result<TypeId, Fault> {
        let at = cursor.index(self.types.len(), "type")?;
        self.known_type(cursor, at)
    }

    /// The type at a position of the table.
    pub(super) fn known_type(&self, cursor: &Cursor<'_>, at: usize) -> Result<TypeId, Fault> {
        match self.types.get(at) {
            Some(Decoded::Done(id)) => Ok(*id),
            _ => Err(cursor.fault(format!("type {at} of {}", self.types.len()))),
        }
    }

    fn entry(&self, (start, end): (usize, usize)) -> Cursor<'b> {
        let mut cursor = self.body.cursor();
        // Spans were checked against the body when they were read.
        let _ = cursor.take(start);
        let from = cursor.position();
        Cursor::new(&self.body.bytes[start..end], from)
    }

    fn decode_attribute(
        &mut self,
        module: &mut Module,
        at: usize,
        depth: usize,
    ) -> Result<AttributeId, Fault> {
        let mut cursor = self.entry(self.attribute_spans[at]);
        match self.attributes[at] {
            Decoded::Done(id) => return Ok(id),
            Decoded::Open => return Err(cursor.fault(format!("attribute {at} contains itself"))),
            Decoded::Waiting if depth > DEEPEST => return Err(cursor.fault("attributes nest too deep")),
            Decoded::Waiting => self.attributes[at] = Decoded::Open,
        }
        let attribute = Fields { tables: self, module, cursor: &mut cursor, depth: depth + 1 }.attribute()?;
        cursor.finish()?;
        let id = module.intern(attribute);
        self.attributes[at] = Decoded::Done(id);
        Ok(id)
    }

    fn decode_type(&mut self, module: &mut Module, at: usize, depth: usize) -> Result<TypeId, Fault> {
        let mut cursor = self.entry(self.type_spans[at]);
        match self.types[at] {
            Decoded::Done(id) => return Ok(id),
            Decoded::Open => return Err(cursor.fault(format!("type {at} contains itself"))),
            Decoded::Waiting if depth > DEEPEST => return Err(cursor.fault("types nest too deep")),
            Decoded::Waiting => self.types[at] = Decoded::Open,
        }
        let ty = Fields { tables: self, module, cursor: &mut cursor, depth: depth + 1 }.ty()?;
        cursor.finish()?;
        let id = module.intern_type(ty);
        self.types[at] = Decoded::Done(id);
        Ok(id)
    }
}

/// Spans of all entries, attributes first, and how many of them are attributes.
fn spans(cursor: &mut Cursor<'_>, body: usize) -> Result<(Vec<(usize, usize)>, usize), Fault> {
    let (attributes, types) = (cursor.count()?, cursor.count()?);
    let mut spans = Vec::new();
    let mut start = 0_usize;
    while cursor.remaining() > 0 {
        cursor.index(1, "dialect")?;
        for _ in 0..cursor.count()? {
            let (length, custom) = cursor.flagged()?;
            if !custom {
                return Err(cursor.fault("an attribute or type stored as text is not supported"));
            }
            let end = usize::try_from(length).ok().and_then(|length| start.checked_add(length));
            let end = end.filter(|end| *end <= body);
            let end = end.ok_or_else(|| cursor.fault("an entry ends after the attribute/type section"))?;
            spans.push((start, end));
            start = end;
        }
    }
    if spans.len() != attributes + types || start != body {
        return Err(cursor.fault(format!(
            "{attributes} attributes and {types} types announced, {} entries found with {start} of {body} bytes",
            spans.len()
        )));
    }
    Ok((spans, attributes))
}

/// Reads the fields of one entry.
struct Fields<'t, 'b, 'c> {
    tables: &'t mut Tables<'b>,
    module: &'t mut Module,
    cursor: &'c mut Cursor<'b>,
    depth: usize,
}

impl Fields<'_, '_, '_> {
    fn text(&mut self) -> Result<String, Fault> {
        let at = self.cursor.index(self.tables.strings.len(), "string")?;
        let text = &self.tables.strings[at];
        let left = self.tables.text_left.checked_sub(text.len());
        self.tables.text_left =
            left.ok_or_else(|| self.cursor.fault("attributes repeat text without end"))?;
        Ok(text.clone())
    }

    fn attribute_ref(&mut self) -> Result<AttributeId, Fault> {
        let at = self.cursor.index(self.tables.attributes.len(), "attribute")?;
        self.tables.decode_attribute(self.module, at, self.depth)
    }

    fn type_ref(&mut self) -> Result<TypeId, Fault> {
        let at = self.cursor.index(self.tables.types.len(), "type")?;
        self.tables.decode_type(self.module, at, self.depth)
    }

    fn attribute_refs(&mut self) -> Result<Vec<AttributeId>, Fault> {
        let count = self.cursor.count()?;
        (0..count).map(|_| self.attribute_ref()).collect()
    }

    fn type_refs(&mut self) -> Result<Vec<TypeId>, Fault> {
        let count = self.cursor.count()?;
        (0..count).map(|_| self.type_ref()).collect()
    }

    fn integer(&mut self, width: u64) -> Result<i64, Fault> {
        match width {
            0..=8 => Ok(i64::from(self.cursor.byte()?)),
            9..=64 => self.cursor.signed(),
            _ => Err(self.cursor.fault(format!("an integer of {width} bits is not supported"))),
        }
    }

    fn attribute(&mut self) -> Result<Attribute, Fault> {
        let code = self.cursor.varint()?;
        Ok(match code {
            code::STRING => Attribute::String(self.text()?),
            code::INTEGER => {
                let (width, unsigned) = (self.cursor.varint()?, self.cursor.byte()? != 0);
                Attribute::Integer { width, unsigned, value: self.integer(width)? }
            }
            code::FLOAT => {
                let width = self.cursor.varint()?;
                Attribute::Float { width, bits: self.integer(width)? }
            }
            code::TYPE => Attribute::Type(self.type_ref()?),
            code::ARRAY => Attribute::Array(self.attribute_refs()?),
            code::DENSE_ELEMENTS => {
                let (splat, length) = (self.cursor.byte()? != 0, self.cursor.length()?);
                Attribute::DenseElements { splat, bytes: self.cursor.take(length)?.to_vec() }
            }
            code::DENSE_RESOURCE => {
                let at = self.cursor.index(self.tables.resources, "resource")?;
                Attribute::DenseResource(ResourceId(at as u32))
            }
            code::OPAQUE => Attribute::Opaque { name: self.text()?, parameters: self.attribute_refs()? },
            code::PARAMETER_DECLARATION => {
                Attribute::ParameterDeclaration { name: self.text()?, ty: self.type_ref()? }
            }
            code::SYMBOL_REFERENCE => {
                let count = self.cursor.count()?;
                Attribute::SymbolReference((0..count).map(|_| self.text()).collect::<Result<_, _>>()?)
            }
            code::DICTIONARY => Attribute::Dictionary(self.attribute_refs()?),
            code::UNIT => Attribute::Unit,
            other => return self.debug_information(other),
        })
    }

    fn debug_information(&mut self, code: u64) -> Result<Attribute, Fault> {
        Ok(match code {
            code::FILE => {
                Attribute::File { name: self.text()?, directory: self.text()?, sha256: self.text()? }
            }
            code::SOURCE_LOCATION => {
                let file = self.attribute_ref()?;
                let mut range = [0; 4];
                for number in &mut range {
                    *number = self.cursor.varint()?;
                }
                Attribute::SourceLocation { file, range }
            }
            code::COMPILE_UNIT => Attribute::CompileUnit {
                language: self.text()?,
                file: self.attribute_ref()?,
                producer: self.text()?,
                optimized: self.cursor.varint()?,
                flags: self.text()?,
                files: self.attribute_refs()?,
            },
            code::METADATA_DATA => Attribute::MetadataData(self.attribute_ref()?),
            code::METADATA => Attribute::Metadata { name: self.text()?, data: self.attribute_ref()? },
            code::SUBPROGRAM => Attribute::Subprogram {
                ty: self.type_ref()?,
                unit: self.attribute_ref()?,
                file: self.attribute_ref()?,
                name: self.text()?,
                linkage_name: self.text()?,
                entries: self.attribute_refs()?,
            },
            code::LOCATION => Attribute::Location {
                source: self.attribute_ref()?,
                scope: self.attribute_ref()?,
                fused: self.attribute_refs()?,
                metadata: self.attribute_refs()?,
            },
            other => match Enumeration::from_code(other) {
                Some(of) => Attribute::Enumeration { of, value: self.cursor.varint()? },
                None => return Err(self.cursor.fault(format!("no attribute has the code {other}"))),
            },
        })
    }

    fn ty(&mut self) -> Result<Type, Fault> {
        let code = self.cursor.varint()?;
        Ok(match code {
            code::TENSOR => {
                let shape = self.cursor.list(dim)?;
                if shape.len() > MOST_AXES {
                    return Err(self.cursor.fault(format!("a tensor with {} axes", shape.len())));
                }
                Type::Tensor { shape, element: self.element_ref()? }
            }
            code::FUNCTION => Type::Function { results: self.type_refs()?, operands: self.type_refs()? },
            code::HANDLE => Type::Handle(self.type_ref()?),
            code::TOKEN => Type::Token,
            code::DEBUG_UNRESOLVED => Type::DebugUnresolved(self.type_ref()?),
            other => match Element::from_code(other) {
                Some(element) => Type::Element(element),
                None => return Err(self.cursor.fault(format!("no type has the code {other}"))),
            },
        })
    }

    /// A type that must be an element type.
    fn element_ref(&mut self) -> Result<TypeId, Fault> {
        let id = self.type_ref()?;
        match self.module.as_element(id) {
            Some(_) => Ok(id),
            None => Err(self.cursor.fault("the element of a tensor is not an element type")),
        }
    }
}

fn dim(cursor: &mut Cursor<'_>) -> Result<Dim, Fault> {
    match cursor.signed()? {
        DYNAMIC => Ok(Dim::Dynamic),
        extent => {
            u64::try_from(extent).map(Dim::Fixed).map_err(|_| cursor.fault(format!("an extent of {extent}")))
        }
    }
}
