//! llama.cpp, built from the source package of `llama-cpp-python` as a peer of the interpreter.

use crate::workspace::{run, target};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Release of `llama-cpp-python`, whose source package contains llama.cpp.
const VERSION: &str = "0.3.36";
/// Build tools from the same index.
const TOOLS: [&str; 2] = ["cmake==4.4.5", "ninja==1.13.2"];
/// The programs that are built.
const PROGRAMS: [&str; 2] = ["llama-quantize", "llama-bench"];
/// For this processor; without what needs the network or is not measured.
const SETTINGS: [&str; 8] = [
    "-DCMAKE_BUILD_TYPE=Release",
    "-DGGML_NATIVE=ON",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_SERVER=OFF",
];

/// The folder of llama.cpp's programs, which are built if they are not there yet.
pub(crate) fn programs() -> Result<PathBuf> {
    let folder = target().join("llama-cpp").join(VERSION);
    let programs = folder.join("build/bin");
    if PROGRAMS.iter().all(|name| programs.join(name).exists()) {
        return Ok(programs);
    }
    let compiler = Command::new("c++").arg("--version").stdout(Stdio::null()).status();
    if !compiler.is_ok_and(|status| status.success()) {
        bail!("there is no C++ compiler: llama.cpp cannot be built");
    }
    fs::create_dir_all(&folder)?;
    println!("building llama.cpp in {}: this takes minutes", folder.display());
    build(&folder, &source(&folder)?)?;
    Ok(programs)
}

/// Downloads and unpacks the source package; the folder of llama.cpp in it.
fn source(folder: &Path) -> Result<PathBuf> {
    let environment = folder.join("environment");
    run(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
    let pip = || Command::new(environment.join("bin/pip"));
    run(pip().args(["install", "--quiet"]).args(TOOLS))?;
    let package = format!("llama-cpp-python=={VERSION}");
    run(pip()
        .args(["download", "--quiet", "--no-deps", "--no-binary", "llama-cpp-python", &package, "-d"])
        .arg(folder))?;
    let name = format!("llama_cpp_python-{VERSION}");
    run(Command::new("tar").arg("-xzf").arg(folder.join(format!("{name}.tar.gz"))).arg("-C").arg(folder))?;
    let source = folder.join(name).join("vendor/llama.cpp");
    source.exists().then_some(source).context("the source package does not contain llama.cpp")
}

fn build(folder: &Path, source: &Path) -> Result<()> {
    let (tools, output) = (folder.join("environment/bin"), folder.join("build"));
    let cmake = || Command::new(tools.join("cmake"));
    let ninja = format!("-DCMAKE_MAKE_PROGRAM={}", tools.join("ninja").display());
    run(cmake().arg("-S").arg(source).arg("-B").arg(&output).args(["-G", "Ninja", &ninja]).args(SETTINGS))?;
    run(cmake().arg("--build").arg(&output).arg("--target").args(PROGRAMS))
}
