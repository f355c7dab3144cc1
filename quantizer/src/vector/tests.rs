//! The vector path against the plain rules, bit for bit, at every level that this machine has.

use fearless_simd::Level;
use half::{bf16, f16};
use proptest::prelude::*;

use super::lanes::HALF;
use crate::block::{BLOCK, Fit};
use crate::statistics::Statistics;
use crate::{Int4Rule, QuantizeError, fit, fit_int8, lattice};

type Block = [bf16; BLOCK];

/// The best level of this machine and, on x86, the lowest one.
fn levels() -> Vec<Level> {
    let best = Level::new();
    #[cfg(target_arch = "x86_64")]
    let lowest = best.as_sse2().map(Level::Sse2);
    #[cfg(not(target_arch = "x86_64"))]
    let lowest = None;
    std::iter::once(best).chain(lowest).collect()
}

type Quantized = Result<(Vec<Vec<i8>>, Vec<u16>, Statistics), QuantizeError>;

fn int4(level: Level, rule: Int4Rule, blocks: &[Block]) -> Quantized {
    let mut codes = vec![[0; HALF]; blocks.len()];
    let mut scales = vec![f16::ONE; blocks.len()];
    let statistics = super::int4(level, rule, blocks, &mut codes, &mut scales)?;
    let unpack = |pair: &u8| [(*pair as i8) << 4 >> 4, *pair as i8 >> 4];
    let codes = codes.iter().map(|codes| codes.iter().flat_map(unpack).collect()).collect();
    Ok((codes, scales.iter().map(|scale| scale.to_bits()).collect(), statistics))
}

fn int8(level: Level, blocks: &[Block]) -> Quantized {
    let mut codes = vec![[0; BLOCK]; blocks.len()];
    let mut scales = vec![f16::ONE; blocks.len()];
    let statistics = super::int8(level, blocks, &mut codes, &mut scales)?;
    let codes = codes.iter().map(|codes| codes.iter().map(|code| *code as i8).collect()).collect();
    Ok((codes, scales.iter().map(|scale| scale.to_bits()).collect(), statistics))
}

/// Compares the vector path's results for blocks with those of a plain rule for each.
fn compare(
    name: &str,
    blocks: &[Block],
    quantized: &Quantized,
    plain: impl Fn(&Block) -> Result<Fit, QuantizeError>,
) -> Result<(), TestCaseError> {
    let fits: Result<Vec<Fit>, QuantizeError> = blocks
        .iter()
        .enumerate()
        .map(|(at, block)| plain(block).map_err(|error| error.shifted(at * BLOCK)))
        .collect();
    let (fits, (codes, scales, statistics)) = match (fits, quantized) {
        (Ok(fits), Ok(quantized)) => (fits, quantized),
        (fits, quantized) => {
            prop_assert_eq!(fits.err(), quantized.as_ref().err().copied(), "{}", name);
            return Ok(());
        }
    };
    for (at, fit) in fits.iter().enumerate() {
        prop_assert_eq!(scales[at], fit.scale.to_bits(), "{} block {}: scale {}", name, at, fit.scale);
        prop_assert_eq!(&codes[at][..], &fit.codes[..], "{} block {}", name, at);
    }
    let count = |condition: &dyn Fn(&Fit) -> bool| fits.iter().filter(|fit| condition(fit)).count() as u64;
    prop_assert_eq!(statistics.blocks, fits.len() as u64);
    prop_assert_eq!(statistics.blocks_on_lattice, count(&|fit| fit.on_lattice));
    prop_assert_eq!(statistics.blocks_exact, count(&Fit::is_exact));
    prop_assert_eq!(statistics.weights_exact, fits.iter().map(|fit| u64::from(fit.exact)).sum::<u64>());
    let is_zero = |block: &&Block| block.iter().all(|weight| weight.to_f32() == 0.0);
    let zero_blocks = blocks.iter().filter(is_zero).count() as u64;
    prop_assert_eq!(statistics.zero_blocks, zero_blocks);
    prop_assert_eq!(statistics.negative_scales, count(&|fit| fit.scale < f16::ZERO));
    let is_small = |fit: &Fit| fit.scale.to_f32().abs() < 1.0 / 16384.0;
    prop_assert_eq!(statistics.subnormal_scales, count(&is_small) - zero_blocks);
    let error: f64 = fits.iter().map(|fit| f64::from(fit.squared_error)).sum();
    prop_assert!((statistics.squared_error - error).abs() <= 1e-12 * error);
    let weights: f64 = fits.iter().map(|fit| f64::from(fit.squared_weights)).sum();
    prop_assert!((statistics.squared_weights - weights).abs() <= 1e-12 * weights);
    let shares = fits.iter().map(|fit| fit.squared_error / fit.squared_weights).enumerate();
    let worst = shares.filter(|(_, share)| *share > 0.0).reduce(|a, b| if b.1 > a.1 { b } else { a });
    let found = statistics.worst.map(|worst| (worst.block as usize, worst.relative_error));
    prop_assert_eq!(found, worst.map(|(at, share)| (at, share.sqrt())), "{}", name);
    Ok(())
}

fn check(blocks: &[Block]) -> Result<(), TestCaseError> {
    let mut of_best: Vec<Quantized> = Vec::new();
    for level in levels() {
        let mut all = Vec::new();
        for rule in Int4Rule::ALL {
            let quantized = int4(level, rule, blocks);
            compare(&format!("{rule} {level:?}"), blocks, &quantized, |block| fit(rule, block))?;
            all.push(quantized);
        }
        let quantized = int8(level, blocks);
        compare(&format!("int8 {level:?}"), blocks, &quantized, fit_int8)?;
        all.push(quantized);
        if of_best.is_empty() {
            of_best = all;
        } else {
            // Statistics too, to the last bit.
            prop_assert_eq!(&all, &of_best, "{:?}", level);
        }
    }
    Ok(())
}

/// Random numbers by splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Between two integers, both included.
    fn between(&mut self, low: i32, high: i32) -> i32 {
        low + self.below((high - low + 1) as u64) as i32
    }

    /// Uniform in -1..1.
    fn uniform(&mut self) -> f32 {
        self.between(-(1 << 23), 1 << 23) as f32 / (1 << 23) as f32
    }

    /// A positive number with an exponent between two, its significand of some bits.
    fn number(&mut self, low: i32, high: i32, bits: i32) -> f32 {
        let significand = (1 << (bits - 1)) + self.below(1 << (bits - 1)) as i32;
        significand as f32 * 2.0_f32.powi(self.between(low, high) - bits + 1)
    }

    /// A block of a random kind; most are meant to be difficult.
    fn block(&mut self) -> Block {
        match self.below(15) {
            0 => self.smooth(-9, -3),
            1 => self.smooth(-40, 19),
            2 => std::array::from_fn(|_| self.any_number(0x4780)),
            3 => self.on_lattice(8, (-15, -3)),
            4 => self.on_lattice(11, (-26, 15)),
            5 => self.on_lattice(24, (-20, 0)),
            6 => {
                let mut block = self.on_lattice(8, (-12, -3));
                let element = self.below(32) as usize;
                let step = self.between(-1, 1);
                block[element] = bf16::from_bits(block[element].to_bits().wrapping_add_signed(step as i16));
                block
            }
            7 => self.few_values(),
            8 => self.halfway(),
            9 => {
                let zero = if self.below(2) == 0 { bf16::ZERO } else { bf16::NEG_ZERO };
                let mut block = [zero; BLOCK];
                block[self.below(32) as usize] = self.any_number(0x4780);
                block
            }
            10 => std::array::from_fn(|_| self.any_number(0x3400)),
            11 => self.two_codes(),
            12 => self.on_lattice(24, (-10, -3)),
            13 => self.on_edge(),
            _ => [if self.below(2) == 0 { bf16::ZERO } else { bf16::NEG_ZERO }; BLOCK],
        }
    }

    fn any_number(&mut self, end: u64) -> bf16 {
        bf16::from_bits((self.below(end) | self.below(2) << 15) as u16)
    }

    fn smooth(&mut self, low: i32, high: i32) -> Block {
        let deviation = 2.0_f32.powi(self.between(low, high));
        let limit = bf16::from_bits(0x477f).to_f32();
        std::array::from_fn(|_| {
            let x = self.uniform() + self.uniform() + self.uniform();
            bf16::from_f32((x * deviation).clamp(-limit, limit))
        })
    }

    fn on_lattice(&mut self, bits: i32, (low, high): (i32, i32)) -> Block {
        let scale = self.number(low, high, bits);
        let scale = if self.below(2) == 0 { scale } else { -scale };
        let largest = self.between(1, 8);
        let limit = bf16::from_bits(0x477f).to_f32();
        std::array::from_fn(|_| {
            let code = self.between(-largest, largest.min(7));
            bf16::from_f32((code as f32 * scale).clamp(-limit, limit))
        })
    }

    /// Two or three magnitudes, either sign.
    fn few_values(&mut self) -> Block {
        let values = [self.number(-10, -4, 8), self.number(-10, -4, 8), 0.0];
        std::array::from_fn(|_| {
            let value = values[self.below(3) as usize];
            bf16::from_f32(if self.below(2) == 0 { value } else { -value })
        })
    }

    /// Wide intervals, which hold several bf16 scales.
    fn two_codes(&mut self) -> Block {
        let scale = self.number(-12, -3, 24);
        let codes = [self.between(3, 7), self.between(3, 7), 0];
        std::array::from_fn(|_| {
            let sign = self.between(0, 1) * 2 - 1;
            bf16::from_f32((sign * codes[self.below(3) as usize]) as f32 * scale)
        })
    }

    /// A lattice whose interval of scales has an f16 number for a bound, or consists of that number, or has no room for one.
    fn on_edge(&mut self) -> Block {
        let scale = self.number(-16, -3, 11);
        let codes: [i32; BLOCK] = std::array::from_fn(|_| self.between(-7, 7));
        std::array::from_fn(|at| {
            let near = codes[at] as f32 * scale;
            // Of two equally near bf16 numbers either one: the even one includes the bound, the odd one does not.
            let (low, high) = (bf16::from_f32(near.next_down()), bf16::from_f32(near.next_up()));
            if self.below(8) == 0 { low } else { high }
        })
    }

    /// Half-integers times a number that makes the scales of some rules exact, so that quotients are ties.
    fn halfway(&mut self) -> Block {
        let unit = 2.0_f32.powi(self.between(-18, 4));
        let extremum = [7.5, 8.0, 7.0, 127.5, 1.0][self.below(5) as usize];
        let mut block: Block =
            std::array::from_fn(|_| bf16::from_f32(self.between(-15, 15) as f32 / 2.0 * unit));
        let sign = if self.below(2) == 0 { 1.0 } else { -1.0 };
        block[self.below(32) as usize] = bf16::from_f32(sign * extremum * unit);
        block
    }
}

#[test]
fn plain_rules_and_vectors_agree() {
    let mut random = Random(1);
    for _ in 0..1500 {
        let blocks: Vec<Block> = (0..random.below(40)).map(|_| random.block()).collect();
        check(&blocks).unwrap();
    }
}

#[test]
fn faults_are_found_where_the_plain_rules_find_them() {
    let mut random = Random(2);
    let faults = [0x7f80, 0xff80, 0x7fc0, 0x7f81, 0xffff, 0x4780, 0x48ff, 0x4900, 0xc8ff, 0x7f7f, 0xff7f];
    for fault in faults {
        for _ in 0..40 {
            let mut blocks: Vec<Block> = (0..20).map(|_| random.smooth(-9, -3)).collect();
            for _ in 0..random.between(1, 3) {
                blocks[random.below(20) as usize][random.below(32) as usize] = bf16::from_bits(fault);
            }
            check(&blocks).unwrap();
        }
    }
}

proptest! {
    #[test]
    fn blocks_of_any_bits(bits in proptest::collection::vec(proptest::array::uniform32(any::<u16>()), 1..4)) {
        let blocks: Vec<Block> = bits.iter().map(|block| block.map(bf16::from_bits)).collect();
        check(&blocks)?;
    }

    #[test]
    fn blocks_of_one_binade(exponent in 90_u16..142, bits in proptest::array::uniform32(any::<u16>())) {
        check(&[bits.map(|bits| bf16::from_bits(bits & 0x807f | exponent << 7))])?;
    }

    #[test]
    fn blocks_near_a_lattice(
        significand in 0x80_u16..0x100,
        exponent in -20_i32..4,
        codes in proptest::array::uniform32(-8_i8..8),
        steps in proptest::array::uniform32(prop_oneof![30 => Just(0_i16), 1 => -1_i16..=1]),
    ) {
        let scale = f32::from(significand) * 2.0_f32.powi(exponent - 7);
        let weight = |i: usize| bf16::from_f32(f32::from(codes[i]) * scale).to_bits().wrapping_add_signed(steps[i]);
        check(&[std::array::from_fn(|i| bf16::from_bits(weight(i)))])?;
    }
}

#[test]
fn halves_agree_with_the_library() {
    let all: Vec<bf16> = (0..=u16::MAX).map(bf16::from_bits).collect();
    let fits = |weight: &bf16| f16::from_f32(weight.to_f32()).is_finite();
    let fitting: Vec<bf16> = all.iter().copied().filter(fits).collect();
    for level in levels() {
        let mut halves = vec![f16::ZERO; fitting.len()];
        super::to_f16(level, &fitting, &mut halves).unwrap();
        for (weight, half) in fitting.iter().zip(&halves) {
            assert_eq!(half.to_bits(), f16::from_f32(weight.to_f32()).to_bits(), "{weight}");
        }
        for weight in all.iter().copied().filter(|weight| !fits(weight)) {
            let mut weights = fitting[..1000].to_vec();
            weights[700] = weight;
            weights[900] = bf16::NAN;
            let error = super::to_f16(level, &weights, &mut halves[..1000]).unwrap_err();
            let element = 700;
            let expected = if weight.is_finite() {
                QuantizeError::Overflow { element }
            } else {
                QuantizeError::NotFinite { element }
            };
            assert_eq!(error, expected);
        }
    }
}

#[test]
fn on_lattice_is_what_recover_says() {
    let mut random = Random(3);
    for _ in 0..20_000 {
        let block = random.block();
        let (fit, found) = (fit(Int4Rule::Lattice, &block), lattice::recover(&block));
        assert_eq!(fit.is_ok_and(|fit| fit.on_lattice), found.is_some(), "{block:?}");
        assert_eq!(
            fit.is_ok_and(|fit| fit.is_exact()),
            found.is_some_and(|found| found.is_exact),
            "{block:?}"
        );
    }
}
