//! Speed and memory on a synthetic model as wide as E4B, six layers deep.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Instant;
use quantizer::Int4Rule;

use crate::support::data;
use aimodel::bytecode::layout::Layout;
use aimodel::package::{PackageMetadata, PackageWriter};
use checkpoint::config::{CacheForm, DecoderConfig};
use converter::decoder::{Functions, GraphOptions, Prefill, Sequence, Variant, build};
use converter::recipe::{Recipe, Treatment};
use oracle::feeding::{Feeding, chunks};
use interpreter::Session;
use oracle::stepper::Stepper;
use oracle::tables::Tables;

const LAYERS: usize = 6;
/// Most seconds per token, on two cores.
const LIMIT: f64 = 1.5;
/// Least speedup per token in chunks of 64, through `main` with all logits and through `prefill`.
const SPEEDUPS: [f64; 2] = [6.0, 10.0];

fn config() -> DecoderConfig {
    let json = fs::read(data().join("configs/gemma-4-e4b.json")).unwrap();
    let mut json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let text = &mut json["text_config"];
    text["num_hidden_layers"] = LAYERS.into();
    text["num_kv_shared_layers"] = 0.into();
    text["layer_types"].as_array_mut().unwrap().truncate(LAYERS);
    DecoderConfig::from_json(json.to_string().as_bytes()).unwrap()
}

/// All blobs repeat one small f16 value, which is also valid as codes.
fn write_package(config: &DecoderConfig, dir: &Path, variant: Variant, functions: Functions) {
    let options = GraphOptions {
        variant,
        recipe: Recipe::new(Treatment::Int4(Int4Rule::Lattice), Treatment::Int4(Int4Rule::Lattice)),
        tied_head: true,
        functions,
        caches: CacheForm::Padded,
    };
    let graph = build(config, &options, &BTreeMap::new()).unwrap();
    let layout = Layout::new(&graph.module).unwrap();
    let mut writer = PackageWriter::create(dir, &layout).unwrap();
    let chunk = half::f16::from_f32(0.002).to_le_bytes().repeat(1 << 19);
    while let Some(placement) = writer.next_blob() {
        let mut left = placement.length as usize;
        while left > 0 {
            let part = left.min(chunk.len());
            writer.write(&chunk[..part]).unwrap();
            left -= part;
        }
    }
    writer.finish(&PackageMetadata::new("test", "20260101T000000Z")).unwrap();
}

fn write_tables(config: &DecoderConfig, dir: &Path) {
    let file =
        |name: &str, length: usize| fs::File::create(dir.join(name)).unwrap().set_len(length as u64).unwrap();
    file("embed_per_layer.i8", config.vocab * config.per_layer.unwrap().total);
    file("embed_per_layer.scale.f32", 4 * config.vocab);
    let meta = serde_json::json!({
        "V": config.vocab, "PLD": config.per_layer.unwrap().total, "L": LAYERS, "ld": config.per_layer.unwrap().width, "embed_scale_pl": 16.0,
    });
    fs::write(dir.join("meta.json"), meta.to_string()).unwrap();
}

/// Largest resident memory of this process so far, in bytes, without pages of mapped files.
fn anonymous_memory() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("RssAnon:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<usize>().ok()? * 1024)
}

#[test]
#[ignore = "writes 2.5 GB"]
fn a_token_of_the_wide_model_is_fast_and_small() {
    let config = config();
    let dir = tempfile::tempdir().unwrap();
    let package = dir.path().join("wide.aimodel");
    write_package(&config, &package, Variant::Provider, Functions::MAIN);
    write_tables(&config, dir.path());
    let mut stepper =
        Stepper::new(Session::open(&package).unwrap(), Some(Tables::open(dir.path()).unwrap())).unwrap();
    stepper.feed(2).unwrap();
    let start = Instant::now();
    let tokens = 10;
    for token in 0..tokens {
        stepper.feed(token * 7).unwrap();
    }
    let seconds = start.elapsed().as_secs_f64() / f64::from(tokens);
    println!("{seconds:.3} s per token, {:?} bytes of anonymous memory", anonymous_memory());
    assert!(seconds <= LIMIT, "{seconds} s per token");
    assert!(anonymous_memory().is_none_or(|bytes| bytes < 256 << 20));
}

#[test]
#[ignore = "writes 3 GB"]
fn a_prompt_of_the_wide_model_is_fast_in_chunks() {
    let config = config();
    let dir = tempfile::tempdir().unwrap();
    let package = dir.path().join("wide.aimodel");
    let functions = Functions { main: Sequence::Dynamic, prefill: Some(Prefill::Caches) };
    write_package(&config, &package, Variant::Stock, functions);
    let mut stepper = Stepper::new(Session::open(&package).unwrap(), None).unwrap();
    let tokens: Vec<u32> = (0..256).map(|at| at * 7 + 2).collect();
    let width = NonZeroUsize::new(64).unwrap();
    // Warm up: read the mapped pages and start the threads.
    stepper.prefill(&tokens[..8]).unwrap();
    stepper.feed(2).unwrap();
    let mut seconds = |tokens: &[u32], read: &mut dyn FnMut(&mut Stepper, &[u32])| {
        stepper.reset().unwrap();
        let start = Instant::now();
        read(&mut stepper, tokens);
        start.elapsed().as_secs_f64() / tokens.len() as f64
    };
    let alone = seconds(&tokens[..16], &mut |stepper, tokens| {
        tokens.iter().for_each(|token| assert!(stepper.feed(*token).unwrap()[0].is_finite()));
    });
    let in_chunks = seconds(&tokens, &mut |stepper, tokens| {
        for chunk in chunks(tokens, width) {
            let outputs = stepper.feed_chunk(chunk).unwrap();
            (0..chunk.len()).for_each(|at| assert!(outputs.logits(at).unwrap()[0].is_finite()));
        }
    });
    let through_prefill = seconds(&tokens, &mut |stepper, tokens| {
        stepper.set_feeding(Feeding::Prefill(width)).unwrap();
        assert!(stepper.read_prompt(tokens).unwrap().is_some());
    });
    println!("{alone:.4} s per token alone, {in_chunks:.4} in chunks, {through_prefill:.4} through prefill");
    assert!(alone / in_chunks >= SPEEDUPS[0], "{} times", alone / in_chunks);
    assert!(alone / through_prefill >= SPEEDUPS[1], "{} times", alone / through_prefill);
}
