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
mod outputs;
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
pub use finding::{CheckReport, Finding, Rule, Severity};
pub use rules::ALL as RULES;

use crate::FileError;
use crate::contents::{self, FolderKind};
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
         or release (gpu-pipelined/), and holds none of these: pass one, or an archive of `pack`",
        path.display()
    )]
    Unrecognized {
        /// The folder.
        path: PathBuf,
    },
}

/// Checks the bundle, table folder, graph package or release at `path`, or everything in a folder of these.
///
/// # Errors
/// When `path` cannot be listed or is none of these.
pub fn check(path: &Path, options: &Options<'_>) -> Result<CheckReport, CheckError> {
    // A folder that cannot be listed is an error of its own.
    paths::list(path).map_err(FileError::on("list", path))?;
    let unrecognized = || CheckError::Unrecognized { path: path.to_path_buf() };
    let target = contents::kind_of(path).ok_or_else(unrecognized)?;
    let mut context = Context::new(options);
    match target {
        FolderKind::Package => package::check_bare(&mut context, &Folder::root(path, target))?,
        FolderKind::Bundle => bundle::check_alone(&mut context, &Folder::root(path, target))?,
        FolderKind::Tables => tables::check(&mut context, &Folder::root(path, target)).map(drop)?,
        FolderKind::Release => release::check(&mut context, &Folder::root(path, target))?,
        FolderKind::Outputs => outputs::check(&mut context, &Folder::root(path, target))?,
    }
    let members = contents::members(path);
    Ok(CheckReport { target, path: path.to_path_buf(), members, findings: context.into_findings() })
}
