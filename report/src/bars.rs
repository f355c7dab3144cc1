//! Horizontal bars, plain and stacked.

use serde::Serialize;

use crate::digits;
use crate::facts::{Group, Report};
use crate::tensor::Codes;

/// A bar for each row.
#[derive(Debug, Serialize)]
pub(crate) struct Bars {
    pub(crate) rows: Vec<Bar>,
}

/// A label, a bar, and a number.
#[derive(Debug, Serialize)]
pub(crate) struct Bar {
    pub(crate) label: String,
    /// Lengths in percent of the whole width, each with its color and tooltip.
    pub(crate) parts: Vec<Segment>,
    pub(crate) value: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Segment {
    /// Number of the color, from 0.
    pub(crate) color: usize,
    pub(crate) width: String,
    pub(crate) title: String,
}

/// A label with a length and the text beside it.
pub(crate) struct Row {
    pub(crate) label: String,
    pub(crate) length: f64,
    pub(crate) value: String,
}

impl Bars {
    /// Bars of one color; the longest takes all the width.
    pub(crate) fn plain(rows: Vec<Row>) -> Self {
        let longest = rows.iter().map(|row| row.length).fold(0.0, f64::max);
        let bar = |row: Row| {
            let title = format!("{}: {}", row.label, row.value);
            let parts = vec![Segment { color: 0, width: share(row.length, longest), title }];
            Bar { label: row.label, parts, value: row.value }
        };
        Bars { rows: rows.into_iter().map(bar).collect() }
    }
}

fn share(part: f64, whole: f64) -> String {
    format!("{:.2}", if whole > 0.0 { 100.0 * part / whole } else { 0.0 })
}

/// Bytes of each group.
pub(crate) fn groups(report: &Report) -> Bars {
    let total: u64 = report.sizes.iter().map(|size| size.bytes).sum();
    let of = |group: Group| -> u64 {
        report.sizes.iter().filter(|size| size.group == group).map(|size| size.bytes).sum()
    };
    let present = Group::ALL.into_iter().map(|group| (group, of(group))).filter(|(_, bytes)| *bytes > 0);
    let mut bars = Bars::plain(
        present
            .clone()
            .map(|(group, bytes)| Row {
                label: group.title().to_owned(),
                length: bytes as f64,
                value: format!(
                    "{} · {:.1} %",
                    digits::bytes(bytes),
                    100.0 * bytes as f64 / total.max(1) as f64
                ),
            })
            .collect(),
    );
    // The colors of the layers' bars below.
    for (bar, (group, _)) in bars.rows.iter_mut().zip(present) {
        bar.parts.iter_mut().for_each(|part| part.color = color(group));
    }
    bars
}

fn color(group: Group) -> usize {
    Group::ALL.iter().position(|known| *known == group).unwrap_or_default()
}

/// Bytes of each layer, by group.
pub(crate) fn layers(report: &Report) -> Bars {
    let layers = report.sizes.iter().filter_map(|size| size.layer).max().map_or(0, |last| last + 1);
    let of_layer = |layer: usize| report.sizes.iter().filter(move |size| size.layer == Some(layer));
    let total = |layer: usize| -> u64 { of_layer(layer).map(|size| size.bytes).sum() };
    let largest = (0..layers).map(total).max().unwrap_or(0) as f64;
    let bar = |layer: usize| {
        let part = |group: Group| {
            let bytes: u64 = of_layer(layer).filter(|size| size.group == group).map(|size| size.bytes).sum();
            let title = format!("layer {layer}, {}: {}", group.title(), digits::bytes(bytes));
            (bytes > 0).then(|| Segment { color: color(group), width: share(bytes as f64, largest), title })
        };
        Bar {
            label: layer.to_string(),
            parts: Group::ALL.into_iter().filter_map(part).collect(),
            value: digits::bytes(total(layer)),
        }
    };
    Bars { rows: (0..layers).map(bar).collect() }
}

/// How often each code occurs; nothing without 4-bit codes. Also says whether only the blocks' extrema are counted.
pub(crate) fn codes(report: &Report) -> Option<(Bars, bool)> {
    let mut sums = [0_u64; 16];
    let mut of_extrema = false;
    for codes in report.tensors.iter().filter_map(|tensor| tensor.codes.as_ref()) {
        of_extrema |= matches!(codes, Codes::OfExtrema(_));
        sums.iter_mut().zip(codes.counts()).for_each(|(sum, count)| *sum += count);
    }
    let total: u64 = sums.iter().sum();
    let row = |(at, count): (usize, &u64)| Row {
        label: if at == 8 { "0".to_owned() } else { format!("{:+}", at as i64 - 8) },
        length: *count as f64,
        value: in_share(*count, total),
    };
    (total > 0).then(|| (Bars::plain(sums.iter().enumerate().map(row).collect()), of_extrema))
}

/// How often scales have each power of two, without the empty ends.
pub(crate) fn scales(report: &Report) -> Option<Bars> {
    let mut sums = [0_u64; 32];
    for tensor in &report.tensors {
        sums.iter_mut().zip(tensor.scale_exponents).for_each(|(sum, count)| *sum += count);
    }
    let total: u64 = sums.iter().sum();
    let first = sums.iter().position(|count| *count > 0)?;
    let last = sums.iter().rposition(|count| *count > 0)?;
    let row = |at: usize| Row {
        label: if at == 0 { "< 2^-14".to_owned() } else { format!("2^{}", at as i64 - 15) },
        length: sums[at] as f64,
        value: in_share(sums[at], total),
    };
    Some(Bars::plain((first..=last).map(row).collect()))
}

fn in_share(count: u64, total: u64) -> String {
    let share = 100.0 * count as f64 / total.max(1) as f64;
    format!("{} · {share:.1} %", digits::grouped(count))
}

/// Seconds of each stage, with the rate.
pub(crate) fn stages(report: &Report) -> Bars {
    let row = |timing: &crate::facts::Timing| {
        let rate = timing.bytes.filter(|_| timing.seconds > 0.0);
        let rate =
            rate.map(|bytes| format!(" · {}/s", digits::bytes((bytes as f64 / timing.seconds) as u64)));
        Row {
            label: timing.stage.clone(),
            length: timing.seconds,
            value: format!("{:.2} s{}", timing.seconds, rate.unwrap_or_default()),
        }
    };
    Bars::plain(report.timings.iter().map(row).collect())
}

/// Milliseconds of each part.
pub(crate) fn stretches(report: &Report) -> Bars {
    let row = |stretch: &crate::facts::Stretch| Row {
        label: stretch.name.clone(),
        length: stretch.seconds,
        value: format!("{:.0} ms · {}", 1000.0 * stretch.seconds, digits::bytes(stretch.bytes)),
    };
    Bars::plain(report.stretches.iter().map(row).collect())
}
