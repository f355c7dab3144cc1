//! Conversions that are made to be evaluated.

use std::fs;
use std::path::PathBuf;

use ::oracle::interpreter::Session;
use ::oracle::stepper::Stepper;
use ::oracle::tables::Tables;
use aimodel::package::PackageMetadata;
use anyhow::{Context, bail};
use checkpoint::config::CacheForm;
use checkpoint::source::Source;
use converter::decoder::{Functions, Variant};
use converter::embedding::TableForms;
use converter::journal::Journal;
use converter::quant::Int4Rule;
use converter::recipe::Treatment;
use converter::{Model, Request};
use output::{StagedDirectory, available_bytes};
use packer::TOOL;
use packer::replace::Outputs;
use progress::Progress;
use report::digits;

use crate::outputs::creation_date;

/// A way to store the projections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WhatIf {
    /// 4-bit codes by a rule; the head as well if it lies on the lattice.
    Int4(Int4Rule),
    /// 8-bit codes, in the head too.
    Int8,
    /// Half precision, in the head too.
    F16,
}

impl WhatIf {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            WhatIf::Int4(Int4Rule::Lattice) => "lattice",
            WhatIf::Int4(Int4Rule::Q4_0) => "q4_0",
            WhatIf::Int4(Int4Rule::Absmax) => "absmax",
            WhatIf::Int8 => "int8",
            WhatIf::F16 => "f16",
        }
    }

    fn treatment(self) -> Treatment {
        match self {
            WhatIf::Int4(rule) => Treatment::Int4(rule),
            WhatIf::Int8 => Treatment::Int8,
            WhatIf::F16 => Treatment::F16,
        }
    }
}

/// Where conversions are made, one after the other. It is deleted when it is dropped.
pub(super) struct Workshop<'s> {
    model: Model<'s>,
    folder: StagedDirectory,
    threads: usize,
    /// The tables, which are the same for all of them.
    tables: Option<PathBuf>,
}

impl<'s> Workshop<'s> {
    /// Makes a folder for temporary files.
    pub(super) fn open(source: &'s dyn Source, threads: usize) -> anyhow::Result<Self> {
        let model = Model::open(source)?;
        let target = std::env::temp_dir().join("coreai-bundle-eval");
        let folder = StagedDirectory::new(&target, Outputs::new(Vec::<PathBuf>::new(), false).temporary())?;
        Ok(Workshop { model, folder, threads, tables: None })
    }

    /// Converts, and opens the package. It replaces the one before.
    pub(super) fn make(&mut self, what_if: WhatIf, progress: &dyn Progress) -> anyhow::Result<Stepper> {
        let has_tables = self.model.config.per_layer.is_some();
        let (variant, table_forms) = if has_tables {
            (Variant::Provider, TableForms::PUBLISHED)
        } else {
            (Variant::Stock, TableForms { embedding: None, per_layer: None })
        };
        let treatment = what_if.treatment();
        let plan = self.model.plan(&Request {
            graphs: vec![(variant, Functions::MAIN)],
            caches: CacheForm::Padded,
            tables: has_tables && self.tables.is_none(),
            projections: treatment,
            head: (!matches!(what_if, WhatIf::Int4(_))).then_some(treatment),
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
                what_if.name(),
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
