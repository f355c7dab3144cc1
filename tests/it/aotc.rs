//! `aotc` and `doctor` as commands, with the stand-in toolchain.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::scene::{NAME, Scene, listing};
use serde_json::Value;

fn aotc(scene: &Scene) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coreai-bundle"));
    command
        .arg("aotc")
        .arg(&scene.bundle)
        .arg("--xcrun")
        .arg(scene.xcode.xcrun())
        .env_remove("SOURCE_DATE_EPOCH");
    command
}

fn run(scene: &Scene, arguments: &[&str]) -> Output {
    aotc(scene).args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Runs a command that must fail with this status and leave nothing behind.
fn failure(scene: &Scene, arguments: &[&str], status: i32) -> String {
    let here = scene.bundle.parent().unwrap();
    let before = listing(here);
    let output = run(scene, arguments);
    assert_eq!(output.status.code(), Some(status), "{}", stderr(&output));
    assert_eq!(stdout(&output), "");
    assert_eq!(listing(here), before);
    if let Some(path) = stderr(&output).lines().find_map(|line| line.trim().strip_prefix("whole log: ")) {
        fs::remove_file(path).unwrap();
    }
    stderr(&output)
}

#[test]
fn siblings_are_named_on_standard_output() {
    let scene = Scene::new();
    let first = run(&scene, &["--arch", "h18p", "--arch", "h17p"]);
    assert!(first.status.success(), "{}", stderr(&first));
    let expected = format!("{}\n{}\n", scene.sibling("h18p").display(), scene.sibling("h17p").display());
    assert_eq!(stdout(&first), expected);
    assert!(stderr(&first).contains("compiling for h17p"), "{}", stderr(&first));

    let again = run(&scene, &["--device", "iPhone18,1", "--json"]);
    let value: Value = serde_json::from_str(&stdout(&again)).unwrap();
    assert_eq!(value["bundles"][0]["path"], scene.sibling("h18p").to_str().unwrap());
    assert!(value["bundles"][0]["seconds"].is_null());
    assert!(stderr(&again).contains("is up to date"));

    let other = run(&scene, &["--arch", "h18p", "--expect-frequent-reshapes=false", "--json"]);
    let value: Value = serde_json::from_str(&stdout(&other)).unwrap();
    assert!(value["bundles"][0]["seconds"].as_f64().is_some(), "{}", stderr(&other));
}

#[test]
fn siblings_carry_a_date_if_one_is_asked_for() {
    let scene = Scene::new();
    let output =
        aotc(&scene).args(["--arch", "h18p"]).env("SOURCE_DATE_EPOCH", "1767225600").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let metadata = fs::read(scene.sibling("h18p").join("metadata.json")).unwrap();
    let value: Value = serde_json::from_slice(&metadata).unwrap();
    assert_eq!(value["compilation"]["date"], "20260101T000000Z");
}

#[test]
fn names_are_checked_before_anything_runs() {
    let scene = Scene::new();
    let unknown = failure(&scene, &["--arch", "h18q"], 1);
    assert!(unknown.contains("error: architecture 'h18q' is not known for iOS"), "{unknown}");
    assert!(unknown.contains("hint: the compiler exits 0 for any name"), "{unknown}");
    let mac = failure(&scene, &["--arch", "h17s"], 1);
    assert!(mac.contains("hint: it is an architecture of macOS: add --platform macos"), "{mac}");
    let device = failure(&scene, &["--device", "iPhone1,1"], 1);
    assert!(device.contains("iPhone18,1 (iPhone 17 Pro, h18p)"), "{device}");
    let none = failure(&scene, &[], 1);
    assert!(none.contains("error: no architecture given"), "{none}");
    let forced = run(&scene, &["--arch", "h18q", "--force"]);
    assert!(forced.status.success(), "{}", stderr(&forced));
    let mac = run(&scene, &["--arch", "h17s", "--platform", "macos"]);
    assert!(mac.status.success(), "{}", stderr(&mac));
}

#[test]
fn failures_say_what_and_what_to_do() {
    let scene = Scene::new();
    scene.fault("no-metal-toolchain");
    let missing = failure(&scene, &["--arch", "h18p"], 1);
    assert!(missing.contains("| error: Core AI requires the Metal Toolchain"), "{missing}");
    assert!(missing.contains("hint: the compiler is part of Xcode 27's Metal Toolchain"), "{missing}");
    scene.fault("silent-nothing");
    let silent = failure(&scene, &["--arch", "h18p"], 2);
    assert!(silent.contains("error: coreai-build exited 0 but wrote no"), "{silent}");
    scene.fault("hang");
    let slow = failure(&scene, &["--arch", "h18p", "--timeout", "1"], 1);
    assert!(slow.contains("was stopped for h18p after 1 seconds"), "{slow}");
    let nowhere = scene.path("no-xcrun");
    let no_xcode = failure(&scene, &["--arch", "h18p", "--xcrun", nowhere.to_str().unwrap()], 1);
    // An option that is given twice is refused by the parser.
    assert!(no_xcode.contains("--xcrun"), "{no_xcode}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_coreai-bundle"));
    command.arg("aotc").arg(&scene.bundle).args(["--arch", "h18p", "--xcrun"]).arg(&nowhere);
    let no_xcode = command.output().unwrap();
    assert_eq!(no_xcode.status.code(), Some(1));
    assert!(stderr(&no_xcode).contains("use --ssh, --script or --github-workflow"), "{}", stderr(&no_xcode));
}

#[test]
fn interrupt_stops_the_compiler_and_cleans_up() {
    let scene = Scene::new();
    let pids = scene.path("pids");
    scene.xcode.set("COREAI_BUILD_PIDS", pids.to_str().unwrap()).unwrap();
    scene.fault("hang");
    let here = scene.bundle.parent().unwrap();
    let before = listing(here);
    let mut child = aotc(&scene).args(["--arch", "h18p"]).stderr(Stdio::piped()).spawn().unwrap();
    let started = Instant::now();
    while !pids.exists() {
        assert!(started.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(listing(here), before);
    for pid in fs::read_to_string(&pids).unwrap().split_whitespace() {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z"), "{pid} still runs: {stat}");
    }
}

#[test]
fn plan_is_printed_and_nothing_is_done() {
    let scene = Scene::new();
    let before = listing(scene.bundle.parent().unwrap());
    let output = run(&scene, &["--arch", "h18p", "--dry-run"]);
    assert!(stdout(&output).starts_with("compiler: coreai-build 3600.79.1\n"), "{}", stdout(&output));
    assert!(stdout(&output).contains("will be made\n  xcrun coreai-build compile "), "{}", stdout(&output));
    let output = run(&scene, &["--arch", "h18p", "--dry-run", "--json"]);
    let value: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(value["bundles"][0]["state"], "will be made");
    assert_eq!(listing(scene.bundle.parent().unwrap()), before);
}

#[test]
fn scripts_for_other_machines_are_written() {
    let scene = Scene::new();
    let commands = run(&scene, &["--arch", "h18p", "--print"]);
    assert!(stdout(&commands).contains("xcrun coreai-build compile "), "{}", stdout(&commands));
    let script = scene.path("compile.sh");
    let written = run(&scene, &["--arch", "h18p", "--script", script.to_str().unwrap()]);
    assert!(written.status.success(), "{}", stderr(&written));
    let out = scene.path("out");
    let compiled =
        Command::new(&script).args([&scene.bundle, &out]).env("XCRUN", scene.xcode.xcrun()).output();
    assert!(compiled.unwrap().status.success());
    let artifact = out.join(format!("{NAME}.h18p.aimodelc"));
    let adopted = run(&scene, &["--arch", "h18p", "--artifact", artifact.to_str().unwrap()]);
    assert_eq!(stdout(&adopted), format!("{}\n", scene.sibling("h18p").display()), "{}", stderr(&adopted));
    let again = run(&scene, &["--arch", "h18p", "--script", script.to_str().unwrap()]);
    assert!(stderr(&again).contains("exists: pass --force"), "{}", stderr(&again));

    let workflow = run(&scene, &["--arch", "h18p", "--github-workflow", "-", "--repo-id", "owner/name"]);
    let expected = format!("default: \"gpu-pipelined/{NAME}\"");
    assert!(stdout(&workflow).contains(&expected), "{}", stdout(&workflow));
}

#[test]
fn report_is_written_on_success_and_failure() {
    let scene = Scene::new();
    let file = scene.path("report.json");
    let read = || -> Value { serde_json::from_slice(&fs::read(&file).unwrap()).unwrap() };
    // A closed port and no home: the report must not depend on this machine.
    let report = |scene: &Scene| {
        let mut command = aotc(scene);
        command.args(["--arch", "h18p", "--report", file.to_str().unwrap()]);
        command
            .env("HF_ENDPOINT", "http://127.0.0.1:9")
            .env("HF_TOKEN", "hf_secret")
            .env("HOME", scene.path(""));
        command.output().unwrap()
    };
    let output = report(&scene);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(read()["artifacts"][0]["architecture"], "h18p");
    assert_eq!(read()["toolchain"]["version"], "coreai-build 3600.79.1");
    let text = fs::read_to_string(&file).unwrap();
    assert!(
        !text.contains("hf_secret") && !text.contains(scene.path("Xcode.app").to_str().unwrap()),
        "{text}"
    );

    fs::remove_dir_all(scene.sibling("h18p")).unwrap();
    fs::remove_file(scene.xcode.tools().join("coreai-build")).unwrap();
    assert_eq!(report(&scene).status.code(), Some(1));
    assert!(read()["error"].as_str().unwrap().contains("unable to find utility"), "{}", read());
}

#[test]
fn doctor_reports_and_never_shows_the_token() {
    let scene = Scene::new();
    let doctor = |json: bool| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coreai-bundle"));
        command.arg("doctor").arg("--xcrun").arg(scene.xcode.xcrun()).args(json.then_some("--json"));
        command.env("HF_TOKEN", "hf_secret").env("HF_ENDPOINT", "http://127.0.0.1:9");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(!stdout(&output).contains("hf_secret") && !stderr(&output).contains("hf_secret"));
        stdout(&output)
    };
    let text = doctor(false);
    assert!(text.contains("ok       version          coreai-build 3600.79.1"), "{text}");
    assert!(text.contains("ok       Hub token        from HF_TOKEN"), "{text}");
    let value: Value = serde_json::from_str(&doctor(true)).unwrap();
    assert!(value.as_array().unwrap().iter().all(|check| check["subject"].is_string()));
    assert!(Path::new(value[0]["detail"].as_str().unwrap()).is_absolute());
}
