//! `SOURCE`: where a checkpoint is, as typed.

use clap::Args;
use coreai_bundle::origin::{Access, Opened, Opener};
use coreai_bundle::source::SourceSpec;

use coreai_bundle::parts::text::terminal::word;

use crate::progress::Bar;
use crate::{interrupt, terminal};

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
        Access { download: self.download, verify: self.verify }
    }

    /// The source that was typed, at the revision that was.
    pub(crate) fn source(&self, typed: &str) -> anyhow::Result<SourceSpec> {
        SourceSpec::parse(typed, self.revision.as_deref())
    }
}

/// Opens a source and shows a bar for each downloaded file. Until then a signal simply ends the process. It becomes a flag
/// where a command has something to clean up.
pub(crate) fn open(source: &SourceSpec, access: Access) -> anyhow::Result<Opened> {
    let opened = opener(&Bar::of_bytes()).open(source, access)?;
    let commit = opened.source.identity().revision.as_deref().unwrap_or("no commit");
    terminal::tell_more(format_args!("checkpoint: {}, {commit}", word(&opened.name)));
    Ok(opened)
}

/// Opens the checkpoint of an option, which is read many times, at the revision of another.
pub(crate) fn open_kept(typed: &str, revision: Option<&str>) -> anyhow::Result<(SourceSpec, Opened)> {
    let source = SourceSpec::parse(typed, revision)?;
    let opened = open(&source, Access::kept(&source))?;
    Ok((source, opened))
}

/// Opens sources with this bar.
pub(crate) fn opener(bar: &Bar) -> Opener<'_> {
    Opener { cancelled: interrupt::asked, progress: bar }
}
