//! The rules on synthetic lattices, on weights off any lattice, on adversarial blocks, and on any number of threads.

use fixtures::Lattice;
use half::{bf16, f16};
use proptest::prelude::*;
use quantizer::{
    BLOCK, Int4Rule, QuantizeError, Statistics, fit, fit_int8, quantize_int4, quantize_int8, to_f16,
};

const RULES: [Int4Rule; 3] = [Int4Rule::Lattice, Int4Rule::Q4_0, Int4Rule::Absmax];

struct Quantized {
    codes: Vec<i8>,
    scales: Vec<f16>,
    statistics: Statistics,
}

fn int4(rule: Int4Rule, weights: &[bf16]) -> Quantized {
    let (mut packed, mut scales) = (vec![0; weights.len() / 2], vec![f16::ZERO; weights.len() / BLOCK]);
    let statistics = quantize_int4(rule, weights, &mut packed, &mut scales).unwrap();
    let codes = packed.iter().flat_map(|byte| [(byte << 4) as i8 >> 4, *byte as i8 >> 4]).collect();
    Quantized { codes, scales, statistics }
}

fn lattice_weights(kind: Lattice, count: usize) -> Vec<bf16> {
    kind.blocks(7, 0.02, count).flat_map(|block| block.weights.map(bf16::from_bits)).collect()
}

fn normal_weights(count: usize) -> Vec<bf16> {
    // The weights before they were put on a lattice are not available; a lattice times a smooth factor is off it.
    let weights = lattice_weights(Lattice::Bf16Div75Signed8, count);
    let bend =
        |(at, weight): (usize, &bf16)| bf16::from_f32(weight.to_f32() * (1.0 + 0.3 * (at as f32).sin()));
    weights.iter().enumerate().map(bend).collect()
}

fn squared_error(weights: &[bf16], quantized: &Quantized, block: usize) -> f64 {
    let scale = f64::from(quantized.scales[block].to_f32());
    let at = block * BLOCK..(block + 1) * BLOCK;
    let pairs = weights[at.clone()].iter().zip(&quantized.codes[at]);
    pairs.map(|(weight, code)| (f64::from(*code) * scale - f64::from(weight.to_f32())).powi(2)).sum()
}

#[test]
fn every_kind_of_lattice_is_recovered() {
    for kind in Lattice::ALL {
        let blocks: Vec<_> = kind.blocks(3, 0.02, 20_000).collect();
        let weights: Vec<bf16> = blocks.iter().flat_map(|block| block.weights.map(bf16::from_bits)).collect();
        let Quantized { codes, statistics, .. } = int4(Int4Rule::Lattice, &weights);
        assert_eq!(statistics.blocks_on_lattice, statistics.blocks, "{}", kind.name());
        let exact = statistics.blocks_exact as f64 / statistics.blocks as f64;
        if kind.scale_is_bf16() {
            assert!(exact >= 0.9999, "{}: {exact}", kind.name());
            let weights_exact = statistics.weights_exact as f64 / statistics.weights as f64;
            assert!(weights_exact >= 0.9999, "{}: {weights_exact}", kind.name());
        } else {
            // Every code, and every scale for which some f16 number reproduces every weight.
            let made: Vec<i8> = blocks.iter().flat_map(|block| block.codes).collect();
            assert!(codes == made, "{}", kind.name());
            let possible = blocks.iter().filter(|block| some_f16_scale_fits(block)).count() as u64;
            assert_eq!(statistics.blocks_exact, possible, "{}", kind.name());
            assert!(exact > 0.96, "{exact}");
            let weights_exact = statistics.weights_exact as f64 / statistics.weights as f64;
            assert!(weights_exact >= 0.994, "{weights_exact}");
        }
    }
}

/// Tries every f16 number near the scale that made a block.
fn some_f16_scale_fits(block: &fixtures::lattice::LatticeBlock) -> bool {
    let near = f16::from_f32(block.scale).to_bits();
    (near.saturating_sub(64)..=near + 64).map(f16::from_bits).any(|scale| {
        block.codes.iter().zip(block.weights).all(|(code, weight)| {
            bf16::from_f32(f32::from(*code) * scale.to_f32()) == bf16::from_bits(weight)
        })
    })
}

#[test]
fn what_is_counted_is_what_was_packed() {
    let weights =
        [lattice_weights(Lattice::Q40, 500), normal_weights(500), vec![bf16::ZERO; 2 * BLOCK]].concat();
    for rule in RULES {
        let quantized = int4(rule, &weights);
        let exact = |at: usize| {
            let product = f32::from(quantized.codes[at]) * quantized.scales[at / BLOCK].to_f32();
            bf16::from_f32(product) == weights[at]
        };
        let weights_exact = (0..weights.len()).filter(|at| exact(*at)).count() as u64;
        let blocks_exact = (0..weights.len() / BLOCK)
            .filter(|block| (0..BLOCK).all(|at| exact(block * BLOCK + at)))
            .count() as u64;
        let statistics = &quantized.statistics;
        assert_eq!(
            (statistics.weights_exact, statistics.blocks_exact),
            (weights_exact, blocks_exact),
            "{rule:?}"
        );
        assert_eq!(statistics.zero_blocks, 2, "{rule:?}");
        let error: f64 =
            (0..weights.len() / BLOCK).map(|block| squared_error(&weights, &quantized, block)).sum();
        assert!((statistics.squared_error / error - 1.0).abs() < 1e-3, "{rule:?}");
        assert!(quantized.scales.iter().all(|scale| scale.is_finite()));
    }
}

#[test]
fn lattice_is_never_worse_than_absmax() {
    let weights = normal_weights(5_000);
    let (ours, absmax) = (int4(Int4Rule::Lattice, &weights), int4(Int4Rule::Absmax, &weights));
    for block in 0..weights.len() / BLOCK {
        let (ours, absmax) = (squared_error(&weights, &ours, block), squared_error(&weights, &absmax, block));
        assert!(ours <= absmax * (1.0 + 1e-5), "block {block}: {ours} against {absmax}");
    }
}

#[test]
fn chunks_change_nothing() {
    let weights = [lattice_weights(Lattice::Bf16DivUniform, 9_000), normal_weights(9_000)].concat();
    // In one piece, or block by block: the same codes and scales.
    for rule in RULES {
        let whole = int4(rule, &weights);
        for (at, block) in weights.chunks_exact(BLOCK).enumerate().step_by(7) {
            let single = int4(rule, block);
            assert_eq!(single.codes, whole.codes[at * BLOCK..(at + 1) * BLOCK], "{rule:?} block {at}");
            assert_eq!(single.scales[0].to_bits(), whole.scales[at].to_bits(), "{rule:?} block {at}");
        }
    }
}

#[test]
fn what_is_not_finite_or_too_large_is_named() {
    for (bits, element) in [(0x7FC0, 37), (0xFF80, 64), (0x7F80, 0)] {
        let mut weights = lattice_weights(Lattice::Q40, 3);
        weights[element] = bf16::from_bits(bits);
        let (mut codes, mut scales) = (vec![0; 48], vec![f16::ZERO; 3]);
        for rule in RULES {
            let error = quantize_int4(rule, &weights, &mut codes, &mut scales).unwrap_err();
            assert_eq!(error, QuantizeError::NotFinite { element }, "{rule:?}");
        }
        let error = quantize_int8(&weights, &mut [0; 96], &mut scales).unwrap_err();
        assert_eq!(error, QuantizeError::NotFinite { element });
        assert!(to_f16(&weights, &mut [f16::ZERO; 96]).is_err());
    }
    let mut large = vec![bf16::ZERO; 32];
    large[5] = bf16::from_f32(1e6);
    let error = to_f16(&large, &mut [f16::ZERO; 32]).unwrap_err();
    assert!(error.to_string().contains('5'), "{error}");
}

/// Weights of any bits, with zeros, ties, subnormals and extremes among them.
fn any_block() -> impl Strategy<Value = [bf16; BLOCK]> {
    let weight = prop_oneof![
        4 => (-200_i32..200).prop_map(|code| bf16::from_f32(code as f32 * 0.0078125)),
        2 => (0_u16..0x4700, any::<bool>()).prop_map(|(bits, negative)| bf16::from_bits(bits | u16::from(negative) << 15)),
        1 => Just(bf16::ZERO),
        1 => (1_u16..0x80).prop_map(bf16::from_bits),
    ];
    proptest::collection::vec(weight, BLOCK).prop_map(|weights| weights.try_into().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// The vector path agrees with the plain reference on a block, bit for bit.
    #[test]
    fn vectors_do_what_the_reference_does(block in any_block()) {
        for rule in RULES {
            let (vector, reference) = (int4(rule, &block), fit(rule, &block).unwrap());
            prop_assert_eq!(&vector.codes[..], &reference.codes[..], "{:?}", rule);
            prop_assert_eq!(vector.scales[0].to_bits(), reference.scale.to_bits(), "{:?}", rule);
        }
        let (mut codes, mut scales) = ([0; BLOCK], [f16::ZERO]);
        quantize_int8(&block, &mut codes, &mut scales).unwrap();
        let reference = fit_int8(&block).unwrap();
        prop_assert_eq!(codes, reference.codes);
        prop_assert_eq!(scales[0].to_bits(), reference.scale.to_bits());
    }

    #[test]
    fn lattice_is_never_worse_than_absmax_on_anything(block in any_block()) {
        let (ours, absmax) = (int4(Int4Rule::Lattice, &block), int4(Int4Rule::Absmax, &block));
        let (ours, absmax) = (squared_error(&block, &ours, 0), squared_error(&block, &absmax, 0));
        prop_assert!(ours <= absmax * (1.0 + 1e-5) + 1e-30, "{} against {}", ours, absmax);
    }
}
