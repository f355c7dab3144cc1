//! Compares the interpreter with Apple's Linux runtime on the packages of the Python pipeline, by golden winners and logit
//! digests from `judges/apple_golden.py`. Equal bits require the `sinf`, `cosf`, `powf` and `expf` of glibc, which Apple's
//! runtime calls.

#![cfg(all(target_os = "linux", target_env = "gnu"))]

use std::fs;
use std::num::NonZeroUsize;

use crate::support::{Case, arg_max, cases, cosine, package, prefill_stepper, stepper};
use fixtures::data::PrefillReference;
use half::f16;
use interpreter::Rounding;
use oracle::feeding::chunks;
use oracle::score::QUALIFYING_MARGIN;
use sha2::{Digest, Sha256};

#[derive(serde::Deserialize)]
struct Golden {
    cases: Vec<GoldenCase>,
}

#[derive(serde::Deserialize)]
struct GoldenCase {
    arg_max: Vec<usize>,
    digests: Vec<String>,
}

fn golden(name: &str) -> Golden {
    let path = format!("{}/tests/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The short sequences and one long one. Both long ones start with the same 320 tokens, where Apple's bits are the same.
fn sequences(long: usize) -> Vec<(usize, Case)> {
    let (short, lengthy) = (cases("oracle.json"), cases("oracle-long.json"));
    let long = (short.len() + long, lengthy[long].clone());
    short.into_iter().enumerate().chain([long]).collect()
}

fn digest(logits: &[f32]) -> String {
    let bytes: Vec<u8> = logits.iter().flat_map(|logit| f16::from_f32(*logit).to_le_bytes()).collect();
    hex::encode(&Sha256::digest(bytes)[..8])
}

/// Checks that the logits, rounded as in Apple's runtime, have its bits at up to `longest` positions of each sequence. Returns
/// the number of positions compared.
fn same_bits(name: &str, long: usize, longest: usize) -> usize {
    let (golden, mut stepper) = (golden(name), stepper(&package(name)));
    stepper.set_rounding(Rounding::EachStep);
    let mut compared = 0;
    for (index, case) in sequences(long) {
        stepper.reset().unwrap();
        for (at, id) in case.ids().into_iter().enumerate().take(longest) {
            let logits = stepper.feed(id).unwrap();
            assert_eq!(
                digest(&logits),
                golden.cases[index].digests[at],
                "{name}, {:?}, position {at}",
                case.prompt
            );
            compared += 1;
        }
    }
    compared
}

/// In the stored results of Apple's runtime, positions with the same context have the same bits, and so have both int4 packages.
/// The tests below therefore run only one of the long sequences in each package.
#[test]
fn apples_bits_depend_only_on_the_context() {
    let (provider, table) = (golden("provider.int4-symmetric"), golden("tbl.int4-symmetric"));
    let [.., first, second] = provider.cases.as_slice() else { panic!("two long sequences") };
    assert_eq!(first.digests[..320], second.digests[..320]);
    for (provider, table) in provider.cases.iter().zip(&table.cases) {
        assert_eq!((&provider.digests, &provider.arg_max), (&table.digests, &table.arg_max));
    }
}

/// Counts the qualified positions where Apple's runtime has another winner: only int4 codes off the lattice have any.
#[test]
fn apples_winners_differ_from_the_checkpoints_as_the_readme_says() {
    for (name, expected) in
        [("provider.f16", 0), ("provider.int8-symmetric", 0), ("provider.int4-symmetric", 11)]
    {
        let pairs = cases("oracle.json").into_iter().zip(golden(name).cases);
        let flips = |(case, golden): (Case, GoldenCase)| {
            let qualified = |at: &usize| case.teacher_forced_margins[*at] >= QUALIFYING_MARGIN;
            let differs = |at: &usize| case.teacher_forced_argmax[*at] as usize != golden.arg_max[*at];
            (0..golden.arg_max.len()).filter(qualified).filter(differs).count()
        };
        assert_eq!(pairs.map(flips).sum::<usize>(), expected, "{name}");
    }
}

#[test]
fn int4_table_graph_has_apples_bits() {
    assert_eq!(same_bits("tbl.int4-symmetric", 0, usize::MAX), 195 + 338);
}

#[test]
fn int8_provider_has_apples_bits() {
    assert_eq!(same_bits("provider.int8-symmetric", 1, 150), 195 + 150);
}

#[test]
fn f16_provider_has_apples_bits() {
    assert_eq!(same_bits("provider.f16", 1, 150), 195 + 150);
}

/// In Apple's runtime the package of two functions has the same bits as the package of one. It was fed these sequences one by
/// one, in chunks of 16 and 64 through `main`, and in chunks of 64 and 512 through `prefill` up to the ends of the prompts.
#[test]
fn chunks_through_a_dynamic_main_have_apples_bits() {
    let (golden, mut stepper) = (golden("provider.f16"), prefill_stepper(PrefillReference::F16));
    stepper.set_rounding(Rounding::EachStep);
    let mut compared = 0;
    for (index, case) in sequences(0) {
        stepper.reset().unwrap();
        let mut digests = golden.cases[index].digests.iter();
        for chunk in chunks(&case.ids(), NonZeroUsize::new(16).unwrap()) {
            let outputs = stepper.feed_chunk(chunk).unwrap();
            for at in 0..chunk.len() {
                let found = digest(&outputs.logits(at).unwrap());
                assert_eq!(Some(&found), digests.next(), "{:?}, {compared} positions before", case.prompt);
                compared += 1;
            }
        }
        assert_eq!(digests.next(), None);
    }
    assert_eq!(compared, 195 + 338);
}

/// Rounded as in Apple's runtime, all positions have its bits, including the longest sequence. Rounded once, with sums in f32,
/// every qualified position keeps its winner, and nearly all have a cosine of 0.99999 with Apple's logits: the others lose more
/// by Apple's sums in f16.
#[test]
fn int4_provider_has_apples_bits_and_f32_sums_keep_its_winners() {
    let name = "provider.int4-symmetric";
    let (golden, mut once, mut each) = (golden(name), stepper(&package(name)), stepper(&package(name)));
    each.set_rounding(Rounding::EachStep);
    let (mut qualified, mut lowest, mut below) = (0, 1.0_f64, 0);
    for (index, case) in sequences(1) {
        let golden = &golden.cases[index];
        once.reset().unwrap();
        each.reset().unwrap();
        for (at, id) in case.ids().into_iter().enumerate() {
            let (wide, apple) = (once.feed(id).unwrap(), each.feed(id).unwrap());
            assert_eq!(digest(&apple), golden.digests[at], "{:?}, position {at}", case.prompt);
            let cosine = cosine(&wide, &apple);
            lowest = lowest.min(cosine);
            below += usize::from(cosine < 0.99999);
            if case.teacher_forced_margins[at] >= QUALIFYING_MARGIN {
                qualified += 1;
                assert_eq!(arg_max(&wide), golden.arg_max[at], "{:?}, position {at}", case.prompt);
            }
        }
    }
    assert_eq!(qualified, 187 + 480);
    // Measured: 6 positions of 688 below, the lowest 0.99997.
    assert!(lowest > 0.9999 && below <= 10, "{below} positions below 0.99999, lowest {lowest}");
}
