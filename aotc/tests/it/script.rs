//! The script for a Mac: checked by shellcheck, run with the stand-in, its artifacts adopted.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use crate::common::{NAME, Scene, checker, listing};
use aotc::script::{CompileRecord, commands, script};
use aotc::{CompileRequest, Error, Stage};
use packer::manifest::Manifest;

/// Writes the script of `request` beside the bundle and returns its path.
fn write_script(scene: &Scene, request: CompileRequest) -> PathBuf {
    let path = scene.bundle.with_file_name("compile.sh");
    fs::write(&path, script(&Stage::open(request).unwrap()).unwrap()).unwrap();
    path
}

fn bash(scene: &Scene, script: &Path, arguments: &[&Path]) -> Command {
    let mut command = Command::new("bash");
    command.arg(script).args(arguments).env("XCRUN", scene.xcode.xcrun());
    command
}

fn run(scene: &Scene, script: &Path, output: &Path) -> Output {
    bash(scene, script, &[&scene.bundle, output]).output().unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn script_passes_shellcheck() {
    let Some(shellcheck) = checker("shellcheck") else { return };
    for name in ["gemma4_tiny", "Jürg's (x) $HOME `id`"] {
        let scene = Scene::named("work", name);
        let path = write_script(&scene, scene.request(&["h18p", "h17p"]));
        let output = Command::new(&shellcheck).arg(path).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn script_compiles_and_its_artifacts_are_adopted() {
    let scene = Scene::named("Jürg's \"models\" 模型", "gemma 4 – it's $tiny");
    let path = write_script(&scene, scene.request(&["h18p", "h17p"]));
    let out = scene.path("out of the Mac");
    let first = run(&scene, &path, &out);
    assert!(first.status.success(), "{}", errors(&first));
    assert_eq!(fs::read_dir(&out).unwrap().count(), 4, "two artifacts, two records");
    let again = run(&scene, &path, &out);
    assert_eq!(String::from_utf8_lossy(&again.stdout).matches("up to date").count(), 2);

    for architecture in ["h18p", "h17p"] {
        let artifact = out.join(format!("gemma 4 – it's $tiny.{architecture}.aimodelc"));
        let record = CompileRecord::beside(&artifact).unwrap().unwrap();
        assert_eq!(record.compiler, "coreai-build 3600.79.1");
        let stage = Stage::open(scene.request(&[architecture])).unwrap();
        let sibling = stage.adopt(&artifact).unwrap();
        assert_eq!(sibling.path, scene.sibling(architecture));
        let manifest = Manifest::read(&sibling.path).unwrap();
        let from = manifest.compiled_from.unwrap();
        assert_eq!(from.toolchain["compiler"], "coreai-build 3600.79.1");
        // The same sibling that the stage itself would have made.
        let (outcome, reported) = scene.run_reporting(scene.request(&[architecture]));
        assert!(outcome.failure.is_none() && reported.len() == 1, "{reported:?}");
    }
}

#[test]
fn bundle_beside_the_script_and_current_folder_are_the_defaults() {
    let scene = Scene::new();
    let path = write_script(&scene, scene.request(&["h18p"]));
    let out = scene.path("out");
    fs::create_dir(&out).unwrap();
    let output = bash(&scene, &path, &[]).current_dir(&out).output().unwrap();
    assert!(output.status.success(), "{}", errors(&output));
    assert!(out.join(format!("{NAME}.h18p.aimodelc/main.hash")).is_file());
}

#[test]
fn script_finds_what_the_stage_finds() {
    let faults = [
        ("silent-nothing", "exited 0 but wrote no", 2),
        ("other-architecture", "exited 0 but wrote no", 2),
        ("wrong-architecture-inside", "is for another architecture, not h18p", 2),
        ("wrong-hash", "main.hash is not the SHA-256 of main-h18p.mlirb", 2),
        ("short-hash", "main.hash is not the SHA-256 of main-h18p.mlirb", 2),
        ("no-program", "main-h18p.mlirb is missing or empty", 2),
        ("empty-program", "main-h18p.mlirb is missing or empty", 2),
        ("no-hash", "main.hash is not", 2),
        ("no-metadata", "metadata.json is missing", 2),
        ("no-statistics", "stats.json is missing", 2),
        ("no-delegates", "main-h18p-delegates/ is missing or empty", 2),
        ("no-weights", "weights are missing", 2),
        ("stale", "older than its source", 2),
        ("link", "symbolic links", 2),
        ("silent-disk-full", "main.hash is not", 2),
        ("no-metal-toolchain", "xcodebuild -downloadComponent MetalToolchain", 2),
        ("disk-full", "hint: free some space", 2),
        ("crash", "exit code 134", 2),
    ];
    for (fault, expected, code) in faults {
        let scene = Scene::new();
        scene.fault(fault);
        let path = write_script(&scene, scene.request(&["h18p"]));
        let out = scene.path("out");
        let output = run(&scene, &path, &out);
        assert!(errors(&output).contains(expected), "{fault}: {}", errors(&output));
        assert!(errors(&output).contains("| Compiling"), "{fault}: {}", errors(&output));
        assert_eq!(output.status.code(), Some(code), "{fault}");
        assert_eq!(listing(&out), [], "{fault}");
    }
}

#[test]
fn script_stops_for_time_and_signals() {
    let scene = Scene::new();
    scene.fault("hang");
    let mut request = scene.request(&["h18p"]);
    request.timeout = Duration::from_secs(1);
    let path = write_script(&scene, request);
    let out = scene.path("out");
    let output = run(&scene, &path, &out);
    assert!(errors(&output).contains("was stopped for h18p after 1 seconds"), "{}", errors(&output));
    assert_eq!(listing(&out), []);

    let pids = scene.path("pids");
    scene.xcode.set("COREAI_BUILD_PIDS", pids.to_str().unwrap()).unwrap();
    let path = write_script(&scene, scene.request(&["h18p"]));
    let mut child = bash(&scene, &path, &[&scene.bundle, &out]).spawn().unwrap();
    while !pids.exists() {
        assert!(child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let status = child.wait().unwrap();
    assert_eq!((status.code(), status.signal()), (Some(143), None));
    assert_eq!(listing(&out), []);
    for pid in fs::read_to_string(pids).unwrap().split_whitespace() {
        let gone =
            |pid: &str| fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |s| s.contains(") Z"));
        assert!(gone(pid) || !Path::new("/proc/self").exists(), "{pid} still runs");
    }
}

#[test]
fn script_refuses_another_bundle_and_says_so() {
    let scene = Scene::new();
    let path = write_script(&scene, scene.request(&["h18p"]));
    let program = scene.bundle.join(format!("{NAME}.aimodel/main.mlirb"));
    let mut bytes = fs::read(&program).unwrap();
    bytes[5000] ^= 1;
    fs::write(&program, bytes).unwrap();
    let output = run(&scene, &path, &scene.path("out"));
    assert!(errors(&output).contains("expected"), "{}", errors(&output));
    assert_eq!(output.status.code(), Some(1));

    let elsewhere = bash(&scene, &path, &[&scene.path("nowhere")]).output().unwrap();
    assert!(errors(&elsewhere).contains("pass the bundle's folder"), "{}", errors(&elsewhere));
    let no_xcode = bash(&scene, &path, &[]).env("XCRUN", scene.path("no-xcrun")).output().unwrap();
    assert!(errors(&no_xcode).contains("xcode-select"), "{}", errors(&no_xcode));
}

#[test]
fn a_script_that_was_cut_off_does_nothing() {
    let scene = Scene::new();
    let path = write_script(&scene, scene.request(&["h18p"]));
    let text = fs::read_to_string(&path).unwrap();
    let out = scene.path("out");
    for share in [4, 3, 2] {
        fs::write(&path, &text[..text.floor_char_boundary(text.len() * (share - 1) / share)]).unwrap();
        let output = run(&scene, &path, &out);
        assert!(output.stdout.is_empty() && !out.exists(), "cut to {} of {share}", share - 1);
    }
}

#[test]
fn artifacts_that_do_not_match_are_not_adopted() {
    let scene = Scene::new();
    let path = write_script(&scene, scene.request(&["h18p"]));
    let out = scene.path("out");
    assert!(run(&scene, &path, &out).status.success());
    let artifact = out.join(format!("{NAME}.h18p.aimodelc"));
    let refusal = |request: CompileRequest| match Stage::open(request).unwrap().adopt(&artifact) {
        Err(error @ Error::BadForeignArtifact { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let other_architecture = refusal(scene.request(&["h17p"]));
    assert!(other_architecture.contains("not h17p"), "{other_architecture}");
    let mut request = scene.request(&["h18p"]);
    request.settings.expect_frequent_reshapes = false;
    assert!(refusal(request).contains("it was compiled with"));

    let record = artifact.with_extension("compile.json");
    let text = fs::read_to_string(&record).unwrap();
    let source = Stage::open(scene.request(&["h18p"])).unwrap().source().program_sha256.to_string();
    fs::write(&record, text.replace(&source, &"0".repeat(64))).unwrap();
    assert!(refusal(scene.request(&["h18p"])).contains("another graph"));
    fs::write(&record, &text).unwrap();

    let delegates = artifact.join("main-h18p-delegates");
    fs::rename(&delegates, out.join("aside")).unwrap();
    assert!(refusal(scene.request(&["h18p"])).contains("delegates/ is missing"));
    fs::rename(out.join("aside"), &delegates).unwrap();
    assert!(!scene.sibling("h18p").exists());

    // Without a record, the artifact alone is enough, and the manifest says that its compiler is unknown.
    fs::remove_file(&record).unwrap();
    let sibling = Stage::open(scene.request(&["h18p"])).unwrap().adopt(&artifact).unwrap();
    let manifest = Manifest::read(&sibling.path).unwrap();
    assert_eq!(manifest.compiled_from.unwrap().toolchain["compiler"], "unrecorded");
}

#[test]
fn printed_commands_do_the_work() {
    let scene = Scene::named("it's a place", NAME);
    let text = commands(&Stage::open(scene.request(&["h18p"])).unwrap()).unwrap();
    let path = std::env::join_paths([scene.xcode.tools(), "/usr/bin".into(), "/bin".into()]).unwrap();
    let steps: String = text
        .lines()
        .filter(|l| !l.starts_with("coreai-bundle") && !l.starts_with("xxd"))
        .fold("set -e\n".to_owned(), |steps, line| steps + line + "\n");
    let output = Command::new("bash").args(["-c", &steps]).env("PATH", path).output().unwrap();
    assert!(output.status.success(), "{text}\n{}", errors(&output));
    let artifact = scene.bundle.with_file_name("compiled").join(format!("{NAME}.h18p.aimodelc"));
    let adopt = format!("--artifact '{}'", artifact.display().to_string().replace('\'', r"'\''"));
    assert!(text.contains(&adopt), "{text}");
    Stage::open(scene.request(&["h18p"])).unwrap().adopt(&artifact).unwrap();
}
