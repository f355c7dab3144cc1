//! A bundle to run on this machine: its package, its tokenizer, and the tables that belong to it.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use ::oracle::bundle::BundlePaths;
use ::oracle::feeding::Feeding;
use ::oracle::stepper::Stepper;
use ::oracle::tables::Tables;
use ::oracle::text::Text;
use anyhow::{Context, bail};
use interpreter::{Rounding, Session};
use output::Digest;
use packer::manifest::{self, Manifest, ManifestKind};
use packer::metadata::BundleMetadata;

use crate::{contents, tables};

/// Folder of a release tree that holds the tables.
const RELEASE_TABLES: &str = "ios-frontend";

/// Tokens that are fed at a time by default.
pub const DEFAULT_CHUNK: NonZeroUsize = NonZeroUsize::new(512).expect("not zero");

/// Tokens of a prompt that the engine reads at a time, where the bundle has a function that takes any number.
pub(crate) fn chunk_of(metadata: &BundleMetadata) -> u64 {
    metadata.language.prefill_chunk_size.unwrap_or(DEFAULT_CHUNK.get() as u64)
}

/// A bundle, and how it is run.
#[derive(Clone, Debug)]
pub struct Runnable {
    /// Bundle, or package; or a folder or an archive that holds one.
    pub bundle: PathBuf,
    /// Table folder of the bundle; the one beside it that has its stamp otherwise.
    pub tables: Option<PathBuf>,
    /// How sums of half-precision numbers are rounded.
    pub rounding: Rounding,
    /// Tokens of a prompt that are fed at a time, where the package takes several; what the bundle's metadata says otherwise.
    pub chunk: Option<NonZeroUsize>,
}

impl Runnable {
    /// The bundle itself, where a folder or an archive with one bundle was given.
    fn one(&self) -> anyhow::Result<PathBuf> {
        contents::one_bundle(&self.bundle)
    }

    /// Opens the bundle with its tables, to be fed as the engine does.
    ///
    /// # Errors
    /// If it cannot be read or run, or the tables are not its own.
    pub fn stepper(&self) -> anyhow::Result<Stepper> {
        let bundle = self.one()?;
        let paths = BundlePaths::find(&bundle)?;
        let session = Session::open(&paths.package).with_context(|| paths.package.display().to_string())?;
        let folder = self.table_folder(&bundle, &paths)?;
        let tables = folder.map(|folder| Tables::open(&folder)).transpose()?;
        let mut stepper = Stepper::new(session, tables)
            .with_context(|| format!("{} cannot be run", self.bundle.display()))?;
        stepper.set_rounding(self.rounding);
        let feeding = stepper.feeding_of_engine(self.chunk_size(&bundle, &paths)?);
        match feeding {
            Feeding::ONE_BY_ONE if self.chunk.is_some() => {
                bail!("--chunk: {} takes one token at a time; leave the option out", self.bundle.display());
            }
            Feeding::Fixed(width) if self.chunk.is_some_and(|chunk| chunk != width) => {
                bail!(
                    "--chunk: {} takes {width} tokens at a time; leave the option out",
                    self.bundle.display()
                );
            }
            _ => {}
        }
        stepper.set_feeding(feeding)?;
        Ok(stepper)
    }

    fn chunk_size(&self, bundle: &Path, paths: &BundlePaths) -> anyhow::Result<NonZeroUsize> {
        let stated = match (self.chunk, &paths.tokenizer) {
            (None, Some(_)) => BundleMetadata::read(bundle)?.language.prefill_chunk_size,
            _ => None,
        };
        let stated = stated.and_then(|size| NonZeroUsize::new(usize::try_from(size).ok()?));
        Ok(self.chunk.or(stated).unwrap_or(DEFAULT_CHUNK))
    }

    /// The bundle's tokenizer.
    ///
    /// # Errors
    /// If it has none, or one that cannot be read.
    pub fn text(&self) -> anyhow::Result<Text> {
        match BundlePaths::find(&self.one()?)?.tokenizer {
            Some(folder) => Ok(Text::open(&folder)?),
            None => bail!("{}: a bare package has no tokenizer; give the bundle", self.bundle.display()),
        }
    }

    /// Positions that the bundle was made for; a bare package does not say.
    pub(crate) fn max_context(&self) -> anyhow::Result<Option<u64>> {
        let bundle = self.one()?;
        match BundlePaths::find(&bundle)?.tokenizer {
            Some(_) => Ok(Some(BundleMetadata::read(&bundle)?.language.max_context_length)),
            None => Ok(None),
        }
    }

    /// The tables that were given, if they can be the bundle's, or those found beside it.
    fn table_folder(&self, bundle: &Path, paths: &BundlePaths) -> anyhow::Result<Option<PathBuf>> {
        let stamp = match paths.tokenizer {
            Some(_) => BundleMetadata::read(bundle)?.tables_digest(),
            None => None,
        };
        match (&self.tables, stamp) {
            (Some(folder), Some(stamp)) if paths::exists(&folder.join(manifest::FILE_NAME)) => {
                let found = tables::stamp_of(folder)?;
                if found != stamp {
                    bail!(
                        "{}: the tables are of another checkpoint or conversion: their stamp is {found}, the bundle's {stamp}",
                        folder.display()
                    );
                }
                Ok(Some(folder.clone()))
            }
            (Some(folder), _) => Ok(Some(folder.clone())),
            (None, Some(stamp)) => Ok(beside(bundle, stamp)),
            (None, None) => Ok(None),
        }
    }
}

/// The table folder with that stamp, beside a bundle or in the tables folder of a release tree.
fn beside(bundle: &Path, stamp: Digest) -> Option<PathBuf> {
    let bundle = paths::resolve(bundle).ok()?;
    let parent = bundle.parent()?;
    let release = parent.parent().map(|release| release.join(RELEASE_TABLES));
    let inside = |folder: PathBuf| {
        let entries = paths::list(&folder).into_iter().flatten();
        entries.map(move |entry| folder.join(entry.name)).collect::<Vec<_>>()
    };
    let folders = std::iter::once(parent.to_owned()).chain(release);
    let mut candidates: Vec<PathBuf> =
        folders.flat_map(inside).filter(|path| paths::is_folder(path)).collect();
    candidates.sort();
    let is_it = |path: &PathBuf| {
        Manifest::read(path).is_ok_and(|manifest| {
            manifest.kind == ManifestKind::Tables && manifest.tables_digest == Some(stamp)
        })
    };
    candidates.into_iter().find(is_it)
}
