//! llama.cpp on a model of the same shapes, as a peer of the interpreter.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::Options;
use crate::synthetic::shape;

/// Tokens per second of llama.cpp with one kind of file.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// Bytes of the model, as llama.cpp counts them.
    pub(crate) size: String,
    pub(crate) decode: Vec<f64>,
    pub(crate) prompt: Vec<f64>,
}

/// What `llama-quantize` is asked for. By default it stores an embedding that is the head, too, as Q6_K.
const KINDS: [(&str, &[&str]); 2] =
    [("Q4_0", &[]), ("Q4_0, head too", &["--pure", "--token-embedding-type", "q4_0"])];

/// Measures llama.cpp where it was built.
pub(crate) fn measure(options: &Options, folder: &Path, prompt: usize, decoded: usize) -> Result<Vec<Peer>> {
    let (Some(programs), Some(python)) = (&options.llama, &options.python) else { return Ok(Vec::new()) };
    let (config, plain, quantized) =
        (folder.join("config.json"), folder.join("f16.gguf"), folder.join("q4_0.gguf"));
    fs::write(&config, shape().config().to_string())?;
    let script = options.scripts.join("bench_gguf.py");
    output(Command::new(python).arg(script).arg(&config).arg(&plain))?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from).to_string();
    let mut peers = Vec::new();
    for (name, arguments) in KINDS {
        let mut quantize = Command::new(programs.join("llama-quantize"));
        output(quantize.args(arguments).args([&plain, &quantized]).args(["Q4_0", &threads]))?;
        let mut bench = Command::new(programs.join("llama-bench"));
        bench.arg("--model").arg(&quantized).args(["--threads", &threads, "--output", "json"]);
        bench.args(["--n-prompt", &prompt.to_string(), "--n-gen", &decoded.to_string()]);
        let json = output(bench.args(["--repetitions", &options.runs.to_string()]))?;
        let tests: Vec<Value> = serde_json::from_str(&json).context("llama-bench did not print JSON")?;
        let runs = |count: &str| {
            let test = tests.iter().find(|test| test[count].as_u64() > Some(0));
            let samples = test.and_then(|test| test["samples_ts"].as_array());
            let samples = samples.with_context(|| format!("llama-bench did not measure {count}"))?;
            Ok::<Vec<f64>, anyhow::Error>(samples.iter().filter_map(Value::as_f64).collect())
        };
        let bytes = tests.first().and_then(|test| test["model_size"].as_f64()).unwrap_or_default();
        let size = format!("{:.2} GB of weights, with the per-layer table", bytes / 1e9);
        peers.push(Peer { name, size, decode: runs("n_gen")?, prompt: runs("n_prompt")? });
        fs::remove_file(&quantized)?;
    }
    fs::remove_file(&plain)?;
    Ok(peers)
}

/// What a command prints; it must succeed.
fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
