//! Tables of text that fit the terminal.

use std::fmt::Write;

use coreai_bundle::parts::text::terminal::word;

use crate::terminal::{STRONG, paint, shortened};

/// Least width of the first column.
const NARROWEST: usize = 16;
/// Columns that are always shown.
const FEWEST: usize = 3;

/// A table: the first column is a name and aligned to the left, the others are numbers and aligned to the right.
pub(crate) struct Columns {
    heads: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Columns {
    pub(crate) fn new(heads: &[&'static str]) -> Self {
        Columns { heads: heads.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells.iter().map(|cell| word(cell).to_string()).collect());
    }

    /// The table, at most `width` wide: the last columns are dropped in favor of names, then names lose their middle.
    pub(crate) fn text(&self, width: usize) -> String {
        let length = |text: &str| text.chars().count();
        let mut widths: Vec<usize> = self.heads.iter().map(|head| length(head)).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(length(cell));
            }
        }
        let others = |widths: &[usize]| -> usize { widths.iter().skip(1).map(|width| width + 2).sum() };
        while widths.len() > FEWEST && widths[0].saturating_add(others(&widths)) > width {
            widths.pop();
        }
        let others = others(&widths);
        if let Some(name) = widths.first_mut() {
            *name = (*name).min(width.saturating_sub(others).max(NARROWEST));
        }
        let mut text = String::new();
        let heads: Vec<String> = self.heads.iter().map(|head| (*head).to_owned()).collect();
        let _ = writeln!(text, "{}", paint(STRONG, line(&heads, &widths)));
        for row in &self.rows {
            let _ = writeln!(text, "{}", line(row, &widths));
        }
        text
    }
}

fn line(cells: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (at, (cell, width)) in cells.iter().zip(widths).enumerate() {
        // Writing to a String cannot fail.
        let _ = match at {
            0 => write!(line, "{:<width$}", shortened(cell, *width)),
            _ => write!(line, "  {cell:>width$}"),
        };
    }
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_aligned_and_long_names_are_cut() {
        let mut columns = Columns::new(&["name", "bytes"]);
        columns.row(vec!["layers.11.mlp.down_proj.weight".to_owned(), "7".to_owned()]);
        let wide = columns.text(80);
        assert!(wide.ends_with("layers.11.mlp.down_proj.weight      7\n"), "{wide}");
        let narrow = columns.text(25);
        assert!(narrow.ends_with("layers.1…oj.weight      7\n"), "{narrow}");
    }

    #[test]
    fn the_last_columns_are_dropped_in_favor_of_names() {
        let mut columns = Columns::new(&["name", "bytes", "shape", "more"]);
        columns.row(["a name of twenty-five ch", "7", "1x2", "less"].map(str::to_owned).to_vec());
        assert!(columns.text(45).contains("less"));
        let narrow = columns.text(40);
        assert!(narrow.contains("a name of twenty-five ch") && !narrow.contains("less"), "{narrow}");
    }
}
