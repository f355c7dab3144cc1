//! The headline: what the conversion came to, in sentences of computed facts. What was not measured is named with the command that
//! measures it.

use serde::Serialize;

use crate::digits;
use crate::facts::{Conversion, Download, Evaluation, Exactness, Gate, Report, RuleOutcome};
use crate::gates::total;
use crate::html::recovered;
use crate::merged::merged;
use crate::words::{counted, list};

/// Parts that a gate counts and that the layers multiply by, as `oracle::gate::exactness` calls them.
const PROJECTIONS: [&str; 3] = ["attention", "MLP", "per-layer inputs"];
/// Parts that are named because they are not exact.
const NAMED: usize = 3;
/// Evaluations that the headline tells of.
const EVALUATIONS: usize = 6;

/// A sentence or two about one thing.
#[derive(Debug, Serialize)]
pub(crate) struct Sentence {
    /// `good`, `bad` or nothing.
    class: &'static str,
    pieces: Vec<Piece>,
}

#[derive(Debug, Serialize)]
struct Piece {
    text: String,
    is_code: bool,
}

impl Sentence {
    /// Text in which every other part between backticks is code.
    fn new(class: &'static str, text: &str) -> Self {
        let piece = |(at, text): (usize, &str)| {
            let is_code = at % 2 == 1;
            Piece { text: if is_code { text.to_owned() } else { unbroken(text) }, is_code }
        };
        Sentence { class, pieces: text.split('`').enumerate().map(piece).collect() }
    }
}

/// No line ends between the digits of a number, or between a number and its unit.
fn unbroken(text: &str) -> String {
    let mut words = text.split(' ');
    let mut all = words.next().unwrap_or_default().to_owned();
    for word in words {
        let continues = word.starts_with(|c: char| c.is_ascii_digit() || c == '%');
        let is_unit = ["B", "kB", "MB", "GB", "TB", "PB", "nats"]
            .iter()
            .any(|unit| word.trim_end_matches(['.', ',', ':']) == *unit);
        let follows_number = all.ends_with(|c: char| c.is_ascii_digit());
        all.push(if follows_number && (continues || is_unit) { '\u{a0}' } else { ' ' });
        all.push_str(word);
    }
    all
}

/// A name as code. It may hold backticks of its own.
fn code(name: &str) -> String {
    format!("`{}`", name.replace('`', "'"))
}

fn codes(names: &[&str]) -> String {
    list(&names.iter().map(|name| code(name)).collect::<Vec<_>>())
}

/// The sentences, the most important ones first.
pub(crate) fn story(report: &Report) -> Vec<Sentence> {
    let mut sentences = verdicts(report);
    sentences.extend(evaluations(report));
    sentences.extend(exactness(report));
    sentences.extend(rules(report));
    sentences.extend(sizes(report));
    sentences
}

/// What was found about all bundles needs no names.
fn subject(names: &[&str], groups: usize) -> String {
    match (groups, names.len()) {
        (1, 1) => "The bundle".to_owned(),
        (1, 2) => "Both bundles".to_owned(),
        (1, count) => format!("All {count} bundles"),
        _ => codes(names),
    }
}

fn verdicts(report: &Report) -> Vec<Sentence> {
    let groups = merged(&report.gates);
    if groups.is_empty() && report.conversion.is_some() {
        let text = "Not measured: whether the outputs agree with the checkpoint, and how much of the whole model is exact. \
                    `coreai-bundle convert --gate` measures both.";
        return vec![Sentence::new("", text)];
    }
    let tell = |(names, gate): &(Vec<&str>, &Gate)| {
        let subject = subject(names, groups.len());
        let distance = gate.distances.map(|found| {
            let (mean, max) = (digits::nats(found.mean_kl), digits::nats(found.max_kl));
            format!(" KL divergence from fp32: {mean} nats on average, {max} at most.")
        });
        let text = format!("{subject} {}.{}", verdict(gate), distance.unwrap_or_default());
        Sentence::new(if gate.passed { "good" } else { "bad" }, &text)
    };
    groups.iter().map(tell).collect()
}

fn verdict(gate: &Gate) -> String {
    let (agreed, all) = (gate.agreed, counted(gate.qualified, "position"));
    let word = if gate.passed { "passed" } else { "FAILED" };
    if agreed < gate.qualified {
        let others = digits::grouped(gate.qualified - agreed);
        return format!("{word} the gate: another token than fp32's at {others} of {all} where fp32 is sure");
    }
    match gate.causes.first() {
        Some(cause) if !gate.passed => {
            let cause = cause.trim_start_matches("failed: ").trim_start_matches("cause: ");
            format!("{word} the gate: {}", cause.replace('`', "'"))
        }
        _ if gate.qualified == 0 => format!("{word} the gate"),
        _ => format!("{word} the gate: fp32's token at all of {all} where fp32 is sure"),
    }
}

fn evaluations(report: &Report) -> Vec<Sentence> {
    let groups = merged(&report.evaluations);
    let tell = |(names, found): &(Vec<&str>, &Evaluation)| {
        let Evaluation { agreement, .. } = found;
        let text = format!(
            "{}: {} nats from fp32 on average (KL divergence), the same token at {} of {} of {}, perplexity {} where fp32 has {}.",
            codes(names),
            digits::nats(found.mean_kl),
            digits::percent(agreement.agreed, agreement.of),
            counted(found.positions, "position"),
            found.text.replace('`', "'"),
            digits::perplexity(found.perplexity),
            digits::perplexity(found.reference_perplexity),
        );
        Sentence::new("", &text)
    };
    groups.iter().take(EVALUATIONS).map(tell).collect()
}

/// The whole model if a gate counted it, else the matrices that were quantized.
fn exactness(report: &Report) -> Vec<Sentence> {
    let mut counted_ones: Vec<(Vec<&str>, &[Exactness])> = Vec::new();
    for (names, gate) in merged(&report.gates) {
        match counted_ones.iter_mut().find(|(_, parts)| *parts == gate.exactness) {
            Some((known, _)) => known.extend(names),
            None if gate.exactness.is_empty() => {}
            None => counted_ones.push((names, &gate.exactness)),
        }
    }
    if counted_ones.is_empty() {
        return quantized(report).into_iter().collect();
    }
    let is_single = counted_ones.len() == 1;
    let tell = |(names, parts): &(Vec<&str>, &[Exactness])| {
        let prefix = if is_single { String::new() } else { format!("{}: ", codes(names)) };
        of_model(&prefix, parts)
    };
    counted_ones.iter().map(tell).collect()
}

fn of_model(prefix: &str, parts: &[Exactness]) -> Sentence {
    let (weights, exact) = total(parts.iter());
    if exact == weights {
        let trained = counted(weights, "trained weight");
        let text = format!(
            "{prefix}The whole model as shipped is exact: {trained}, each the checkpoint's bit for bit."
        );
        return Sentence::new("good", &text);
    }
    let kept = |(weights, exact): (u64, u64)| {
        if exact == weights { "all".to_owned() } else { digits::percent(exact, weights) }
    };
    let trained = counted(weights, "trained weight");
    let mut text = format!(
        "{prefix}The whole model as shipped keeps {} of its {trained} bit for bit",
        kept((weights, exact))
    );
    let projections = total(parts.iter().filter(|found| PROJECTIONS.contains(&found.part.as_str())));
    if projections.0 > 0 {
        text.push_str(&format!(", and {} of those of its projections", kept(projections)));
    }
    let mut lost: Vec<&Exactness> =
        parts.iter().filter(|found| found.weights_exact < found.weights).collect();
    lost.sort_by_key(|found| std::cmp::Reverse(found.weights - found.weights_exact));
    let name = |found: &&Exactness| {
        format!("{} ({} exact)", found.part, digits::percent(found.weights_exact, found.weights))
    };
    let mut named: Vec<String> = lost.iter().take(NAMED).map(name).collect();
    if lost.len() > NAMED {
        named.push(format!("{} more", lost.len() - NAMED));
    }
    text.push_str(&format!(". Not exact: {}.", list(&named)));
    Sentence::new("", &text.replace('`', "'"))
}

fn quantized(report: &Report) -> Option<Sentence> {
    let sum = |count: fn(&crate::tensor::Recovery) -> u64| -> u64 {
        recovered(report).map(|(_, recovery)| count(recovery)).sum()
    };
    let (weights, exact) = (sum(|found| found.weights), sum(|found| found.weights_exact));
    let all = counted(weights, "weight");
    let text = if exact == weights {
        format!("The quantized matrices are exact: {all}, each the checkpoint's bit for bit.")
    } else {
        format!("The quantized matrices keep {} of their {all} bit for bit.", digits::percent(exact, weights))
    };
    let class = if exact == weights { "good" } else { "" };
    (weights > 0).then(|| Sentence::new(class, &text))
}

/// What the rule kept, and what the others would have kept, of the same blocks.
fn rules(report: &Report) -> Vec<Sentence> {
    let Some(conversion) = &report.conversion else { return Vec::new() };
    let mut sentences: Vec<Sentence> = kept(report, conversion).into_iter().collect();
    let names = ["lattice", "q4_0", "absmax"];
    if !report.evaluations.iter().any(|found| names.contains(&found.bundle.as_str())) {
        let text = format!(
            "Not measured: how far from fp32 the other 4-bit rules would be. `coreai-bundle eval --rule {} --checkpoint {}` measures it.",
            names.join(","),
            checkpoint(report).replace('`', "'"),
        );
        sentences.push(Sentence::new("", &text));
    }
    sentences
}

fn kept(report: &Report, conversion: &Conversion) -> Option<Sentence> {
    let share = |found: &RuleOutcome| {
        if found.weights_exact == found.weights {
            "all".to_owned()
        } else {
            digits::percent(found.weights_exact, found.weights)
        }
    };
    let used = used_rule(report, conversion)?;
    let others: Vec<String> = report
        .rules
        .iter()
        .filter(|found| found.rule != used.rule)
        .map(|found| format!("{} by {}", share(found), code(&found.rule)))
        .collect();
    let text = format!(
        "In a sample of {}, {} kept {} bit for bit. It would have been {}.",
        counted(used.weights, "weight"),
        code(&used.rule),
        share(used),
        list(&others),
    );
    Some(Sentence::new("", &text))
}

/// What the rule of the projections keeps of the sample.
pub(crate) fn used_rule<'r>(report: &'r Report, conversion: &Conversion) -> Option<&'r RuleOutcome> {
    let is_int4 = conversion.weights == "int4";
    report.rules.iter().find(|found| is_int4 && found.rule == conversion.rule && found.weights > 0)
}

/// How commands name the checkpoint: folders are not named by their paths.
pub(crate) fn checkpoint(report: &Report) -> &str {
    let origin = report.origin.as_ref().filter(|origin| origin.revision.is_some());
    origin.map_or("CHECKPOINT", |origin| origin.name.as_str())
}

fn sizes(report: &Report) -> Vec<Sentence> {
    let Some(first) = report.downloads.first() else {
        let bytes: u64 = report.sizes.iter().map(|size| size.bytes).sum();
        let text = format!("The graph has {}, weights included.", digits::bytes(bytes));
        return (bytes > 0).then(|| Sentence::new("", &text)).into_iter().collect();
    };
    let used = digits::bytes(first.checkpoint_bytes);
    let mut sentences = Vec::new();
    match report.origin.as_ref().and_then(|origin| origin.weight_bytes) {
        Some(all) if all == first.checkpoint_bytes => {
            sentences.push(format!("The checkpoint has {used} of weights, all of which are converted."));
        }
        Some(all) => sentences.push(format!(
            "The checkpoint has {} of weights, of which {used} are converted.",
            digits::bytes(all)
        )),
        None => sentences.push(format!("{used} of the checkpoint's weights are converted.")),
    }
    let mut told: Vec<(Vec<&str>, String)> = Vec::new();
    for download in &report.downloads {
        let text = ships(download);
        match told.iter_mut().find(|(_, known)| *known == text) {
            Some((names, _)) => names.push(&download.variant),
            None => told.push((vec![&download.variant], text)),
        }
    }
    sentences.extend(told.iter().map(|(names, text)| format!("{}: {text}", codes(names))));
    sentences.iter().map(|text| Sentence::new("", text)).collect()
}

fn ships(download: &Download) -> String {
    let Download { graph_bytes, tables_bytes, other_bytes, .. } = download;
    let parts =
        [(graph_bytes, "of graph"), (tables_bytes, "of tables"), (other_bytes, "of tokenizer and metadata")];
    let parts: Vec<String> = parts
        .into_iter()
        .filter(|(bytes, _)| **bytes > 0)
        .map(|(bytes, name)| format!("{} {name}", digits::bytes(*bytes)))
        .collect();
    format!("a device downloads {}: {}.", digits::bytes(download.bytes()), list(&parts))
}
