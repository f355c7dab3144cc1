//! A plan as text or JSON, and the last line of a conversion's output.

use std::io::{self, Write};
use std::process::ExitCode;

use coreai_bundle::parts::converter::Plan;
use coreai_bundle::parts::converter::name::ModelName;
use coreai_bundle::parts::converter::plan::GraphPlan;
use coreai_bundle::parts::converter::recipe::EmbeddingForm;
use coreai_bundle::parts::converter::statistics::Totals;
use coreai_bundle::parts::text::terminal::word;
use serde_json::json;

use crate::columns::Columns;
use crate::{digits, terminal};

/// Prints what a conversion would write.
pub(crate) fn print(plan: &Plan, name: &ModelName) -> anyhow::Result<ExitCode> {
    let mut out = io::BufWriter::new(terminal::out());
    if terminal::is_json() {
        let graphs: Vec<_> = plan
            .graphs
            .iter()
            .map(|graph| {
                json!({
                    "bundle": name.bundle(graph),
                    "variant": graph.variant.name(),
                    "ops": graph.ops,
                    "bytes": graph.bytes(),
                    "blobs": graph.blobs,
                    "inline": graph.inline,
                })
            })
            .collect();
        let tables = plan
            .tables
            .as_ref()
            .map(|tables| json!({"folder": name.tables(), "bytes": tables.bytes(), "files": tables.files()}));
        let text = json!({"graphs": graphs, "tables": tables, "head": plan.head, "table_forms": plan.table_forms, "bytes": plan.bytes()});
        terminal::print_json(&text)?;
    } else {
        for graph in &plan.graphs {
            print_graph(&mut out, graph, name)?;
        }
        print_tables(&mut out, plan, name)?;
        let head = format!("head: {}, {}", plan.head.treatment.format(), plan.head.reason);
        writeln!(out, "{}", terminal::wrap(&head, 0, 2, terminal::width()))?;
        for line in table_lines(plan) {
            writeln!(out, "{}", terminal::wrap(&line, 0, 2, terminal::width()))?;
        }
        writeln!(out, "in all {}", size(plan.bytes()))?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// How the embedding and the per-layer table are stored, where that is not as in the published bundles.
pub(crate) fn table_lines(plan: &Plan) -> impl Iterator<Item = String> {
    let forms = &plan.table_forms;
    let embedding = (forms.embedding.form != EmbeddingForm::F16 || forms.embedding.sample.is_some())
        .then(|| ("embedding", forms.embedding.form.name(), &forms.embedding.reason));
    let per_layer =
        forms.per_layer.as_ref().map(|chosen| ("per-layer table", chosen.form.name(), &chosen.reason));
    let untried = |form: &str| match form {
        "shared" | "dequantized" | "si4" => {
            "; no device has run this form, --embedding f16 is the published one"
        }
        "int4" => "; no device has run this form, --per-layer int8 is the published one",
        _ => "",
    };
    let lines = embedding.into_iter().chain(per_layer);
    lines.map(move |(what, form, reason)| format!("{what}: {form}, {reason}{}", untried(form)))
}

fn print_graph(out: &mut impl Write, graph: &GraphPlan, name: &ModelName) -> io::Result<()> {
    let bundle = name.bundle(graph);
    let size = size(graph.bytes());
    let line = format!(
        "{bundle}/{bundle}.aimodel/main.mlirb  {size}, {} ops, {} blobs",
        graph.ops,
        graph.blobs.len()
    );
    writeln!(out, "{}", terminal::wrap(&line, 0, 2, terminal::width()))?;
    let mut columns = Columns::new(&["blob", "bytes", "rule", "shape", "type", "offset"]);
    for blob in &graph.blobs {
        columns.row(vec![
            blob.key.clone(),
            digits::grouped(blob.bytes()),
            blob.content.name().to_owned(),
            digits::shape(&blob.shape),
            blob.element.name().to_owned(),
            digits::grouped(blob.offset),
        ]);
    }
    for tensor in &graph.inline {
        let (element, place) = ("f16".to_owned(), "in program".to_owned());
        let shape = digits::shape(&tensor.shape);
        columns.row(vec![tensor.name.clone(), String::new(), element.clone(), shape, element, place]);
    }
    write!(out, "{}", columns.text(terminal::width()))
}

fn print_tables(out: &mut impl Write, plan: &Plan, name: &ModelName) -> io::Result<()> {
    let Some(tables) = &plan.tables else { return Ok(()) };
    writeln!(out, "{}/  {}", name.tables(), size(tables.bytes()))?;
    for file in tables.files() {
        let line =
            format!("  {}  {} bytes from {}", file.name, digits::grouped(file.bytes), word(&file.tensor));
        writeln!(out, "{}", terminal::wrap(&line, 0, 4, terminal::width()))?;
    }
    Ok(())
}

fn size(bytes: u64) -> String {
    format!("{} ({} bytes)", digits::bytes(bytes), digits::grouped(bytes))
}

/// What happened to the weights of one format.
pub(crate) fn total_line(total: &Totals) -> String {
    let blocks = digits::grouped(total.blocks);
    let exact = digits::percent(total.weights_exact, total.weights);
    let mut line = if total.format == "int4" {
        let on_lattice = digits::percent(total.blocks_on_lattice, total.blocks);
        let with_f16_scale = if total.blocks_exact < total.blocks_on_lattice {
            format!(" ({} with an f16 scale)", digits::percent(total.blocks_exact, total.blocks))
        } else {
            String::new()
        };
        format!(
            "int4: {blocks} blocks, {on_lattice} on the lattice{with_f16_scale}, {exact} of weights byte-exact"
        )
    } else {
        format!("{}: {blocks} blocks, {exact} of weights byte-exact", total.format)
    };
    if total.weights_exact < total.weights {
        line.push_str(&format!(", relative error {:.4}", total.relative_error));
    }
    if total.subnormal_scales > 0 {
        line.push_str(&format!(", {} scales below 2^-14", digits::grouped(total.subnormal_scales)));
    }
    line
}
