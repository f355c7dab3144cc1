//! `publish` against the local Hub: what is sent, what is not, what is caught, and that the token is never shown.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::common::{Dir, QUICK, both, tiny, tree};
use fixtures::hub::upload::Uploads;
use fixtures::hub::{Account, Fault, Faults, FileContent, Host, Hub, Repository};
use hub::upload::{FileState, LocalFile, PublishTarget, Published, compare, publish};
use hub::{Client, Error, RepositoryId, Settings, Snapshot};
use progress::Silent;
use serde_json::Value;

const ID: &str = "ada/tiny";
const TOKEN: &str = "hf_secretOfAda";

/// A Hub that can be written to, with an account.
pub(crate) struct Scene {
    hub: Hub,
    pub(crate) uploads: Uploads,
    pub(crate) dir: Dir,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let (hub, uploads) = (Hub::start().unwrap(), Uploads::new());
        hub.add_routes(uploads.clone());
        hub.add_account(TOKEN, Account::new("ada"));
        hub.add_account("hf_other", Account::new("bob"));
        Scene { hub, uploads, dir: Dir::new() }
    }

    /// A scene with two small files and two large ones in `tree`.
    fn with_files() -> Self {
        let scene = Self::new();
        scene.write("config.json", b"{}");
        scene.write("a folder/README.md", b"# Tiny");
        scene.write("a folder/model.safetensors", &noise(300_000, 1));
        scene.write("table.i8", &noise(70_001, 2));
        scene
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.dir.path("tree").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn client(&self, token: &str) -> Client {
        let xet = self.dir.path("xet").to_str().unwrap().to_owned();
        let endpoint = self.hub.endpoint();
        let variables = [("HF_ENDPOINT", endpoint), ("HF_TOKEN", token.to_owned()), ("HF_XET_CACHE", xet)];
        let found =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone());
        Client::new(Settings { policy: QUICK, ..Settings::from_variables(found) }).unwrap()
    }

    fn files(&self) -> Vec<LocalFile> {
        let root = self.dir.path("tree");
        let paths = tree(&root).into_iter().map(|(path, _)| path);
        paths.map(|path| LocalFile::new(path.to_str().unwrap(), &root.join(&path), None).unwrap()).collect()
    }

    /// Compares and publishes with a token.
    fn publish_as(&self, token: &str, pull_request: bool) -> Result<Published, Error> {
        let id = RepositoryId::new(ID).unwrap();
        let target =
            PublishTarget { id: &id, revision: "main", private: false, pull_request, message: "Publish" };
        let (client, files) = (self.client(token), self.files());
        let comparison = compare(&client, &target, &files)?;
        publish(&client, &target, &files, &comparison, &Silent)
    }

    pub(crate) fn publish(&self) -> Result<Published, Error> {
        self.publish_as(TOKEN, false)
    }

    /// What a reader gets, without the file that a new repository begins with.
    fn read_back(&self, revision: &str) -> Vec<(String, Vec<u8>)> {
        let client = self.client(TOKEN);
        let id = RepositoryId::new(ID).unwrap();
        let snapshot = Snapshot::resolve(&client, &id, revision).unwrap();
        let names = snapshot.files.iter().filter(|name| *name != ".gitattributes");
        names
            .map(|name| (name.clone(), snapshot.file(&client, name).unwrap().read(&client, 1 << 30).unwrap()))
            .collect()
    }

    /// What is in the tree here.
    fn here(&self) -> Vec<(String, Vec<u8>)> {
        let files = tree(&self.dir.path("tree")).into_iter();
        let mut files: Vec<_> =
            files.map(|(path, bytes)| (path.to_str().unwrap().to_owned(), bytes)).collect();
        files.sort();
        files
    }

    /// A repository without files.
    fn publish_empty(&self) {
        self.hub.shared().state().repositories.entry(ID.to_owned()).or_insert_with(|| {
            let mut repository = Repository::new(ID);
            repository.commit_file("a.txt", FileContent::Bytes(b"a".to_vec().into())).unwrap();
            repository
        });
    }

    /// Runs the command with this token in the environment, or none.
    fn run(&self, arguments: &[&str], token: Option<&str>) -> Output {
        self.command(arguments, token).output().unwrap()
    }

    /// The same command, which has not run yet.
    fn command(&self, arguments: &[&str], token: Option<&str>) -> Command {
        let mut command = self.dir.command(arguments);
        for name in ["HF_HUB_OFFLINE", "HF_TOKEN_PATH", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN"] {
            command.env_remove(name);
        }
        command.env("HF_ENDPOINT", self.hub.endpoint()).env("HF_HOME", self.dir.path("home"));
        token.map(|token| command.env("HF_TOKEN", token));
        command
    }

    /// Nothing that went to the storage carried a token.
    fn assert_storage_saw_no_token(&self) {
        let log = self.hub.log();
        assert!(log.iter().any(|entry| entry.host == Host::Network && entry.path.ends_with("/shards")));
        assert!(log.iter().all(|entry| entry.host == Host::Hub || !entry.authorized));
    }
}

/// Bytes that differ from place to place.
pub(crate) fn noise(length: u32, seed: u32) -> Vec<u8> {
    (0..length).map(|at| (at.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 13) as u8).collect()
}

#[test]
fn first_repeated_and_changed() {
    let scene = Scene::with_files();
    let first = scene.publish().unwrap();
    assert_eq!((first.sent, first.sent_bytes, first.held, first.inline), (2, 370_001, 0, 2));
    assert_eq!(first.known_bytes, 0);
    assert_eq!(scene.read_back("main"), scene.here());
    assert_eq!(scene.uploads.storage().taken, first.transferred_bytes);

    scene.hub.clear_log();
    assert_eq!(scene.publish().unwrap(), Published::default());
    assert!(scene.hub.log().iter().all(|entry| entry.method == "GET"), "nothing was written");

    scene.write("table.i8", &noise(70_001, 3));
    scene.write("new.json", b"[]");
    let taken = scene.uploads.storage().taken;
    let second = scene.publish().unwrap();
    assert_eq!((second.sent, second.sent_bytes, second.held, second.inline), (1, 70_001, 0, 1));
    assert_eq!(scene.uploads.storage().taken - taken, second.transferred_bytes);
    assert_eq!(scene.read_back("main"), scene.here());
    assert_ne!(first.commit, second.commit);
    // What was published first is still there.
    fs::remove_file(scene.dir.path("tree/new.json")).unwrap();
    assert_eq!(scene.publish().unwrap(), Published::default());
    assert_eq!(scene.read_back("main").len(), 5);
    scene.hub.clear_log();
    scene.write("table.i8", &noise(70_001, 4));
    scene.publish().unwrap();
    scene.assert_storage_saw_no_token();
}

#[test]
fn an_interrupted_upload_continues_and_sends_nothing_twice() {
    let scene = Scene::with_files();
    scene.uploads.storage().fails_after = Some(1);
    let error = scene.publish().unwrap_err().to_string();
    assert!(error.contains("did not take the upload (it has problems)"), "{error}");
    assert!(scene.read_back("main").is_empty(), "no commit names half of it");
    let taken = scene.uploads.storage().taken;
    assert!(taken > 0);
    scene.uploads.storage().fails_after = None;
    let second = scene.publish().unwrap();
    assert_eq!((second.sent, second.held, second.inline), (2, 0, 2));
    assert_eq!(second.known_bytes, 300_000, "of the file that was cut off, only its description is sent");
    assert!(second.transferred_bytes < 70_001 + 20_000, "{second:?}");
    assert_eq!(scene.read_back("main"), scene.here());
}

#[test]
fn without_xet_nothing_is_sent() {
    let scene = Scene::with_files();
    scene.uploads.storage().without_xet = true;
    let error = scene.publish().unwrap_err();
    assert!(matches!(error, Error::NoXet { .. }), "{error}");
    let sent = |entry: &fixtures::hub::Entry| entry.host == Host::Network || entry.path.contains("/commit/");
    assert!(!scene.hub.log().iter().any(sent));
    // Small files need no storage.
    fs::remove_dir_all(scene.dir.path("tree")).unwrap();
    scene.write("config.json", b"{}");
    assert_eq!(scene.publish().unwrap().inline, 1);
}

#[test]
fn with_faults_everything_or_nothing_is_published_and_running_again_helps() {
    // Xet takes a server's pauses as they are, so many runs wait together.
    let runs: Vec<bool> = std::thread::scope(|scope| {
        let workers = (0..10).map(|worker| {
            scope.spawn(move || (worker * 6..worker * 6 + 6).map(ends_with_faults).collect::<Vec<_>>())
        });
        let workers: Vec<_> = workers.collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    let ended = runs.iter().filter(|ended| **ended).count();
    assert!(ended >= 30 && runs.len() - ended >= 3, "{ended} of {} ended", runs.len());
}

/// Publishes over a bad connection, then over a good one; returns whether the first worked.
fn ends_with_faults(seed: u64) -> bool {
    let kinds = [
        Fault::Reset,
        Fault::Short,
        Fault::TooMany(1),
        Fault::TooMany(2),
        Fault::Unavailable,
        Fault::Expired,
    ];
    let scene = Scene::with_files();
    scene.hub.set_faults(Some(Faults::new(seed, 1 + seed % 6, &kinds)));
    let outcome = scene.publish();
    scene.hub.set_faults(None);
    if let Err(error) = &outcome {
        let error = error.to_string();
        let clear =
            ["keeps breaking", "limits the rate", "it has problems", "refuses", "did not take the upload"];
        assert!(clear.iter().any(|words| error.contains(words)), "seed {seed}: {error}");
        let there = scene.hub.shared().state().repositories.contains_key(ID);
        let held = if there { scene.read_back("main") } else { Vec::new() };
        assert!(held.is_empty() || held == scene.here(), "seed {seed}");
        scene.publish().unwrap();
    }
    assert_eq!(scene.read_back("main"), scene.here(), "seed {seed}");
    let log = scene.hub.log();
    assert!(log.iter().all(|entry| entry.host == Host::Hub || !entry.authorized), "seed {seed}");
    let commits = scene.hub.change(ID, |repository| repository.commits.len());
    assert_eq!(commits, 2, "seed {seed}: the first one, and ours once");
    outcome.is_ok()
}

#[test]
fn a_wrong_digest_is_caught_and_named() {
    for name in ["config.json", "table.i8"] {
        let scene = Scene::with_files();
        scene.uploads.storage().wrong = Some(name.to_owned());
        let error = scene.publish().unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("{name} is not on the Hub as it is here: the Hub says 000")),
            "{error}"
        );
    }
}

#[test]
fn a_file_above_10_mb_is_never_sent_inline_whatever_the_server_says() {
    let scene = Scene::new();
    scene.uploads.storage().all_regular = true;
    for (name, size) in [("large", 10_000_001), ("small", 10_000)] {
        scene.write(name, b"");
        fs::File::options()
            .write(true)
            .open(scene.dir.path("tree").join(name))
            .unwrap()
            .set_len(size)
            .unwrap();
    }
    let published = scene.publish().unwrap();
    assert_eq!((published.sent, published.sent_bytes, published.inline), (1, 10_000_001, 1));
    assert_eq!(scene.publish().unwrap(), Published::default());
}

#[test]
fn a_file_that_changes_during_the_upload_is_refused() {
    let scene = Scene::with_files();
    let id = RepositoryId::new(ID).unwrap();
    let target =
        PublishTarget { id: &id, revision: "main", private: false, pull_request: false, message: "Publish" };
    let (client, files) = (scene.client(TOKEN), scene.files());
    let comparison = compare(&client, &target, &files).unwrap();
    assert_eq!(comparison.states, [FileState::New; 4]);
    let other = noise(70_001, 9);
    for (name, bytes) in [("table.i8", &other[..]), ("table.i8", b"short"), ("config.json", b"longer")] {
        scene.write(name, bytes);
        let error = publish(&client, &target, &files, &comparison, &Silent).unwrap_err();
        assert!(matches!(&error, Error::LocalChanged { path } if path.ends_with(name)), "{error}");
        scene.write("table.i8", &noise(70_001, 2));
    }
    assert!(scene.read_back("main").is_empty());
}

#[test]
fn a_pull_request_leaves_the_branch_alone() {
    let scene = Scene::with_files();
    scene.publish().unwrap();
    let before = scene.read_back("main");
    scene.write("config.json", b"{\"new\": 1}");
    scene.write("table.i8", &noise(70_001, 5));
    // Without write access, a pull request is possible.
    let error = scene.publish_as("hf_other", false).unwrap_err();
    assert!(matches!(error, Error::MayNotWrite { .. }), "{error}");
    let asked = scene.publish_as("hf_other", true).unwrap();
    assert_eq!(asked.pull_request, Some(format!("{}/{ID}/discussions/1", scene.hub.endpoint())));
    assert_eq!(scene.read_back("main"), before);
    assert_eq!(scene.read_back(&asked.commit.unwrap()), scene.here());

    scene.uploads.storage().overtaken = true;
    let error = scene.publish().unwrap_err();
    assert!(matches!(error, Error::Moved { .. }), "{error}");
    assert_eq!(scene.publish().unwrap().held, 1, "what was sent is kept");
    assert_eq!(scene.read_back("main").len(), 5);

    // Without an answer it is not known whether it was opened, and it is not opened twice.
    scene.write("config.json", b"{\"new\": 2}");
    scene.uploads.storage().lost = true;
    let error = scene.publish_as("hf_other", true).unwrap_err();
    assert!(matches!(error, Error::Unsure { .. }), "{error}");
    // On a branch, the parent shows it.
    scene.uploads.storage().lost = true;
    let commit = scene.publish().unwrap().commit.unwrap();
    assert_eq!(scene.hub.change(ID, |repository| repository.branches["main"].clone()), commit);
}

/// A release of the tiny checkpoint in `release`.
fn release(scene: &Scene) {
    let dir = &scene.dir;
    dir.ok(&["convert", &tiny(), "-o", "out"]);
    let names: Vec<String> = dir.names("out").into_iter().map(|name| format!("out/{name}")).collect();
    fs::write(dir.path("LICENSE"), "Terms of a test").unwrap();
    let mut arguments = vec!["release", "-o", "release", "--base-model", "google/gemma-4-tiny"];
    arguments.extend(["--license", "LICENSE", "--license-id", "other"]);
    arguments.extend(names.iter().map(String::as_str));
    dir.ok(&arguments);
}

#[test]
fn a_signal_ends_an_upload_while_the_storage_is_silent() {
    let scene = Scene::new();
    release(&scene);
    for (held, (signal, only)) in [("-INT", "/tree/"), ("-TERM", "POST /v1/")].into_iter().enumerate() {
        scene.hub.set_faults(Some(Faults::new(1, 1, &[Fault::Silent]).only(only)));
        let mut command = scene.command(&["publish", "release", "--repo-id", ID], Some(TOKEN));
        scene.publish_empty();
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        scene.hub.wait_held(held + 1);
        Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        // The storage still holds the connection: only the signal ends this.
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", both(&output));
        assert!(crate::common::text(&output.stderr).contains("error: interrupted"), "{}", both(&output));
    }
    scene.hub.set_faults(None);
    assert!(scene.run(&["publish", "release", "--repo-id", ID], Some(TOKEN)).status.success());
}

#[test]
fn a_dry_run_needs_neither_a_token_nor_the_network() {
    let scene = Scene::new();
    release(&scene);
    let dry = ["publish", "release", "--repo-id", ID, "--dry-run"];
    let shown = |mut command: Command| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", both(&output));
        crate::common::text(&output.stdout)
    };
    let absent = shown(scene.command(&dry, None));
    assert!(absent.contains("(not there yet, or not public: there is no token): "), "{absent}");
    assert!(scene.run(&dry[..4], Some(TOKEN)).status.success());
    let public = shown(scene.command(&dry, None));
    assert!(public.contains("ada/tiny: 0 new, 0 changed"), "{public}");

    let count = tree(&scene.dir.path("release")).len();
    for (name, value, reason) in [
        ("HF_HUB_OFFLINE", "1", "HF_HUB_OFFLINE is set"),
        ("HF_ENDPOINT", "http://127.0.0.1:9", "cannot reach 127.0.0.1:9"),
    ] {
        let mut command = scene.command(&dry, None);
        command.env(name, value);
        let listed = shown(command);
        let line = format!("ada/tiny: {count} files (");
        assert!(listed.contains(&line) && listed.contains(&format!("not compared: {reason}")), "{listed}");
        assert!(
            listed.contains("  manifest.json\n") && listed.ends_with("nothing was sent: --dry-run\n"),
            "{listed}"
        );
        let mut command = scene.command(&[&dry[..], &["--json"]].concat(), None);
        command.env(name, value);
        let done: Value = serde_json::from_str(&shown(command)).unwrap();
        assert_eq!(done["publish"]["files"].as_array().unwrap().len(), count);
    }
}

#[test]
fn the_command_publishes_a_release_and_never_shows_the_token() {
    let scene = Scene::new();
    release(&scene);
    let mut said = String::new();
    let mut run = |arguments: &[&str]| {
        let output = scene.run(&[&["publish", "release", "--repo-id", ID], arguments].concat(), Some(TOKEN));
        said.push_str(&both(&output));
        assert!(output.status.success(), "{}", both(&output));
        crate::common::text(&output.stdout)
    };
    let dry = run(&["--dry-run"]);
    assert!(
        dry.contains("ada/tiny (not there yet): ") && dry.contains("nothing was sent: --dry-run"),
        "{dry}"
    );
    assert!(scene.hub.shared().state().repositories.is_empty());
    assert!(scene.hub.log().iter().all(|entry| entry.method == "GET"));

    let done: Value = serde_json::from_str(run(&["--private", "--json"]).lines().last().unwrap()).unwrap();
    let here = tree(&scene.dir.path("release"));
    assert_eq!(done["publish"]["new"].as_array().unwrap().len(), here.len());
    assert!(done["publish"]["published"]["commit"].is_string());
    assert!(scene.hub.change(ID, |repository| repository.private));
    let there = scene.read_back("main");
    assert!(
        there
            .iter()
            .map(|(path, bytes)| (Path::new(path), bytes))
            .eq(here.iter().map(|(p, b)| (p.as_path(), b)))
    );
    let again = run(&[]);
    assert!(
        again.contains("0 new, 0 changed") && again.contains("the Hub has every file already"),
        "{again}"
    );
    assert!(again.contains("stays         50 B  .gitattributes"), "{again}");
    scene.assert_storage_saw_no_token();

    // Refusals, none of which quotes the token either.
    scene.dir.ok(&["pack", "release", "-o", "release.zip"]);
    let mut refused = |arguments: &[&str], token: Option<&str>| {
        let output = scene.run(&[&["publish"], arguments].concat(), token);
        assert_eq!(output.status.code(), Some(1), "{}", both(&output));
        said.push_str(&both(&output));
        let text = crate::common::text(&output.stderr).replace(&scene.hub.endpoint(), "HUB");
        text.trim_end().to_owned()
    };
    let target = ["release", "--repo-id", ID];
    fs::create_dir(scene.dir.path("nothing")).unwrap();
    for (arguments, token, expected) in [
        (
            &target[..],
            None,
            "error: there is no token, and publishing needs one: make one with write access at HUB/settings/tokens, then set \
             HF_TOKEN or run `hf auth login`",
        ),
        (
            &target,
            Some("hf_secretButOld"),
            "error: HUB does not accept the token from HF_TOKEN: it is mistyped, expired or revoked; make a new one at \
             HUB/settings/tokens, or remove it if the repository is public",
        ),
        (
            &["release", "--repo-id", "google/tiny"],
            Some(TOKEN),
            "error: HUB does not let the token from HF_TOKEN write to google/tiny (You don't have the rights to create a model \
             under the namespace \"google\"): use a token of its owner with write access, or ask for the change with --pr",
        ),
        (
            &["release", "--repo-id", "ada/new", "--pr"],
            Some(TOKEN),
            "error: there is no repository ada/new that a pull request could be opened in: check the name, or publish without \
             --pr",
        ),
        (
            &["release", "--repo-id", ID, "--revision", "v2"],
            Some(TOKEN),
            "error: ada/tiny has no revision \"v2\": give a branch, a tag or a whole commit of HUB/ada/tiny/commits/main",
        ),
        (
            &["release.zip", "--repo-id", ID],
            None,
            "error: release.zip is an archive: publish the folder of the release that it was packed from",
        ),
        (
            &["out/gemma4_e4b_qat_gather_raw", "--repo-id", ID],
            Some(TOKEN),
            "error: out/gemma4_e4b_qat_gather_raw is not a release tree: make one with `coreai-bundle release`",
        ),
        (
            &["nothing", "--repo-id", ID],
            Some(TOKEN),
            "error: nothing is not a release tree: make one with `coreai-bundle release`",
        ),
        (
            &["release", "--repo-id", "tiny"],
            Some(TOKEN),
            "error: \"tiny\" is not a repository: give owner/name, as in google/gemma-4-E2B-it",
        ),
    ] {
        assert_eq!(refused(arguments, token), expected);
    }
    scene.hub.change(ID, |repository| repository.private = false);
    let public = refused(&["release", "--repo-id", ID, "--private"], Some(TOKEN));
    assert!(public.contains("exists and is public"), "{public}");
    fs::write(scene.dir.path("release/LICENSE"), "Other terms").unwrap();
    let defect = refused(&target, Some(TOKEN));
    assert!(defect.contains("cannot be published") && defect.contains("LICENSE"), "{defect}");
    assert!(!said.contains("hf_secret"), "{said}");
}
