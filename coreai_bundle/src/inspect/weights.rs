//! WeightSummary of weights, read from the packed blobs.

use aimodel::package::Package;
use aimodel::view::{Weight, WeightError, piece};
use anyhow::Context;
use half::f16;
use rayon::prelude::*;
use serde::Serialize;

/// Statistics of one weight.
#[derive(Debug, Serialize)]
pub struct WeightSummary {
    /// Its name.
    pub name: String,
    /// Its format, such as `si4/32`.
    pub format: String,
    /// Its extents.
    pub shape: Vec<u64>,
    /// Bytes of all parts.
    pub bytes: u64,
    /// None for element types that are not known here.
    #[serde(flatten)]
    pub values: Option<WeightValues>,
    /// Of weights in blocks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scales: Option<WeightScales>,
    /// How often each 4-bit code occurs: entry 0 counts -8, entry 15 counts 7.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub codes: Option<[u64; 16]>,
}

/// The values that the graph multiplies by.
#[derive(Debug, Serialize)]
pub struct WeightValues {
    /// Root mean square.
    pub rms: f64,
    /// Largest magnitude.
    pub largest: f32,
    /// How many are zero.
    pub zeros: u64,
}

/// WeightScales of a weight.
#[derive(Debug, Serialize)]
pub struct WeightScales {
    /// How many there are.
    pub count: u64,
    /// Smallest magnitude of those that are not zero.
    pub smallest: f32,
    /// Largest magnitude.
    pub largest: f32,
    /// How many are zero.
    pub zeros: u64,
    /// How many are negative.
    pub negative: u64,
    /// How many there are of each f16 exponent, zeros left out.
    #[serde(skip)]
    pub exponents: [u64; 32],
}

impl WeightSummary {
    /// What a report shows; nothing for weights without scales.
    pub(super) fn tensor(&self) -> Option<report::Tensor> {
        let scales = self.scales.as_ref()?;
        Some(report::Tensor {
            name: self.name.clone(),
            source: None,
            format: self.format.clone(),
            shape: self.shape.clone(),
            bytes: self.bytes,
            recovery: None,
            codes: self.codes.map(report::Codes::All),
            scale_exponents: scales.exponents,
        })
    }
}

/// Reads all weights of a package, on all cores.
pub(super) fn read(package: &Package) -> anyhow::Result<Vec<WeightSummary>> {
    let weights = package.weights();
    let one = |weight: &Weight| {
        statistics(package, weight).with_context(|| format!("weights of {}", weight.name()))
    };
    weights.par_iter().map(one).collect()
}

fn statistics(package: &Package, weight: &Weight) -> Result<WeightSummary, WeightError> {
    let stored = weight.stored();
    let is_readable = weight.is_readable();
    let four_bits = matches!(weight, Weight::Blocks { codes, .. } if codes.element.bits() == 4);
    Ok(WeightSummary {
        name: weight.name().to_owned(),
        format: weight.format(),
        shape: stored.shape.clone(),
        bytes: weight.bytes(),
        values: is_readable.then(|| values(package, weight)).transpose()?,
        scales: if is_readable { scales(package, weight)? } else { None },
        codes: (is_readable && four_bits).then(|| codes(package, weight)).transpose()?,
    })
}

/// First element and number of elements of each piece that a tensor is read in.
fn pieces(count: u64, size: u64) -> impl Iterator<Item = (u64, usize)> {
    (0..count.div_ceil(size)).map(move |at| (at * size, (count - at * size).min(size) as usize))
}

fn values(package: &Package, weight: &Weight) -> Result<WeightValues, WeightError> {
    let count = weight.stored().count();
    let mut values = WeightValues { rms: 0.0, largest: 0.0, zeros: 0 };
    let mut squares = 0.0;
    for (start, size) in pieces(count, piece(&[weight])) {
        for value in package.values(weight, start, size)? {
            squares += f64::from(value) * f64::from(value);
            values.largest = values.largest.max(value.abs());
            values.zeros += u64::from(value == 0.0);
        }
    }
    values.rms = if count == 0 { 0.0 } else { (squares / count as f64).sqrt() };
    Ok(values)
}

fn codes(package: &Package, weight: &Weight) -> Result<[u64; 16], WeightError> {
    let mut codes = [0; 16];
    for (start, size) in pieces(weight.stored().count(), piece(&[weight])) {
        for code in package.elements(weight.stored(), start, size)? {
            codes[(code + 8.0) as usize & 15] += 1;
        }
    }
    Ok(codes)
}

fn scales(package: &Package, weight: &Weight) -> Result<Option<WeightScales>, WeightError> {
    let Weight::Blocks { scales: stored, .. } = weight else { return Ok(None) };
    let count = stored.count();
    let mut scales = WeightScales {
        count,
        smallest: f32::INFINITY,
        largest: 0.0,
        zeros: 0,
        negative: 0,
        exponents: [0; 32],
    };
    for (start, size) in pieces(count, piece(&[])) {
        for scale in package.elements(stored, start, size)? {
            scales.zeros += u64::from(scale == 0.0);
            scales.negative += u64::from(scale < 0.0);
            scales.largest = scales.largest.max(scale.abs());
            if scale != 0.0 {
                scales.smallest = scales.smallest.min(scale.abs());
                scales.exponents[usize::from(f16::from_f32(scale).to_bits() >> 10) & 31] += 1;
            }
        }
    }
    if scales.smallest.is_infinite() {
        scales.smallest = 0.0;
    }
    Ok(Some(scales))
}
