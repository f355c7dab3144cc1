//! Recovery of lattices against their definition: every scale tried, every code tried.

use fixtures::Lattice;
use half::{bf16, f16};
use proptest::prelude::*;
use quantizer::lattice::{EXTREMUM_CODES, Recovered, recover};
use quantizer::{BLOCK, Int4Rule, quantize_int4};

type Block = [bf16; BLOCK];

/// Whether a scale with some code in -8..7 reproduces a weight; zeros of either sign are equal.
fn reproduces(scale: f16, weight: bf16) -> bool {
    let is_code = |code: &i8| bf16::from_f32(f32::from(*code) * scale.to_f32()) == weight;
    (-8..8).any(|code| is_code(&code))
}

/// All f16 scales, of both signs, that reproduce a block. They lie between an eighth of the largest magnitude and
/// the largest magnitude, apart from rounding.
fn scales_of(block: &Block) -> Vec<f16> {
    let largest = block.iter().map(|weight| weight.to_f32().abs()).fold(0.0, f32::max);
    let (low, high) = (f16::from_f32(largest / 8.1).to_bits(), f16::from_f32(largest * 1.01).to_bits());
    let magnitudes = (low.saturating_sub(2).max(1)..=high.saturating_add(2)).map(f16::from_bits);
    let scales = magnitudes.filter(|scale| scale.is_finite()).flat_map(|scale| [scale, -scale]);
    scales.filter(|scale| block.iter().all(|weight| reproduces(*scale, *weight))).collect()
}

/// Whether a real scale of a sign reproduces a block. Only the places where a weight starts or stops being reproduced, and those
/// between them, have to be tried.
fn some_real_scale_fits(block: &Block, sign: i32) -> bool {
    // Magnitudes of scales for one code of one weight, times the least common multiple of all codes: exact in f64.
    let intervals = |weight: bf16| {
        let bits = weight.to_bits() & 0x7fff;
        let at = |bits| bf16::from_bits(bits).to_f64();
        let largest = if weight.is_sign_negative() == (sign > 0) { 8 } else { 7 };
        (1..=largest).map(move |code| {
            let factor = 840.0 / f64::from(code);
            let (low, high) = ((at(bits - 1) + at(bits)) / 2.0, (at(bits) + at(bits + 1)) / 2.0);
            (low * factor, high * factor, bits.is_multiple_of(2))
        })
    };
    let weights: Vec<bf16> = block.iter().copied().filter(|weight| weight.to_f32() != 0.0).collect();
    let mut places: Vec<f64> =
        weights.iter().flat_map(|weight| intervals(*weight)).flat_map(|(low, high, _)| [low, high]).collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    let between: Vec<f64> = places.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0).collect();
    let gives = |scale: f64, weight: bf16| {
        intervals(weight).any(|(low, high, closed)| {
            low < scale && scale < high || closed && (low == scale || high == scale)
        })
    };
    weights.is_empty()
        || places.iter().chain(&between).any(|scale| weights.iter().all(|weight| gives(*scale, *weight)))
}

fn is_on_lattice(block: &Block) -> bool {
    recover(block).is_some()
}

/// Checks a recovery against all possible scales.
fn check(block: &Block) -> Result<(), TestCaseError> {
    let scales = scales_of(block);
    let Some(Recovered { scale, codes, interval, extremum_code, is_exact }) = recover(block) else {
        prop_assert!(scales.is_empty(), "{} gives the block back", scales[0]);
        prop_assert!(![1, -1].iter().any(|sign| some_real_scale_fits(block, *sign)));
        return Ok(());
    };
    prop_assert!(codes.iter().all(|code| (-8..=7).contains(code)));
    if block.iter().all(|weight| weight.to_f32() == 0.0) {
        prop_assert_eq!((scale.to_bits(), codes, extremum_code, is_exact), (0, [0; BLOCK], 0, true));
        return Ok(());
    }
    let count = |scale: f16| {
        let pairs = codes.iter().zip(block);
        pairs.filter(|(code, weight)| bf16::from_f32(f32::from(**code) * scale.to_f32()) == **weight).count()
    };
    prop_assert_eq!(is_exact, count(scale) == BLOCK);
    prop_assert_eq!(is_exact, !scales.is_empty(), "an f16 scale is taken wherever there is one");
    if !is_exact {
        return check_inexact(block, &recover(block).unwrap(), count);
    }
    prop_assert!(scales.contains(&scale));
    // A positive scale wherever there is one.
    prop_assert!(scale > f16::ZERO || scales.iter().all(|scale| *scale < f16::ZERO));
    let rank =
        |code: i8| EXTREMUM_CODES.iter().position(|known| *known == code || -*known == code && code != 8);
    prop_assert!(rank(extremum_code).is_some(), "{}", extremum_code);
    // The interval is that of the scales that reproduce the block with exactly these codes.
    let same_codes = |scale: &f16| {
        codes
            .iter()
            .zip(block)
            .all(|(code, weight)| bf16::from_f32(f32::from(*code) * scale.to_f32()) == *weight)
    };
    let inside: Vec<f16> = scales.into_iter().filter(same_codes).collect();
    prop_assert!(inside.iter().all(|scale| interval.contains(f16::from_bits(scale.to_bits() & 0x7fff))));
    let ((low, _), (high, _)) = (interval.lower_bound(), interval.upper_bound());
    let magnitude = |scale: f16| scale.to_f64().abs();
    let bits = |scale: f16| scale.to_bits() & 0x7fff;
    let (first, last) =
        (inside.iter().map(|s| bits(*s)).min().unwrap(), inside.iter().map(|s| bits(*s)).max().unwrap());
    prop_assert!(magnitude(f16::from_bits(first)) >= low && magnitude(f16::from_bits(last)) <= high);
    prop_assert!(
        !interval.contains(f16::from_bits(first - 1)) && !interval.contains(f16::from_bits(last + 1))
    );
    // A bf16 number if there is one, then the nearest to the middle.
    let is_bf16 = |scale: f16| bf16::from_f32(scale.to_f32()).to_f32() == scale.to_f32();
    prop_assert!(is_bf16(scale) || inside.iter().all(|scale| !is_bf16(*scale)));
    let distance = |scale: f16| (magnitude(scale) - (low + high) / 2.0).abs();
    for other in inside.into_iter().filter(|other| is_bf16(*other) == is_bf16(scale)) {
        prop_assert!(distance(scale) <= distance(other) * (1.0 + 1e-9), "{} is nearer than {}", other, scale);
    }
    Ok(())
}

/// Checks what is chosen if no f16 number is among the scales.
fn check_inexact(
    block: &Block,
    found: &Recovered,
    count: impl Fn(f16) -> usize,
) -> Result<(), TestCaseError> {
    let Recovered { scale, codes, interval, .. } = *found;
    // A positive scale wherever there is one.
    prop_assert!(scale.is_sign_positive() || !some_real_scale_fits(block, 1));
    let ((low, _), (high, _)) = (interval.lower_bound(), interval.upper_bound());
    let (sign, middle) = (f64::from(if scale.is_sign_negative() { -1 } else { 1 }), (low + high) / 2.0);
    for (code, weight) in codes.iter().zip(block) {
        prop_assert_eq!(bf16::from_f64(f64::from(*code) * sign * middle), *weight);
    }
    // The next f16 number on one side, and none on the other side reproduces more weights or as many from nearer.
    let magnitude = f16::from_bits(scale.to_bits() & 0x7fff);
    let other = if magnitude.to_f64() <= low { magnitude.to_bits() + 1 } else { magnitude.to_bits() - 1 };
    let other = f16::from_bits(other);
    let (least, most) = (magnitude.to_f64().min(other.to_f64()), magnitude.to_f64().max(other.to_f64()));
    prop_assert!(least <= low && high <= most, "{least} {low} {high} {most}");
    let (ours, others) = (count(scale), count(if sign < 0.0 { -other } else { other }));
    let is_near = (magnitude.to_f64() - middle).abs() <= (other.to_f64() - middle).abs() * (1.0 + 1e-9);
    prop_assert!(ours > others || ours == others && is_near, "{} before {}", other, magnitude);
    Ok(())
}

#[test]
fn every_kind_of_lattice_is_found_where_there_is_one() {
    for kind in Lattice::ALL {
        for deviation in [0.02, 1e-4, 30.0] {
            for block in kind.blocks(11, deviation, 250) {
                let weights = block.weights.map(bf16::from_bits);
                check(&weights).unwrap_or_else(|error| panic!("{kind}: {error}"));
                let found = recover(&weights).unwrap_or_else(|| panic!("{kind}"));
                assert!(!kind.scale_is_bf16() || deviation < 1e-3 || found.is_exact, "{kind}");
                // The same codes, or all of them times a factor.
                let at = block.codes.iter().position(|code| *code != 0).unwrap();
                let (made, got) = (i32::from(block.codes[at]), i32::from(found.codes[at]));
                for (code, other) in block.codes.iter().zip(found.codes) {
                    assert_eq!(i32::from(*code) * got, i32::from(other) * made, "{kind}");
                }
                if kind == Lattice::F32Div75 {
                    assert_eq!(found.codes, block.codes);
                }
            }
        }
    }
}

/// Possible factors: codes that are all multiples of one number say no more than their quotients.
#[test]
fn codes_are_ambiguous_only_up_to_a_factor() {
    let block = |codes: [i8; 4], scale: f32| {
        let mut block = [bf16::ZERO; BLOCK];
        for (weight, code) in block.iter_mut().zip(codes) {
            *weight = bf16::from_f32(f32::from(code) * scale);
        }
        block
    };
    let found = |codes: [i8; 4]| {
        let found = recover(&block(codes, 0.012_345)).unwrap().codes;
        [found[0], found[1], found[2], found[3]]
    };
    for codes in [[7, 1, -3, 0], [-8, 7, 2, 1], [-5, 3, 1, 0], [6, -4, 3, 0], [4, -3, 0, 0]] {
        assert_eq!(found(codes), codes);
    }
    assert_eq!(found([7, -7, 0, 0]), [7, -7, 0, 0]);
    assert_eq!(found([1, -1, 1, 0]), [7, -7, 7, 0], "largest first");
    assert_eq!(found([6, -4, 2, 0]), [6, -4, 2, 0]);
    assert_eq!(found([3, -2, 1, 0]), [6, -4, 2, 0]);
    assert_eq!(found([-8, 4, 2, 0]), [-8, 4, 2, 0]);
    assert_eq!(found([8, 4, 2, 0]), [4, 2, 1, 0], "a positive scale first");
    assert_eq!(found([8, 4, 2, 1]), [-8, -4, -2, -1], "no positive scale holds a code of +8");
}

/// Where f16 numbers are far apart, codes are kept if they are nearer to the weights than the best fit.
#[test]
fn a_scale_below_the_normal_f16_numbers_leaves_no_larger_error_than_the_best_fit() {
    let mut kept = 0;
    for (at, block) in Lattice::F32Div75.blocks(5, 1e-5, 4000).enumerate() {
        let factor = 2.0_f32.powi(3 - (at % 16) as i32);
        let block = block.weights.map(|bits| bf16::from_f32(bf16::from_bits(bits).to_f32() * factor));
        let (mut codes, mut scales) = ([0; BLOCK / 2], [f16::ZERO]);
        let statistics = quantize_int4(Int4Rule::Lattice, &block, &mut codes, &mut scales).unwrap();
        assert_eq!((statistics.blocks_on_lattice, statistics.subnormal_scales), (1, 1));
        assert!(packed_error(Int4Rule::Lattice, &block) <= packed_error(Int4Rule::Absmax, &block));
        let first = codes.iter().flat_map(|pair| [(*pair as i8) << 4 >> 4, *pair as i8 >> 4]);
        kept += usize::from(first.eq(recover(&block).unwrap().codes));
    }
    assert!((1500..3900).contains(&kept), "{kept}");
}

#[test]
fn a_negative_scale_only_for_a_positive_code_of_eight() {
    let weights = |codes: [i8; 4]| {
        let mut block = [bf16::ZERO; BLOCK];
        for (weight, code) in block.iter_mut().zip(codes) {
            *weight = bf16::from_f32(f32::from(code) * 0.0123);
        }
        block
    };
    let sign = |block: Block| recover(&block).map(|recovered| recovered.scale > f16::ZERO);
    assert_eq!(sign(weights([-8, 7, 5, -3])), Some(true));
    assert_eq!(sign(weights([8, -7, 5, -3])), Some(false));
    assert_eq!(sign(weights([7, -7, 5, -3])), Some(true));
    assert_eq!(sign(weights([-7, 5, 3, 1])), Some(true));
    assert_eq!(sign(weights([8, -8, 5, 3])), None, "no sign holds both eights");
    // Half of the codes with twice the scale: an eight is not needed.
    assert_eq!(sign(weights([8, 2, -4, 6])), Some(true));
    assert_eq!(sign(weights([8, 8, 0, 0])), Some(true));
}

#[test]
fn what_is_not_a_number_in_f16_is_not_on_a_lattice() {
    let block = |value: f32| [bf16::from_f32(value); BLOCK];
    assert!(is_on_lattice(&block(0.0)) && is_on_lattice(&block(-0.0)));
    assert!(is_on_lattice(&block(3.0)) && is_on_lattice(&block(-65280.0)));
    assert!(!is_on_lattice(&block(65536.0)), "infinite in f16");
    assert!(is_on_lattice(&block(2.0_f32.powi(-24))), "the smallest f16 number");
    assert!(is_on_lattice(&block(1e-30)), "whether f16 holds it is another question");
    assert!(!recover(&block(1e-30)).unwrap().is_exact);
    assert!(!is_on_lattice(&block(f32::NAN)) && !is_on_lattice(&block(f32::NEG_INFINITY)));
}

/// The squared error of a block as it was packed, without significant rounding errors.
fn packed_error(rule: Int4Rule, block: &Block) -> f64 {
    let (mut codes, mut scales) = ([0; BLOCK / 2], [f16::ZERO]);
    quantize_int4(rule, block, &mut codes, &mut scales).unwrap();
    let codes = codes.iter().flat_map(|pair| [(*pair as i8) << 4 >> 4, *pair as i8 >> 4]);
    let error = |(code, weight): (i8, &bf16)| f64::from(code) * scales[0].to_f64() - weight.to_f64();
    codes.zip(block).map(|pair| error(pair).powi(2)).sum()
}

fn weight(low: u16, high: u16) -> impl Strategy<Value = bf16> {
    (low..high, any::<bool>()).prop_map(|(bits, negative)| bf16::from_bits(bits | u16::from(negative) << 15))
}

fn block_of(weight: impl Strategy<Value = bf16>) -> impl Strategy<Value = Block> {
    proptest::collection::vec(weight, BLOCK).prop_map(|weights| weights.try_into().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Few codes, any f16 scale: the intervals of such blocks are wide and hold several scales.
    #[test]
    fn blocks_with_few_codes(
        scale in 1_u16..0x7000,
        largest in 1_i8..=8,
        codes in proptest::array::uniform32(-8_i8..=8),
        negative in any::<bool>(),
    ) {
        let scale = f16::from_bits(scale).to_f32() * if negative { -1.0 } else { 1.0 };
        let limit = bf16::from_bits(0x477f).to_f32();
        let weight = |code: i8| (f32::from(code % (largest + 1)) * scale).clamp(-limit, limit);
        check(&codes.map(|code| bf16::from_f32(weight(code))))?;
    }

    /// Two codes: intervals hold two bf16 scales now and then.
    #[test]
    fn blocks_with_two_codes(
        significand in 1.0_f32..2.0,
        codes in (3_i8..8, 3_i8..8),
        which in proptest::array::uniform32(-2_i8..=2),
    ) {
        let code = |which: i8| which.signum() * if which.abs() == 1 { codes.0 } else { codes.1 };
        check(&which.map(|which| bf16::from_f32(f32::from(code(which)) * significand * 0.01)))?;
    }

    /// One weight is one step off.
    #[test]
    fn blocks_next_to_a_lattice(
        scale in 0x1000_u16..0x4000,
        codes in proptest::array::uniform32(-8_i8..8),
        element in 0..BLOCK,
        up in any::<bool>(),
    ) {
        let mut block = codes.map(|code| bf16::from_f32(f32::from(code) * f16::from_bits(scale).to_f32()));
        let bits = block[element].to_bits();
        block[element] = bf16::from_bits(if up { bits.saturating_add(1) } else { bits.saturating_sub(1) });
        check(&block)?;
    }

    #[test]
    fn blocks_of_two_magnitudes(block in block_of(prop_oneof![weight(0x3c00, 0x3c03), weight(0x3b80, 0x3b84)])) {
        check(&block)?;
    }

    /// Strictly, in f64, although the choice is made in f32.
    #[test]
    fn no_block_is_worse_than_under_absmax(
        block in prop_oneof![
            block_of(weight(0x3a00, 0x3d00)),
            block_of(weight(0x3c80, 0x3d00)),
            block_of(weight(0, 0x3300)),
            block_of(weight(0, 0x4780)),
        ],
    ) {
        let (ours, absmax) = (packed_error(Int4Rule::Lattice, &block), packed_error(Int4Rule::Absmax, &block));
        prop_assert!(ours <= absmax, "{ours} against {absmax}");
    }
}

/// Roughly normal numbers: sums of four uniform ones.
fn smooth_blocks(count: usize) -> Vec<Block> {
    let mut state = 1_u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    let mut weight = || bf16::from_f32(0.03 * (uniform() + uniform() + uniform() + uniform()));
    (0..count).map(|_| std::array::from_fn(|_| weight())).collect()
}

/// 31 weights would have to be within 2^-8 of a multiple of something by chance.
#[test]
fn random_weights_are_not_on_a_lattice() {
    let blocks = smooth_blocks(30_000);
    let on_lattice = blocks.iter().filter(|block| is_on_lattice(block)).count();
    println!("{on_lattice} of {} random blocks lie on a lattice", blocks.len());
    assert_eq!(on_lattice, 0);
    // After a few steps of training, a lattice is no longer one either.
    let nudged = Lattice::Bf16Div75Signed8.blocks(9, 0.02, 2000).map(|block| {
        let mut weights = block.weights.map(bf16::from_bits);
        for (at, weight) in weights.iter_mut().enumerate().filter(|(_, weight)| weight.to_f32() != 0.0) {
            *weight = bf16::from_bits(weight.to_bits().wrapping_add_signed([1, -1, 0, 2][at % 4]));
        }
        weights
    });
    let still = nudged.filter(is_on_lattice).count();
    println!("{still} of 2000 blocks lie on a lattice after a nudge of one or two steps");
    assert!(still < 20, "{still}");
}

#[test]
fn off_the_lattice_the_fit_is_well_below_absmax() {
    let blocks = smooth_blocks(3000);
    assert!(blocks.iter().all(|block| !is_on_lattice(block)));
    let total = |rule| -> f64 { blocks.iter().map(|block| packed_error(rule, block)).sum() };
    // The best of 80 divisors reaches 0.73 on normal weights.
    let share = total(Int4Rule::Lattice) / total(Int4Rule::Absmax);
    assert!(share < 0.76, "{share}");
}
