//! A file of a Hub read through Xet, beside our client's ranges of it.
//!
//! Hub and storage are those of the fixtures, in this process; readings are processes of their own, on the same processor.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::ValueEnum;
use fixtures::hub::Hub;
use fixtures::hub::upload::Uploads;
use fixtures::{Shape, SyntheticCheckpoint};
use xet::xet_session::Sha256Policy;

use crate::Options;
use crate::child;
use crate::figure::{Figures, median};
use crate::hub::BANDWIDTH;
use crate::reading::{ACCESS, READ, Way, session};

/// The repository.
const ID: &str = "bench/two-layers";

/// Measures every way of reading, without a limit of the bandwidth and with one.
pub(crate) fn measure(options: &Options, figures: &mut Figures) -> Result<()> {
    let scene = Scene::new(options)?;
    for bandwidth in [None, Some(BANDWIDTH)] {
        scene.server.set_bandwidth(bandwidth);
        let limit =
            bandwidth.map_or("without a limit".to_owned(), |rate| format!("{} MB/s", rate / 1_000_000));
        let section = format!("a file through Xet, {limit}");
        let mut lines = lines(bandwidth.is_none());
        for _ in 0..options.runs {
            for line in &mut lines {
                scene.read(line)?;
            }
        }
        for line in lines {
            line.report(&section, scene.bytes, figures);
        }
    }
    Ok(fs::remove_dir_all(&scene.folder)?)
}

/// The ways that are measured. The storage's own port has no limit of bandwidth, but passes each byte on once less.
fn lines(with_own_port: bool) -> Vec<Line> {
    let through_hub = [
        ("our client, ranges of 4 MiB", Way::Ranges),
        ("Xet, ranges of 4 MiB", Way::XetRanges),
        ("Xet, one stream", Way::XetStream),
        ("Xet, one stream, 64 MiB ahead", Way::XetBounded),
    ];
    let from_storage =
        [("Xet's own port, ranges of 4 MiB", Way::XetRanges), ("Xet's own port, one stream", Way::XetStream)];
    let mut lines: Vec<Line> = through_hub.map(|(name, way)| Line::new(name, way, false)).into();
    if with_own_port {
        lines.extend(from_storage.map(|(name, way)| Line::new(name, way, true)));
    }
    lines
}

/// A way of reading, and what each run of it took.
struct Line {
    name: &'static str,
    way: Way,
    /// Whether Xet asks the storage's own port.
    direct: bool,
    seconds: Vec<f64>,
    processor: Vec<f64>,
    memory: Vec<f64>,
    /// Requests and bytes that the Hub's log shows.
    requests: Vec<f64>,
    megabytes: Vec<f64>,
}

impl Line {
    fn new(name: &'static str, way: Way, direct: bool) -> Self {
        let none = Vec::new;
        Line {
            name,
            way,
            direct,
            seconds: none(),
            processor: none(),
            memory: none(),
            requests: none(),
            megabytes: none(),
        }
    }

    fn report(self, section: &str, bytes: u64, figures: &mut Figures) {
        let speed = bytes as f64 / 1e6 / median(&self.seconds);
        let traffic = match self.direct {
            true => String::new(),
            false => {
                format!(", {:.0} requests, {:.0} MB sent", median(&self.requests), median(&self.megabytes))
            }
        };
        figures.add(section, self.name, "s", self.seconds, format!("{speed:.0} MB/s{traffic}"));
        figures.add(section, "  processor time of the process", "s", self.processor, "");
        figures.add(section, "  peak resident memory", "MB", self.memory, "");
    }
}

/// A Hub with one file, whose chunks are in the storage behind it.
struct Scene {
    server: Hub,
    uploads: Uploads,
    folder: PathBuf,
    file: PathBuf,
    bytes: u64,
    /// What Xet calls the file.
    hash: String,
}

impl Scene {
    fn new(options: &Options) -> Result<Self> {
        let folder = options.scratch.join("xet");
        let model = folder.join("model");
        let shape = Shape { vocabulary: 8192, ..Shape::e4b(2) };
        SyntheticCheckpoint::new(shape).write(&model)?;
        let (server, uploads) = (Hub::start()?, Uploads::new());
        server.add_folder(ID, &model)?;
        server.add_routes(uploads.clone());
        let file = model.join("model.safetensors");
        let hash = send(&uploads.address(), &file, &folder.join("sent"))?;
        Ok(Scene { bytes: file.metadata()?.len(), server, uploads, folder, file, hash })
    }

    /// Reads the file once.
    fn read(&self, line: &mut Line) -> Result<()> {
        let result = self.folder.join("result");
        let way = line.way.to_possible_value().context("a way has no name")?;
        let storage = if line.direct { self.uploads.address() } else { self.server.network() };
        let mut command = Command::new(std::env::current_exe()?);
        command.args([READ, "--id", ID, "--way", way.get_name(), "--hub", &self.server.endpoint()]);
        command.args(["--storage", &storage, "--hash", &self.hash]);
        command.arg("--original").arg(&self.file).arg("--result").arg(&result);
        command.arg("--cache").arg(self.folder.join("cache"));
        self.server.clear_log();
        let usage = child::run(&mut command)?;
        let text = fs::read_to_string(&result)?;
        let (seconds, peak) = text.split_once(' ').context("a reading has two results")?;
        line.seconds.push(seconds.parse()?);
        line.memory.push(peak.parse()?);
        line.processor.push(usage.processor_seconds);
        let log = self.server.log();
        line.requests.push(log.len() as f64);
        line.megabytes.push(log.iter().map(|entry| entry.sent).sum::<u64>() as f64 / 1e6);
        Ok(())
    }
}

/// Sends a file to the storage; returns what Xet calls it.
fn send(storage: &str, file: &Path, cache: &Path) -> Result<String> {
    let builder = session(cache, false)?.new_upload_commit()?.with_endpoint(storage);
    let commit = builder.with_token_info(ACCESS.0, ACCESS.1).build_blocking()?;
    let task = commit.upload_from_path_blocking(file.to_owned(), Sha256Policy::Compute)?.task_id();
    let report = commit.commit_blocking()?;
    let sent = report.uploads.get(&task).context("Xet did not send the file")?;
    Ok(sent.xet_info.hash().to_owned())
}
