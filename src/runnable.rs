//! Arguments of every command that runs a bundle.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use coreai_bundle::parts::interpreter::Rounding;
use coreai_bundle::runnable::Runnable;

/// Arguments of every command that runs a bundle.
#[derive(Debug, Args)]
pub(crate) struct RunnableArguments {
    /// Bundle, or package; or a folder or an archive of `pack` that holds one: FILE.zip, or FILE.zip/PATH of one in it
    pub(crate) bundle: PathBuf,
    #[command(flatten)]
    pub(crate) how: RunArguments,
}

/// How a bundle is run.
#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// Table folder of the bundle [default: the one beside it that has its stamp]
    #[arg(long, value_name = "DIR")]
    pub(crate) tables: Option<PathBuf>,
    /// How sums of half-precision numbers are rounded
    #[arg(long, value_enum, default_value_t = Sums::Wide)]
    sums: Sums,
    /// Tokens of a prompt to feed at a time, if the package takes several [default: what the bundle's metadata says]
    #[arg(long, value_name = "N")]
    chunk: Option<NonZeroUsize>,
}

/// Rounding of sums, as typed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Sums {
    /// Once, after a sum in f32, as GPUs do it
    Wide,
    /// After each step, bit for bit as Apple's CPU runtime on Linux; slower
    Apple,
}

impl RunnableArguments {
    pub(crate) fn runnable(&self) -> Runnable {
        self.how.runnable(&self.bundle)
    }
}

impl RunArguments {
    pub(crate) fn runnable(&self, bundle: &Path) -> Runnable {
        let rounding = match self.sums {
            Sums::Wide => Rounding::Once,
            Sums::Apple => Rounding::EachStep,
        };
        Runnable { bundle: bundle.to_owned(), tables: self.tables.clone(), rounding, chunk: self.chunk }
    }
}
