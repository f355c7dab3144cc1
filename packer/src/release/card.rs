//! The model card: what the members' manifests record, and what they do not.
//!
//! Manifests and arguments are written by others. Nothing in them reaches the card except through [`text::markup`]: the templates'
//! environment escapes whatever a template inserts.

use minijinja::value::{Serde, Value as Inserted};
use minijinja::{AutoEscape, Environment, Error, Output, State};
use serde::Serialize;
use serde_json::Value;
use text::markup;

use super::member::Member;
use super::{Release, ReleaseError};
use crate::contents::{GRAPHS, TABLES};
use crate::front_matter::FrontMatter;
use crate::manifest::{FUNCTIONS, SourceRecord, WeightsCheck};
use crate::metadata::{EngineInputs, MAIN_FUNCTION, PREFILL_FUNCTION, user_data};
use crate::verdict::Verdict;

/// Templates by name; what is inserted is escaped as their suffix says.
const TEMPLATES: [(&str, &str); 2] = [
    ("front_matter.yaml", include_str!("front_matter.yaml.jinja")),
    ("card.md", include_str!("card.md.jinja")),
];

/// What front matter is escaped as; everything else is Markdown.
const YAML: &str = "yaml";

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
    bundles: Vec<BundleLine<'a>>,
    tables: Vec<TableLine>,
    weights: Vec<String>,
    exactness: Vec<ExactnessLine<'a>>,
    functions: Vec<FunctionsLine<'a>>,
    gates: Vec<GateLine<'a>>,
    evaluations: Vec<EvaluationLine<'a>>,
    /// Bundles that were not compared with the checkpoint.
    ungated: Vec<&'a str>,
    is_compiled: bool,
    has_provider: bool,
    has_static: bool,
    has_stock: bool,
    /// Whether weights may differ from those that the Hub has.
    is_unverified: bool,
}

/// A bundle's line.
#[derive(Serialize)]
struct BundleLine<'a> {
    path: String,
    compiled: Option<Compiled<'a>>,
    graph: &'static str,
    weights: String,
    size: String,
    download: String,
    context: String,
    gate: String,
}

/// What an artifact was compiled for.
#[derive(Serialize)]
struct Compiled<'a> {
    architecture: &'a str,
    bundle: &'a str,
}

/// A table folder's line.
#[derive(Serialize)]
struct TableLine {
    path: String,
    size: String,
    stamp: String,
}

/// How a bundle reads prompts, where a call takes several tokens.
#[derive(Serialize)]
struct FunctionsLine<'a> {
    bundle: &'a str,
    reader: &'a str,
    tokens: u64,
    /// Shares of what one token through `main` costs, if `main` takes one.
    multiply_adds: Option<String>,
    weights: Option<String>,
}

/// How many weights of a bundle are exact.
#[derive(Serialize)]
struct ExactnessLine<'a> {
    bundle: &'a str,
    share: String,
    weights: u64,
    parts: Vec<(&'a str, String)>,
}

/// What a gate found.
#[derive(Serialize)]
struct GateLine<'a> {
    bundle: &'a str,
    reference: &'a str,
    verdict: String,
}

/// How far a bundle is from its checkpoint on a text.
#[derive(Serialize)]
struct EvaluationLine<'a> {
    bundle: &'a str,
    text: &'a str,
    positions: u64,
    window: u64,
    mean_kl: String,
    max_kl: String,
    agreement: String,
    low: String,
    high: String,
    sure_agreed: u64,
    sure: u64,
    perplexity: String,
    reference_perplexity: String,
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
        bundles: bundles.iter().map(|bundle| bundle_line(bundle, tables)).collect(),
        tables: tables.iter().map(table_line).collect(),
        weights: weights(bundles),
        functions: bundles.iter().filter_map(functions_line).collect(),
        gates: bundles.iter().filter_map(gate_line).collect(),
        exactness: bundles.iter().filter_map(exactness_line).collect(),
        evaluations: bundles.iter().filter_map(evaluation_line).collect(),
        ungated: bundles
            .iter()
            .filter(|member| member.manifest.gate.is_null())
            .map(|member| member.name.as_str())
            .collect(),
        is_compiled: bundles.iter().any(|member| member.manifest.compiled_from.is_some()),
        has_provider: bundles.iter().any(|member| engine_inputs(member) == EngineInputs::PerToken),
        has_static: bundles.iter().any(|member| engine_inputs(member) == EngineInputs::Static),
        has_stock: bundles.iter().any(|member| engine_inputs(member) == EngineInputs::None),
        is_unverified: source.is_some_and(|source| source.weights == Some(WeightsCheck::NotVerified)),
    };
    let environment = environment()?;
    let card = Inserted::from(Serde(card));
    let mut text = String::new();
    for (name, _) in TEMPLATES {
        text.push_str(&environment.get_template(name)?.render(&card)?);
        // A template's own final newline is left out by the renderer.
        text.push('\n');
    }
    Ok(text)
}

/// What a bundle's metadata says that an engine must provide.
fn engine_inputs(member: &Member) -> EngineInputs {
    let said = member.metadata.as_ref().and_then(|metadata| metadata.user_data.get(user_data::ENGINE_INPUTS));
    let known = [EngineInputs::PerToken, EngineInputs::Static];
    known
        .into_iter()
        .find(|inputs| said.is_some_and(|said| said == inputs.as_str()))
        .unwrap_or(EngineInputs::None)
}

/// Templates in which nothing is inserted unescaped.
fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|name| {
        AutoEscape::Custom(if name.ends_with(".yaml") { YAML } else { "markdown" }.into())
    });
    environment.set_formatter(insert);
    environment.add_filter("code", |text: String| Inserted::from_safe_string(markup::code(&text)));
    environment.add_filter("target", |text: String| Inserted::from_safe_string(markup::target(&text)));
    for (name, text) in TEMPLATES {
        environment.add_template(name, text)?;
    }
    Ok(environment)
}

/// Writes a value into a card. Only the filters of the environment make safe ones.
fn insert(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Inserted) -> Result<(), Error> {
    let text = value.to_string();
    let escaped = match state.auto_escape() {
        _ if value.is_safe() => text,
        AutoEscape::Custom(format) if format == YAML => markup::yaml(&text),
        _ => markup::inline(&text),
    };
    Ok(out.write_str(&escaped)?)
}

/// What a device downloads: the bundle, and the tables whose stamp it names.
fn download(member: &Member, tables: &[Member]) -> u64 {
    let metadata = member.metadata.as_ref();
    let stamp = metadata.and_then(|metadata| metadata.user_data.get(user_data::TABLES_DIGEST));
    let is_named = |table: &&Member| {
        stamp.is_some_and(|stamp| {
            table.manifest.tables_digest.is_some_and(|found| found.to_string() == *stamp)
        })
    };
    member.bytes().saturating_add(tables.iter().find(is_named).map_or(0, Member::bytes))
}

fn bundle_line<'m>(member: &'m Member, tables: &[Member]) -> BundleLine<'m> {
    let metadata = member.metadata.as_ref();
    let compiled = member.manifest.compiled_from.as_ref();
    let said = |key: &str| metadata.and_then(|metadata| metadata.user_data.get(key)).map(String::as_str);
    let graph = match engine_inputs(member) {
        _ if said(user_data::CACHE_PAIRS).is_some() => {
            "portable, for the unpatched engine, a pair of caches for each kind of layer"
        }
        EngineInputs::Static => "portable, tables bound once",
        EngineInputs::PerToken => "portable, a row of the tables at each step",
        EngineInputs::None => "portable, for the unpatched engine",
    };
    let scheme = metadata.and_then(|metadata| metadata.compression.as_ref());
    BundleLine {
        path: format!("{GRAPHS}/{}", member.name),
        compiled: compiled
            .map(|compiled| Compiled { architecture: &compiled.architecture, bundle: &compiled.bundle }),
        graph,
        weights: scheme.map_or_else(|| "f16".to_owned(), |compression| compression.scheme.clone()),
        size: gigabytes(member.bytes()),
        download: gigabytes(download(member, tables)),
        context: metadata
            .map(|metadata| metadata.language.max_context_length.to_string())
            .unwrap_or_default(),
        gate: Verdict::of(&member.manifest.gate)
            .map_or_else(|| "not run".to_owned(), |found| found.to_string()),
    }
}

fn table_line(member: &Member) -> TableLine {
    TableLine {
        path: format!("{TABLES}/{}", member.name),
        size: gigabytes(member.bytes()),
        stamp: member.manifest.tables_digest.map(|stamp| stamp.to_string()).unwrap_or_default(),
    }
}

/// How a bundle reads prompts, as its manifest lists its functions.
fn functions_line(member: &Member) -> Option<FunctionsLine<'_>> {
    let functions = member.manifest.conversion[FUNCTIONS].as_array()?;
    let find = |name: &str| functions.iter().find(|function| function["name"] == name);
    let main = find(MAIN_FUNCTION)?;
    let reader = find(PREFILL_FUNCTION).unwrap_or(main);
    let share = |key: &str| {
        let is_single = main["tokens"] == 1;
        let (part, whole) = (reader[key].as_u64()?, main[key].as_u64()?);
        is_single.then(|| percent(part, whole))
    };
    Some(FunctionsLine {
        bundle: &member.name,
        reader: reader["name"].as_str()?,
        tokens: reader["tokens"].as_u64()?,
        multiply_adds: share("multiply_adds"),
        weights: share("weight_bytes"),
    })
}

/// The line of a member that was compared with its checkpoint.
fn gate_line(member: &Member) -> Option<GateLine<'_>> {
    let gate = &member.manifest.gate;
    Some(GateLine {
        bundle: &member.name,
        reference: gate["reference"].as_str()?,
        verdict: Verdict::of(gate)?.to_string(),
    })
}

/// The weights that the gate counted.
fn exactness_line(member: &Member) -> Option<ExactnessLine<'_>> {
    let counted = member.manifest.gate["exactness"].as_array()?;
    let (mut weights, mut exact, mut parts) = (0_u64, 0_u64, Vec::new());
    for part in counted {
        let (all, same) = (part["weights"].as_u64()?, part["weights_exact"].as_u64()?);
        (weights, exact) = (weights.saturating_add(all), exact.saturating_add(same));
        parts.push((part["part"].as_str()?, percent(same, all)));
    }
    let share = percent(exact, weights);
    Some(ExactnessLine { bundle: &member.name, share, weights, parts }).filter(|line| line.weights > 0)
}

/// The line of a member that was evaluated.
fn evaluation_line(member: &Member) -> Option<EvaluationLine<'_>> {
    let evaluation = &member.manifest.evaluation;
    let (reference, agreement) = (&evaluation["reference"], &evaluation["agreement"]);
    let share = |key: &str| Some(format!("{:.2}", 100.0 * agreement[key].as_f64()?));
    Some(EvaluationLine {
        bundle: &member.name,
        text: evaluation["text"].as_str()?,
        positions: reference["positions"].as_u64()?,
        window: reference["window"].as_u64()?,
        mean_kl: format!("{:.2e}", evaluation["mean_kl"].as_f64()?),
        max_kl: format!("{:.2e}", evaluation["max_kl"].as_f64()?),
        agreement: percent(agreement["agreed"].as_u64()?, agreement["of"].as_u64()?),
        low: share("low")?,
        high: share("high")?,
        sure_agreed: evaluation["sure"]["agreed"].as_u64()?,
        sure: evaluation["sure"]["of"].as_u64()?,
        perplexity: format!("{:.3}", evaluation["perplexity"].as_f64()?),
        reference_perplexity: format!("{:.3}", reference["perplexity"].as_f64()?),
    })
}

/// Sentences about the weights, as far as the manifests have the facts.
fn weights(bundles: &[Member]) -> Vec<String> {
    let totals =
        bundles.iter().filter_map(|member| member.manifest.conversion["totals"].as_array()).flatten();
    let mut lines: Vec<String> = Vec::new();
    for line in totals.filter_map(weights_line) {
        // Bundles that differ in their graph alone have the same weights.
        if !lines.contains(&line) {
            lines.push(line);
        }
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

fn gigabytes(bytes: u64) -> String {
    if bytes < 10_000_000 {
        format!("{:.2} MB", bytes as f64 / 1e6)
    } else {
        format!("{:.2} GB", bytes as f64 / 1e9)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::manifest::{CompiledFrom, Manifest, ManifestKind, Provenance};
    use crate::release::License;

    /// Everything that a card inserts, with what would break out of it.
    #[test]
    fn nothing_that_is_inserted_is_markup() {
        let evil = "`x` | <b>\n---\n# [y](http://z)";
        let provenance = Provenance {
            conversion: serde_json::json!({
                "totals": [{"weights": 2, "weights_exact": 1, "format": evil}],
                "functions": [
                    {"name": "main", "tokens": 1, "multiply_adds": 1000, "weight_bytes": 1000},
                    {"name": evil, "tokens": evil},
                    {"name": "prefill", "tokens": 512, "multiply_adds": 543, "weight_bytes": 2},
                ],
            }),
            gate: serde_json::json!({"agreed": 1, "qualified": 2, "passed": true, "reference": evil}),
            compiled_from: Some(CompiledFrom {
                bundle: evil.to_owned(),
                main_sha256: [0; 32].into(),
                architecture: evil.to_owned(),
                toolchain: Value::Null,
            }),
            ..Provenance::default()
        };
        let evaluation = serde_json::json!({
            "text": evil, "mean_kl": 2.5e-5, "max_kl": 0.01, "perplexity": 12.5, "sure": {"agreed": 7, "of": 8},
            "agreement": {"agreed": 9, "of": 10, "low": 0.5958, "high": 0.9821},
            "reference": {"positions": 10, "window": 5, "perplexity": 12.25},
        });
        let member = |kind, provenance| Member {
            folder: PathBuf::new(),
            name: evil.to_owned(),
            manifest: Manifest {
                evaluation: evaluation.clone(),
                ..Manifest::new(kind, evil, provenance, Vec::new())
            },
            metadata: None,
        };
        let release = Release {
            name: evil,
            tool: evil,
            bundles: &[],
            tables: &[],
            base_model: evil,
            license: &License { id: evil.to_owned(), text: Vec::new() },
            recipe: &Value::Null,
        };
        let source = SourceRecord { revision: Some(evil.to_owned()), ..SourceRecord::default() };
        let bundle = member(ManifestKind::Bundle, provenance);
        let tables = member(ManifestKind::Tables, Provenance::default());
        let card = render(&release, Some(&source), &[bundle], &[tables]).unwrap();
        let scalar = r##""`x` | <b>\n---\n# [y](http://z)""##;
        assert!(
            card.starts_with(&format!("---\nlicense: {scalar}\nbase_model: {scalar}\npipeline_tag:")),
            "{card}"
        );
        let plain = r"\`x\` \| \<b\>\\n---\\n\# \[y\](http\://z)";
        let code = r"`` `x` \| <b>\n---\n# [y](http://z) ``";
        let link = "https://huggingface.co/%60x%60%20%7C%20%3Cb%3E%0A---%0A%23%20%5By%5D%28http%3A//z%29";
        for expected in [
            format!(
                "\n# {plain}\n\nApple Core AI bundles of [{plain}]({link}) at commit {code}, made with {plain}.\n"
            ),
            format!("| compiled for {plain} from {code} | f16 |"),
            format!("\n- {plain} weights: 1 of 2 weights (50.00 %) are those of the checkpoint"),
            format!(
                "\n- {code} reads prompts through `prefill`, 512 tokens at a time: for each token 54.30 % of"
            ),
            format!("against {plain}: gate passed: 1 of 2 positions with a margin of 0.1 or more.\n"),
            format!(
                "\n- {code} on {plain}, 10 tokens in windows of 5: KL divergence from fp32 2.50e-5 nats, at most 1.00e-2; the same \
                 winner at 90.00 % of the positions (95 %: 59.58 to 98.21), where fp32 is sure at 7 of 8; perplexity 12.500, \
                 fp32 12.250.\n"
            ),
            format!("under the terms of their source, {code}: see LICENSE.\n"),
        ] {
            assert!(card.contains(&expected), "{expected}\n{card}");
        }
        assert_eq!(card.lines().filter(|line| *line == "---").count(), 2, "{card}");
        assert_eq!(card.lines().filter(|line| line.starts_with('#')).count(), 6, "{card}");
    }
}
