//! Curves over the positions of a gate.

use serde::Serialize;

use crate::digits;
use crate::facts::{self, Gate, Position, Sequence};
use crate::gates::token;

/// Height of a plot in its own units; its width is the number of positions.
const HEIGHT: f64 = 100.0;
/// `1 - cosine` at the bottom and at the top, as powers of ten.
const LOWEST: i32 = -8;
const HIGHEST: i32 = 0;

/// A plot as SVG: lines over positions.
#[derive(Debug, Serialize)]
pub(crate) struct Plot {
    pub(crate) width: usize,
    pub(crate) top: String,
    pub(crate) middle: String,
    pub(crate) bottom: String,
    pub(crate) lines: Vec<Line>,
    /// Where sequences begin, except for the first.
    pub(crate) begins: Vec<usize>,
    /// Qualified positions with another winner.
    pub(crate) flips: Vec<Flip>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) class: &'static str,
    /// `x,y` pairs, as SVG has them.
    pub(crate) points: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Flip {
    pub(crate) at: usize,
    pub(crate) title: String,
}

/// How far the logits are from the reference's, as `1 - cosine` in powers of ten.
pub(crate) fn cosine(gate: &Gate) -> Option<Plot> {
    let height = |position: &Position| {
        let distance = (1.0 - position.cosine?).max(10_f64.powi(LOWEST));
        let share = (distance.log10() - f64::from(LOWEST)) / f64::from(HIGHEST - LOWEST);
        Some(HEIGHT * (1.0 - share.clamp(0.0, 1.0)))
    };
    let positions = || gate.sequences.iter().flat_map(|sequence| &sequence.positions);
    positions().find(|position| position.cosine.is_some())?;
    let lines = vec![Line { class: "found", points: points(positions().map(height)) }];
    let label = |power: i32| format!("10^{power}");
    Some(plot(gate, lines, [label(HIGHEST), label((HIGHEST + LOWEST) / 2), label(LOWEST)]))
}

/// By how much the winners of the reference and the bundle lead.
pub(crate) fn margin(gate: &Gate) -> Option<Plot> {
    let positions = || gate.sequences.iter().flat_map(|sequence| &sequence.positions);
    let highest =
        positions().map(|position| position.expected_margin.max(position.margin)).fold(0.0, f32::max);
    if highest <= 0.0 {
        return None;
    }
    let height = |margin: f32| Some(HEIGHT * (1.0 - f64::from(margin / highest)));
    let lines = vec![
        Line {
            class: "expected",
            points: points(positions().map(|position| height(position.expected_margin))),
        },
        Line { class: "found", points: points(positions().map(|position| height(position.margin))) },
    ];
    Some(plot(gate, lines, [format!("{highest:.1}"), format!("{:.1}", highest / 2.0), "0".to_owned()]))
}

fn points(heights: impl Iterator<Item = Option<f64>>) -> String {
    let known = heights.enumerate().filter_map(|(at, height)| Some((at, height?)));
    let pairs: Vec<String> = known.map(|(at, height)| format!("{at},{height:.1}")).collect();
    pairs.join(" ")
}

/// Prompts are not fed at every position, so the position is that of the flip with this margin.
fn flip_title(gate: &Gate, sequence: &Sequence, position: &Position) -> String {
    let margin = position.expected_margin;
    let is_here = |flip: &&facts::Flip| flip.prompt == sequence.prompt && flip.margin == Some(margin);
    let what = match gate.flips.iter().find(is_here) {
        Some(flip) => {
            let (found, expected) = (token(&flip.found), token(&flip.expected));
            format!("position {}, {found} instead of {expected}", digits::grouped(flip.position))
        }
        None => "another token".to_owned(),
    };
    format!("{}: {what}, margin {margin:.2}", sequence.prompt)
}

fn plot(gate: &Gate, lines: Vec<Line>, [top, middle, bottom]: [String; 3]) -> Plot {
    let (mut begins, mut flips, mut start) = (Vec::new(), Vec::new(), 0);
    for sequence in &gate.sequences {
        begins.push(start);
        for (at, position) in sequence.positions.iter().enumerate() {
            if position.qualified && !position.agrees {
                flips.push(Flip { at: start + at, title: flip_title(gate, sequence, position) });
            }
        }
        start += sequence.positions.len();
    }
    Plot {
        width: start.saturating_sub(1).max(1),
        top,
        middle,
        bottom,
        lines,
        begins: begins.split_off(1.min(begins.len())),
        flips,
    }
}
