//! Writer and reader of packages, beside plain writes and SHA-256.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use aimodel::bytecode::reader::Bytecode;
use anyhow::Result;
use checkpoint::config::CacheForm;
use checkpoint::source::LocalSource;
use converter::decoder::{Functions, Variant};
use converter::embedding::TableForms;
use converter::recipe::Treatment;
use converter::{Model, Request};
use fixtures::{Shape, SyntheticCheckpoint};
use output::StreamedFile;
use quantizer::Int4Rule;
use sha2::{Digest, Sha256};

use crate::Options;
use crate::figure::{Figures, seconds};

const SECTION: &str = "files";
/// Bytes of a piece, as the conversion makes them.
const PIECE: usize = 1 << 20;
/// Pieces that are written.
const PIECES: usize = 2048;
/// Layers of the graph that is written and read.
const LAYERS: usize = 42;

/// Measures all of them.
pub(crate) fn measure(options: &Options, figures: &mut Figures) -> Result<()> {
    let piece: Vec<u8> = (0..PIECE).map(|at| ((at * 31) >> 7) as u8).collect();
    let bytes = (PIECE * PIECES) as f64;
    let repeat = |work: &dyn Fn() -> Result<()>| -> Result<Vec<f64>> {
        (0..options.runs).map(|_| Ok(bytes / seconds(work)? / 1e9)).collect()
    };
    let target = options.scratch.join("written");
    let runs = repeat(&|| {
        let mut hasher = Sha256::new();
        (0..PIECES).for_each(|_| hasher.update(&piece));
        std::hint::black_box(hasher.finalize());
        Ok(())
    })?;
    figures.add(SECTION, "floor: SHA-256, one thread", "GB/s", runs, "");
    let runs = repeat(&|| write_plainly(&piece, &target))?;
    figures.add(SECTION, "floor: plain writes and fsync, 2 GiB", "GB/s", runs, "");
    let runs = repeat(&|| write_streamed(&piece, &target))?;
    figures.add(SECTION, "writer: hashed, past the cache, fsync, 2 GiB", "GB/s", runs, "");
    graph(options, figures)
}

fn write_plainly(piece: &[u8], target: &Path) -> Result<()> {
    let mut file = File::create(target)?;
    for _ in 0..PIECES {
        file.write_all(piece)?;
    }
    file.sync_all()?;
    Ok(fs::remove_file(target)?)
}

fn write_streamed(piece: &[u8], target: &Path) -> Result<()> {
    let mut file = StreamedFile::create(target)?;
    for _ in 0..PIECES {
        file.write(piece)?;
    }
    file.finish()?;
    File::open(target)?.sync_all()?;
    Ok(fs::remove_file(target)?)
}

/// The program of a 42-layer graph: planned and laid out, and read back.
fn graph(options: &Options, figures: &mut Figures) -> Result<()> {
    let folder = options.scratch.join("sparse");
    let recipe = SyntheticCheckpoint { sparse: true, ..SyntheticCheckpoint::new(Shape::e4b(LAYERS)) };
    recipe.write(&folder)?;
    let source = LocalSource::open(&folder)?;
    let model = Model::open(&source)?;
    let request = Request {
        graphs: vec![(Variant::Provider, Functions::MAIN)],
        caches: CacheForm::Padded,
        tables: false,
        projections: Treatment::Int4(Int4Rule::Lattice),
        overrides: Vec::new(),
        head: Some(Treatment::Int4(Int4Rule::Lattice)),
        table_forms: TableForms::PUBLISHED,
    };
    let milliseconds = |work: &dyn Fn() -> Result<()>| -> Result<Vec<f64>> {
        (0..options.runs).map(|_| Ok(seconds(work)? * 1e3)).collect()
    };
    let runs = milliseconds(&|| {
        std::hint::black_box(model.plan(&request)?);
        Ok(())
    })?;
    figures.add(SECTION, "writer: plan, graph and layout of 42 layers", "ms", runs, "");
    let plan = model.plan(&request)?;
    let path = options.scratch.join("program.mlirb");
    let file = File::create(&path)?;
    write_hollow(&file, &plan.graphs[0].layout)?;
    let runs = milliseconds(&|| {
        std::hint::black_box(Bytecode::open(&path)?);
        Ok(())
    })?;
    figures.add(SECTION, "reader: a whole program of 42 layers", "ms", runs, "blobs left on disk");
    fs::remove_file(&path)?;
    Ok(fs::remove_dir_all(&folder)?)
}

/// A layout as a file with holes for the blobs' data.
fn write_hollow(mut file: &File, layout: &aimodel::bytecode::layout::Layout) -> Result<()> {
    use std::io::{Seek, SeekFrom};
    file.write_all(&layout.prefix)?;
    for blob in &layout.placements {
        file.seek(SeekFrom::Start(blob.offset - blob.head.len() as u64))?;
        file.write_all(&blob.head)?;
    }
    file.seek(SeekFrom::Start(layout.total - layout.suffix.len() as u64))?;
    Ok(file.write_all(&layout.suffix)?)
}
