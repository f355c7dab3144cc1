//! How far a bundle is from its checkpoint on a text: perplexity, Kullback-Leibler divergence, agreement.
//!
//! [`Windows`] cut a text into sequences. [`reference::compute`] turns them into [`logits`]: the checkpoint's distribution at each
//! position, in a file. [`bundle::measure`] feeds the same windows to a bundle and compares it position by position; the
//! [`report`] follows from those results alone, so a run that was cut off and continued says the same as one that was not.

pub mod bundle;
pub mod logits;
pub mod reference;
pub mod report;
mod share;
mod windows;

pub use share::Share;
pub use windows::{Window, WindowError, WindowShape, Windows};

/// The text that comes with the tool: prose, code, several languages and a chat, written for this purpose.
pub const DEFAULT_TEXT: &str = include_str!("default_text.txt");
