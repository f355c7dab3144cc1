//! Throughput of the quantizers on one core, in bytes of bf16 input a second: measured over 64 MiB in slices of 1 MiB.
//!
//! `cargo run --release -p converter --example quantizer_throughput`
#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::ops::Range;
use std::time::Instant;

use converter::quant::{
    BLOCK, Int4Rule, QuantizeError, Statistics, quantize_int4_serial, quantize_int8_serial, to_f16_serial,
};
use half::{bf16, f16};

const WEIGHTS: usize = 1 << 25;
const SLICE: usize = 1 << 19;
const PASSES: usize = 5;

fn main() -> Result<(), QuantizeError> {
    let inputs = [
        (
            "bf16 scales, codes -7..7",
            weights(|raw, extremum| lattice(raw, to_bf16(extremum.abs() / 7.5), -7.0)),
        ),
        (
            "bf16 scales, codes -8..7",
            weights(|raw, extremum| lattice(raw, to_bf16(extremum.abs() / 7.5), -8.0)),
        ),
        (
            "bf16 scales, extremum's code -8",
            weights(|raw, extremum| lattice(raw, to_bf16(extremum) / -8.0, -8.0)),
        ),
        ("f32 scales, codes -7..7", weights(|raw, extremum| lattice(raw, extremum.abs() / 7.5, -7.0))),
        ("off the lattice", weights(|raw, _| raw.map(bf16::from_f32))),
    ];
    let mut codes = vec![0; SLICE / 2];
    let mut wide_codes = vec![0; SLICE];
    let mut scales = vec![f16::ZERO; SLICE / BLOCK];
    let mut halves = vec![f16::ZERO; SLICE];
    for (name, weights) in &inputs {
        for rule in Int4Rule::ALL {
            let mut figures = Statistics::default();
            let [median, best] = measure(|slice| {
                figures.merge(&quantize_int4_serial(
                    rule,
                    black_box(&weights[slice]),
                    &mut codes,
                    &mut scales,
                )?);
                Ok(())
            })?;
            let share = 100.0 * figures.weights_exact as f64 / figures.weights as f64;
            println!(
                "{:8} {name:32} {median:6.2} GB/s, at best {best:5.2}, {share:6.2} % of weights exact",
                rule.name()
            );
        }
    }
    let (name, weights) = &inputs[0];
    let [median, best] = measure(|slice| {
        quantize_int8_serial(black_box(&weights[slice]), &mut wide_codes, &mut scales).map(|_| ())
    })?;
    println!("{:8} {name:32} {median:6.2} GB/s, at best {best:5.2}", "int8");
    let [median, best] = measure(|slice| to_f16_serial(black_box(&weights[slice]), &mut halves))?;
    println!("{:8} {name:32} {median:6.2} GB/s, at best {best:5.2}", "f16");
    Ok(())
}

/// GB/s of the median slice and of the fastest of twenty: on a busy machine the two differ.
fn measure(
    mut pass: impl FnMut(Range<usize>) -> Result<(), QuantizeError>,
) -> Result<[f64; 2], QuantizeError> {
    let mut seconds = Vec::new();
    for _ in 0..PASSES {
        for start in (0..WEIGHTS).step_by(SLICE) {
            let begin = Instant::now();
            pass(start..start + SLICE)?;
            seconds.push(begin.elapsed().as_secs_f64());
        }
    }
    seconds.sort_by(f64::total_cmp);
    let bytes = (SLICE * size_of::<bf16>()) as f64;
    Ok([2, 20].map(|part| bytes / seconds[seconds.len() / part] / 1e9))
}

/// Blocks of weights made of roughly normal raw numbers of deviation 0.02.
fn weights(block: impl Fn([f32; BLOCK], f32) -> [bf16; BLOCK]) -> Vec<bf16> {
    let mut state = 1_u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    let mut weights = Vec::with_capacity(WEIGHTS);
    while weights.len() < WEIGHTS {
        let raw: [f32; BLOCK] =
            std::array::from_fn(|_| 0.02 * (uniform() + uniform() + uniform() + uniform()) * 3.0_f32.sqrt());
        let extremum = raw.iter().fold(0.0_f32, |known, x| if x.abs() > known.abs() { *x } else { known });
        weights.extend_from_slice(&block(raw, extremum));
    }
    weights
}

fn to_bf16(x: f32) -> f32 {
    bf16::from_f32(x).to_f32()
}

fn lattice(raw: [f32; BLOCK], scale: f32, lowest: f32) -> [bf16; BLOCK] {
    raw.map(|x| bf16::from_f32((x / scale).round_ties_even().clamp(lowest, 7.0) * scale))
}
