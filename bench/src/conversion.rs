//! The command as users run it, on models of E4B's widths.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use checkpoint::config::CacheForm;
use checkpoint::source::{LocalSource, Source};
use converter::decoder::{Functions, Variant};
use converter::embedding::TableForms;
use converter::recipe::Treatment;
use converter::{Model, Plan, Request};
use fixtures::{Shape, SyntheticCheckpoint};
use quantizer::Int4Rule;

use crate::Options;
use crate::child;
use crate::figure::{Figures, median, seconds};
use crate::floor::{self, Cache};

/// Layers per file of a model.
const SHARD_LAYERS: usize = 12;

/// Measures every model: one of a configuration's sizes if there is one, otherwise those of E4B's widths.
pub(crate) fn measure(options: &Options, figures: &mut Figures) -> Result<()> {
    if let Some(config) = &options.config {
        let section = format!("conversion, {}", config.display());
        let checkpoint = SyntheticCheckpoint::from_config(config)?;
        return measured(options, &checkpoint, |model| Subject { options, model, section }.stock(figures));
    }
    for layers in &options.layers {
        let shards = layers.div_ceil(SHARD_LAYERS);
        let checkpoint = SyntheticCheckpoint { shards, ..SyntheticCheckpoint::new(Shape::e4b(*layers)) };
        let section = format!("conversion, {layers} layers of E4B's widths");
        measured(options, &checkpoint, |model| Subject { options, model, section }.published(figures))?;
    }
    Ok(())
}

/// Makes a checkpoint, measures it, and removes it.
fn measured(
    options: &Options,
    checkpoint: &SyntheticCheckpoint,
    measure: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let model = options.scratch.join("model");
    checkpoint.write(&model)?;
    let measured = measure(&model);
    fs::remove_dir_all(&model)?;
    measured
}

/// A model to convert.
struct Subject<'o> {
    options: &'o Options,
    model: &'o Path,
    section: String,
}

impl Subject<'_> {
    /// The bundles that are published for models with per-layer embeddings.
    fn published(&self, figures: &mut Figures) -> Result<()> {
        let source = LocalSource::open(self.model)?;
        let (names, plan) = everything(&source)?;
        let conversion = ["--head", "int4", "--variant", "both"];
        self.beside_floor(&source, &names, &plan, Cache::ALL, &conversion, figures)?;
        self.single(figures)?;
        self.summary(figures)
    }

    /// The bundle for Apple's engine. The cache is cold where that can be arranged: the model may be larger than memory.
    fn stock(&self, figures: &mut Figures) -> Result<()> {
        let source = LocalSource::open(self.model)?;
        let plan = Model::open(&source)?.plan(&Request {
            graphs: vec![(Variant::Stock, Functions::MAIN)],
            caches: CacheForm::Padded,
            tables: false,
            projections: Treatment::Int4(Int4Rule::Lattice),
            overrides: Vec::new(),
            head: None,
            table_forms: TableForms::AUTO,
        })?;
        let cache = &Cache::ALL[Cache::ALL.len() - 1..];
        self.beside_floor(&source, &names_of(&plan), &plan, cache, &["--variant", "stock"], figures)?;
        self.summary(figures)
    }

    fn beside_floor(
        &self,
        source: &LocalSource,
        names: &BTreeSet<String>,
        plan: &Plan,
        caches: &[Cache],
        arguments: &[&str],
        figures: &mut Figures,
    ) -> Result<()> {
        let section = self.section.as_str();
        let tensors: Vec<_> = source.tensors().iter().filter(|tensor| names.contains(&tensor.name)).collect();
        let read: u64 = tensors.iter().map(|tensor| tensor.byte_len()).sum();
        let volume = format!("{:.2} GB read, {:.2} GB written", read as f64 / 1e9, plan.bytes() as f64 / 1e9);
        for cache in caches {
            let (mut floors, mut times, mut memory) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..self.options.runs {
                cache.prepare(self.model)?;
                let target = self.options.scratch.join("floor");
                floors.push(seconds(|| floor::copy(source, &tensors, plan.bytes(), &target))?);
                cache.prepare(self.model)?;
                let usage = self.convert(arguments)?;
                times.push(usage.seconds);
                memory.push(usage.peak_megabytes);
            }
            let name = |what: &str| format!("{what}, {} cache", cache.name());
            let floor =
                figures.add(section, &name("floor: plain copies and fsync"), "s", floors, volume.as_str());
            let ratio = format!("{:.2} of the floor", median(&times) / floor);
            let converted = format!("convert {}", arguments.join(" "));
            figures.add(section, &name(&converted), "s", times, ratio);
            figures.add(section, &name("peak resident memory"), "MB", memory, "");
        }
        Ok(())
    }

    /// One variant without tables: what the Python pipeline's published numbers are for.
    fn single(&self, figures: &mut Figures) -> Result<()> {
        let (mut times, mut memory) = (Vec::new(), Vec::new());
        for _ in 0..self.options.runs {
            Cache::Warm.prepare(self.model)?;
            let usage = self.convert(&["--head", "int4", "--no-tables"])?;
            times.push(usage.seconds);
            memory.push(usage.peak_megabytes);
        }
        let section = self.section.as_str();
        figures.add(section, "convert, provider alone, warm cache", "s", times, "");
        figures.add(section, "peak resident memory", "MB", memory, "");
        Ok(())
    }

    /// Apple's API opens what the last run wrote.
    fn summary(&self, figures: &mut Figures) -> Result<()> {
        let Some(python) = &self.options.python else { return Ok(()) };
        let package = package_in(&self.output())?;
        let mut command = Command::new(python);
        command.arg(self.options.scripts.join("summary.py")).arg(&package);
        let output = command.output().with_context(|| format!("cannot run {}", python.display()))?;
        if !output.status.success() {
            bail!("Apple's API and {}: {}", package.display(), String::from_utf8_lossy(&output.stderr));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let (seconds, functions) = text.trim().split_once(' ').context("summary.py said nothing")?;
        figures.add(
            &self.section,
            "Apple's API loads and summarizes it",
            "s",
            vec![seconds.parse()?],
            functions,
        );
        Ok(())
    }

    fn output(&self) -> PathBuf {
        self.options.scratch.join("out")
    }

    fn convert(&self, arguments: &[&str]) -> Result<child::Usage> {
        let output = self.output();
        if output.exists() {
            fs::remove_dir_all(&output)?;
        }
        let mut command = Command::new(&self.options.program);
        command.arg("convert").arg(self.model).arg("-o").arg(&output).args(arguments);
        child::run(&mut command)
    }
}

/// What a conversion of everything reads, by name, and its plan.
pub(crate) fn everything(source: &LocalSource) -> Result<(BTreeSet<String>, Plan)> {
    let model = Model::open(source)?;
    let plan = model.plan(&Request {
        graphs: [Variant::Provider, Variant::Table].map(|variant| (variant, Functions::MAIN)).to_vec(),
        caches: CacheForm::Padded,
        tables: true,
        projections: Treatment::Int4(Int4Rule::Lattice),
        overrides: Vec::new(),
        head: Some(Treatment::Int4(Int4Rule::Lattice)),
        table_forms: TableForms::PUBLISHED,
    })?;
    let mut names = names_of(&plan);
    names.extend(plan.tables.iter().flat_map(converter::tables::TablesPlan::files).map(|file| file.tensor));
    Ok((names, plan))
}

/// The tensors that graphs read.
fn names_of(plan: &Plan) -> BTreeSet<String> {
    plan.graphs.iter().flat_map(|graph| &graph.blobs).map(|blob| blob.tensor.clone()).collect()
}

/// The package in the only bundle of a folder.
fn package_in(output: &Path) -> Result<PathBuf> {
    for bundle in fs::read_dir(output)? {
        for entry in fs::read_dir(bundle?.path())? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "aimodel") {
                return Ok(path);
            }
        }
    }
    bail!("there is no package in {}", output.display())
}
