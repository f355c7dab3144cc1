//! Encodes the sections of a file that hold no blobs.

use indexmap::IndexSet;

use super::attributes::{Fields, attribute_fields, type_fields};
use super::numbering::Numbering;
use super::varint::Buffer;
use super::{DIALECT, ENCODING, mask, section};
use crate::attribute::{AttributeId, ResourceId};
use crate::module::{BlockId, Definition, Module, OpId, RegionId};
use crate::types::TypeId;

/// State shared by the sections: strings and properties are numbered in order of first use.
pub(super) struct Encoder<'m> {
    module: &'m Module,
    pub(super) numbering: &'m Numbering,
    strings: IndexSet<String>,
    properties: IndexSet<Vec<u8>>,
}

impl<'m> Encoder<'m> {
    pub(super) fn new(module: &'m Module, numbering: &'m Numbering) -> Self {
        Encoder { module, numbering, strings: IndexSet::new(), properties: IndexSet::new() }
    }

    fn string(&mut self, text: &str) -> u64 {
        if let Some(id) = self.strings.get_index_of(text) {
            return id as u64;
        }
        self.strings.insert_full(text.to_owned()).0 as u64
    }

    /// Dialect section: the dialect with its encoding version, then the op names.
    pub(super) fn dialects(&mut self) -> Buffer {
        let mut out = Buffer::default();
        out.varint(1);
        let name = self.string(DIALECT);
        out.flagged(name, true);
        out.section(section::DIALECT_VERSION, &Buffer { bytes: ENCODING.to_vec() });
        let opcodes = &self.numbering.opcodes.items;
        out.length(opcodes.len());
        out.varint(0);
        out.length(opcodes.len());
        for opcode in opcodes {
            let name = self.string(opcode.name());
            out.flagged(name, true);
        }
        out
    }

    /// The attribute/type offsets section and the attribute/type section.
    pub(super) fn attributes_and_types(&mut self) -> (Buffer, Buffer) {
        let (attributes, types) = (&self.numbering.attributes.items, &self.numbering.types.items);
        let (mut offsets, mut body) = (Buffer::default(), Buffer::default());
        offsets.length(attributes.len());
        offsets.length(types.len());
        start_group(&mut offsets, attributes.len());
        for id in attributes {
            let entry = self.entry(|fields| attribute_fields(fields.encoder.module.attribute(*id), fields));
            offsets.flagged(entry.bytes.len() as u64, true);
            body.raw(&entry.bytes);
        }
        start_group(&mut offsets, types.len());
        for id in types {
            let entry = self.entry(|fields| type_fields(fields.encoder.module.ty(*id), fields));
            offsets.flagged(entry.bytes.len() as u64, true);
            body.raw(&entry.bytes);
        }
        (offsets, body)
    }

    fn entry(&mut self, write: impl FnOnce(&mut EntryFields<'_, 'm>)) -> Buffer {
        let mut fields = EntryFields { encoder: self, out: Buffer::default() };
        write(&mut fields);
        fields.out
    }

    /// IR section: the root op.
    pub(super) fn ir(&mut self, root: OpId) -> Buffer {
        let mut out = Buffer::default();
        out.flagged(1, false);
        self.op(root, &mut out);
        out
    }

    fn op(&mut self, id: OpId, out: &mut Buffer) {
        let op = self.module.op(id);
        let has_properties = !op.properties.is_empty();
        let mut parts = 0;
        for (present, bit) in [
            (has_properties, mask::PROPERTIES),
            (!op.results.is_empty(), mask::RESULTS),
            (!op.operands.is_empty(), mask::OPERANDS),
            (!op.regions.is_empty(), mask::REGIONS),
        ] {
            parts |= if present { bit } else { 0 };
        }
        out.varint(self.numbering.opcodes.id(op.opcode));
        out.byte(parts);
        out.varint(self.numbering.attributes.id(op.location));
        if has_properties {
            let index = self.properties(id);
            out.varint(index);
        }
        if !op.results.is_empty() {
            out.length(op.results.len());
            for result in &op.results {
                out.varint(self.numbering.types.id(self.module.value(*result).ty));
            }
        }
        if !op.operands.is_empty() {
            out.length(op.operands.len());
            op.operands.iter().for_each(|operand| out.varint(self.numbering.value(*operand)));
        }
        if !op.regions.is_empty() {
            self.regions(id, out);
        }
    }

    /// Index of an op's property bytes in the properties section; equal bytes are stored once.
    fn properties(&mut self, id: OpId) -> u64 {
        let op = self.module.op(id);
        let mut out = Buffer::default();
        for (name, property) in op.opcode.properties().iter().zip(&op.properties) {
            match (property, name.ends_with('?')) {
                (Some(property), false) => out.varint(self.numbering.attributes.id(*property)),
                (Some(property), true) => out.flagged(self.numbering.attributes.id(*property), true),
                (None, _) => out.varint(0),
            }
        }
        self.properties.insert_full(out.bytes).0 as u64
    }

    fn regions(&mut self, id: OpId, out: &mut Buffer) {
        let op = self.module.op(id);
        let isolated = self.numbering.is_isolated(id);
        out.flagged(op.regions.len() as u64, isolated);
        if isolated {
            let mut body = Buffer::default();
            op.regions.iter().for_each(|region| self.region(*region, &mut body));
            out.section(section::IR, &body);
        } else {
            op.regions.iter().for_each(|region| self.region(*region, out));
        }
    }

    fn region(&mut self, id: RegionId, out: &mut Buffer) {
        let region = self.module.region(id);
        out.length(region.blocks.len());
        if region.blocks.is_empty() {
            return;
        }
        out.varint(self.numbering.values_in(id));
        region.blocks.iter().for_each(|block| self.block(*block, out));
    }

    fn block(&mut self, id: BlockId, out: &mut Buffer) {
        let block = self.module.block(id);
        out.flagged(block.ops.len() as u64, !block.arguments.is_empty());
        if !block.arguments.is_empty() {
            out.length(block.arguments.len());
            for argument in &block.arguments {
                let value = self.module.value(*argument);
                let Definition::Argument { location, .. } = value.definition else {
                    unreachable!("arguments of a block are defined by it")
                };
                out.flagged(self.numbering.types.id(value.ty), true);
                out.varint(self.numbering.attributes.id(location));
            }
            out.byte(0); // no use-list orders
        }
        block.ops.iter().for_each(|op| self.op(*op, out));
    }

    /// Resource offsets section. `entries` are sizes in the resource section, head and padding included.
    pub(super) fn resource_offsets(&mut self, entries: &[(ResourceId, u64)]) -> Buffer {
        let mut out = Buffer::default();
        out.varint(0); // external groups
        if !entries.is_empty() {
            let dialect = self.string(DIALECT);
            out.varint(dialect);
            out.length(entries.len());
        }
        for (id, size) in entries {
            let key = self.string(&self.module.resource(*id).key.clone());
            out.varint(key);
            out.varint(*size);
            out.byte(0); // a blob
        }
        out
    }

    /// String section: lengths in reverse order, then the strings.
    pub(super) fn string_section(&self) -> Buffer {
        let mut out = Buffer::default();
        out.length(self.strings.len());
        self.strings.iter().rev().for_each(|text| out.length(text.len() + 1));
        for text in &self.strings {
            out.raw(text.as_bytes());
            out.byte(0);
        }
        out
    }

    /// Properties section.
    pub(super) fn property_section(&self) -> Buffer {
        let mut out = Buffer::default();
        out.length(self.properties.len());
        for entry in &self.properties {
            out.length(entry.len());
            out.raw(entry);
        }
        out
    }
}

/// Entries of a table belong to a dialect, of which there is one: number 0.
fn start_group(out: &mut Buffer, count: usize) {
    if count > 0 {
        out.varint(0);
        out.length(count);
    }
}

/// Writes the fields of one attribute or type.
struct EntryFields<'e, 'm> {
    encoder: &'e mut Encoder<'m>,
    out: Buffer,
}

impl Fields for EntryFields<'_, '_> {
    fn varint(&mut self, value: u64) {
        self.out.varint(value);
    }

    fn signed(&mut self, value: i64) {
        self.out.signed(value);
    }

    fn byte(&mut self, value: u8) {
        self.out.byte(value);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.out.raw(bytes);
    }

    fn string(&mut self, text: &str) {
        let id = self.encoder.string(text);
        self.out.varint(id);
    }

    fn attribute(&mut self, id: AttributeId) {
        self.out.varint(self.encoder.numbering.attributes.id(id));
    }

    fn ty(&mut self, id: TypeId) {
        self.out.varint(self.encoder.numbering.types.id(id));
    }

    fn resource(&mut self, id: ResourceId) {
        self.out.varint(self.encoder.numbering.resources.id(id));
    }
}
