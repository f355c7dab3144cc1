//! The `.aimodel` package format.
//!
//! A graph is built with [`build::AssetBuilder`] (types and shapes are inferred, decomposition regions are made), held as a
//! [`Module`], checked by [`verify`], printed by [`mod@print`], laid out by [`bytecode::layout::Layout`] and written as a package
//! directory by [`package`]. [`bytecode::reader`] reads any package back without touching its blobs; [`mod@align`] says which ops
//! of two graphs are the same and how others differ, [`view`] what functions, ports and weights there are. Nothing here knows about
//! Gemma, quantization or the network.

pub mod align;
pub mod attribute;
pub mod build;
pub mod bytecode;
pub mod describe;
pub mod element;
mod fingerprint;
pub mod infer;
pub mod module;
pub mod opcode;
pub mod package;
pub mod print;
pub mod types;
pub mod verify;
pub mod view;

pub use attribute::{Attribute, AttributeId, Enumeration, ResourceId};
pub use element::Element;
pub use module::{Block, BlockId, Definition, Module, Op, OpId, Region, RegionId, Resource, Value, ValueId};
pub use opcode::Opcode;
pub use types::{Dim, TensorType, Type, TypeId};
