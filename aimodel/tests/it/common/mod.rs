//! Files in memory: what a layout and some blobs make, and the reference packages.

#![allow(unreachable_pub)]

pub mod alignment;
pub mod cases;
pub mod mutation;
pub mod raw;

use std::path::PathBuf;

use aimodel::bytecode::layout::Layout;
use aimodel::bytecode::reader::Bytecode;
use aimodel::{Module, Resource};
use sha2::{Digest, Sha256};

/// The packages that Apple's tools wrote.
pub const REFERENCES: [&str; 4] =
    ["provider.f16", "provider.int4-symmetric", "provider.int8-symmetric", "tbl.int4-symmetric"];

/// Packages by the same tools, of lookups alone: blobs have constants of several types.
pub const TABLES: [&str; 4] = [
    "tables/byte-table-shared-head",
    "tables/dequantized-shared-head",
    "tables/shared-head",
    "tables/byte-table-per-layer",
];

/// Directory of a reference package.
pub fn reference(name: &str) -> PathBuf {
    let data = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/data/reference"));
    data.join(format!("{name}.aimodel"))
}

/// Program of a reference package.
pub fn reference_program(name: &str) -> Vec<u8> {
    std::fs::read(reference(name).join("main.mlirb")).unwrap()
}

/// A whole file, with blobs from `content`.
pub fn file(module: &Module, content: impl Fn(&Resource) -> Vec<u8>) -> Vec<u8> {
    let layout = Layout::new(module).unwrap();
    let mut bytes = layout.prefix.clone();
    for placement in &layout.placements {
        let blob = content(module.resource(placement.resource));
        bytes.extend_from_slice(&placement.head);
        assert_eq!(bytes.len() as u64, placement.offset);
        assert_eq!(blob.len() as u64, placement.length);
        bytes.extend_from_slice(&blob);
    }
    bytes.extend_from_slice(&layout.suffix);
    assert_eq!(bytes.len() as u64, layout.total);
    bytes
}

/// A whole file whose blobs hold [`content`].
pub fn file_with_any_blobs(module: &Module) -> Vec<u8> {
    file(module, content)
}

/// Bytes derived from a blob's key: valid elements of every type, bool included.
pub fn content(resource: &Resource) -> Vec<u8> {
    let seed =
        resource.key.bytes().fold(7_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
    (0..resource.length).map(|at| u8::from((seed ^ at.wrapping_mul(0x9E37_79B9)) >> 5 & 3 == 0)).collect()
}

/// SHA-256 in hexadecimal.
pub fn hex_digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The file that is written from the content of a file.
pub fn rewritten(bytes: &[u8], read: &Bytecode) -> Vec<u8> {
    file(&read.module, |resource| {
        let id = read.module.find_resource(&resource.key).unwrap();
        let blob = read.blobs[id.index()];
        bytes[blob.offset as usize..(blob.offset + blob.length) as usize].to_vec()
    })
}
