//! The stage with a compiler on another machine: a real OpenSSH server on loopback, that runs the stand-in.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::common::ssh::{Cut, Server};
use crate::common::{Scene, listing};
use aotc::remote::RemoteOptions;
use aotc::{CompileOutcome, CompileRequest, Error, Remote, Stage};
use packer::manifest::Manifest;
use progress::Silent;

/// A scene with a server; its compiler is the scene's stand-in.
struct Line {
    scene: Scene,
    server: Server,
}

/// Connections of a run, in order.
const BEFORE_UPLOAD: usize = 2;
const BEFORE_WAIT: usize = 4;
const BEFORE_FETCH: usize = 5;

impl Line {
    fn new(scene: Scene) -> Option<Self> {
        let server = Server::start(&scene.xcode.tools())?;
        Some(Self { scene, server })
    }

    fn options(&self) -> RemoteOptions {
        let mut options = RemoteOptions::new("mac");
        options.ssh_config = Some(self.server.config());
        options.directory = self.far_folder().display().to_string();
        options.longest_pause = Duration::from_millis(160);
        options
    }

    /// Where the other machine keeps the transferred files.
    fn far_folder(&self) -> PathBuf {
        self.scene.path("far")
    }

    fn request(&self, architectures: &[&str]) -> CompileRequest {
        let mut request = self.scene.request(architectures);
        request.log = Some(self.scene.path("compile.log"));
        request
    }

    fn connect(&self, stage: &Stage) -> Result<Remote, Error> {
        Remote::connect(self.options(), stage.source(), false, &self.scene.interrupt)
    }

    /// Cuts one connection after `whole` complete ones.
    fn cut_after(&self, whole: usize, cut: Cut) {
        let mut cuts = vec![Cut::Never; whole];
        cuts.push(cut);
        self.server.cut(&cuts);
    }

    fn run(&self, request: CompileRequest) -> CompileOutcome {
        let stage = Stage::open(request).unwrap();
        let mut remote = self.connect(&stage).unwrap_or_else(|e| panic!("{e}\n{}", self.server.log()));
        stage.run(&mut remote, &self.scene.interrupt, &Silent)
    }

    fn succeed(&self, request: CompileRequest) {
        let outcome = self.run(request);
        assert!(outcome.failure.is_none(), "{outcome:?}\n{}", self.server.log());
        assert_eq!(listing(&self.far_folder()), [], "left on the far side");
    }

    fn fail(&self, request: CompileRequest) -> Error {
        let here = self.scene.bundle.parent().unwrap();
        let before = listing(here);
        let (_, error) = self.run(request).failure.expect("the run should fail");
        assert_eq!(listing(here), before, "left behind after: {error}");
        error
    }

    fn log(&self) -> String {
        fs::read_to_string(self.scene.path("compile.log")).unwrap()
    }
}

#[test]
fn artifacts_come_back_as_if_compiled_here() {
    let scene = Scene::named("Jürg's \"models\" 模型: a", "gemma 4 – it's $tiny");
    let Some(line) = Line::new(scene) else { return };
    line.succeed(line.request(&["h18p", "h17p"]));
    // A compile on this machine finds nothing left to do: the siblings are the same.
    let (outcome, reported) = line.scene.run_reporting(line.request(&["h18p", "h17p"]));
    assert!(outcome.failure.is_none());
    assert!(reported.iter().all(|step| step.ends_with(" is up to date")), "{reported:?}");
    assert_eq!(reported.len(), 2);
    let manifest = Manifest::read(&line.scene.sibling("h18p")).unwrap();
    assert_eq!(manifest.compiled_from.unwrap().toolchain["compiler"], "coreai-build 3600.79.1");
    assert_eq!(fs::read_dir(line.scene.sibling("h18p")).unwrap().count(), 4);
}

#[test]
fn a_broken_upload_continues_where_it_stopped() {
    let Some(line) = Line::new(Scene::new()) else { return };
    let package = Stage::open(line.request(&["h18p"])).unwrap().source().package_bytes() as usize;
    let part = package * 3 / 4;
    line.cut_after(BEFORE_UPLOAD, Cut::Sent(part));
    line.succeed(line.request(&["h18p"]));
    let sent = line.server.sent();
    assert!(sent[BEFORE_UPLOAD] >= part, "{sent:?}");
    assert!(sent[BEFORE_UPLOAD + 1] < package / 2, "sent again from the start: {sent:?}");
}

#[test]
fn a_compile_outlives_its_connection() {
    let Some(line) = Line::new(Scene::new()) else { return };
    line.scene.xcode.set("COREAI_BUILD_MILLISECONDS", "2000").unwrap();
    line.cut_after(BEFORE_WAIT, Cut::After(Duration::from_millis(700)));
    line.succeed(line.request(&["h18p"]));
    assert_eq!(line.server.sent().len(), BEFORE_WAIT + 4, "wait twice, fetch, remove");
    assert_eq!(line.log().matches("compiling for h18p").count(), 1, "{}", line.log());
}

#[test]
fn a_broken_download_continues() {
    let Some(line) = Line::new(Scene::new()) else { return };
    line.cut_after(BEFORE_FETCH, Cut::Received(700_000));
    line.succeed(line.request(&["h18p"]));
    assert_eq!(line.server.sent().len(), BEFORE_FETCH + 3, "fetch twice, remove");
}

#[test]
fn every_step_survives_a_refused_connection() {
    let Some(line) = Line::new(Scene::new()) else { return };
    let cuts = [Cut::Refuse, Cut::Never].repeat(7);
    line.server.cut(&cuts);
    let stage = Stage::open(line.request(&["h18p"])).unwrap();
    let outcome = stage.run(&mut line.connect(&stage).unwrap(), &line.scene.interrupt, &Silent);
    assert!(outcome.failure.is_none(), "{outcome:?}");
    // The removal is tried once only; it was refused.
    assert_eq!(line.server.sent().len(), 13);
    assert_ne!(listing(&line.far_folder()), []);
}

#[test]
fn a_lost_connection_is_an_error_and_the_next_run_continues() {
    let Some(line) = Line::new(Scene::new()) else { return };
    line.cut_after(BEFORE_UPLOAD, Cut::Sent(1_000_000));
    line.server.set_down(true);
    let error = line.fail(line.request(&["h18p"]));
    assert!(matches!(error, Error::ConnectionLost { attempts: 6, .. }), "{error}");
    assert!(error.hint().unwrap().contains("continues with it"));
    assert!(!error.blames_the_machine());

    line.server.set_down(false);
    line.server.cut(&[]);
    line.succeed(line.request(&["h18p"]));
    let sent = line.server.sent();
    assert!(sent[BEFORE_UPLOAD] < 900_000, "sent again from the start: {sent:?}");
}

#[test]
fn failures_of_the_remote_compiler_are_reported_and_leave_nothing() {
    let faults = [
        ("silent-nothing", "exited 0 but wrote no"),
        ("wrong-hash", "main.hash is not the SHA-256"),
        ("crash", "exit code 134"),
    ];
    let Some(line) = Line::new(Scene::new()) else { return };
    for (fault, expected) in faults {
        line.scene.fault(fault);
        let error = line.fail(line.request(&["h18p"]));
        assert!(matches!(error, Error::CompileFailed { .. }), "{fault}: {error}");
        assert!(error.to_string().contains(expected), "{fault}: {error}");
        assert_eq!(listing(&line.far_folder()), [], "{fault}");
    }
}

#[test]
fn interrupt_ends_the_remote_compile_and_removes_what_was_transferred() {
    let Some(line) = Line::new(Scene::new()) else { return };
    let pids = line.scene.path("pids");
    line.scene.xcode.set("COREAI_BUILD_PIDS", pids.to_str().unwrap()).unwrap();
    line.scene.fault("hang");
    let raised = line.scene.interrupt.clone();
    let seen = pids.clone();
    let waiter = std::thread::spawn(move || {
        let started = Instant::now();
        while !seen.exists() && started.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(20));
        }
        raised.raise();
    });
    let error = line.fail(line.request(&["h18p"]));
    waiter.join().unwrap();
    assert!(matches!(error, Error::Interrupted), "{error}");
    // The cleanup on the other machine is not waited for, but it happens. Folders may go while they are looked at, so names are enough.
    while fs::read_dir(line.far_folder()).unwrap().next().is_some() {
        std::thread::sleep(Duration::from_millis(20));
    }
    for pid in fs::read_to_string(pids).unwrap().split_whitespace() {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z"), "{pid} still runs: {stat}");
    }
}

#[test]
fn a_machine_without_a_compiler_is_refused_before_any_transfer() {
    let Some(line) = Line::new(Scene::new()) else { return };
    fs::remove_file(line.scene.xcode.tools().join("coreai-build")).unwrap();
    let stage = Stage::open(line.request(&["h18p"])).unwrap();
    let error = line.connect(&stage).unwrap_err();
    assert!(error.to_string().contains("unable to find utility \"coreai-build\""), "{error}");
    assert!(error.hint().unwrap().contains("-downloadComponent"), "{error}");
    assert_eq!(line.server.sent().len(), 1);
}

#[test]
fn a_host_that_does_not_know_the_key_is_not_tried_again() {
    let Some(line) = Line::new(Scene::new()) else { return };
    let config = line.server.config();
    let text = fs::read_to_string(&config).unwrap();
    let other = line.scene.path("other");
    let mut keygen = std::process::Command::new("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-f", other.to_str().unwrap()]);
    assert!(keygen.status().unwrap().success());
    let key = config.with_file_name("user");
    fs::write(&config, text.replace(key.to_str().unwrap(), other.to_str().unwrap())).unwrap();
    let stage = Stage::open(line.request(&["h18p"])).unwrap();
    let error = line.connect(&stage).unwrap_err();
    assert!(error.to_string().contains("Permission denied"), "{error}");
    assert_eq!(line.server.sent().len(), 1);
}

#[test]
fn hosts_that_would_be_options_are_refused() {
    let scene = Scene::new();
    let stage = Stage::open(scene.request(&["h18p"])).unwrap();
    for bad in ["", "-oProxyCommand=touch x", "mac; touch x", "mac x", "$(id)"] {
        let error =
            Remote::connect(RemoteOptions::new(bad), stage.source(), false, &scene.interrupt).unwrap_err();
        assert!(error.to_string().contains("not a host name"), "{error}");
    }
    let mut options = RemoteOptions::new("mac");
    options.directory = "$HOME/x".into();
    let error = Remote::connect(options, stage.source(), false, &scene.interrupt).unwrap_err();
    assert!(error.to_string().contains("not plain"), "{error}");
}
