//! Statistics of weights for people.

use coreai_bundle::inspect::WeightSummary;

use crate::columns::Columns;
use crate::digits;
use crate::terminal;

/// A line for each weight.
pub(super) fn text(all: &[WeightSummary]) -> String {
    let mut columns = Columns::new(&["weight", "type", "shape", "size", "rms", "largest", "scales"]);
    for one in all {
        let scales = one.scales.as_ref();
        let range = scales.map(|scales| format!("{:.1e}..{:.1e}", scales.smallest, scales.largest));
        columns.row(vec![
            one.name.clone(),
            one.format.clone(),
            one.shape.iter().map(u64::to_string).collect::<Vec<_>>().join("x"),
            digits::bytes(one.bytes),
            one.values.as_ref().map(|values| format!("{:.4}", values.rms)).unwrap_or_default(),
            one.values.as_ref().map(|values| format!("{:.3}", values.largest)).unwrap_or_default(),
            range.unwrap_or_default(),
        ]);
    }
    columns.text(terminal::width())
}
