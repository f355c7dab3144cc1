//! How two packages, bundles or table folders differ.

mod bytes;
mod folder;
mod graph;
mod json;
mod program;
mod tables;
mod weights;

use std::path::{Path, PathBuf};

use serde::Serialize;

pub use bytes::ByteDifference;
pub use graph::{ChangeKind, GraphDifference, LineDifference};
pub use json::FieldDifference;
pub use program::{ProgramDifference, compare_packages};
pub use tables::TableDifference;
pub use weights::{FirstDifference, ValuesDifference, WeightDifference, WeightVerdict, WeightsDifference};

/// All differences of two folders.
#[derive(Debug, Serialize)]
pub struct FolderDifference {
    /// One folder.
    pub left: PathBuf,
    /// The folder that it was compared with.
    pub right: PathBuf,
    /// Whether nothing differs.
    pub equal: bool,
    /// All files of both.
    pub files: Vec<FileDifference>,
}

/// One file of both folders, or of one.
#[derive(Debug, Serialize)]
pub struct FileDifference {
    /// Path in the folder; the package's folder is called `package`, whatever its name.
    pub path: String,
    /// How it compares.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// How a file compares.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Verdict {
    /// The bytes are equal.
    Equal {
        /// They were not read: their digests are equal.
        by_digest: bool,
    },
    /// Only the left folder has it.
    OnlyLeft {
        /// Its size.
        bytes: u64,
    },
    /// Only the right folder has it.
    OnlyRight {
        /// Its size.
        bytes: u64,
    },
    /// The same content in other bytes.
    Equivalent,
    /// Fields of JSON differ.
    Fields {
        /// The fields.
        fields: Vec<FieldDifference>,
    },
    /// Numbers of a table differ.
    Table(TableDifference),
    /// Graphs or weights differ.
    Program(ProgramDifference),
    /// Bytes differ.
    Bytes(ByteDifference),
}

impl Verdict {
    /// Whether there is no significant difference.
    pub fn is_equal(&self) -> bool {
        matches!(self, Verdict::Equal { .. } | Verdict::Equivalent)
    }
}

/// Compares everything below two folders. With `quick`, recorded digests that are equal are trusted.
///
/// # Errors
/// If one is not a folder, or something in them cannot be read.
pub fn compare(left: &Path, right: &Path, quick: bool) -> anyhow::Result<FolderDifference> {
    let files = folder::compare(left, right, quick)?;
    let equal = files.iter().all(|file| file.verdict.is_equal());
    Ok(FolderDifference { left: left.to_owned(), right: right.to_owned(), equal, files })
}
