//! llama.cpp on a model of the same shapes, as a peer of the interpreter.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::Options;
use crate::synthetic::shape;

/// llama.cpp with one kind of file.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// Bytes of the model, as llama.cpp counts them.
    pub(crate) size: String,
    /// Tokens per second of each run.
    pub(crate) decode: Vec<f64>,
    pub(crate) prompt: Vec<f64>,
    program: PathBuf,
    model: PathBuf,
}

/// What `llama-quantize` is asked for. By default it stores an embedding that is the head, too, as Q6_K.
const KINDS: [(&str, &str, &[&str]); 2] = [
    ("Q4_0", "q4_0.gguf", &[]),
    ("Q4_0, head too", "pure.gguf", &["--pure", "--token-embedding-type", "q4_0"]),
];

/// Writes the models, where llama.cpp was built.
pub(crate) fn prepare(options: &Options, folder: &Path) -> Result<Vec<Peer>> {
    let (Some(programs), Some(python)) = (&options.llama, &options.python) else { return Ok(Vec::new()) };
    let (config, plain) = (folder.join("config.json"), folder.join("f16.gguf"));
    fs::write(&config, shape().config().to_string())?;
    let script = options.scripts.join("bench_gguf.py");
    output(Command::new(python).arg(script).arg(&config).arg(&plain))?;
    let peer = |(name, file, arguments): (&'static str, &str, &[&str])| {
        let model = folder.join(file);
        let mut quantize = Command::new(programs.join("llama-quantize"));
        output(quantize.args(arguments).args([&plain, &model]).args(["Q4_0", &threads()]))?;
        let program = programs.join("llama-bench");
        Ok(Peer { name, size: String::new(), decode: Vec::new(), prompt: Vec::new(), program, model })
    };
    let peers = KINDS.into_iter().map(peer).collect::<Result<Vec<_>>>()?;
    fs::remove_file(&plain)?;
    Ok(peers)
}

impl Peer {
    /// Adds a run: a prompt, and tokens that are decoded.
    pub(crate) fn run(&mut self, prompt: usize, decoded: usize) -> Result<()> {
        let mut bench = Command::new(&self.program);
        bench.arg("--model").arg(&self.model).args(["--threads", &threads(), "--output", "json"]);
        bench.args([
            "--n-prompt",
            &prompt.to_string(),
            "--n-gen",
            &decoded.to_string(),
            "--repetitions",
            "1",
        ]);
        let tests: Vec<Value> =
            serde_json::from_str(&output(&mut bench)?).context("llama-bench did not print JSON")?;
        let speed = |count: &str| {
            let test = tests.iter().find(|test| test[count].as_u64() > Some(0));
            let speed = test.and_then(|test| test["avg_ts"].as_f64());
            speed.with_context(|| format!("llama-bench did not measure {count}"))
        };
        self.decode.push(speed("n_gen")?);
        self.prompt.push(speed("n_prompt")?);
        let bytes = tests.first().and_then(|test| test["model_size"].as_f64()).unwrap_or_default();
        self.size = format!("{:.2} GB of weights, with the per-layer table", bytes / 1e9);
        Ok(())
    }
}

fn threads() -> String {
    std::thread::available_parallelism().map_or(1, usize::from).to_string()
}

/// What a command prints; it must succeed.
fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
