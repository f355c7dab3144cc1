//! Quantizers and the table kernel, in GB of bf16 input a second.

use std::convert::Infallible;
use std::hint::black_box;
use std::process::Command;

use anyhow::{Context, Result, bail};
use candle_core::quantized::GgmlType;
use candle_core::quantized::k_quants::BlockQ4_0;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use quantizer::{BLOCK, Int4Rule, quantize_int4, quantize_int8, quantize_rows, to_f16};

use crate::Options;
use crate::figure::{Figures, seconds};
use crate::weights::{self, COUNT};

const SECTION: &str = "kernels, GB of bf16 a second";
/// Weights per call: what a worker of the conversion takes at a time.
const SLICE: usize = 1 << 20;
/// Width of a row of the per-layer table.
const ROW: usize = 10_752;

/// Buffers for the outputs of one call.
struct Buffers {
    codes: Vec<u8>,
    scales: Vec<f16>,
    halves: Vec<f16>,
    floats: Vec<f32>,
    blocks: Vec<BlockQ4_0>,
    row_scales: Vec<f32>,
}

impl Buffers {
    fn new() -> Self {
        Buffers {
            codes: vec![0; SLICE],
            scales: vec![f16::ZERO; SLICE / BLOCK],
            halves: vec![f16::ZERO; SLICE],
            floats: vec![0.0; SLICE],
            blocks: vec![BlockQ4_0::zeros(); SLICE / BLOCK],
            row_scales: vec![0.0; SLICE / ROW],
        }
    }
}

/// Measures all kernels.
pub(crate) fn measure(options: &Options, figures: &mut Figures) -> Result<()> {
    let mut buffers = Buffers::new();
    let kinds = weights::kinds();
    for (kind, weights) in &kinds {
        for rule in Int4Rule::ALL {
            let runs = one_thread(options, weights, |weights| {
                let codes = &mut buffers.codes[..SLICE / 2];
                quantize_int4(rule, weights, codes, &mut buffers.scales).map(drop)
            })?;
            figures.add(SECTION, &format!("{}, {kind}, one thread", rule.name()), "GB/s", runs, "");
        }
    }
    let (_, weights) = &kinds[0];
    others(options, weights, &mut buffers, figures)?;
    candle(options, weights, &mut buffers, figures);
    gguf(options, figures)
}

/// Everything that is not int4.
fn others(options: &Options, weights: &[bf16], buffers: &mut Buffers, figures: &mut Figures) -> Result<()> {
    let runs = one_thread(options, weights, |weights| {
        let codes = bytemuck::cast_slice_mut(&mut buffers.codes);
        quantize_int8(weights, codes, &mut buffers.scales).map(drop)
    })?;
    figures.add(SECTION, "int8, one thread", "GB/s", runs, "");
    let runs = one_thread(options, weights, |weights| to_f16(weights, &mut buffers.halves))?;
    figures.add(SECTION, "f16, one thread", "GB/s", runs, "");
    let whole = SLICE / ROW * ROW;
    let runs = one_thread(options, weights, |weights| {
        quantize_rows(&weights[..whole], ROW, &mut buffers.codes[..whole], &mut buffers.row_scales)
    })?;
    figures.add(SECTION, "int8 rows of the tables, one thread", "GB/s", runs, "");
    let floats = black_box(&mut buffers.codes);
    let runs = one_thread(options, weights, |weights| {
        floats.copy_from_slice(&bytemuck::cast_slice(weights)[..SLICE]);
        Ok::<_, Infallible>(())
    })?;
    figures.add(SECTION, "floor: copying half the bytes, one thread", "GB/s", runs, "");
    Ok(())
}

/// candle's Q4_0, which takes f32: with and without the conversion to f32.
fn candle(options: &Options, weights: &[bf16], buffers: &mut Buffers, figures: &mut Figures) {
    let Buffers { floats, blocks, .. } = buffers;
    weights[..SLICE].convert_to_f32_slice(floats);
    let Ok(runs) = one_thread(options, weights, |_| {
        BlockQ4_0::from_float(black_box(floats), blocks);
        Ok::<_, Infallible>(())
    });
    figures.add(SECTION, "peer: candle Q4_0, from f32, one thread", "GB/s", runs, "");
    let Ok(runs) = one_thread(options, weights, |weights| {
        weights.convert_to_f32_slice(floats);
        BlockQ4_0::from_float(black_box(floats), blocks);
        Ok::<_, Infallible>(())
    });
    figures.add(SECTION, "peer: candle Q4_0, from bf16, one thread", "GB/s", runs, "");
}

/// gguf's Q4_0 in numpy, if there is a Python that has it.
fn gguf(options: &Options, figures: &mut Figures) -> Result<()> {
    let Some(python) = &options.python else { return Ok(()) };
    let mut command = Command::new(python);
    command.arg(options.scripts.join("bench_q4_0.py")).arg(options.runs.to_string());
    let output = command.output().with_context(|| format!("cannot run {}", python.display()))?;
    if !output.status.success() {
        bail!("bench_q4_0.py: {}", String::from_utf8_lossy(&output.stderr));
    }
    let runs: Vec<f64> = serde_json::from_slice(&output.stdout).context("bench_q4_0.py")?;
    figures.add(SECTION, "peer: gguf Q4_0 in numpy, from f32", "GB/s", runs, "");
    Ok(())
}

/// Throughput of each pass over all weights, slice by slice.
fn one_thread<E>(
    options: &Options,
    weights: &[bf16],
    mut work: impl FnMut(&[bf16]) -> Result<(), E>,
) -> Result<Vec<f64>, E> {
    let pass = |_| {
        let spent = seconds(|| weights.chunks_exact(SLICE).try_for_each(|slice| work(black_box(slice))))?;
        Ok(throughput(COUNT, spent))
    };
    (0..options.runs).map(pass).collect()
}

fn throughput(weights: usize, seconds: f64) -> f64 {
    (weights * size_of::<bf16>()) as f64 / seconds / 1e9
}
