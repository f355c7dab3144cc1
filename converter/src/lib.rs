//! Checkpoint to bundle content: recipe, plan, decoder graph, tables.
//!
//! [`Model::open`] reads a checkpoint's configuration and headers, [`Model::plan`] says what a conversion will write, byte for
//! byte, and [`Model::write`] streams it there. Nothing here knows how a bundle is put together or published.

pub mod blob;
pub mod decoder;
pub mod embedding;
pub mod head;
pub mod journal;
pub mod name;
pub mod ordered;
pub mod pattern;
pub mod plan;
pub mod recipe;
pub mod statistics;
pub mod stock;
pub mod tables;

mod buffers;
mod error;
mod graphs;
mod model;

pub use error::{ConvertError, PlanError};
pub use model::{Model, Outputs, Plan, Request, Written};
