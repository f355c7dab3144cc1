//! The per-layer table in the form of Apple's own Gemma 3n export: one safetensors file, one scale for the whole tensor.
//!
//! `x = weight * sqrt(ld)`, `scale = max(max|x|, 1e-6) / 127`, `code = clamp(round_half_even(x / scale), -128, 127)`, all in f32. The scale
//! belongs to the whole tensor, so it is read twice.

use std::fs::File;
use std::io::{BufWriter, Write};

use half::bf16;
use progress::Progress;
use quantizer::QuantizeError;
use serde::Serialize;

use crate::buffers::Pool;
use crate::error::{ConvertError, PlanError};
use crate::ordered::for_each_in_order;
use checkpoint::config::DecoderConfig;
use checkpoint::source::{Source, TensorEntry, bytes_of};
use checkpoint::{Checkpoint, Role};

/// Elements that a worker takes at a time.
const PIECE: u64 = 1 << 20;
/// Lower limit of a table's largest magnitude.
const SMALLEST_EXTREMUM: f32 = 1e-6;
/// The header of a safetensors file is padded to this.
const HEADER_ALIGNMENT: usize = 8;

/// The header's only tensor, and the strings that Apple's loader reads. The order of fields is that in the file.
#[derive(Serialize)]
struct Header {
    #[serde(rename = "__metadata__")]
    metadata: Metadata,
    embed_tokens_per_layer: TensorHeader,
}

#[derive(Serialize)]
struct Metadata {
    dtype: &'static str,
    embed_scale: String,
    ple_scale: String,
    ple_zero_point: &'static str,
}

#[derive(Serialize)]
struct TensorHeader {
    dtype: &'static str,
    shape: Vec<usize>,
    data_offsets: [u64; 2],
}

/// Size of the file in bytes, to within the digits of the scale.
pub fn bytes(config: &DecoderConfig) -> u64 {
    elements(config).saturating_add(512)
}

/// Bytes of the checkpoint that are read: the table, twice.
pub fn input_bytes(config: &DecoderConfig) -> u64 {
    2 * bytes_of(elements(config))
}

/// Elements of the table; 0 in a model without one.
fn elements(config: &DecoderConfig) -> u64 {
    config.per_layer.map_or(0, |per_layer| config.vocab as u64 * per_layer.total as u64)
}

/// Writes the file.
///
/// # Errors
/// If the table cannot be read, holds an element that is not finite, the file cannot be written, or it is cancelled.
pub fn write(
    source: &dyn Source,
    config: &DecoderConfig,
    checkpoint: &Checkpoint,
    file: &File,
    threads: usize,
    progress: &dyn Progress,
) -> Result<(), ConvertError> {
    let per_layer = config.per_layer.ok_or(PlanError::NoPerLayer)?;
    let tensor = checkpoint.require(Role::EmbedTokensPerLayer)?;
    progress.begin(&tensor.name);
    source.will_read_in_order(&[tensor, tensor]);
    let pass = Pass { source, tensor, threads, progress, inputs: Pool::new() };
    let factor = (per_layer.width as f64).sqrt();
    let scale = (pass.extremum()? * factor as f32).max(SMALLEST_EXTREMUM) / 127.0;
    let mut out = BufWriter::new(file);
    let io = |source| ConvertError::Io { path: "the safetensors file".into(), source };
    out.write_all(&header(tensor, factor, scale)).map_err(io)?;
    pass.codes(factor as f32, scale, |codes| out.write_all(codes).map_err(io))?;
    out.flush().map_err(io)
}

/// The length and the header, padded with spaces.
fn header(tensor: &TensorEntry, factor: f64, scale: f32) -> Vec<u8> {
    let header = Header {
        metadata: Metadata {
            dtype: "SI8",
            embed_scale: format!("{factor:?}"),
            ple_scale: format!("{:?}", f64::from(scale)),
            ple_zero_point: "0",
        },
        embed_tokens_per_layer: TensorHeader {
            dtype: "I8",
            shape: tensor.shape.clone(),
            data_offsets: [0, tensor.weights()],
        },
    };
    // Plain structures of strings and numbers always serialize.
    let mut text = serde_json::to_vec(&header).unwrap_or_default();
    text.resize(text.len().next_multiple_of(HEADER_ALIGNMENT), b' ');
    [&(text.len() as u64).to_le_bytes(), text.as_slice()].concat()
}

/// One reading of the table, in pieces.
struct Pass<'s> {
    source: &'s dyn Source,
    tensor: &'s TensorEntry,
    threads: usize,
    progress: &'s dyn Progress,
    inputs: Pool<bf16>,
}

impl Pass<'_> {
    fn each<T: Send>(
        &self,
        make: impl Fn(&[bf16]) -> T + Sync,
        mut take: impl FnMut(T) -> Result<(), ConvertError>,
    ) -> Result<(), ConvertError> {
        let elements = self.tensor.weights();
        let produce = |piece: usize| {
            let start = piece as u64 * PIECE;
            let count = PIECE.min(elements - start) as usize;
            let mut weights = self.inputs.take(count);
            self.source.read_weights(self.tensor, start, &mut weights)?;
            if let Some(at) = weights.iter().position(|weight| !weight.is_finite()) {
                let source = QuantizeError::NotFinite { element: start as usize + at };
                return Err(ConvertError::Element { tensor: self.tensor.name.clone(), source });
            }
            let made = make(&weights);
            self.inputs.give(weights);
            Ok((made, bytes_of(count as u64)))
        };
        let pieces = elements.div_ceil(PIECE) as usize;
        for_each_in_order(pieces, self.threads, self.threads * 2, produce, |_, (made, bytes)| {
            if self.progress.cancelled() {
                return Err(ConvertError::Interrupted);
            }
            self.progress.advance(bytes);
            take(made)
        })
    }

    /// Largest magnitude; that of a bf16 grows with its bits.
    fn extremum(&self) -> Result<f32, ConvertError> {
        let mut extremum = 0;
        let largest = |weights: &[bf16]| {
            weights.iter().map(|weight| weight.to_bits() & 0x7FFF).max().unwrap_or_default()
        };
        self.each(largest, |bits| {
            extremum = extremum.max(bits);
            Ok(())
        })?;
        Ok(bf16::from_bits(extremum).to_f32())
    }

    fn codes(
        &self,
        factor: f32,
        scale: f32,
        mut put: impl FnMut(&[u8]) -> Result<(), ConvertError>,
    ) -> Result<(), ConvertError> {
        let outputs = Pool::<u8>::new();
        let quantize = |weights: &[bf16]| {
            let mut codes = outputs.take(weights.len());
            for (weight, code) in weights.iter().zip(&mut codes) {
                let value = (weight.to_f32() * factor / scale).round_ties_even();
                *code = value.clamp(-128.0, 127.0) as i8 as u8;
            }
            codes
        };
        self.each(quantize, |codes| {
            put(&codes)?;
            outputs.give(codes);
            Ok(())
        })
    }
}
