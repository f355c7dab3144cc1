//! Packages and tables of E4B's widths, six layers deep, without a checkpoint: what is in them does not matter for the time of a
//! step, as long as scales vary as in checkpoints.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;

use aimodel::bytecode::layout::Layout;
use aimodel::package::{PackageMetadata, PackageWriter};
use anyhow::{Context, Result, ensure};
use checkpoint::config::DecoderConfig;
use converter::decoder::{CacheForm, Functions, GraphOptions, Variant, build};
use converter::recipe::{Recipe, Treatment};
use fixtures::Shape;
use half::f16;
use oracle::tables::{CODES_FILE, META_FILE, SCALES_FILE};
use quantizer::Int4Rule;
use serde_json::json;

pub(crate) const LAYERS: usize = 6;
/// f16 numbers that are drawn; every blob repeats them.
const DRAWN: usize = 1 << 19;

/// Without shared layers, `prefill` saves little: the last layer's attention, the MLPs after it and the head.
pub(crate) fn shape() -> Shape {
    Shape { kv_shared: 0, ..Shape::e4b(LAYERS) }
}

/// Writes a package whose matrices are int4 codes, the head's too.
pub(crate) fn write_package(directory: &Path, variant: Variant, functions: Functions) -> Result<()> {
    let config = DecoderConfig::from_json(shape().config().to_string().as_bytes())?;
    let int4 = Treatment::Int4(Int4Rule::Lattice);
    let recipe = Recipe::new(int4, int4);
    let options = GraphOptions { variant, recipe, tied_head: true, functions, caches: CacheForm::Padded };
    let graph = build(&config, &options, &BTreeMap::new())?;
    let layout = Layout::new(&graph.module).context("the graph is too large")?;
    let mut writer = PackageWriter::create(directory, &layout)?;
    let piece: Vec<u8> = halves().flat_map(f16::to_le_bytes).collect();
    while let Some(placement) = writer.next_blob() {
        let mut left = usize::try_from(placement.length)?;
        while left > 0 {
            let part = left.min(piece.len());
            writer.write(&piece[..part])?;
            left -= part;
        }
    }
    let written = writer.finish(&PackageMetadata::new("bench", "20260101T000000Z"))?;
    ensure!(written.bytes == layout.total, "the package has another size than planned");
    Ok(())
}

/// Numbers from 0.002 to 0.008: the scales of a matrix on a lattice are positive and spread about as far. They are as good as any bytes
/// of codes.
fn halves() -> impl Iterator<Item = f16> {
    let mut state = 1_u64;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f16::from_bits(0x1800 + ((state >> 40) as u16 & 0x7FF))
    })
    .take(DRAWN)
}

/// Writes per-layer tables of zeros, which take no space.
pub(crate) fn write_tables(directory: &Path) -> Result<()> {
    let (rows, width) = (shape().vocabulary, shape().table_width());
    fs::create_dir_all(directory)?;
    File::create(directory.join(CODES_FILE))?.set_len(rows * width)?;
    File::create(directory.join(SCALES_FILE))?.set_len(4 * rows)?;
    let meta = json!({
        "V": rows, "PLD": width, "L": LAYERS, "ld": shape().per_layer, "embed_scale_pl": 16.0,
    });
    Ok(fs::write(directory.join(META_FILE), meta.to_string())?)
}
