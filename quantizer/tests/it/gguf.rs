//! The `q4_0` rule against GGML's reference quantizer: blocks and answers recorded by `judges/q4_0_golden.py`, which can generate others
//! for `Q4_0_GOLDEN`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use quantizer::{BLOCK, Int4Rule, fit, quantize_int4};

const RECORD: usize = 82;

/// Weights, bits of the scale, packed codes.
type Record = ([bf16; BLOCK], u16, [u8; BLOCK / 2]);

fn records() -> Vec<Record> {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/judges/q4_0.golden");
    let path = env::var_os("Q4_0_GOLDEN").map_or(committed, PathBuf::from);
    let bytes = fs::read(&path).unwrap();
    let (records, rest) = bytes.as_chunks::<RECORD>();
    assert!(rest.is_empty() && !records.is_empty(), "{} holds no whole records", path.display());
    let number = |record: &[u8; RECORD], at: usize| u16::from_le_bytes([record[at], record[at + 1]]);
    let read = |record: &[u8; RECORD]| {
        let weights = std::array::from_fn(|i| bf16::from_bits(number(record, 2 * i)));
        (weights, number(record, 64), record[66..].try_into().unwrap())
    };
    records.iter().map(read).collect()
}

#[test]
fn q4_0_is_ggml_bit_for_bit() {
    let records = records();
    let weights: Vec<bf16> = records.iter().flat_map(|(weights, ..)| *weights).collect();
    let (mut codes, mut scales) = (vec![0; weights.len() / 2], vec![f16::ZERO; records.len()]);
    quantize_int4(Int4Rule::Q4_0, &weights, &mut codes, &mut scales).unwrap();
    for (at, (weights, scale, expected)) in records.iter().enumerate() {
        assert_eq!(scales[at].to_bits(), *scale, "scale of block {at}: {weights:?}");
        assert_eq!(codes[at * 16..(at + 1) * 16], *expected, "codes of block {at}: {weights:?}");
    }
}

#[test]
fn the_plain_rule_is_ggml_bit_for_bit() {
    for (weights, scale, expected) in records() {
        let fit = fit(Int4Rule::Q4_0, &weights).unwrap();
        let packed: Vec<u8> =
            fit.codes.as_chunks::<2>().0.iter().map(|[even, odd]| (even & 15 | odd << 4) as u8).collect();
        assert_eq!((fit.scale.to_bits(), &packed[..]), (scale, &expected[..]), "{weights:?}");
    }
}
