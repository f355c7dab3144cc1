//! One reading of a file of a Hub, by our client or by Xet, in a process of its own: then its memory and its processor time are its own.
//!
//! What arrives is compared with the file, so that every time is that of the right bytes.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use hub::{Client, RemoteFile, RepositoryId, Settings, Snapshot};
use xet::xet_session::{XetConfig, XetDownloadStreamGroup, XetFileInfo, XetSession, XetSessionBuilder};

use crate::figure::seconds;
use crate::hub::{SEGMENT, on_connections};
use crate::machine::bytes;

/// The argument that asks this program for a reading instead of benchmarks.
pub(crate) const READ: &str = "read-from-hub";
/// Access to the storage that the Hub of the fixtures grants.
pub(crate) const ACCESS: (&str, u64) = ("xet_1", 9_999_999_999);
/// Bytes compared at once.
const COMPARED: usize = 256 << 10;

/// How a file is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Way {
    /// Our client, a range after the other on each connection
    Ranges,
    /// Xet, the same ranges, a stream for each
    XetRanges,
    /// Xet, one stream of the whole file
    XetStream,
    /// The same with as much memory for what is ahead as a conversion has
    XetBounded,
}

/// What is read, and how.
#[derive(Debug, Parser)]
pub(crate) struct Reading {
    #[arg(long, value_enum)]
    way: Way,
    /// The Hub
    #[arg(long)]
    hub: String,
    /// The repository on it
    #[arg(long)]
    id: String,
    /// The storage behind Xet
    #[arg(long)]
    storage: String,
    /// What Xet calls the file
    #[arg(long)]
    hash: String,
    /// The file itself, to compare with
    #[arg(long)]
    original: PathBuf,
    /// Folder for what Xet keeps
    #[arg(long)]
    cache: PathBuf,
    /// File for the seconds that it took, and the peak memory
    #[arg(long)]
    result: PathBuf,
}

impl Reading {
    /// Reads the file. Only the reading is timed: a conversion opens its clients once.
    pub(crate) fn run(&self) -> Result<()> {
        let original = Original::open(&self.original)?;
        // Whoever reads by Xet asks the Hub about the file first, too.
        let settings = Settings { endpoint: self.hub.clone(), token: None, ..Settings::from_environment() };
        let client = Client::new(settings)?;
        let snapshot = Snapshot::resolve(&client, &RepositoryId::new(&self.id)?, "main")?;
        let name = self.original.file_name().unwrap_or_default().to_string_lossy();
        let file = snapshot.file(&client, &name)?;
        let taken = match self.way {
            Way::Ranges => seconds(|| by_ranges(&client, &file, &original))?,
            Way::XetRanges => {
                let group = self.group()?;
                seconds(|| self.by_xet_ranges(&group, &original))?
            }
            Way::XetStream | Way::XetBounded => {
                let group = self.group()?;
                seconds(|| self.by_xet_stream(&group, &original))?
            }
        };
        Ok(fs::write(&self.result, format!("{taken} {}", peak_megabytes()))?)
    }

    fn group(&self) -> Result<XetDownloadStreamGroup> {
        let session = session(&self.cache, self.way == Way::XetBounded)?;
        let builder = session.new_download_stream_group()?.with_endpoint(&self.storage);
        Ok(builder.with_token_info(ACCESS.0, ACCESS.1).build_blocking()?)
    }

    fn info(&self, original: &Original) -> XetFileInfo {
        XetFileInfo::new(self.hash.clone(), original.size)
    }

    /// Fills a buffer from each stream, as our client does.
    fn by_xet_ranges(&self, group: &XetDownloadStreamGroup, original: &Original) -> Result<()> {
        on_connections(&original.segments(), |&(start, length), buffer| {
            let range = start..start + length as u64;
            let mut stream = group.download_stream_blocking(self.info(original), Some(range))?;
            let mut filled = 0;
            while let Some(piece) = stream.blocking_next()? {
                ensure!(piece.len() <= length - filled, "more than the range arrived");
                buffer[filled..filled + piece.len()].copy_from_slice(&piece);
                filled += piece.len();
            }
            ensure!(filled == length, "{filled} of {length} bytes arrived");
            original.compare(start, &buffer[..length])
        })
    }

    fn by_xet_stream(&self, group: &XetDownloadStreamGroup, original: &Original) -> Result<()> {
        let mut stream = group.download_stream_blocking(self.info(original), None)?;
        let mut reached = 0;
        while let Some(piece) = stream.blocking_next()? {
            original.compare(reached, &piece)?;
            reached += piece.len() as u64;
        }
        ensure!(reached == original.size, "{reached} of {} bytes arrived", original.size);
        Ok(())
    }
}

/// Resident memory of this process at its peak. What `wait4` says of a child is at least what its parent had when it was started,
/// and the parent has the storage. Linux alone says it here.
fn peak_megabytes() -> f64 {
    let status = fs::read_to_string("/proc/self/status").ok();
    status.and_then(|text| bytes(&text, "VmHWM")).map_or(f64::NAN, |peak| peak as f64 / 1e6)
}

/// A session of Xet, which takes nothing from variables and sends no statistics.
///
/// # Errors
/// If the system gives no threads.
pub(crate) fn session(cache: &Path, bounded: bool) -> Result<XetSession> {
    let mut config = XetConfig::default();
    config.telemetry.enabled = false;
    if bounded {
        config.reconstruction.download_buffer_size = "64mib".into();
        config.reconstruction.download_buffer_perfile_size = "0mib".into();
        config.reconstruction.download_buffer_limit = "64mib".into();
    }
    Ok(XetSessionBuilder::new_with_config(config).with_cache_dir(cache).build()?)
}

fn by_ranges(client: &Client, file: &RemoteFile, original: &Original) -> Result<()> {
    ensure!(file.size == original.size, "the Hub has another file");
    on_connections(&original.segments(), |&(start, length), buffer| {
        file.read_at(client, start, &mut buffer[..length])?;
        original.compare(start, &buffer[..length])
    })
}

/// The file that is on the Hub.
struct Original {
    file: File,
    size: u64,
}

impl Original {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        Ok(Original { file, size })
    }

    /// Where each segment begins, and its length.
    fn segments(&self) -> Vec<(u64, usize)> {
        let starts = (0..self.size).step_by(SEGMENT as usize);
        starts.map(|start| (start, SEGMENT.min(self.size - start) as usize)).collect()
    }

    fn compare(&self, start: u64, bytes: &[u8]) -> Result<()> {
        let mut here = vec![0; COMPARED];
        for (at, piece) in (start..).step_by(COMPARED).zip(bytes.chunks(COMPARED)) {
            let here = &mut here[..piece.len()];
            self.file.read_exact_at(here, at)?;
            ensure!(here == piece, "other bytes arrived than the file has from {at} on");
        }
        Ok(())
    }
}
