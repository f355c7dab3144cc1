//! The stage with a compiler on this machine, through the stand-in: success and every way to fail.

#![allow(clippy::print_stderr)]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::{NAME, Scene, listing};
use aotc::artifact::{self, CompiledSource};
use aotc::source::SourceBundle;
use aotc::{Architecture, CompileRequest, Error, Existing, Platform, Stage, Toolchain, ToolchainOptions};
use packer::manifest::{self, Manifest};
use packer::metadata::BundleMetadata;
use progress::Silent;

/// A sibling is complete: metadata, manifest, artifact, tokenizer; and its source is as it was.
fn check_sibling(scene: &Scene, architecture: &str) {
    let sibling = scene.sibling(architecture);
    let source = SourceBundle::open(&scene.bundle).unwrap();
    let metadata = BundleMetadata::read(&sibling).unwrap();
    let asset = &metadata.assets["main"];
    assert_eq!(*asset, format!("{}.{architecture}.aimodelc", source.stem));
    assert_eq!(metadata.compilation.clone().unwrap().targets, [architecture]);
    assert_eq!(metadata.language, source.metadata.language);
    assert_eq!(metadata.user_data, source.metadata.user_data);

    let manifest = Manifest::read(&sibling).unwrap();
    assert_eq!(manifest.files, manifest::collect(&sibling, &[]).unwrap());
    assert_eq!(manifest.source, source.manifest.as_ref().unwrap().source);
    let from = manifest.compiled_from.unwrap();
    assert_eq!((from.main_sha256, from.architecture.as_str()), (source.program_sha256, architecture));
    assert_eq!(from.toolchain["compiler"], "coreai-build 3600.79.1");
    assert_eq!(from.toolchain["source_sha256"], source.digest.to_string());

    let known = Architecture::known(architecture, Platform::Ios).unwrap();
    artifact::verify(&sibling.join(asset), &known, Some(CompiledSource::from(&source))).unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"] {
        let file = Path::new("tokenizer").join(file);
        assert_eq!(fs::read(sibling.join(&file)).unwrap(), fs::read(scene.bundle.join(&file)).unwrap());
    }
    let top: Vec<_> = fs::read_dir(&sibling).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(top.len(), 4, "{top:?}");
}

#[test]
fn sibling_is_complete_and_the_source_untouched() {
    let scene = Scene::new();
    let before = manifest::collect(&scene.bundle, &[]).unwrap();
    let (outcome, reported) = scene.run_reporting(scene.request(&["h18p"]));
    assert!(outcome.failure.is_none(), "{outcome:?}");
    assert_eq!(outcome.siblings[0].path, scene.sibling("h18p"));
    check_sibling(&scene, "h18p");
    assert_eq!(manifest::collect(&scene.bundle, &[]).unwrap(), before);
    assert_eq!(reported.last(), Some(&format!("wrote {}", scene.sibling("h18p").display())));
    // Nothing but the bundle and its sibling.
    assert_eq!(fs::read_dir(scene.bundle.parent().unwrap()).unwrap().count(), 2);
}

#[test]
fn two_architectures_make_two_siblings() {
    let scene = Scene::new();
    let outcome = scene.run(scene.request(&["h18p", "h17p", "h18p"]));
    assert!(outcome.failure.is_none());
    assert_eq!(outcome.siblings.len(), 2);
    check_sibling(&scene, "h18p");
    check_sibling(&scene, "h17p");
}

#[test]
fn folders_with_spaces_quotes_and_non_ascii_names() {
    let scene = Scene::named("Jürg's \"models\" 模型 $HOME", "gemma 4 – tiny");
    let outcome = scene.run(scene.request(&["h18p"]));
    assert!(outcome.failure.is_none(), "{outcome:?}");
    check_sibling(&scene, "h18p");
}

#[test]
fn output_folder_is_made_and_used() {
    let scene = Scene::new();
    let mut request = scene.request(&["h18p"]);
    request.output = Some(scene.path("new/folder"));
    let outcome = scene.run(request);
    let expected = scene.path("new/folder").join(scene.sibling("h18p").file_name().unwrap());
    assert_eq!(outcome.siblings[0].path, expected);
    assert!(expected.join("manifest.json").is_file());
}

#[test]
fn second_run_does_nothing_until_source_settings_or_compiler_change() {
    let scene = Scene::new();
    scene.run(scene.request(&["h18p"]));
    let written = fs::metadata(scene.sibling("h18p").join("manifest.json")).unwrap().modified().unwrap();
    let compiles = |request| {
        let (outcome, reported) = scene.run_reporting(request);
        assert!(outcome.failure.is_none(), "{outcome:?}");
        reported.iter().any(|step| step.starts_with("compiling for "))
    };
    assert!(!compiles(scene.request(&["h18p"])));
    assert_eq!(
        fs::metadata(scene.sibling("h18p").join("manifest.json")).unwrap().modified().unwrap(),
        written
    );

    let mut other_settings = scene.request(&["h18p"]);
    other_settings.settings.expect_frequent_reshapes = false;
    assert!(compiles(other_settings.clone()));
    assert!(!compiles(other_settings));
    assert!(compiles(scene.request(&["h18p"])));

    fs::write(scene.bundle.join("tokenizer/chat_template.jinja"), "{{ messages }}").unwrap();
    assert!(compiles(scene.request(&["h18p"])), "the tokenizer changed");
    assert!(!compiles(scene.request(&["h18p"])));

    scene.xcode.set("COREAI_BUILD_VERSION", "coreai-build 3600.83.1").unwrap();
    assert!(compiles(scene.request(&["h18p"])), "the compiler changed");
    assert!(!compiles(scene.request(&["h18p"])));

    fs::write(scene.sibling("h18p").join("tokenizer/chat_template.jinja"), "x").unwrap();
    assert!(compiles(scene.request(&["h18p"])), "the sibling was damaged");
    let mut forced = scene.request(&["h18p"]);
    forced.force = true;
    assert!(compiles(forced));
}

#[test]
fn same_input_gives_the_same_bytes() {
    let scene = Scene::new();
    let run = |folder: &str| {
        let mut request = scene.request(&["h18p"]);
        request.output = Some(scene.path(folder));
        request.date = Some("2026-01-01T00:00:00Z".into());
        manifest::collect(&scene.run(request).siblings[0].path, &[]).unwrap()
    };
    assert_eq!(run("a"), run("b"));
}

#[test]
fn a_foreign_target_is_not_replaced() {
    let scene = Scene::new();
    let target = scene.sibling("h18p");
    fs::create_dir(&target).unwrap();
    fs::write(target.join("precious"), "x").unwrap();
    let error = scene.failure(scene.request(&["h18p"]));
    assert!(error.to_string().contains("it has no manifest.json of this tool"), "{error}");
    assert!(!error.blames_the_machine());
    let mut forced = scene.request(&["h18p"]);
    forced.force = true;
    scene.failure(forced);
    assert!(target.join("precious").exists());
}

#[test]
fn a_file_that_somebody_put_into_a_sibling_is_not_deleted() {
    let scene = Scene::new();
    assert!(scene.run(scene.request(&["h18p"])).failure.is_none());
    let notes = scene.sibling("h18p").join("tokenizer/notes");
    fs::write(&notes, "x").unwrap();
    let mut forced = scene.request(&["h18p"]);
    forced.force = true;
    for request in [scene.request(&["h18p"]), forced] {
        let error = scene.failure(request);
        assert!(error.to_string().contains("it holds \"tokenizer/notes\""), "{error}");
        assert!(!error.blames_the_machine());
    }
    assert!(notes.exists());
}

#[test]
fn a_log_replaces_nothing_but_a_log() {
    let scene = Scene::new();
    let log = scene.path("log");
    let request = |path: &Path| CompileRequest { log: Some(path.to_path_buf()), ..scene.request(&["h18p"]) };
    fs::write(&log, "a diary").unwrap();
    for path in [&log, &scene.bundle.join("log"), Path::new("/dev/null")] {
        scene.failure(request(path));
    }
    assert_eq!(fs::read(&log).unwrap(), b"a diary");
    fs::remove_file(&log).unwrap();
    for _ in 0..2 {
        let again = CompileRequest { force: true, ..request(&log) };
        assert!(scene.run(again).failure.is_none());
    }
}

#[test]
fn plan_reports_and_does_nothing() {
    let scene = Scene::new();
    let stage = Stage::open(scene.request(&["h18p", "h17p"])).unwrap();
    let before = listing(scene.bundle.parent().unwrap());
    let plan = stage.plan("coreai-build 3600.79.1").unwrap();
    assert_eq!(plan.len(), 2);
    assert_eq!(plan[0].existing, Existing::Absent);
    assert_eq!(plan[0].path, scene.sibling("h18p"));
    assert!(plan[0].command.contains("--architecture h18p"), "{}", plan[0].command);
    assert!(plan[0].needed > stage.source().package_bytes());
    assert_eq!(listing(scene.bundle.parent().unwrap()), before);
    scene.run(scene.request(&["h18p"]));
    let plan = stage.plan("coreai-build 3600.79.1").unwrap();
    assert_eq!((plan[0].existing, plan[1].existing), (Existing::UpToDate, Existing::Absent));
    let plan = stage.plan("coreai-build 9999").unwrap();
    assert_eq!(plan[0].existing, Existing::Outdated);
}

/// The compiler exits 0 without a usable result: each case is an error that says what is wrong.
#[test]
fn silent_failures_are_found() {
    let faults = [
        ("silent-nothing", "wrote no gemma4_tiny_decode_int4lin.h18p.aimodelc"),
        ("silent-error", "compileOffline() failed"),
        ("other-architecture", "gemma4_tiny_decode_int4lin.h13g.aimodelc"),
        ("wrong-architecture-inside", "main-h13g.mlirb is for another architecture, not h18p"),
        ("wrong-hash", "main.hash is not the SHA-256 of main-h18p.mlirb"),
        ("short-hash", "main.hash has 20 bytes instead of 32"),
        ("no-program", "main-h18p.mlirb is missing"),
        ("empty-program", "main-h18p.mlirb is empty"),
        ("no-hash", "main.hash is missing"),
        ("no-metadata", "metadata.json is missing"),
        ("bad-metadata", "metadata.json is not JSON"),
        ("no-statistics", "stats.json is missing"),
        ("no-delegates", "main-h18p-delegates/ is missing"),
        ("no-weights", "weights are missing"),
        ("stale", "older than its source"),
        ("link", "is a symbolic link"),
        ("silent-disk-full", "main.hash is missing"),
    ];
    for (fault, expected) in faults {
        let scene = Scene::new();
        let error = scene.fault(fault).failure(scene.request(&["h18p"]));
        assert!(error.to_string().contains("exited 0"), "{fault}: {error}");
        assert!(error.to_string().contains(expected), "{fault}: {error}");
        assert!(error.to_string().contains("| Compiling gemma4_tiny_decode_int4lin"), "{fault}: {error}");
        assert!(error.blames_the_machine(), "{fault}");
    }
}

/// Files beside the compiler's are not copied to a bundle.
#[test]
fn strays_stay_out_of_the_sibling() {
    let scene = Scene::new();
    fs::write(scene.bundle.join("notes.txt"), "x").unwrap();
    fs::write(scene.bundle.join("tokenizer/.DS_Store"), "x").unwrap();
    let stage = Stage::open(scene.request(&["h18p"])).unwrap();
    assert_eq!(stage.source().strays, ["notes.txt", "tokenizer/.DS_Store"]);
    let (outcome, reported) = scene.fault("stray").run_reporting(scene.request(&["h18p"]));
    assert!(outcome.failure.is_none(), "{outcome:?}");
    check_sibling(&scene, "h18p");
    let sibling = scene.sibling("h18p");
    let names: Vec<String> = listing(&sibling).into_iter().map(|(name, _)| name).collect();
    assert!(!names.iter().any(|name| name.contains("notes") || name.contains("DS_Store")), "{names:?}");
    assert!(!names.iter().any(|name| name.contains("stray") || name.contains("compiled")), "{names:?}");
    let note = "beside gemma4_tiny_decode_int4lin.h18p.aimodelc: stray.txt";
    assert!(reported.iter().any(|step| step.contains(note)), "{reported:?}");

    // An artifact from elsewhere may hold what somebody else put there.
    let artifact = scene.path("gemma4_tiny_decode_int4lin.h18p.aimodelc");
    fs::rename(sibling.join(artifact.file_name().unwrap()), &artifact).unwrap();
    fs::remove_dir_all(&sibling).unwrap();
    fs::write(artifact.join("main-h18p-delegates/any"), "x").unwrap();
    stage.adopt(&artifact).unwrap();
    fs::remove_dir_all(&sibling).unwrap();
    fs::write(artifact.join("secret.txt"), "x").unwrap();
    let error = stage.adopt(&artifact).unwrap_err();
    assert!(error.to_string().contains("secret.txt is not part of a compiled artifact"), "{error}");
    assert!(!sibling.exists());
}

#[test]
fn reported_failures_carry_the_log_and_the_remedy() {
    let faults = [
        (
            "no-metal-toolchain",
            "Core AI requires the Metal Toolchain",
            "xcodebuild -downloadComponent",
            false,
        ),
        ("unknown-architecture", "Unknown architecture 'h18p'", "update Xcode", false),
        ("disk-full", "No space left on device", "free space", true),
        ("fails", "failed to legalize operation", "", true),
        ("crash", "crashed, signal 6", "", true),
    ];
    for (fault, expected, remedy, machine) in faults {
        let scene = Scene::new();
        let error = scene.fault(fault).failure(scene.request(&["h18p"]));
        assert!(matches!(error, Error::CompileFailed { .. }), "{fault}: {error}");
        assert!(error.to_string().contains(expected), "{fault}: {error}");
        assert!(error.hint().unwrap_or_default().contains(remedy), "{fault}: {:?}", error.hint());
        assert_eq!(error.blames_the_machine(), machine, "{fault}");
    }
}

#[test]
fn siblings_before_a_failure_stay_complete() {
    let scene = Scene::new();
    scene.run(scene.request(&["h18p"]));
    let outcome = scene.fault("fails").run(scene.request(&["h18p", "h17p"]));
    assert_eq!(outcome.siblings.len(), 1);
    let (architecture, error) = outcome.failure.unwrap();
    crate::common::forget_log(&error);
    assert_eq!(architecture.as_str(), "h17p");
    check_sibling(&scene, "h18p");
    assert!(!scene.sibling("h17p").exists());
}

/// Process ids that a hanging stand-in has reported.
fn wait_for_pids(path: &Path) -> Vec<i32> {
    let started = Instant::now();
    loop {
        if let Ok(text) = fs::read_to_string(path) {
            return text.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
        }
        assert!(started.elapsed() < Duration::from_secs(30), "the stand-in did not start");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn is_running(pid: i32) -> bool {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::test_kill_process(pid).is_ok() && !is_zombie(pid.as_raw_nonzero().get())
}

/// A killed orphan is a zombie until init reaps it, which some containers are slow at.
fn is_zombie(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
}

fn assert_ended(pids: &[i32]) {
    let started = Instant::now();
    while pids.iter().any(|&pid| is_running(pid)) {
        assert!(started.elapsed() < Duration::from_secs(10), "still running: {pids:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn interrupt_ends_the_whole_process_group_and_cleans_up() {
    let scene = Scene::new();
    let pids = scene.path("pids");
    scene.xcode.set("COREAI_BUILD_PIDS", pids.to_str().unwrap()).unwrap();
    scene.fault("hang");
    let raised = scene.interrupt.clone();
    let waiter = std::thread::spawn(move || {
        let running = wait_for_pids(&pids);
        raised.raise();
        running
    });
    let stage = Stage::open(scene.request(&["h18p", "h17p"])).unwrap();
    let mut toolchain = scene.toolchain();
    let before = listing(scene.bundle.parent().unwrap());
    let outcome = stage.run(&mut toolchain, &scene.interrupt, &Silent);
    let (_, error) = outcome.failure.unwrap();
    assert!(matches!(error, Error::Interrupted), "{error}");
    assert_eq!(listing(scene.bundle.parent().unwrap()), before);
    let running = waiter.join().unwrap();
    assert_eq!(running.len(), 2);
    assert_ended(&running);
}

#[test]
fn time_limit_ends_the_whole_process_group() {
    let scene = Scene::new();
    let pids = scene.path("pids");
    scene.xcode.set("COREAI_BUILD_PIDS", pids.to_str().unwrap()).unwrap();
    let mut request = scene.fault("hang").request(&["h18p"]);
    request.timeout = Duration::from_secs(1);
    let error = scene.failure(request);
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    assert!(error.hint().unwrap().contains("--timeout"));
    assert_ended(&wait_for_pids(&pids));
}

#[test]
fn a_killed_compile_is_an_error() {
    let scene = Scene::new();
    let pids = scene.path("pids");
    scene.xcode.set("COREAI_BUILD_PIDS", pids.to_str().unwrap()).unwrap();
    scene.fault("hang");
    let killer = std::thread::spawn(move || {
        for pid in wait_for_pids(&pids) {
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
    });
    let error = scene.failure(scene.request(&["h18p"]));
    killer.join().unwrap();
    assert!(error.to_string().contains("crashed, signal 9"), "{error}");
}

#[test]
fn log_is_kept_if_asked_for() {
    let scene = Scene::new();
    let mut request = scene.request(&["h18p", "h17p"]);
    request.log = Some(scene.path("compile.log"));
    assert!(scene.run(request).failure.is_none());
    let log = fs::read_to_string(scene.path("compile.log")).unwrap();
    assert!(log.contains("--architecture h18p") && log.contains("--architecture h17p"), "{log}");
    assert_eq!(log.matches("Compiling gemma4_tiny").count(), 2, "{log}");

    let mut request = scene.request(&["h18p"]);
    request.log = Some(scene.path("no/such/folder/compile.log"));
    let (_, error) = scene.run(request).failure.unwrap();
    assert!(error.to_string().contains("no/such/folder"), "{error}");
}

#[test]
fn too_little_space_is_reported_before_the_compile() {
    let Some(disk) = SmallDisk::mount("1m") else {
        eprintln!("skipped: this user may not mount a small file system");
        return;
    };
    let scene = Scene::new();
    let mut request = scene.request(&["h18p"]);
    request.output = Some(disk.path().to_path_buf());
    let error = scene.failure(request);
    assert!(matches!(error, Error::DiskSpace { .. }), "{error}");
    assert_eq!(listing(disk.path()), []);
}

/// A disk that is really full: what the compiler wrote is cut off, and the estimate was waived.
#[test]
fn a_full_disk_leaves_nothing() {
    let Some(disk) = SmallDisk::mount("1m") else {
        eprintln!("skipped: this user may not mount a small file system");
        return;
    };
    let scene = Scene::new();
    let mut request = scene.request(&["h18p"]);
    request.output = Some(disk.path().to_path_buf());
    request.force = true;
    let error = scene.failure(request);
    assert!(error.to_string().contains("No space left on device"), "{error}");
    assert!(error.hint().unwrap().contains("free space"), "{error}");
    assert!(error.blames_the_machine());
    assert_eq!(listing(disk.path()), []);
}

/// A disk that becomes full while the sibling is put together.
#[test]
fn a_disk_that_fills_up_after_the_compile_leaves_nothing() {
    let Some(disk) = SmallDisk::mount("1800k") else {
        eprintln!("skipped: this user may not mount a small file system");
        return;
    };
    let scene = Scene::new();
    fs::write(scene.bundle.join("tokenizer/large.bin"), vec![7; 1 << 20]).unwrap();
    let mut listed = Manifest::read(&scene.bundle).unwrap();
    listed.files = manifest::collect(&scene.bundle, &[]).unwrap();
    listed.write(&scene.bundle).unwrap();
    let mut request = scene.request(&["h18p"]);
    request.output = Some(disk.path().to_path_buf());
    request.force = true;
    let error = scene.failure(request);
    assert!(error.to_string().contains("No space left on device"), "{error}");
    assert_eq!(listing(disk.path()), []);
}

/// A file system of a few kilobytes, unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(folder.path())
            .output();
        mount.is_ok_and(|output| output.status.success()).then(|| Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = std::process::Command::new("umount").arg(self.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "{} stays mounted", self.path().display());
    }
}

#[test]
fn toolchain_is_found_by_path_or_developer_directory() {
    let scene = Scene::new();
    let by_path = scene.toolchain();
    assert_eq!(by_path.version, "coreai-build 3600.79.1");
    assert_eq!(by_path.compiler, scene.xcode.tools().join("coreai-build"));

    // A stand-in whose own folder has no compiler finds the one of DEVELOPER_DIR.
    let bare = scene.path("bare");
    fs::create_dir(&bare).unwrap();
    fs::hard_link(scene.xcode.xcrun(), bare.join("xcrun")).unwrap();
    let mut options = ToolchainOptions { xcrun: Some(bare.join("xcrun")), developer_dir: None };
    let error = Toolchain::find(&options, &scene.interrupt).unwrap_err();
    assert!(error.to_string().contains("unable to find utility \"coreai-build\""), "{error}");
    assert!(error.hint().unwrap().contains("-downloadComponent"), "{error}");
    assert!(!error.blames_the_machine());
    options.developer_dir = Some(scene.xcode.developer_dir().to_path_buf());
    assert_eq!(Toolchain::find(&options, &scene.interrupt).unwrap().compiler, by_path.compiler);
    options.developer_dir = Some(scene.path("nowhere"));
    let error = Toolchain::find(&options, &scene.interrupt).unwrap_err();
    assert!(error.to_string().contains("missing DEVELOPER_DIR path"), "{error}");

    options.xcrun = Some(scene.path("no-xcrun"));
    let error = Toolchain::find(&options, &scene.interrupt).unwrap_err();
    assert!(matches!(error, Error::NoXcrun { .. }), "{error}");
    assert!(error.hint().unwrap().contains("--ssh"), "{error}");
}

#[test]
fn a_stale_xcrun_cache_is_bypassed() {
    let scene = Scene::new();
    scene.xcode.set("XCRUN_CACHE", "stale").unwrap();
    assert!(scene.run(scene.request(&["h18p"])).failure.is_none());
    check_sibling(&scene, "h18p");
}

#[test]
fn sources_that_cannot_be_compiled_are_refused() {
    let refusal = |break_it: &dyn Fn(&Scene)| {
        let scene = Scene::new();
        break_it(&scene);
        let error = Stage::open(scene.request(&["h18p"])).unwrap_err();
        assert!(!error.blames_the_machine(), "{error}");
        error.to_string()
    };
    let package = |scene: &Scene| scene.bundle.join(format!("{NAME}.aimodel"));
    let edit = |scene: &Scene, from: &str, to: &str| {
        let path = scene.bundle.join("metadata.json");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from));
        fs::write(path, text.replace(from, to)).unwrap();
    };
    let damaged = refusal(&|scene| {
        let program = package(scene).join("main.mlirb");
        let mut bytes = fs::read(&program).unwrap();
        bytes[1000] ^= 1;
        fs::write(program, bytes).unwrap();
    });
    assert!(damaged.contains("is damaged"), "{damaged}");
    let truncated = refusal(&|scene| fs::write(package(scene).join("main.hash"), [0; 31]).unwrap());
    assert!(truncated.contains("31 bytes instead of 32"), "{truncated}");
    let no_program = refusal(&|scene| fs::remove_file(package(scene).join("main.mlirb")).unwrap());
    assert!(no_program.contains("has no main.mlirb"), "{no_program}");
    let absent = refusal(&|scene| fs::rename(package(scene), scene.bundle.join("other.aimodel")).unwrap());
    assert!(absent.contains("which is not there"), "{absent}");
    let compiled = refusal(&|scene| edit(scene, ".aimodel\"", ".h18p.aimodelc\""));
    assert!(compiled.contains("compiled already"), "{compiled}");
    let outside = refusal(&|scene| edit(scene, "\"main\": \"gemma4", "\"main\": \"../gemma4"));
    assert!(outside.contains("leads to another folder"), "{outside}");
    let link = refusal(&|scene| std::os::unix::fs::symlink("x", scene.bundle.join("tokenizer/x")).unwrap());
    assert!(link.contains("symbolic link"), "{link}");
    let no_bundle = refusal(&|scene| fs::remove_dir_all(&scene.bundle).unwrap());
    assert!(no_bundle.contains("not a folder"), "{no_bundle}");
    assert!(matches!(Stage::open(Scene::new().request(&[])), Err(Error::NoArchitecture)));
}

#[test]
fn any_architecture_compiles_with_force_only() {
    assert!(Architecture::known("h99x", Platform::Ios).is_err());
    let scene = Scene::new();
    let mut request = scene.request(&[]);
    request.architectures = vec![Architecture::unchecked("h99x").unwrap()];
    assert!(scene.run(request).failure.is_none());
    assert!(scene.sibling("h99x").is_dir());
}
