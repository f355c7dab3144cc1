//! Graphs for iOS are compiled without their `prefill` function.
//!
//! On betas of iOS 27, functions that take several tokens were reported to overflow a heap (apple/coreai-models, issue 201), and
//! alternating between two functions of one asset to abort. `main` reads prompts instead, one token at a time.

use std::fs::{self, File};
use std::path::Path;

use aimodel::bytecode::layout::Layout;
use aimodel::package::{Package, PackageMetadata, PackageWriter};
use aimodel::view::Function;
use aimodel::{Dim, OpId};
use packer::TOOL;
use packer::metadata::{BundleMetadata, MAIN_FUNCTION, PREFILL_FUNCTION, PromptReading, QueryLength};

use crate::error::Error;
use crate::interrupt::Interrupt;
use crate::source::SourceBundle;

/// A graph whose `prefill` function is left out.
#[derive(Debug)]
pub(crate) struct LeftOut {
    package: Package,
    prefill: OpId,
}

impl LeftOut {
    /// Looks for the function; none if the graph has none.
    ///
    /// # Errors
    /// [`Error::Program`] if the graph cannot be read.
    pub(crate) fn find(source: &SourceBundle) -> Result<Option<Self>, Error> {
        let package = Package::open(&source.package_path())?;
        let module = &package.bytecode.module;
        let has_its_name = |graph: &OpId| {
            Function::of(module, *graph).is_some_and(|function| function.name == Some(PREFILL_FUNCTION))
        };
        let found = module.graphs().into_iter().find(has_its_name);
        Ok(found.map(|prefill| LeftOut { package, prefill }))
    }

    /// Makes a bundle in `folder` that has nothing but the graph without the function, and opens it.
    ///
    /// # Errors
    /// If it cannot be written, or the run is interrupted.
    pub(crate) fn write(
        &self,
        source: &SourceBundle,
        folder: &Path,
        interrupt: &Interrupt,
    ) -> Result<SourceBundle, Error> {
        let bundle = folder.join(&source.name);
        fs::create_dir_all(&bundle).map_err(Error::io("create", &bundle))?;
        let mut metadata = source.metadata.clone();
        self.describe(&mut metadata);
        metadata.write(&bundle)?;
        self.write_package(&bundle.join(&source.package), interrupt)?;
        SourceBundle::open(&bundle)
    }

    fn write_package(&self, directory: &Path, interrupt: &Interrupt) -> Result<(), Error> {
        let bytecode = &self.package.bytecode;
        let mut module = bytecode.module.clone();
        module.remove_graph(self.prefill);
        let layout = Layout::avoiding_whole_pages(&mut module).ok_or_else(|| Error::NotCompilable {
            path: self.package.directory.clone(),
            reason: "its blobs are too large".into(),
        })?;
        let program = self.package.program();
        let blobs = File::open(&program).map_err(Error::io("read", &program))?;
        let mut writer = PackageWriter::create(directory, &layout)?;
        for placement in &layout.placements {
            if interrupt.is_raised() {
                return Err(Error::Interrupted);
            }
            let mut written = Ok(());
            let copied = bytecode.blobs[placement.resource.index()].scan(&blobs, |piece| {
                if written.is_ok() {
                    written = writer.write(piece);
                }
            });
            copied.map_err(Error::io("read", &program))?;
            written?;
        }
        let undated = || PackageMetadata { creation_date: None, ..PackageMetadata::new(TOOL, "") };
        writer.finish(&self.package.metadata.clone().unwrap_or_else(undated))?;
        Ok(())
    }

    /// Changes the metadata of the bundle so that `main` reads prompts.
    pub(crate) fn describe(&self, metadata: &mut BundleMetadata) {
        let chunk = metadata.language.prefill_chunk_size.unwrap_or(1);
        metadata.set_prompts(PromptReading { main: self.query_length(), prefill: None, chunk });
    }

    /// Tokens that a call of `main` takes.
    fn query_length(&self) -> QueryLength {
        let functions: Vec<_> = Function::all(&self.package.bytecode.module).flatten().collect();
        let main = functions.iter().find(|function| function.name == Some(MAIN_FUNCTION));
        match main.and_then(Function::query_length) {
            Some(Dim::Fixed(tokens)) => QueryLength::Fixed(tokens),
            _ => QueryLength::Dynamic,
        }
    }
}
