//! Conversions that are made to be evaluated.

use std::fs;
use std::path::PathBuf;

use ::oracle::stepper::Stepper;
use ::oracle::tables::Tables;
use aimodel::package::PackageMetadata;
use anyhow::{Context, bail};
use checkpoint::config::CacheForm;
use checkpoint::source::Source;
use converter::decoder::{Functions, Variant};
use converter::embedding::TableForms;
use converter::journal::Journal;
use converter::recipe::Treatment;
use converter::{Model, Request};
use interpreter::Session;
use output::{StagedDirectory, available_bytes};
use packer::TOOL;
use packer::replace::Outputs;
use progress::Progress;
use report::digits;

use crate::outputs::creation_date;

/// What a conversion is called: its rule, or the format of all its weights.
pub(super) fn name(treatment: Treatment) -> &'static str {
    match treatment {
        Treatment::Int4(rule) => rule.name(),
        Treatment::Int8 | Treatment::F16 => treatment.format(),
    }
}

/// Where conversions are made, one after the other. It is deleted when it is dropped.
pub(super) struct TemporaryConversions<'s> {
    model: Model<'s>,
    folder: StagedDirectory,
    threads: usize,
    /// The tables, which are the same for all of them.
    tables: Option<PathBuf>,
}

impl<'s> TemporaryConversions<'s> {
    /// Makes a folder for temporary files.
    pub(super) fn open(source: &'s dyn Source, threads: usize) -> anyhow::Result<Self> {
        let model = Model::open(source)?;
        let target = std::env::temp_dir().join("coreai-bundle-eval");
        let folder = StagedDirectory::new(&target, Outputs::new(Vec::<PathBuf>::new(), false).temporary())?;
        Ok(TemporaryConversions { model, folder, threads, tables: None })
    }

    /// Converts, and opens the package. It replaces the one before. The head is stored as the projections are, but only has 4-bit codes
    /// if it lies on the lattice.
    pub(super) fn make(&mut self, treatment: Treatment, progress: &dyn Progress) -> anyhow::Result<Stepper> {
        let has_tables = self.model.config.per_layer.is_some();
        let (variant, table_forms) = if has_tables {
            (Variant::Provider, TableForms::PUBLISHED)
        } else {
            (Variant::Stock, TableForms::AUTO)
        };
        let plan = self.model.plan(&Request {
            graphs: vec![(variant, Functions::MAIN)],
            caches: CacheForm::Padded,
            tables: has_tables && self.tables.is_none(),
            projections: treatment,
            overrides: Vec::new(),
            head: (!matches!(treatment, Treatment::Int4(_))).then_some(treatment),
            table_forms,
        })?;
        let package = self.folder.path().join("what-if.aimodel");
        if package.exists() {
            fs::remove_dir_all(&package).with_context(|| format!("cannot remove {}", package.display()))?;
        }
        let (needed, available) = (plan.bytes(), available_bytes(self.folder.path())?);
        if needed > available {
            bail!(
                "--rule {} needs {} in the folder for temporary files, which has {}: set TMPDIR to a larger one",
                name(treatment),
                digits::bytes(needed),
                digits::bytes(available)
            );
        }
        let tables = self.folder.path().join("tables");
        if plan.tables.is_some() {
            fs::create_dir(&tables).with_context(|| format!("cannot make {}", tables.display()))?;
        }
        let outputs = converter::Outputs {
            packages: std::slice::from_ref(&package),
            tables: plan.tables.is_some().then_some(tables.as_path()),
            scratch: self.folder.path(),
            metadata: &PackageMetadata::new(TOOL, &creation_date()?),
        };
        progress.expect(plan.input_bytes());
        self.model.write(&plan, &outputs, self.threads, progress, &mut Journal::off())?;
        progress.finish();
        if plan.tables.is_some() {
            self.tables = Some(tables);
        }
        let tables = self.tables.as_deref().map(Tables::open).transpose()?;
        Ok(Stepper::new(Session::open(&package)?, tables)?)
    }
}
