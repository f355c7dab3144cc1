//! Differences for people.

use std::io::{self, Write};

use anstyle::Style;
use coreai_bundle::diff::{
    ChangeKind, FolderDifference, GraphDifference, LineDifference, ProgramDifference, Verdict,
    WeightDifference, WeightVerdict, WeightsDifference,
};
use serde_json::Value;

use crate::digits;
use crate::terminal::{self, GREEN, RED, STRONG, YELLOW, paint, shortened};

/// Differences of one kind that are listed unless all are asked for.
const MOST: usize = 20;
/// Characters of a JSON value.
const LONGEST_VALUE: usize = 60;

/// Prints a report.
pub(super) fn print(out: &mut impl Write, report: &FolderDifference, all: bool) -> io::Result<()> {
    let mut printer = Printer { out, width: terminal::width(), most: if all { usize::MAX } else { MOST } };
    printer.line(RED, 0, &format!("--- {}", report.left.display()))?;
    printer.line(GREEN, 0, &format!("+++ {}", report.right.display()))?;
    for file in &report.files {
        printer.file(&file.path, &file.verdict)?;
    }
    let equal = report.files.iter().filter(|file| file.verdict.is_equal()).count();
    let total = report.files.len();
    let trusted = report.files.iter().any(|file| matches!(file.verdict, Verdict::Equal { by_digest: true }));
    let how = if trusted { ", by their digests where they have some" } else { "" };
    let verdict = if report.equal {
        paint(STRONG, format_args!("equal: {total} files{how}"))
    } else {
        paint(STRONG, format_args!("different: {equal} of {total} files are equal{how}"))
    };
    writeln!(printer.out, "{verdict}")
}

struct Printer<'o, W> {
    out: &'o mut W,
    width: usize,
    most: usize,
}

impl<W: Write> Printer<'_, W> {
    /// A line that is wrapped; continuation lines are indented twice as far.
    fn line(&mut self, style: Style, indent: usize, text: &str) -> io::Result<()> {
        let wrapped = terminal::wrap(text, indent, indent + 4, self.width);
        writeln!(self.out, "{:indent$}{}", "", paint(style, wrapped))
    }

    /// The items up to the limit, and how many more there are.
    fn list<T>(&mut self, items: &[T], print: impl Fn(&mut Self, &T) -> io::Result<()>) -> io::Result<()> {
        for item in items.iter().take(self.most) {
            print(self, item)?;
        }
        match items.len().saturating_sub(self.most) {
            0 => Ok(()),
            more => self.line(Style::new(), 2, &format!("and {more} more; --all lists them")),
        }
    }

    fn file(&mut self, path: &str, verdict: &Verdict) -> io::Result<()> {
        match verdict {
            Verdict::Equal { .. } | Verdict::Equivalent => Ok(()),
            Verdict::OnlyLeft { bytes } => self.line(RED, 0, &format!("- {path}  {}", digits::bytes(*bytes))),
            Verdict::OnlyRight { bytes } => {
                self.line(GREEN, 0, &format!("+ {path}  {}", digits::bytes(*bytes)))
            }
            Verdict::Fields { fields } => {
                self.line(STRONG, 0, path)?;
                self.list(fields, |printer, field| {
                    let text = format!("{}: {} -> {}", field.path, value(&field.left), value(&field.right));
                    printer.line(YELLOW, 2, &text)
                })
            }
            Verdict::Table(table) => {
                self.line(STRONG, 0, path)?;
                let (differing, numbers) = (digits::grouped(table.differing), digits::grouped(table.numbers));
                let error = relative_error(table.relative_error);
                self.line(YELLOW, 2, &format!("{differing} of {numbers} numbers differ{error}"))?;
                let (row, column) = (table.row, table.column);
                let first = format!("first in row {row}, column {column}: {} -> {}", table.left, table.right);
                self.line(Style::new(), 2, &first)
            }
            Verdict::Bytes(bytes) => {
                self.line(STRONG, 0, path)?;
                let (left, right) = (digits::grouped(bytes.left_bytes), digits::grouped(bytes.right_bytes));
                let sizes =
                    if left == right { format!("{left} bytes") } else { format!("{left} -> {right} bytes") };
                self.line(
                    YELLOW,
                    2,
                    &format!("{sizes}, the first that differs is {}", digits::grouped(bytes.first)),
                )
            }
            Verdict::Program(program) => {
                self.line(STRONG, 0, path)?;
                self.program(program)
            }
        }
    }

    fn program(&mut self, program: &ProgramDifference) -> io::Result<()> {
        program.only_left.iter().try_for_each(|name| self.line(RED, 2, &format!("- graph {name}")))?;
        program.only_right.iter().try_for_each(|name| self.line(GREEN, 2, &format!("+ graph {name}")))?;
        program.graphs.iter().try_for_each(|graph| self.graph(graph))?;
        self.weights(&program.weights)
    }

    fn graph(&mut self, graph: &GraphDifference) -> io::Result<()> {
        let count = |kind| graph.count(kind);
        let (removed, added, changed) =
            (count(ChangeKind::Removed), count(ChangeKind::Added), count(ChangeKind::Changed));
        let (name, same) = (&graph.name, graph.same);
        let title = if graph.is_equal() {
            format!("graph {name}: all {same} ops are the same")
        } else {
            format!(
                "graph {name}: {same} ops are the same, {removed} removed, {added} added, {changed} changed"
            )
        };
        self.line(Style::new(), 2, &title)?;
        self.list(&graph.ports, Self::op)?;
        self.list(&graph.ops, Self::op)
    }

    fn op(&mut self, line: &LineDifference) -> io::Result<()> {
        if let Some(left) = &line.left {
            self.line(RED, 4, &format!("- {left}"))?;
        }
        if let Some(right) = &line.right {
            self.line(GREEN, 4, &format!("+ {right}"))?;
        }
        for detail in &line.details {
            self.line(YELLOW, 8, &format!("{}: {} -> {}", detail.what, detail.left, detail.right))?;
        }
        Ok(())
    }

    fn weights(&mut self, weights: &WeightsDifference) -> io::Result<()> {
        let (compared, equal, bytes) = (weights.compared, weights.equal, digits::bytes(weights.bytes));
        self.line(Style::new(), 2, &format!("weights: {equal} of {compared} are equal, {bytes} compared"))?;
        self.list(&weights.different, Self::weight)?;
        self.list(&weights.only_left, |printer, name| printer.line(RED, 4, &format!("- {name}")))?;
        self.list(&weights.only_right, |printer, name| printer.line(GREEN, 4, &format!("+ {name}")))
    }

    fn weight(&mut self, weight: &WeightDifference) -> io::Result<()> {
        let verdict = match weight.verdict {
            WeightVerdict::OtherScales => "same codes, other scales".to_owned(),
            WeightVerdict::Different => format!("{} differs", weight.left),
            WeightVerdict::OtherFormat => format!("{} -> {}", weight.left, weight.right),
            WeightVerdict::OtherShape => "of another shape".to_owned(),
        };
        let mut text = format!("{}: {verdict}", weight.name);
        let Some(values) = &weight.values else { return self.line(YELLOW, 4, &text) };
        let (differing, all) = (digits::grouped(values.differing), digits::grouped(values.weights));
        text.push_str(&match values.differing {
            0 => format!(", all {all} weights have the same values"),
            _ => format!(", {differing} of {all} weights{}", relative_error(values.relative_error)),
        });
        self.line(YELLOW, 4, &text)?;
        let Some(first) = &values.first else { return Ok(()) };
        let (row, column) = (first.place.row, first.place.column);
        let block = first.place.block.map(|block| format!(", block {block}")).unwrap_or_default();
        let codes = first.codes.map(|[left, right]| format!("code {left} -> {right}, ")).unwrap_or_default();
        let (left, right) = (first.left, first.right);
        let text = format!("first in row {row}{block}, column {column}: {codes}{left} -> {right}");
        self.line(Style::new(), 8, &text)
    }
}

fn relative_error(error: Option<f64>) -> String {
    error.map(|error| format!(", relative error {error:.2e}")).unwrap_or_default()
}

fn value(value: &Option<Value>) -> String {
    value.as_ref().map_or_else(|| "absent".to_owned(), |value| shortened(&value.to_string(), LONGEST_VALUE))
}
