//! A release tree: bundles and tables in the places where users look for them, a card, a license, a manifest.
//!
//! Nothing is invented: the card says what the manifests of the members record, and names what they do not.

mod card;
mod member;
mod place;
mod terms;

pub use card::license_of_card;
pub use terms::TermError;

use std::path::{Path, PathBuf};

use output::StagedDirectory;
use serde_json::Value;

use self::member::Member;
use crate::contents::{GRAPHS, TABLES};
use crate::files::{self, FileError};
use crate::manifest::{self, Manifest, ManifestError, ManifestKind, Provenance, SourceRecord, WeightsCheck};
use crate::metadata::MetadataError;

/// What goes into a release.
#[derive(Debug)]
pub struct Release<'a> {
    /// Its name: the title of the card.
    pub name: &'a str,
    /// Name and version of the tool.
    pub tool: &'a str,
    /// Bundle folders, portable and compiled ones.
    pub bundles: &'a [PathBuf],
    /// Table folders.
    pub tables: &'a [PathBuf],
    /// Repository that the weights come from, for the card.
    pub base_model: &'a str,
    /// The license terms of the weights.
    pub license: &'a License,
    /// What makes the same bytes again; null if it is not known.
    pub recipe: &'a Value,
}

/// The license of the weights.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct License {
    /// As cards name it: `apache-2.0`, `gemma`.
    pub id: String,
    /// The text.
    pub text: Vec<u8>,
}

/// Why there is no release.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// The file system refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// A manifest cannot be read or written.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The metadata of a bundle cannot be read.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// A folder is not of the kind that it was given as.
    #[error("{} is {found}: give bundles and table folders that `coreai-bundle convert` made", path.display())]
    WrongKind {
        /// The folder.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// Two members would take one place.
    #[error("{} and {} are both called {name}: a release holds one of them", first.display(), second.display())]
    SameName {
        /// Their name.
        name: String,
        /// A folder.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// The members are of different checkpoints.
    #[error(
        "{} comes from {first_source}, {} from {second_source}: a release is of one checkpoint", first.display(), second.display()
    )]
    Sources {
        /// A folder.
        first: PathBuf,
        /// Its checkpoint.
        first_source: String,
        /// Another folder.
        second: PathBuf,
        /// Its checkpoint.
        second_source: String,
    },
    /// The members were made from different trainings.
    #[error(
        "{} and {} were made from different weights: their checksums of {tensor} differ. Convert both from one checkpoint",
        first.display(), second.display()
    )]
    Weights {
        /// A folder.
        first: PathBuf,
        /// Another folder.
        second: PathBuf,
        /// The first tensor that differs.
        tensor: String,
    },
    /// A file is not the one that was made.
    #[error("{} is not what its manifest says: it was changed after it was made; make the folder again", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The license or the revision is not one.
    #[error(transparent)]
    Term(#[from] TermError),
    /// The card cannot be rendered.
    #[error("the card cannot be rendered: {0:#}")]
    Card(#[from] minijinja::Error),
}

/// Makes a release in an empty folder. Large files are linked where the file system can do that, else copied; every byte is
/// hashed again and compared with the members' manifests.
///
/// # Errors
/// If a member is not a bundle or table folder, was changed since it was made, or comes from another checkpoint than the others;
/// or a file cannot be read or written.
pub fn assemble(folder: &StagedDirectory, release: &Release<'_>) -> Result<Manifest, ReleaseError> {
    let bundles = members(release.bundles, ManifestKind::Bundle)?;
    let tables = members(release.tables, ManifestKind::Tables)?;
    let source = common_source(bundles.iter().chain(&tables))?;
    same_weights(&bundles.iter().chain(&tables).collect::<Vec<_>>())?;
    terms::check(release, source.as_ref())?;
    let root = folder.path();
    for (part, members) in [(GRAPHS, &bundles), (TABLES, &tables)] {
        members.iter().try_for_each(|member| place::member(member, &root.join(part).join(&member.name)))?;
    }
    files::write(&root.join("LICENSE"), &release.license.text)?;
    files::write(
        &root.join("README.md"),
        card::render(release, source.as_ref(), &bundles, &tables)?.as_bytes(),
    )?;
    let provenance = Provenance {
        tool: release.tool.to_owned(),
        source,
        recipe: release.recipe.clone(),
        ..Provenance::default()
    };
    let manifest = manifest::seal(root, ManifestKind::Release, release.name, provenance, &[])?;
    for (part, members) in [(GRAPHS, &bundles), (TABLES, &tables)] {
        members.iter().try_for_each(|member| compare(&manifest, part, member))?;
    }
    Ok(manifest)
}

/// Reads the members, whose names are distinct.
fn members(folders: &[PathBuf], kind: ManifestKind) -> Result<Vec<Member>, ReleaseError> {
    let mut members: Vec<Member> = Vec::with_capacity(folders.len());
    for folder in folders {
        let member = Member::read(folder, kind)?;
        if let Some(first) = members.iter().find(|first| first.name == member.name) {
            let (first, second) = (first.folder.clone(), member.folder);
            return Err(ReleaseError::SameName { name: member.name, first, second });
        }
        members.push(member);
    }
    members.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(members)
}

/// The checkpoint that all come from. Its weights are verified only if those of all members are.
fn common_source<'m>(
    members: impl Iterator<Item = &'m Member>,
) -> Result<Option<SourceRecord>, ReleaseError> {
    let mut first: Option<(&Member, Option<SourceRecord>)> = None;
    for member in members {
        let source = member.manifest.source.clone();
        let Some((known, common)) = &mut first else {
            first = Some((member, source));
            continue;
        };
        let check = |source: &Option<SourceRecord>| source.as_ref().and_then(|source| source.weights);
        let unchecked = |source: &Option<SourceRecord>| {
            source.clone().map(|source| SourceRecord { weights: None, ..source })
        };
        if unchecked(&source) != unchecked(common) {
            return Err(ReleaseError::Sources {
                first: known.folder.clone(),
                first_source: known.source_in_words(),
                second: member.folder.clone(),
                second_source: member.source_in_words(),
            });
        }
        let found = [check(common), check(&source)];
        let weights = match found {
            _ if found.contains(&Some(WeightsCheck::NotVerified)) => Some(WeightsCheck::NotVerified),
            [first, second] if first == second => first,
            _ => None,
        };
        if let Some(common) = common {
            common.weights = weights;
        }
    }
    Ok(first.and_then(|(_, common)| common))
}

/// Refuses members of different trainings.
fn same_weights(members: &[&Member]) -> Result<(), ReleaseError> {
    for (at, first) in members.iter().enumerate() {
        for second in &members[at + 1..] {
            if let Some(tensor) = first.manifest.differing_weights(&second.manifest) {
                let (first, second) = (first.folder.clone(), second.folder.clone());
                return Err(ReleaseError::Weights { first, second, tensor: tensor.to_owned() });
            }
        }
    }
    Ok(())
}

/// Compares what was placed with what the member's manifest says.
fn compare(release: &Manifest, part: &str, member: &Member) -> Result<(), ReleaseError> {
    for file in &member.manifest.files {
        let path = format!("{part}/{}/{}", member.name, file.path);
        let placed = release.files.binary_search_by(|placed| placed.path.as_str().cmp(&path));
        let is_same = placed.is_ok_and(|at| release.files[at].sha256 == file.sha256);
        if !is_same {
            return Err(ReleaseError::Changed { path: member.folder.join(Path::new(&file.path)) });
        }
    }
    Ok(())
}
