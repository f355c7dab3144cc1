//! Weights as checkpoints have them: on one of the lattices that training leaves, or on none.

use half::bf16;
use quantizer::BLOCK;

/// Weights of a measurement: 64 MiB, so that no cache holds them.
pub(crate) const COUNT: usize = 1 << 25;

/// Kinds of weights, by name.
pub(crate) fn kinds() -> Vec<(&'static str, Vec<bf16>)> {
    vec![
        ("on the lattice", weights(|raw, extremum| lattice(raw, to_bf16(extremum.abs() / 7.5), -7.0))),
        (
            "on the lattice, codes to -8",
            weights(|raw, extremum| lattice(raw, to_bf16(extremum) / -8.0, -8.0)),
        ),
        ("on a lattice with f32 scales", weights(|raw, extremum| lattice(raw, extremum.abs() / 7.5, -7.0))),
        ("off the lattice", weights(|raw, _| raw.map(bf16::from_f32))),
    ]
}

/// Blocks made of roughly normal numbers of deviation 0.02.
fn weights(block: impl Fn([f32; BLOCK], f32) -> [bf16; BLOCK]) -> Vec<bf16> {
    let mut state = 1_u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    let mut weights = Vec::with_capacity(COUNT);
    while weights.len() < COUNT {
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
