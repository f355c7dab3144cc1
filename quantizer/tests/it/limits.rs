//! What the quantizers refuse, and the largest and smallest weights that they take.

use half::{bf16, f16};
use quantizer::{BLOCK, Int4Rule, QuantizeError, Statistics, quantize_int4, quantize_int8, to_f16};

/// More blocks than a few chunks have.
const MANY: usize = 2048 * 3 + 5;

fn int4(rule: Int4Rule, weights: &[bf16]) -> Result<(Statistics, Vec<f16>), QuantizeError> {
    let (mut codes, mut scales) = (vec![0; weights.len() / 2], vec![f16::ONE; weights.len() / BLOCK]);
    let statistics = quantize_int4(rule, weights, &mut codes, &mut scales)?;
    Ok((statistics, scales))
}

fn overflow(element: usize) -> Option<QuantizeError> {
    Some(QuantizeError::Overflow { element })
}

#[test]
fn a_weight_beyond_f16_is_refused_by_name() {
    let mut weights = vec![bf16::from_f32(0.25); 4 * BLOCK];
    for (value, is_refused) in [(65280.0, false), (65536.0, true), (-65536.0, true), (-3e38, true)] {
        weights[70] = bf16::from_f32(value);
        let expected = if is_refused { overflow(70) } else { None };
        assert_eq!(int4(Int4Rule::Lattice, &weights).err(), expected, "{value}");
        assert_eq!(int4(Int4Rule::Absmax, &weights).err(), expected, "{value}");
        let (mut codes, mut scales, mut halves) = ([0; 4 * BLOCK], [f16::ONE; 4], [f16::ONE; 4 * BLOCK]);
        assert_eq!(quantize_int8(&weights, &mut codes, &mut scales).err(), expected, "{value}");
        assert_eq!(to_f16(&weights, &mut halves).err(), expected, "{value}");
    }
}

#[test]
fn q4_0_takes_what_its_scale_can_hold() {
    let mut weights = vec![bf16::from_f32(0.25); BLOCK];
    for (value, expected) in
        [(-522240.0, Ok(65280.0)), (522240.0, Ok(-65280.0)), (524288.0, Err(overflow(9)))]
    {
        weights[9] = bf16::from_f32(value);
        let scale = int4(Int4Rule::Q4_0, &weights).map(|(_, scales)| scales[0].to_f32());
        assert_eq!(scale.map_err(Some), expected, "{value}");
    }
}

#[test]
fn the_first_fault_in_order_is_reported_whichever_chunk_it_is_in() {
    let mut weights = vec![bf16::from_f32(0.25); MANY * BLOCK];
    for (element, value) in
        [(5000 * BLOCK + 3, f32::NAN), (2048 * BLOCK + 40, 1e6), (2048 * BLOCK + 100, f32::INFINITY)]
    {
        weights[element] = bf16::from_f32(value);
    }
    for rule in Int4Rule::ALL {
        assert_eq!(int4(rule, &weights).err(), overflow(2048 * BLOCK + 40), "{rule}");
    }
    let mut halves = vec![f16::ZERO; weights.len()];
    assert_eq!(to_f16(&weights, &mut halves).err(), overflow(2048 * BLOCK + 40));
    let told = overflow(40).map(|error| error.shifted(2048 * BLOCK));
    assert_eq!(told, overflow(2048 * BLOCK + 40));
}

#[test]
fn buffers_that_do_not_match_are_refused() {
    let weights = [bf16::ONE; 2 * BLOCK];
    let refused = |weights: &[bf16], codes: usize, scales: usize| {
        let (mut codes, mut scales) = (vec![0; codes], vec![f16::ONE; scales]);
        quantize_int4(Int4Rule::Q4_0, weights, &mut codes, &mut scales).is_err()
    };
    assert!(!refused(&weights, 32, 2));
    assert!(!refused(&[], 0, 0));
    assert!(refused(&weights[1..], 32, 2) && refused(&weights, 31, 2) && refused(&weights, 48, 2));
    assert!(refused(&weights, 32, 1) && refused(&weights, 32, 3));
    let error = to_f16(&weights, &mut [f16::ONE; 3]).err();
    assert_eq!(error, Some(QuantizeError::Length { weights: 64, codes: 3, scales: 0 }));
}

#[test]
fn small_weights_are_counted_never_nan() {
    for (value, subnormal) in
        [(2.0_f32.powi(-11), 0), (2.0_f32.powi(-12), 1), (2.0_f32.powi(-22), 1), (1e-30, 1), (1e-40, 1)]
    {
        let mut weights = [bf16::from_f32(value); BLOCK];
        weights[0] = bf16::from_f32(value * 0.3);
        for rule in Int4Rule::ALL {
            let (statistics, scales) = int4(rule, &weights).expect("the weights are finite");
            assert!(scales[0].is_finite(), "{rule} {value}");
            assert_eq!(statistics.subnormal_scales, subnormal, "{rule} {value}: {}", scales[0]);
            assert!(statistics.squared_error.is_finite() && statistics.relative_error().is_finite());
        }
    }
    for zero in [bf16::ZERO, bf16::NEG_ZERO] {
        for (rule, scale) in
            [(Int4Rule::Lattice, 0.0), (Int4Rule::Q4_0, 0.0), (Int4Rule::Absmax, 2.0_f32.powi(-23))]
        {
            let (statistics, scales) = int4(rule, &[zero; 3 * BLOCK]).expect("the weights are finite");
            assert_eq!(scales[0].to_f32(), scale, "{rule}");
            let exact = (statistics.blocks_exact, statistics.zero_blocks, statistics.subnormal_scales);
            assert_eq!(exact, (3, 3, 0), "{rule}");
            assert_eq!((statistics.worst, statistics.extremum_codes), (None, [0; 16]), "{rule}");
        }
    }
}
