//! `SOURCE`: where a checkpoint is, as typed.

use clap::Args;
use workflow::origin::{Access, Opened, Opener};

use crate::interrupt;
use crate::progress::Bar;

/// How a repository of the Hub is read.
#[derive(Debug, Args)]
pub(crate) struct AccessArguments {
    /// Branch, tag or commit of the repository [default: main]
    #[arg(long, value_name = "REVISION")]
    pub(crate) revision: Option<String>,
    /// Download the repository into the cache that Hub clients share, instead of reading it without keeping it
    #[arg(long)]
    download: bool,
    /// Compare the weights with the digests that the Hub states first: all of them are fetched for that, and once more unless --download
    /// keeps them
    #[arg(long)]
    pub(crate) verify: bool,
}

impl AccessArguments {
    pub(crate) fn access(&self) -> Access {
        Access { revision: self.revision.clone(), download: self.download, verify: self.verify }
    }
}

/// Opens a source and shows a bar for each downloaded file. Until then a signal simply ends the process. It becomes a flag
/// where a command has something to clean up.
pub(crate) fn open(source: &str, access: &Access) -> anyhow::Result<Opened> {
    opener(&Bar::of_bytes()).open(source, access)
}

/// Opens sources with this bar.
pub(crate) fn opener(bar: &Bar) -> Opener<'_> {
    Opener { cancelled: interrupt::asked, progress: bar }
}
