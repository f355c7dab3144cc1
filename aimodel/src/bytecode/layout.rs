//! Lays a module out as a file: all bytes except for the blobs, and the place of each blob.

use super::encoder::Encoder;
use super::numbering::Numbering;
use super::varint::{Buffer, padding_to};
use super::{MAGIC, PRODUCER, VERSION, section};
use crate::attribute::ResourceId;
use crate::module::{Module, OpId};

/// Loaders map a file into memory unless its size is a multiple of this (the page): then they read it whole.
const PAGE: u64 = 4096;

/// Where one blob goes, and the bytes before it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placement {
    /// Which resource of the module.
    pub resource: ResourceId,
    /// Bytes to write just before the blob: alignment, length, padding.
    pub head: Vec<u8>,
    /// Offset of the blob's first byte in the file.
    pub offset: u64,
    /// Length of the blob in bytes.
    pub length: u64,
}

/// A file without its blobs. The file is `prefix`, then each placement's head and blob, then `suffix`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Everything in front of the first placement.
    pub prefix: Vec<u8>,
    /// Blobs in file order.
    pub placements: Vec<Placement>,
    /// Everything after the last blob.
    pub suffix: Vec<u8>,
    /// Size of the whole file in bytes.
    pub total: u64,
}

impl Layout {
    /// Lays out a module in canonical order: the bytes that Apple's own serializer would write for it.
    ///
    /// Returns `None` for a module without a root, or one whose blobs add up to more than 2^63 bytes.
    pub fn new(module: &Module) -> Option<Layout> {
        let root = module.root()?;
        let numbering = Numbering::new(module, root);
        let (entries, body) = resource_entries(module, &numbering.resources.items)?;
        Some(assemble(module, root, &numbering, entries, body))
    }

    /// Lays out a module whose file would otherwise have a size that loaders do not map: a multiple of the page size.
    /// The key of the last resource then gets one more character, `~`, which every tool ignores.
    pub fn avoiding_whole_pages(module: &mut Module) -> Option<Layout> {
        let mut layout = Layout::new(module)?;
        while layout.total.is_multiple_of(PAGE) {
            // Without blobs there is nothing to map.
            let Some(last) = layout.placements.last().map(|placement| placement.resource) else { break };
            let longer = format!("{}~", module.resource(last).key);
            module.rename_resource(last, longer);
            layout = Layout::new(module)?;
        }
        Some(layout)
    }
}

/// Heads and places of the blobs relative to the section's body, and the body's length.
fn resource_entries(module: &Module, order: &[ResourceId]) -> Option<(Vec<Placement>, u64)> {
    let mut position = 0_u64;
    let mut entries = Vec::with_capacity(order.len());
    for id in order {
        let resource = module.resource(*id);
        let mut head = Buffer::default();
        head.varint(resource.alignment);
        head.varint(resource.length);
        let unpadded = position.checked_add(head.bytes.len() as u64)?;
        let padding = padding_to(unpadded, resource.alignment);
        head.bytes.resize(head.bytes.len() + usize::try_from(padding).ok()?, super::PADDING);
        let offset = unpadded.checked_add(padding)?;
        entries.push(Placement { resource: *id, head: head.bytes, offset, length: resource.length });
        position = offset.checked_add(resource.length)?;
    }
    (position <= u64::MAX / 2).then_some((entries, position))
}

fn assemble(
    module: &Module,
    root: OpId,
    numbering: &Numbering,
    mut placements: Vec<Placement>,
    body: u64,
) -> Layout {
    let mut encoder = Encoder::new(module, numbering);
    let mut prefix = Buffer::default();
    prefix.raw(&MAGIC);
    prefix.varint(VERSION);
    prefix.raw(PRODUCER.as_bytes());
    prefix.byte(0);
    prefix.section(section::DIALECT, &encoder.dialects());
    let (offsets, entries) = encoder.attributes_and_types();
    prefix.section(section::ATTRIBUTE_TYPE_OFFSETS, &offsets);
    prefix.section(section::ATTRIBUTE_TYPE, &entries);
    prefix.section(section::IR, &encoder.ir(root));
    let sizes: Vec<_> =
        placements.iter().map(|entry| (entry.resource, entry.head.len() as u64 + entry.length)).collect();
    prefix.section(section::RESOURCE_OFFSETS, &encoder.resource_offsets(&sizes));
    let alignment =
        placements.iter().map(|entry| module.resource(entry.resource).alignment).max().unwrap_or(1);
    prefix.aligned_section_head(section::RESOURCE, body, alignment);

    let start = prefix.bytes.len() as u64;
    placements.iter_mut().for_each(|entry| entry.offset += start);
    let mut suffix = Buffer::default();
    suffix.section(section::STRING, &encoder.string_section());
    suffix.section(section::PROPERTIES, &encoder.property_section());
    let total = start + body + suffix.bytes.len() as u64;
    Layout { prefix: prefix.bytes, placements, suffix: suffix.bytes, total }
}
