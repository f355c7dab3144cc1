//! `SOURCE`: where a checkpoint is.

use std::path::Path;

use anyhow::{Context, bail};
use checkpoint::source::{LocalSource, Repository, Source, open_repository};
use clap::Args;
use hub::{Settings, download};
use indicatif::ProgressBar;

use crate::{interrupt, terminal};

/// How a repository of the Hub is read.
#[derive(Debug, Default, Args)]
pub(crate) struct Access {
    /// Branch, tag or commit of the repository [default: main]
    #[arg(long, value_name = "REVISION")]
    pub(crate) revision: Option<String>,
    /// Bring the repository into the cache that Hub clients share, instead of reading it without keeping it
    #[arg(long)]
    pub(crate) download: bool,
}

/// An opened checkpoint, and what it is called.
pub(crate) struct Origin {
    /// Its tensors and files.
    pub(crate) source: Box<dyn Source>,
    /// Name of the repository, or of the folder: outputs are named after it.
    pub(crate) name: String,
}

/// Opens a checkpoint that is read many times: a repository is brought into the cache first.
pub(crate) fn open_kept(source: &str, revision: Option<&str>) -> anyhow::Result<Origin> {
    let download = !Path::new(source).exists();
    open(source, &Access { revision: revision.map(str::to_owned), download })
}

/// Opens a folder, or a repository `owner/name` if there is no folder of that name.
pub(crate) fn open(source: &str, access: &Access) -> anyhow::Result<Origin> {
    let path = Path::new(source);
    if path.exists() {
        if access.revision.is_some() || access.download {
            bail!("{source} is a folder: --revision and --download are for repositories of the Hub");
        }
        return open_folder(path);
    }
    if !is_repository(source) {
        bail!("there is no folder {source:?}, and a repository of the Hub would be owner/name");
    }
    // A signal simply ends the process here. It becomes a flag where a command has something to clean up.
    let settings = Settings { cancelled: interrupt::asked, ..Settings::from_environment() };
    let bar = DownloadBar::new();
    let repository = Repository {
        id: source,
        revision: access.revision.as_deref().unwrap_or("main"),
        download: access.download.then_some(&bar as &dyn download::Observer),
        notice: &|text| terminal::tell(format_args!("warning: {text}")),
    };
    let opened = open_repository(settings, &repository)?;
    Ok(Origin { source: opened, name: source.to_owned() })
}

/// Whether this is written like `owner/name`.
pub(crate) fn is_repository(source: &str) -> bool {
    source.split('/').count() == 2 && !source.starts_with(['.', '/', '~']) && !source.ends_with('/')
}

fn open_folder(path: &Path) -> anyhow::Result<Origin> {
    let opened = LocalSource::open(path)?;
    let name = match &opened.identity().repository {
        Some(repository) => repository.clone(),
        None => folder_name(path)?,
    };
    Ok(Origin { source: Box::new(opened), name })
}

/// The folder's own name, also when it was given as `.`.
fn folder_name(path: &Path) -> anyhow::Result<String> {
    let whole = path.canonicalize().with_context(|| format!("cannot resolve {}", path.display()))?;
    Ok(whole.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default())
}

/// A bar for one file after another; hidden where standard error is not a terminal.
struct DownloadBar(ProgressBar);

impl DownloadBar {
    fn new() -> Self {
        let template =
            "{bar:30} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta} {wide_msg}";
        DownloadBar(terminal::bar(None, template))
    }
}

impl download::Observer for DownloadBar {
    fn file(&self, path: &str, size: u64, here: u64) {
        self.0.set_length(size);
        self.0.set_position(here);
        self.0.reset_eta();
        terminal::name_bar(&self.0, path);
    }

    fn advance(&self, bytes: u64) {
        self.0.inc(bytes);
    }
}

impl Drop for DownloadBar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
