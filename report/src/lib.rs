//! The report of a conversion, or of a package that somebody else made: facts ([`Report`], which is `report.json`) and the page
//! that shows them ([`html::render`], which is `report.html`).
//!
//! The page is one file without scripts: it does not use the network, and every chart is HTML, CSS or SVG that is made here.

mod bars;
pub mod digits;
mod facts;
mod heat;
pub mod html;
mod plot;
mod slots;
mod tensor;

pub use facts::{
    Agreement, CacheMemory, Conversion, CurvePart, Download, Evaluation, Exactness, FunctionWork, Gate,
    Group, Memory, Origin, Position, Report, Sequence, Size, Slot, Stretch, Timing,
};
pub use tensor::{Codes, Recovery, Tensor, Worst, layer_of};
