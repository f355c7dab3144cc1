//! The report of a conversion, or of a package that somebody else made: facts ([`Report`], which is `report.json`) and the page
//! that shows them ([`html::render`], which is `report.html`).
//!
//! The page is one file without scripts: it does not use the network, and every chart is HTML, CSS or SVG that is made here.

mod bars;
pub mod digits;
mod evaluations;
mod facts;
mod gates;
mod heat;
pub mod html;
mod merged;
mod plot;
mod slots;
mod story;
mod tensor;
mod words;

pub use facts::{
    Agreement, CacheMemory, Conversion, CurvePart, Digest, Distances, Download, Evaluation, Exactness, Flip,
    FunctionWork, Gate, Group, Memory, Origin, Position, Report, RuleOutcome, Sequence, Size, Slot, Stretch,
    Timing, Token,
};
pub use tensor::{Codes, Recovery, Tensor, Worst, layer_of};
