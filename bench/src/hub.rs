//! Conversion straight from a Hub, beside the transfer alone, over a connection of a given bandwidth.
//!
//! The Hub is that of the fixtures, in this process; the cost of serving is in both measurements.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, bail};
use checkpoint::source::{LocalSource, Source, TensorEntry};
use fixtures::hub::Hub;
use fixtures::{Shape, SyntheticCheckpoint};
use hub::{Client, RepositoryId, Settings, Snapshot};

use crate::Options;
use crate::child;
use crate::conversion::everything;
use crate::figure::{Figures, median, seconds};

/// The repository.
const ID: &str = "bench/six-layers";
/// Layers of the model: 3.3 GB.
const LAYERS: usize = 6;
/// Bytes a second.
pub(crate) const BANDWIDTH: u64 = 100_000_000;
/// Bytes per request and connections of the transfer alone, the same as in the conversion.
pub(crate) const SEGMENT: u64 = 4 << 20;
const CONNECTIONS: usize = 8;

/// Measures both.
pub(crate) fn measure(options: &Options, figures: &mut Figures) -> Result<()> {
    let folder = options.scratch.join("hub-model");
    SyntheticCheckpoint::new(Shape::e4b(LAYERS)).write(&folder)?;
    let source = LocalSource::open(&folder)?;
    let (names, _) = everything(&source)?;
    let tensors: Vec<&TensorEntry> =
        source.tensors().iter().filter(|tensor| names.contains(&tensor.name)).collect();
    let server = Hub::start()?;
    server.add_folder(ID, &folder)?;
    server.set_bandwidth(Some(BANDWIDTH));
    let section = format!("streaming from a Hub at {} MB/s, {LAYERS} layers", BANDWIDTH / 1_000_000);
    let (mut floors, mut times, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.runs {
        floors.push(seconds(|| transfer(&server, &tensors))?);
        let usage = convert(options, &server)?;
        times.push(usage.seconds);
        memory.push(usage.peak_megabytes);
    }
    let bytes: u64 = tensors.iter().map(|tensor| tensor.byte_len()).sum();
    let volume = format!("{:.2} GB", bytes as f64 / 1e9);
    let floor = figures.add(&section, "floor: the transfer alone", "s", floors, volume);
    let ratio = format!("{:.2} of the floor", median(&times) / floor);
    figures.add(&section, "convert, both variants and tables", "s", times, ratio);
    figures.add(&section, "peak resident memory", "MB", memory, "");
    Ok(std::fs::remove_dir_all(&folder)?)
}

/// Fetches these tensors over several connections and discards them.
fn transfer(server: &Hub, tensors: &[&TensorEntry]) -> Result<()> {
    let settings = Settings { endpoint: server.endpoint(), token: None, ..Settings::from_environment() };
    let client = Client::new(settings)?;
    let snapshot = Snapshot::resolve(&client, &RepositoryId::new(ID)?, "main")?;
    let segments: Vec<(&TensorEntry, u64)> = tensors
        .iter()
        .flat_map(|tensor| tensor.range.clone().step_by(SEGMENT as usize).map(|start| (*tensor, start)))
        .collect();
    let Some(first) = tensors.first() else { bail!("there is nothing to transfer") };
    let file = snapshot.file(&client, &first.file)?;
    if tensors.iter().any(|tensor| tensor.file != first.file) {
        bail!("the model is in several files");
    }
    on_connections(&segments, |(tensor, start), buffer| {
        let length = SEGMENT.min(tensor.range.end - start) as usize;
        Ok(file.read_at(&client, *start, &mut buffer[..length])?)
    })
}

/// Does this with each of the segments, on a thread for each connection, which has a buffer for one.
pub(crate) fn on_connections<T: Sync>(
    segments: &[T],
    work: impl Fn(&T, &mut [u8]) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<()> {
        let mut buffer = vec![0; SEGMENT as usize];
        while let Some(segment) = segments.get(next.fetch_add(1, Ordering::Relaxed)) {
            work(segment, &mut buffer)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}

fn convert(options: &Options, server: &Hub) -> Result<child::Usage> {
    let output = options.scratch.join("hub-out");
    let mut command = Command::new(&options.program);
    command.args(["convert", ID, "--variant", "both", "--head", "int4", "-o"]).arg(&output);
    command.env("HF_ENDPOINT", server.endpoint()).env("HF_HOME", options.scratch.join("hub-home"));
    for name in ["HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN"] {
        command.env_remove(name);
    }
    let usage = child::run(&mut command)?;
    std::fs::remove_dir_all(&output)?;
    Ok(usage)
}
