//! The model card: what the members' manifests record, and what they do not.

use minijinja::Environment;
use minijinja::value::Serde;
use serde::Serialize;
use serde_json::Value;

use super::member::Member;
use super::{Release, ReleaseError};
use crate::check::{GRAPHS, TABLES};
use crate::front_matter::FrontMatter;
use crate::manifest::SourceRecord;
use crate::metadata::user_data;

const TEMPLATE: &str = include_str!("card.md.jinja");

/// The license that a model card names.
pub fn license_of_card(card: &str) -> Option<String> {
    let front_matter = FrontMatter::of(card)?;
    let [license] = front_matter.values("license") else { return None };
    Some((*license).to_owned())
}

/// Everything that the card says.
#[derive(Serialize)]
struct Card<'a> {
    name: &'a str,
    tool: &'a str,
    license: &'a str,
    base_model: &'a str,
    revision: Option<&'a str>,
    bundles: Vec<BundleLine>,
    tables: Vec<TableLine>,
    measured: Vec<String>,
    unmeasured: Vec<String>,
}

/// A bundle's line.
#[derive(Serialize)]
struct BundleLine {
    path: String,
    graph: String,
    weights: String,
    size: String,
    context: String,
    gate: String,
}

/// A table folder's line.
#[derive(Serialize)]
struct TableLine {
    path: String,
    size: String,
    stamp: String,
}

/// Renders the card.
pub(super) fn render(
    release: &Release<'_>,
    source: Option<&SourceRecord>,
    bundles: &[Member],
    tables: &[Member],
) -> Result<String, ReleaseError> {
    let card = Card {
        name: release.name,
        tool: release.tool,
        license: &release.license.id,
        base_model: release.base_model,
        revision: source.and_then(|source| source.revision.as_deref()),
        bundles: bundles.iter().map(bundle_line).collect(),
        tables: tables.iter().map(table_line).collect(),
        measured: measured(bundles),
        unmeasured: unmeasured(bundles),
    };
    // The template's own final newline is left out by the renderer.
    Ok(Environment::new().render_str(TEMPLATE, Serde(card))? + "\n")
}

fn bundle_line(member: &Member) -> BundleLine {
    let metadata = member.metadata.as_ref();
    let compiled = member.manifest.compiled_from.as_ref();
    let inputs = metadata.and_then(|metadata| metadata.user_data.get(user_data::ENGINE_INPUTS));
    let graph = match (compiled, inputs.map(String::as_str)) {
        (Some(compiled), _) => format!("compiled for {} from `{}`", compiled.architecture, compiled.bundle),
        (None, Some("static")) => "portable, tables bound once".to_owned(),
        (None, Some("per-token")) => "portable, a row of the tables at each step".to_owned(),
        (None, _) => "portable, for the unpatched engine".to_owned(),
    };
    let scheme = metadata.and_then(|metadata| metadata.compression.as_ref());
    BundleLine {
        path: format!("{GRAPHS}/{}", member.name),
        graph,
        weights: scheme.map_or_else(|| "f16".to_owned(), |compression| compression.scheme.clone()),
        size: gigabytes(member.bytes()),
        context: metadata
            .map(|metadata| metadata.language.max_context_length.to_string())
            .unwrap_or_default(),
        gate: verdict(&member.manifest.gate).unwrap_or_else(|| "not run".to_owned()),
    }
}

fn table_line(member: &Member) -> TableLine {
    TableLine {
        path: format!("{TABLES}/{}", member.name),
        size: gigabytes(member.bytes()),
        stamp: member.manifest.tables_digest.map(|stamp| stamp.to_string()).unwrap_or_default(),
    }
}

/// What the gate found, in a few words.
fn verdict(gate: &Value) -> Option<String> {
    let (agreed, qualified) = (gate["agreed"].as_u64()?, gate["qualified"].as_u64()?);
    let word = if gate["passed"] == true { "passed" } else { "FAILED" };
    Some(format!("{word}: {agreed} of {qualified} positions"))
}

/// Sentences on figures that the manifests hold.
fn measured(bundles: &[Member]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for member in bundles {
        for total in member.manifest.conversion["totals"].as_array().into_iter().flatten() {
            lines.extend(weights_line(total));
        }
        if let (Some(verdict), Some(reference)) =
            (verdict(&member.manifest.gate), member.manifest.gate["reference"].as_str())
        {
            lines.push(format!(
                "`{}` against {reference}: gate {verdict} with a margin of 0.1 or more.",
                member.name
            ));
        }
    }
    // Bundles that differ in their graph alone have the same weights.
    let mut seen = Vec::new();
    lines.retain(|line| {
        !seen.contains(line) && {
            seen.push(line.clone());
            true
        }
    });
    if lines.is_empty() {
        lines.push("Nothing is recorded in the manifests.".to_owned());
    }
    lines
}

/// What a conversion did to the weights of one format.
fn weights_line(total: &Value) -> Option<String> {
    let number = |key: &str| total[key].as_u64();
    let (weights, exact) = (number("weights")?, number("weights_exact")?);
    let format = total["format"].as_str()?;
    let mut line = format!("{format} weights: ");
    if let (true, Some(blocks), Some(on_lattice)) =
        (format == "int4", number("blocks"), number("blocks_on_lattice"))
    {
        let share = percent(on_lattice, blocks);
        line.push_str(&format!("{share} of the blocks lie on a 4-bit lattice and keep its codes; "));
    }
    let share = percent(exact, weights);
    line.push_str(&format!(
        "{exact} of {weights} weights ({share}) are those of the checkpoint, byte for byte in bf16."
    ));
    Some(line)
}

/// A share in percent, rounded down so that only all of it is 100.
fn percent(part: u64, whole: u64) -> String {
    let hundredths = (u128::from(part) * 10_000).checked_div(u128::from(whole)).unwrap_or(10_000);
    format!("{}.{:02} %", hundredths / 100, hundredths % 100)
}

/// Sentences on what nobody has run.
fn unmeasured(bundles: &[Member]) -> Vec<String> {
    let ungated: Vec<String> = bundles
        .iter()
        .filter(|member| member.manifest.gate.is_null())
        .map(|member| format!("`{}`", member.name))
        .collect();
    let mut lines = Vec::new();
    if !ungated.is_empty() {
        lines.push(format!("Not held against the checkpoint in fp32: {}.", ungated.join(", ")));
    }
    if !bundles.iter().any(|member| member.manifest.compiled_from.is_some()) {
        lines.push("No bundle is compiled ahead of time; an iPhone needs one.".to_owned());
    }
    lines.push(
        "Nothing here was run on a device, or its speed measured there, by the tool that made it.".to_owned(),
    );
    lines
}

fn gigabytes(bytes: u64) -> String {
    if bytes < 10_000_000 {
        format!("{:.2} MB", bytes as f64 / 1e6)
    } else {
        format!("{:.2} GB", bytes as f64 / 1e9)
    }
}
