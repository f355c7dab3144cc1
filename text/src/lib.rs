//! Untrusted text on its way out: names of tensors and files, fields of manifests, answers of servers.
//!
//! Four doors, each the only one of its kind: [`terminal`] for what people read, [`markup`] for YAML and Markdown, [`names`] for
//! what becomes a path, [`small`] for files that are read whole.

pub mod bounds;
mod count;
pub mod markup;
pub mod names;
pub mod shell;
pub mod small;
pub mod terminal;

pub use count::counted;
