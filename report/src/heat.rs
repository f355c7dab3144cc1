//! A map of layers and projections, one cell for each matrix.

use serde::Serialize;

use crate::digits::{self, EXACT};
use crate::facts::Report;
use crate::tensor::{Recovery, Tensor};

/// Projections in the order in which a layer computes them. Others follow by name.
const ORDER: [&str; 9] = [
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
    "per_layer_input_gate",
    "per_layer_projection",
];

/// Relative errors at the pale end and the dark end, as powers of ten.
const PALE: f64 = -3.0;
const DARK: f64 = -1.0;

/// A map.
#[derive(Debug, Serialize)]
pub(crate) struct Heat {
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: Vec<HeatRow>,
    /// What colors mean, from pale to dark.
    pub(crate) scale: Vec<Cell>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Column {
    /// A few letters.
    pub(crate) short: String,
    pub(crate) name: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct HeatRow {
    pub(crate) label: String,
    /// Nothing where a layer has no such matrix.
    pub(crate) cells: Vec<Option<Cell>>,
}

/// A cell, with how dark it is in percent.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Cell {
    pub(crate) level: u32,
    pub(crate) text: String,
    pub(crate) title: String,
}

/// The share of weights that were kept; pale is all of them.
pub(crate) fn exact(report: &Report) -> Option<Heat> {
    let step = |(level, text): (u32, &str)| Cell { level, text: text.to_owned(), title: String::new() };
    let is_lossy = in_layers(report).any(|recovery| !recovery.is_exact());
    let scale =
        [(0, "100 %"), (50, "50 %"), (100, "0 %")].into_iter().filter(|_| is_lossy).map(step).collect();
    heat(report, scale, |recovery| {
        let share = recovery.weights_exact as f64 / recovery.weights.max(1) as f64;
        // Anything less than all is never shown as all.
        let text =
            if recovery.is_exact() { EXACT.to_owned() } else { format!("{}", (100.0 * share).floor()) };
        (((1.0 - share) * 100.0).ceil() as u32, text)
    })
}

/// Relative errors, in powers of ten; nothing if all matrices are exact: what is left then is the rounding of bf16.
pub(crate) fn errors(report: &Report) -> Option<Heat> {
    if in_layers(report).all(Recovery::is_exact) {
        return None;
    }
    let step = |power: i32| Cell {
        level: level(10_f64.powi(power)),
        text: format!("10^{power}"),
        title: String::new(),
    };
    heat(report, [-3, -2, -1].map(step).to_vec(), |recovery| {
        if recovery.is_exact() {
            return (0, EXACT.to_owned());
        }
        let error = recovery.relative_error;
        (level(error), format!("{:.1}", error.log10()))
    })
}

fn in_layers(report: &Report) -> impl Iterator<Item = &Recovery> {
    let in_layers = report.tensors.iter().filter(|tensor| tensor.layer().is_some());
    in_layers.filter_map(|tensor| tensor.recovery.as_ref())
}

fn level(error: f64) -> u32 {
    let share = (error.max(f64::MIN_POSITIVE).log10() - PALE) / (DARK - PALE);
    (100.0 * share.clamp(0.0, 1.0)) as u32
}

fn heat(report: &Report, scale: Vec<Cell>, cell: impl Fn(&Recovery) -> (u32, String)) -> Option<Heat> {
    let known: Vec<(usize, &Tensor, &Recovery)> = report
        .tensors
        .iter()
        .filter_map(|tensor| Some((tensor.layer()?, tensor, tensor.recovery.as_ref()?)))
        .collect();
    let last = known.iter().map(|(layer, ..)| *layer).max()?;
    let mut names: Vec<&str> = known.iter().map(|(_, tensor, _)| tensor.projection()).collect();
    names.sort_by_key(|name| (ORDER.iter().position(|known| known == name).unwrap_or(ORDER.len()), *name));
    names.dedup();
    let cell_of = |layer: usize, name: &str| {
        let (_, tensor, recovery) =
            known.iter().find(|(at, tensor, _)| *at == layer && tensor.projection() == name)?;
        let (level, text) = cell(recovery);
        Some(Cell { level, text, title: title(tensor, recovery) })
    };
    let row = |layer: usize| HeatRow {
        label: layer.to_string(),
        cells: names.iter().map(|name| cell_of(layer, name)).collect(),
    };
    Some(Heat {
        columns: names.iter().map(|name| Column { short: short(name), name: (*name).to_owned() }).collect(),
        rows: (0..=last).map(row).collect(),
        scale,
    })
}

/// A cell's numbers in words.
pub(crate) fn title(tensor: &Tensor, recovery: &Recovery) -> String {
    let name = format!("{} {}", tensor.name, digits::shape(&tensor.shape));
    if recovery.is_exact() {
        return format!("{name}: every weight exact");
    }
    let lattice = if tensor.has_4_bit_codes() {
        format!("{} of blocks on the lattice, ", digits::percent(recovery.blocks_on_lattice, recovery.blocks))
    } else {
        String::new()
    };
    format!(
        "{name}: {lattice}{} of weights exact, relative error {:.2e}",
        digits::percent(recovery.weights_exact, recovery.weights),
        recovery.relative_error
    )
}

fn short(name: &str) -> String {
    match name {
        "per_layer_input_gate" => "ple in".to_owned(),
        "per_layer_projection" => "ple out".to_owned(),
        name => name.strip_suffix("_proj").unwrap_or(name).to_owned(),
    }
}
