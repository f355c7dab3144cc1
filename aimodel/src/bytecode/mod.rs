//! The bytecode: MLIR bytecode version 6 with the `aicode` dialect, encoding version 2.
//!
//! [`layout`] turns a module into everything except for the blobs, and says where each blob goes; a writer then only streams.
//! [`reader`] is independent of it: it shares the tables of ops, attributes and types, and no code.

pub mod layout;
pub mod reader;

mod attributes;
mod encoder;
mod numbering;
mod varint;

pub(crate) use attributes::{Fields, attribute_fields, type_fields};

/// First bytes of every file.
const MAGIC: [u8; 4] = *b"ML\xefR";
/// Version of the container that Apple's tools write.
const VERSION: u64 = 6;
/// Producer string that Apple's serializer writes; a file with another one is rewritten to this on save.
const PRODUCER: &str = "MLIR22.0.0git";
/// The only dialect.
const DIALECT: &str = "aicode";
/// Encoding version of the dialect, as its bytes in the file: a varint 2. No other is accepted by Apple's loader.
const ENCODING: [u8; 1] = [0x05];
/// Filler in front of aligned data.
const PADDING: u8 = 0xCB;
/// `INT64_MIN` represents a dynamic extent.
const DYNAMIC: i64 = i64::MIN;

/// Ids of the sections of a file.
mod section {
    pub(super) const STRING: u8 = 0;
    pub(super) const DIALECT: u8 = 1;
    pub(super) const ATTRIBUTE_TYPE: u8 = 2;
    pub(super) const ATTRIBUTE_TYPE_OFFSETS: u8 = 3;
    pub(super) const IR: u8 = 4;
    pub(super) const RESOURCE: u8 = 5;
    pub(super) const RESOURCE_OFFSETS: u8 = 6;
    pub(super) const DIALECT_VERSION: u8 = 7;
    pub(super) const PROPERTIES: u8 = 8;
    /// Set in the id byte of a section whose body is aligned with padding.
    pub(super) const ALIGNED: u8 = 0x80;
}

/// Bits of the byte that says which parts an op has.
mod mask {
    pub(super) const ATTRIBUTES: u8 = 0x01;
    pub(super) const RESULTS: u8 = 0x02;
    pub(super) const OPERANDS: u8 = 0x04;
    pub(super) const SUCCESSORS: u8 = 0x08;
    pub(super) const REGIONS: u8 = 0x10;
    pub(super) const USE_LISTS: u8 = 0x20;
    pub(super) const PROPERTIES: u8 = 0x40;
}

/// Codes of attributes and types that have no separate table.
mod code {
    pub(super) const STRING: u64 = 1;
    pub(super) const INTEGER: u64 = 2;
    pub(super) const FLOAT: u64 = 3;
    pub(super) const TYPE: u64 = 4;
    pub(super) const ARRAY: u64 = 5;
    pub(super) const DENSE_ELEMENTS: u64 = 6;
    pub(super) const DENSE_RESOURCE: u64 = 7;
    pub(super) const OPAQUE: u64 = 9;
    pub(super) const PARAMETER_DECLARATION: u64 = 10;
    pub(super) const SYMBOL_REFERENCE: u64 = 14;
    pub(super) const FILE: u64 = 30;
    pub(super) const SOURCE_LOCATION: u64 = 31;
    pub(super) const COMPILE_UNIT: u64 = 32;
    pub(super) const METADATA_DATA: u64 = 33;
    pub(super) const METADATA: u64 = 35;
    pub(super) const SUBPROGRAM: u64 = 36;
    pub(super) const LOCATION: u64 = 40;
    pub(super) const DICTIONARY: u64 = 45;
    pub(super) const UNIT: u64 = 46;

    pub(super) const TENSOR: u64 = 2;
    pub(super) const FUNCTION: u64 = 30;
    pub(super) const HANDLE: u64 = 31;
    pub(super) const TOKEN: u64 = 32;
    pub(super) const DEBUG_UNRESOLVED: u64 = 41;
}
