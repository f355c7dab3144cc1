//! Whole tensors, in chunks.
//!
//! Slices are cut into chunks of a fixed size that fit a core's own cache. Conversions give each worker a separate slice.

use fearless_simd::Level;
use half::{bf16, f16};

use super::block::BLOCK;
use super::{Int4Rule, QuantizeError, Statistics, vector};

/// Blocks per chunk: 128 KiB of weights, which stay in a core's own cache.
const CHUNK: usize = 2048;

/// Bytes of 4-bit codes of a block.
const NIBBLES: usize = BLOCK / 2;

/// Quantizes weights to 4-bit codes by a rule.
///
/// `weights` are whole blocks of 32; `codes` takes half as many bytes, two codes each in two's complement, the even-numbered
/// element in the low half; `scales` takes a number for each block. On an error their contents are unspecified.
///
/// # Errors
/// If a weight is not finite or too large (the first one in order), or the lengths do not match.
pub fn quantize_int4(
    rule: Int4Rule,
    weights: &[bf16],
    codes: &mut [u8],
    scales: &mut [f16],
) -> Result<Statistics, QuantizeError> {
    let level = Level::new();
    let (weights, codes) = blocks::<NIBBLES>(weights, codes, scales)?;
    in_chunks(weights, codes, scales, |weights, codes, scales| {
        vector::int4(level, rule, weights, codes, scales)
    })
}

/// Quantizes weights to 8-bit codes by the `absmax` rule (largest magnitude over 127.5, codes -128..127). `codes` takes as many as
/// there are weights, `scales` a number for each block of 32.
///
/// # Errors
/// As [`quantize_int4`].
pub fn quantize_int8(
    weights: &[bf16],
    codes: &mut [i8],
    scales: &mut [f16],
) -> Result<Statistics, QuantizeError> {
    let level = Level::new();
    let (weights, codes) = blocks::<BLOCK>(weights, bytemuck::cast_slice_mut(codes), scales)?;
    in_chunks(weights, codes, scales, |weights, codes, scales| vector::int8(level, weights, codes, scales))
}

/// Rounds weights to f16, ties to even.
///
/// # Errors
/// If a weight is not finite or too large (the first one in order), or the lengths differ.
pub fn to_f16(weights: &[bf16], halves: &mut [f16]) -> Result<(), QuantizeError> {
    let level = Level::new();
    same_length(weights, halves)?;
    let elements = CHUNK * BLOCK;
    for (chunk, (weights, halves)) in weights.chunks(elements).zip(halves.chunks_mut(elements)).enumerate() {
        vector::to_f16(level, weights, halves).map_err(|error| error.shifted(chunk * elements))?;
    }
    Ok(())
}

fn same_length(weights: &[bf16], halves: &[f16]) -> Result<(), QuantizeError> {
    if weights.len() == halves.len() {
        return Ok(());
    }
    Err(QuantizeError::Length { weights: weights.len(), codes: halves.len(), scales: 0 })
}

/// Cuts weights and codes into blocks, `BYTES` bytes of codes for each.
#[allow(clippy::type_complexity)]
fn blocks<'w, 'c, const BYTES: usize>(
    weights: &'w [bf16],
    codes: &'c mut [u8],
    scales: &[f16],
) -> Result<(&'w [[bf16; BLOCK]], &'c mut [[u8; BYTES]]), QuantizeError> {
    let error = QuantizeError::Length { weights: weights.len(), codes: codes.len(), scales: scales.len() };
    let (weights, left_weights) = weights.as_chunks();
    let (codes, left_codes) = codes.as_chunks_mut();
    let is_whole = left_weights.is_empty() && left_codes.is_empty();
    if is_whole && codes.len() == weights.len() && scales.len() == weights.len() {
        Ok((weights, codes))
    } else {
        Err(error)
    }
}

fn in_chunks<const BYTES: usize>(
    weights: &[[bf16; BLOCK]],
    codes: &mut [[u8; BYTES]],
    scales: &mut [f16],
    quantize: impl Fn(&[[bf16; BLOCK]], &mut [[u8; BYTES]], &mut [f16]) -> Result<Statistics, QuantizeError>,
) -> Result<Statistics, QuantizeError> {
    let outputs = codes.chunks_mut(CHUNK).zip(scales.chunks_mut(CHUNK));
    let mut sum = Statistics::default();
    for (chunk, (weights, (codes, scales))) in weights.chunks(CHUNK).zip(outputs).enumerate() {
        let made = quantize(weights, codes, scales);
        sum.merge(&made.map_err(|error| error.shifted(chunk * CHUNK * BLOCK))?);
    }
    Ok(sum)
}
