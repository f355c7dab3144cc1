//! `cargo xtask fixture`: makes a synthetic checkpoint.

use anyhow::{Result, bail};
use clap::Args;
use fixtures::{Lattice, Shape, SyntheticCheckpoint, WeightKind};
use std::path::PathBuf;
use std::time::Instant;

/// What to make.
#[derive(Args)]
pub(crate) struct Options {
    /// The folder to make
    folder: PathBuf,
    /// small, e2b-like, e4b, or e4b:LAYERS
    #[arg(long, default_value = "small", value_parser = shape, conflicts_with = "config")]
    shape: Shape,
    /// Take the sizes from a `config.json` instead, and copy it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Lattice of the body: one of bf16-div75-signed7, bf16-div75-signed8, bf16-div7-signed7, q4_0, bf16-div-uniform,
    /// f32-div75; or off
    #[arg(long, value_name = "LATTICE", default_value = "bf16-div75-signed7", value_parser = weights)]
    body: WeightKind,
    /// Lattice of the embedding table, which is also the head; default: as the body
    #[arg(long, value_name = "LATTICE", value_parser = weights)]
    embedding: Option<WeightKind>,
    /// Lattice of the per-layer table
    #[arg(long, value_name = "LATTICE", default_value = "off", value_parser = weights)]
    per_layer: WeightKind,
    /// Add a separate head, on that lattice
    #[arg(long, value_name = "LATTICE", value_parser = weights)]
    untied_head: Option<WeightKind>,
    /// Number of files
    #[arg(long, default_value_t = 1)]
    shards: usize,
    /// Keep the K and V projections that KV-shared layers do not use
    #[arg(long)]
    dead_kv: bool,
    /// Leave out the vision and audio tensors
    #[arg(long)]
    no_towers: bool,
    /// Real headers and lengths, but holes for data
    #[arg(long)]
    sparse: bool,
    /// Same seed, same weights
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// Makes the checkpoint and says how large it is and how long it took.
pub(crate) fn run(options: &Options) -> Result<()> {
    let base = match &options.config {
        Some(config) => SyntheticCheckpoint::from_config(config)?,
        None => SyntheticCheckpoint::new(options.shape.clone()),
    };
    let recipe = SyntheticCheckpoint {
        seed: options.seed,
        body: options.body,
        embedding: options.embedding.unwrap_or(options.body),
        per_layer: options.per_layer,
        untied_head: options.untied_head,
        shards: options.shards,
        dead_kv: options.dead_kv,
        towers: !options.no_towers,
        sparse: options.sparse,
        ..base
    };
    let start = Instant::now();
    let written = recipe.write(&options.folder)?;
    let (gigabytes, seconds) = (written.bytes as f64 / 1e9, start.elapsed().as_secs_f64());
    let folder = options.folder.display();
    println!("{folder}: {} tensors, {gigabytes:.3} GB in {seconds:.1} s", written.tensors);
    Ok(())
}

fn shape(text: &str) -> Result<Shape> {
    Ok(match text {
        "small" => Shape::small(),
        "e2b-like" => Shape::e2b_like(),
        "e4b" => Shape::e4b(42),
        _ => match text.strip_prefix("e4b:").map(str::parse) {
            Some(Ok(layers @ 1..=1000)) => Shape::e4b(layers),
            _ => bail!("expected small, e2b-like, e4b or e4b:LAYERS"),
        },
    })
}

fn weights(text: &str) -> Result<WeightKind, String> {
    if text == "off" { Ok(WeightKind::Off) } else { text.parse::<Lattice>().map(WeightKind::On) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_and_lattices_parse() {
        assert_eq!(shape("e4b").unwrap(), Shape::e4b(42));
        assert_eq!(shape("e4b:6").unwrap(), Shape::e4b(6));
        assert!(shape("e4b:0").is_err());
        assert!(shape("e5b").is_err());
        assert_eq!(weights("off"), Ok(WeightKind::Off));
        assert_eq!(weights("q4_0"), Ok(WeightKind::On(Lattice::Q40)));
        assert!(weights("on").is_err());
    }
}
