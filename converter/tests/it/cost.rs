//! What reading a prompt through `prefill` costs, in the graphs of the real models.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use aimodel::bytecode::layout::Layout;
use aimodel::package::{PROGRAM, Package};
use aimodel::view::{Function, Work};
use checkpoint::config::DecoderConfig;
use converter::decoder::{
    CacheForm, Functions, GraphOptions, InlineTensors, PREFILL, Prefill, Sequence, Variant, build,
};
use converter::recipe::{Recipe, Treatment};
use quantizer::Int4Rule;

/// Tokens of a prompt that are read at a time.
const CHUNK: u64 = 64;

fn config(name: &str) -> DecoderConfig {
    let path = fixtures::data::folder().join("configs").join(name);
    DecoderConfig::from_json(&std::fs::read(path).unwrap()).unwrap()
}

/// Writes the program with gaps in place of its blobs, which take no space.
fn write_sparse(layout: &Layout, folder: &Path) {
    let file = File::create(folder.join(PROGRAM)).unwrap();
    file.set_len(layout.total).unwrap();
    file.write_all_at(&layout.prefix, 0).unwrap();
    for placement in &layout.placements {
        file.write_all_at(&placement.head, placement.offset - placement.head.len() as u64).unwrap();
    }
    file.write_all_at(&layout.suffix, layout.total - layout.suffix.len() as u64).unwrap();
}

/// Work of `main`, which takes one token, and of `prefill`.
fn work(config: &DecoderConfig) -> [Work; 2] {
    let int4 = Treatment::Int4(Int4Rule::Lattice);
    let options = GraphOptions {
        variant: Variant::Stock,
        recipe: Recipe::new(int4, int4),
        tied_head: true,
        functions: Functions { main: Sequence::One, prefill: Some(Prefill::Caches) },
        caches: CacheForm::Padded,
    };
    let graph = build(config, &options, &InlineTensors::new()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    write_sparse(&Layout::new(&graph.module).unwrap(), folder.path());
    let package = Package::open(folder.path()).unwrap();
    let functions: Vec<Function<'_>> = Function::all(&package.bytecode.module).flatten().collect();
    let [main, prefill] = &functions[..] else { panic!("{} functions", functions.len()) };
    assert_eq!(prefill.name, Some(PREFILL));
    [package.work(main), package.work(prefill)]
}

/// Bounds: multiply-adds of a token through `prefill`, in those through `main` without its head.
#[test]
fn a_prompt_costs_what_fills_the_caches() {
    for (name, bound) in [("gemma-4-e4b.json", 0.57), ("gemma-4-e2b.json", 0.30)] {
        let config = config(name);
        let [main, prefill] = work(&config);
        let head = (config.vocab * config.hidden) as u64;
        let share = prefill.multiply_adds as f64 / (main.multiply_adds - head) as f64;
        assert!((0.9 * bound..=bound).contains(&share), "{name}: {share}");
        let alone = main.bytes_per_position(1);
        let bytes = prefill.bytes_per_position(CHUNK) / alone;
        println!("{name}: {share:.4} of the multiply-adds, {bytes:.5} of the bytes ({alone})");
        assert!(bytes <= 1.0 / 60.0, "{name}: {bytes}");
    }
}
