//! Measurements, with all runs and the median that is quoted.

use std::time::Instant;

use serde::Serialize;

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    section: String,
    name: String,
    unit: &'static str,
    median: f64,
    runs: Vec<f64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    note: String,
}

/// Measurements in the order in which they were made, printed as they come in.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    all: Vec<Figure>,
}

impl Figures {
    /// Adds a measurement, prints it, and returns its median.
    pub(crate) fn add(
        &mut self,
        section: &str,
        name: &str,
        unit: &'static str,
        runs: Vec<f64>,
        note: impl Into<String>,
    ) -> f64 {
        if self.all.last().is_none_or(|last| last.section != section) {
            println!("{section}");
        }
        let (median, note) = (median(&runs), note.into());
        println!("  {name:<46} {median:>9.2} {unit:<5} {note}");
        self.all.push(Figure {
            section: section.to_owned(),
            name: name.to_owned(),
            unit,
            median,
            runs,
            note,
        });
        median
    }

    pub(crate) fn all(&self) -> &[Figure] {
        &self.all
    }
}

/// The middle one; the mean of the middle two.
pub(crate) fn median(runs: &[f64]) -> f64 {
    let mut sorted = runs.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        length if length.is_multiple_of(2) => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    }
}

/// How many seconds something takes.
pub(crate) fn seconds<T, E>(work: impl FnOnce() -> Result<T, E>) -> Result<f64, E> {
    let begin = Instant::now();
    work()?;
    Ok(begin.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(
            [median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0, 2.0, 3.0]), median(&[5.0])],
            [2.0, 2.5, 5.0]
        );
    }
}
