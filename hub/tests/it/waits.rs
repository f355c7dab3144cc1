//! Every wait for a server ends when the user asks to stop, while the server still holds the connection; and an answer that
//! trickles is cut.

use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use fixtures::hub::upload::Uploads;
use fixtures::hub::{
    Account, Fault, Faults, FileContent, Host, HttpRequest, Hub, Repository, Response, Routes, Shared,
};
use hub::upload::{LocalFile, PublishTarget, compare, publish};
use hub::{Client, Error, Limits, Policy, RepositoryId, Settings, Snapshot, download};
use serde_json::json;

const ID: &str = "ada/tiny";
const TOKEN: &str = "hf_secretOfAda";
/// None of the client's own limits ends a wait in these tests.
const LONG: Duration = Duration::from_secs(3600);
const PATIENT: Limits = Limits { connect: LONG, answer: LONG, silence: LONG, slowest: 1, window: LONG };

/// A Hub with a repository of two large files.
fn hub() -> Hub {
    let hub = Hub::start().unwrap();
    let mut repository = Repository::new(ID);
    for name in ["a.safetensors", "b.safetensors"] {
        repository.commit_file(name, FileContent::Bytes(vec![7; 20_000_000].into())).unwrap();
    }
    hub.shared().state().repositories.insert(ID.to_owned(), repository);
    hub.add_account(TOKEN, Account::new("ada"));
    hub
}

fn settings(endpoint: &str, cache: &Path) -> Settings {
    let found = |name: &str| match name {
        "HF_ENDPOINT" => Some(endpoint.to_owned()),
        "HF_HUB_CACHE" | "HF_XET_CACHE" => cache.to_str().map(str::to_owned),
        "HF_TOKEN" => Some(TOKEN.to_owned()),
        _ => None,
    };
    Settings { limits: PATIENT, ..Settings::from_variables(found) }
}

fn id() -> RepositoryId {
    RepositoryId::new(ID).unwrap()
}

/// Runs something, cancels it once it waits, and expects it to report that.
fn ends(flag: &AtomicBool, waits: impl FnOnce(), run: impl FnOnce() -> Result<(), Error> + Send) {
    flag.store(false, Ordering::SeqCst);
    std::thread::scope(|scope| {
        let run = scope.spawn(run);
        waits();
        flag.store(true, Ordering::SeqCst);
        let ended = run.join().unwrap();
        assert!(matches!(ended, Err(Error::Cancelled)), "{ended:?}");
    });
}

/// Waits until something was answered.
fn wait_logged(hub: &Hub) {
    while hub.log().is_empty() {
        std::thread::yield_now();
    }
}

#[test]
fn waits_for_an_answer_end() {
    static ASKED: AtomicBool = AtomicBool::new(false);
    let folder = tempfile::tempdir().unwrap();
    for fault in [Fault::Silent, Fault::Stall, Fault::Trickle] {
        for (only, whole) in [
            ("GET /api/models", false),
            ("HEAD /ada/tiny/resolve", false),
            ("GET /repos/", false),
            ("GET /repos/", true),
        ] {
            if only.starts_with("HEAD") && fault != Fault::Silent {
                continue; // it has no body
            }
            let hub = hub();
            let settings = settings(&hub.endpoint(), folder.path());
            let client =
                Client::new(Settings { cancelled: || ASKED.load(Ordering::SeqCst), ..settings }).unwrap();
            hub.set_faults(Some(Faults::new(1, 1, &[fault]).only(only)));
            let run = || {
                let snapshot = Snapshot::resolve(&client, &id(), "main")?;
                if whole {
                    let watched = &progress::Silent;
                    return download::download(&client, &snapshot, "main", &snapshot.files, watched)
                        .map(drop);
                }
                let mut bytes = vec![0; 10_000_000];
                snapshot.file(&client, "a.safetensors")?.read_at(&client, 5, &mut bytes)
            };
            // A download has four connections.
            ends(&ASKED, || hub.wait_held(if whole { 3 } else { 1 }), run);
        }
    }
}

#[test]
fn uploads_end() {
    static ASKED: AtomicBool = AtomicBool::new(false);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.safetensors");
    std::fs::write(&path, vec![3; 3_000_000]).unwrap();
    let files = [LocalFile::new("c.safetensors", &path, None).unwrap()];
    for only in ["/preupload/", "/objects/batch", "/xet-write-token/", "POST /v1/", "/shards", "/commit/"] {
        let hub = hub();
        hub.add_routes(Uploads::new());
        let settings = settings(&hub.endpoint(), folder.path());
        let client =
            Client::new(Settings { cancelled: || ASKED.load(Ordering::SeqCst), ..settings }).unwrap();
        hub.set_faults(Some(Faults::new(1, 1, &[Fault::Silent]).only(only)));
        let id = id();
        let target = PublishTarget {
            id: &id,
            revision: "main",
            private: false,
            pull_request: false,
            message: "Publish",
        };
        let run = || {
            let comparison = compare(&client, &target, &files)?;
            publish(&client, &target, &files, &comparison, &progress::Silent).map(drop)
        };
        ends(&ASKED, || hub.wait_held(1), run);
    }
}

#[test]
fn handshakes_end() {
    static ASKED: AtomicBool = AtomicBool::new(false);
    for scheme in ["http", "https"] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("{scheme}://{}", listener.local_addr().unwrap());
        let settings = settings(&endpoint, Path::new("/nowhere"));
        let client =
            Client::new(Settings { cancelled: || ASKED.load(Ordering::SeqCst), ..settings }).unwrap();
        let (accepted, accept) = mpsc::channel();
        let waits = || accepted.send(listener.accept().unwrap()).unwrap();
        ends(&ASKED, waits, || Snapshot::resolve(&client, &id(), "main").map(drop));
        // Up to here the connection was open.
        drop(accept);
    }
}

/// Names a storage that takes nothing.
struct Elsewhere(String);

impl Routes for Elsewhere {
    fn answer(&self, _: &Shared, _: Host, request: &HttpRequest) -> Option<Response> {
        let access = json!({ "accessToken": "xet_1", "exp": 9_999_999_999_u64, "casUrl": self.0 });
        request.path.contains("/xet-write-token/").then(|| Response::json(&access))
    }
}

#[test]
fn an_upload_that_is_not_received_ends() {
    static ASKED: AtomicBool = AtomicBool::new(false);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let hub = hub();
    hub.add_routes(Elsewhere(format!("http://{}", listener.local_addr().unwrap())));
    hub.add_routes(Uploads::new());
    let folder = tempfile::tempdir().unwrap();
    // More than any buffer on the way holds.
    let path = folder.path().join("c.safetensors");
    std::fs::File::create(&path).unwrap().set_len(1 << 30).unwrap();
    let files = [LocalFile::new("c.safetensors", &path, Some(&"5".repeat(64))).unwrap()];
    let settings = settings(&hub.endpoint(), folder.path());
    let client = Client::new(Settings { cancelled: || ASKED.load(Ordering::SeqCst), ..settings }).unwrap();
    let id = id();
    let target =
        PublishTarget { id: &id, revision: "main", private: false, pull_request: false, message: "Publish" };
    let run = || {
        let comparison = compare(&client, &target, &files)?;
        publish(&client, &target, &files, &comparison, &progress::Silent).map(drop)
    };
    let (accepted, accept) = mpsc::channel();
    ends(&ASKED, || accepted.send(listener.accept().unwrap()).unwrap(), run);
    drop(accept);
}

#[test]
fn pauses_and_locks_end() {
    static ASKED: AtomicBool = AtomicBool::new(false);
    let hub = hub();
    let folder = tempfile::tempdir().unwrap();
    let policy = Policy { longest_request: 2 * LONG, ..Policy::default() };
    let settings = settings(&hub.endpoint(), folder.path());
    let client =
        Client::new(Settings { cancelled: || ASKED.load(Ordering::SeqCst), policy, ..settings }).unwrap();
    hub.set_faults(Some(Faults::new(1, 1, &[Fault::TooMany(3600)])));
    ends(&ASKED, || wait_logged(&hub), || Snapshot::resolve(&client, &id(), "main").map(drop));
    hub.set_faults(None);

    // Another program fetches the same file.
    ASKED.store(false, Ordering::SeqCst);
    let snapshot = Snapshot::resolve(&client, &id(), "main").unwrap();
    let digest = snapshot.file(&client, "a.safetensors").unwrap().digest.unwrap();
    let locks = folder.path().join(".locks/models--ada--tiny");
    std::fs::create_dir_all(&locks).unwrap();
    let lock = std::fs::File::create(locks.join(format!("{}.lock", digest.as_str()))).unwrap();
    lock.lock().unwrap();
    hub.clear_log();
    let files = ["a.safetensors".to_owned()];
    let run = || download::download(&client, &snapshot, "main", &files, &progress::Silent).map(drop);
    ends(&ASKED, || wait_logged(&hub), run);
    drop(lock);
}

#[test]
fn a_trickle_is_cut_and_tried_again() {
    let hub = hub();
    let settings = settings(&hub.endpoint(), Path::new("/nowhere"));
    let patient = Client::new(settings.clone()).unwrap();
    let file = Snapshot::resolve(&patient, &id(), "main").unwrap().file(&patient, "a.safetensors").unwrap();
    // A few bytes in 20 ms, where a good connection delivers thousands at once.
    let limits = Limits { slowest: 10_000, window: Duration::from_millis(20), ..PATIENT };
    let pause = Duration::from_millis(1);
    let policy = Policy { attempts: 3, first_pause: pause, longest_pause: pause, ..Policy::default() };
    let client = Client::new(Settings { limits, policy, ..settings }).unwrap();
    let mut bytes = vec![0; 1_000_000];

    hub.set_faults(Some(Faults::new(1, 1, &[Fault::Trickle]).only("GET /repos/")));
    hub.clear_log();
    let error = file.read_at(&client, 0, &mut bytes).unwrap_err();
    assert!(matches!(error, Error::TooSlow { bytes: 10_000, .. }), "{error}");
    assert!(error.to_string().contains("sends less than 10000 bytes a second"), "{error}");
    hub.wait_held(3);

    std::thread::scope(|scope| {
        let reader = scope.spawn(|| file.read_at(&client, 0, &mut bytes));
        hub.wait_held(4);
        hub.set_faults(None);
        reader.join().unwrap().unwrap();
    });
    assert!(bytes.iter().all(|byte| *byte == 7));
}

#[test]
fn an_answer_that_takes_too_long_is_asked_for_again() {
    let hub = hub();
    hub.set_faults(Some(Faults::new(1, 1, &[Fault::Silent])));
    let moment = Duration::from_millis(50);
    let limits = Limits { connect: moment, answer: moment, ..PATIENT };
    let policy = Policy { attempts: 3, first_pause: moment, ..Policy::default() };
    let settings = Settings { limits, policy, ..settings(&hub.endpoint(), Path::new("/nowhere")) };
    let error = Snapshot::resolve(&Client::new(settings).unwrap(), &id(), "main").unwrap_err();
    assert!(
        matches!(&error, Error::Broken { reason, .. } if reason == "it does not answer in time"),
        "{error}"
    );
    hub.wait_held(3);
}
