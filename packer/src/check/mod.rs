//! What is wrong with a bundle, a table folder, a graph package or a release, before a phone finds out.
//!
//! Every rule that a loader, the engine or a user would trip over and that files can show is in one catalog
//! (`rules`); the modules beside it apply them. JSON is read leniently, value by value: the point is
//! to say what is wrong with it, not to fail on it.

mod bundle;
mod chunking;
mod compiled;
mod context;
mod extract;
pub mod facts;
mod files;
mod finding;
mod functions;
mod graph;
mod json;
mod metadata;
mod package;
mod release;
mod rules;
mod tables;
mod tokenizer;

use std::path::{Path, PathBuf};

use context::{Context, Folder};
use facts::GraphFacts;

pub use compiled::ARCHITECTURES;
pub use context::GraphReader;
pub use finding::{CheckReport, CheckTarget, Finding, Rule, Severity};
pub(crate) use release::{GRAPHS, TABLES};
pub use rules::ALL as RULES;

use crate::FileError;
use crate::manifest;
use crate::metadata as bundle_metadata;
use crate::template::Renderer;

/// How thorough a check is and where it looks.
pub struct Options<'a> {
    /// Folder of the tables that a bundle belongs to; None looks beside the bundle.
    pub tables: Option<&'a Path>,
    /// Whether to read every byte and compare digests; otherwise sizes and structure only.
    pub digests: bool,
    /// Reads the graph of a package.
    pub graph_reader: GraphReader<'a>,
    /// Renders the chat template.
    pub render: Renderer<'a>,
}

impl<'a> Options<'a> {
    /// A thorough check, with the tables beside the bundle.
    pub fn new(render: Renderer<'a>) -> Self {
        Self { tables: None, digests: true, graph_reader: &GraphFacts::read, render }
    }
}

/// Why nothing could be checked.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The file system refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// The folder is not of a known kind.
    #[error(
        "{} is not a bundle (metadata.json, *.aimodel), table folder (meta.json), graph package (main.mlirb) \
         or release (gpu-pipelined/): pass one of these",
        path.display()
    )]
    Unrecognized {
        /// The folder.
        path: PathBuf,
    },
}

/// Checks the bundle, table folder, graph package or release at `path`.
///
/// # Errors
/// When `path` cannot be listed or is none of these.
pub fn check(path: &Path, options: &Options<'_>) -> Result<CheckReport, CheckError> {
    let target = recognize(path)?;
    let mut context = Context::new(options);
    match target {
        CheckTarget::Package => package::check_bare(&mut context, &Folder::root(path, target))?,
        CheckTarget::Bundle => bundle::check_alone(&mut context, &Folder::root(path, target))?,
        CheckTarget::Tables => tables::check(&mut context, &Folder::root(path, target)).map(drop)?,
        CheckTarget::Release => release::check(&mut context, &Folder::root(path, target))?,
    }
    Ok(CheckReport { target, path: path.to_path_buf(), findings: context.into_findings() })
}

/// What the folder at `path` is, by what it holds.
fn recognize(path: &Path) -> Result<CheckTarget, CheckError> {
    let entries = paths::list(path).map_err(FileError::on("list", path))?;
    let names: Vec<String> =
        entries.iter().map(|entry| entry.name.to_string_lossy().into_owned()).collect();
    let has = |name: &str| names.iter().any(|found| found == name);
    let has_asset = names.iter().any(|name| bundle::is_asset(name));
    let kind = manifest::Manifest::read(path).ok().map(|manifest| manifest.kind);
    if has(release::GRAPHS) || has(release::TABLES) || kind == Some(manifest::ManifestKind::Release) {
        Ok(CheckTarget::Release)
    } else if package::is_program_folder(&names) {
        Ok(CheckTarget::Package)
    } else if has_asset || kind == Some(manifest::ManifestKind::Bundle) || has(crate::tokenizer::FOLDER) {
        Ok(CheckTarget::Bundle)
    } else if tables::is_table_folder(&names) || kind == Some(manifest::ManifestKind::Tables) {
        Ok(CheckTarget::Tables)
    } else if has(bundle_metadata::FILE_NAME) {
        Ok(CheckTarget::Bundle)
    } else {
        Err(CheckError::Unrecognized { path: path.to_path_buf() })
    }
}
