//! What a server may say: it is checked where it arrives, cut to a line where it is quoted, and never shows the token.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fixtures::hub::upload::Uploads;
use fixtures::hub::{Account, FileContent, Host, HttpRequest, Hub, Repository, Response, Routes, Shared};
use hub::upload::{LocalFile, PublishTarget, compare, publish};
use hub::{Client, Error, Policy, RepositoryId, Settings, Snapshot};
use serde_json::{Value, json};

const ID: &str = "ada/tiny";
const TOKEN: &str = "hf_secretOfAda";
const COMMIT: &str = "0123456789012345678901234567890123456789";

/// Answers some requests in another way than a Hub would.
struct Odd<F>(F);

impl<F: Fn(&HttpRequest) -> Option<Response> + Send + Sync> Routes for Odd<F> {
    fn answer(&self, _: &Shared, _: Host, request: &HttpRequest) -> Option<Response> {
        (self.0)(request)
    }
}

/// A Hub that answers requests whose path holds `part` like this.
fn odd(part: &'static str, answer: impl Fn(&HttpRequest) -> Response + Send + Sync + 'static) -> Hub {
    let hub = Hub::start().unwrap();
    let mut repository = Repository::new(ID);
    repository.commit_file("config.json", FileContent::Bytes(b"{}".to_vec().into())).unwrap();
    repository.commit_file("a.safetensors", FileContent::Bytes(vec![7; 3_000_000].into())).unwrap();
    hub.shared().state().repositories.insert(ID.to_owned(), repository);
    hub.add_account(TOKEN, Account::new("ada"));
    hub.add_routes(Odd(move |request: &HttpRequest| request.path.contains(part).then(|| answer(request))));
    hub.add_routes(Uploads::new());
    hub
}

fn client(hub: &Hub) -> Client {
    client_with(hub, Path::new("/nowhere"))
}

/// A client that remembers chunks in this folder.
fn client_with(hub: &Hub, xet: &Path) -> Client {
    let found = |name: &str| match name {
        "HF_XET_CACHE" => xet.to_str().map(str::to_owned),
        "HF_ENDPOINT" => Some(hub.endpoint()),
        "HF_TOKEN" => Some(TOKEN.to_owned()),
        _ => None,
    };
    let pause = Duration::from_micros(100);
    let policy = Policy { attempts: 3, first_pause: pause, longest_pause: pause, ..Policy::default() };
    Client::new(Settings { policy, ..Settings::from_variables(found) }).unwrap()
}

/// The message of a refusal, which must be short and without the token.
fn words<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    let error = result.unwrap_err();
    let text = error.to_string();
    assert!(text.len() < 1500, "{} bytes: {}", text.len(), &text[..1500]);
    assert!(!text.contains(TOKEN) && !format!("{error:?}").contains(TOKEN), "{text}");
    text
}

fn resolve(hub: &Hub) -> Result<Snapshot, Error> {
    Snapshot::resolve(&client(hub), &RepositoryId::new(ID).unwrap(), "main")
}

/// Reads a file.
fn read(hub: &Hub, name: &str) -> Result<Vec<u8>, Error> {
    let client = client(hub);
    let snapshot = Snapshot::resolve(&client, &RepositoryId::new(ID).unwrap(), "main")?;
    snapshot.file(&client, name)?.read(&client, 10_000_000)
}

fn publish_one(hub: &Hub, pull_request: bool) -> Result<hub::upload::Published, Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b.safetensors");
    std::fs::write(&path, vec![3; 100_000]).unwrap();
    let files = [LocalFile::new("b.safetensors", &path, None).unwrap()];
    let (client, id) = (client_with(hub, folder.path()), RepositoryId::new(ID).unwrap());
    let target =
        PublishTarget { id: &id, revision: "main", private: false, pull_request, message: "Publish" };
    let comparison = compare(&client, &target, &files)?;
    publish(&client, &target, &files, &comparison, &progress::Silent)
}

fn info(sha: &str, names: &[String]) -> Value {
    let siblings: Vec<Value> = names.iter().map(|name| json!({ "rfilename": name })).collect();
    json!({ "sha": sha, "siblings": siblings })
}

#[test]
fn a_commit_is_one_and_never_the_token() {
    for sha in [TOKEN.to_owned(), String::new(), "main".to_owned(), "f".repeat(1 << 20), format!("{COMMIT}0")]
    {
        let answer = info(&sha, &[]);
        let hub = odd("/revision/", move |_| Response::json(&answer));
        let text = words(resolve(&hub));
        assert!(text.contains("its sha is not a commit"), "{text}");
    }
    for oid in [TOKEN, "x"] {
        let hub = odd("/commit/", move |_| Response::json(&json!({ "commitOid": oid })));
        assert!(words(publish_one(&hub, false)).contains("no name of a commit"));
    }
    let odd_pull = json!({ "commitOid": COMMIT, "pullRequestUrl": format!("http://x/{TOKEN}") });
    let hub = odd("/commit/", move |_| Response::json(&odd_pull));
    assert!(words(publish_one(&hub, true)).contains("has no number"));
}

#[test]
fn listings_are_bounded_and_their_names_are_paths() {
    for bad in ["../x", "/etc/passwd", "a//b", "", "a\\b", "a\u{1b}[31m", TOKEN].map(str::to_owned) {
        // A token is a name like any other, but is not shown.
        let is_token = bad == TOKEN;
        let answer = info(COMMIT, &[bad]);
        let hub = odd("/revision/", move |_| Response::json(&answer));
        match resolve(&hub) {
            Ok(snapshot) if is_token => assert_eq!(snapshot.files, ["***"]),
            result => assert!(words(result).contains("not a path within a repository")),
        }
    }
    let long = info(COMMIT, &["x".repeat(2000)]);
    let hub = odd("/revision/", move |_| Response::json(&long));
    assert!(words(resolve(&hub)).contains("not a path within a repository"));
    let many = info(COMMIT, &vec!["x".to_owned(); 100_001]);
    let hub = odd("/revision/", move |_| Response::json(&many));
    assert!(words(resolve(&hub)).contains("it lists 100001 files"));
    let endless = |_: &HttpRequest| Response::new(200, vec![b' '; (16 << 20) + 1]);
    let hub = odd("/revision/", endless);
    assert!(words(resolve(&hub)).contains("more than 16777216 bytes"));
    assert!(words(publish_one(&hub, false)).contains("more than 16777216 bytes"));
    let hub = odd("/repos/create", endless);
    hub.shared().state().repositories.clear();
    assert!(words(publish_one(&hub, false)).contains("more than 16777216 bytes"));
    let hub = odd("/revision/", |_| Response::json(&json!({ "sha": ["y".repeat(100_000), TOKEN] })));
    words(resolve(&hub));

    let hub = odd("/tree/", |request| {
        let page = request.parameter("cursor").and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let host = request.header("host").unwrap();
        let next = format!("<http://{host}{}?cursor={}>; rel=\"next\"", request.path, page + 1);
        let entry =
            |at: u64| json!({ "type": "file", "path": format!("{page}-{at}"), "oid": COMMIT, "size": 1 });
        Response::json(&(0..1000).map(entry).collect()).with("Link", next)
    });
    assert!(words(publish_one(&hub, false)).contains("more than 100000 files"));
    for (oid, path) in [(TOKEN, "x"), (COMMIT, "../x"), ("abc", "x")] {
        let entry = json!([{ "type": "file", "path": path, "oid": oid, "size": 1 }]);
        let hub = odd("/tree/", move |_| Response::json(&entry));
        words(publish_one(&hub, false));
    }
}

#[test]
fn messages_of_a_server_are_short_and_hide_the_token() {
    let long = format!("no {TOKEN} {}", "z".repeat(60_000));
    for (status, part, quotes) in
        // The answer to HEAD has no body that could be quoted.
        [
            (400, "/revision/", "***"),
            (403, "/resolve/", "no reason given"),
            (451, "/resolve-cache/", "***"),
        ]
    {
        let said = long.clone();
        let hub = odd(part, move |_| Response::new(status, said.clone()));
        let text = words(read(&hub, "config.json"));
        assert!(text.contains(quotes), "{text}");
    }
    let hub = odd("/revision/", |_| Response::error(400, None, &format!("bad token {TOKEN}")));
    assert!(words(resolve(&hub)).contains("bad token ***"));
    let batch = json!({ "objects": [{ "oid": "", "error": { "code": 500, "message": long } }] });
    let hub = odd("/objects/batch", move |request| {
        let asked: Value = serde_json::from_slice(&request.body).unwrap();
        let mut batch = batch.clone();
        batch["objects"][0]["oid"] = asked["objects"][0]["oid"].clone();
        Response::json(&batch)
    });
    assert!(words(publish_one(&hub, false)).contains("no ***"));
    let hub = odd("/preupload/", |_| {
        Response::json(&json!({ "files": [{ "path": "b.safetensors", "uploadMode": TOKEN }] }))
    });
    words(publish_one(&hub, false));
    // A file that quotes it is refused: its text would be shown.
    let hub = odd("/nothing", |_| Response::new(404, ""));
    let echo = format!("{{\"model_type\": \"{TOKEN}\"}}").into_bytes();
    hub.change(ID, |repository| repository.commit_file("echo.json", FileContent::Bytes(echo.into())))
        .unwrap();
    assert!(words(read(&hub, "echo.json")).contains("contains the token"));
}

#[test]
fn redirects_ranges_and_sizes_are_checked() {
    let hub = odd("/revision/", |request| {
        Response::new(307, "").with("Location", format!("{}?again=1", request.path))
    });
    assert!(words(resolve(&hub)).contains("redirects in a loop"));
    for location in ["", "//", "http://", "file:///etc/passwd", &format!("http://{}/", "h".repeat(8000))] {
        let location = location.to_owned();
        let hub = odd("/resolve/", move |_| {
            let answer = Response::new(302, "").with("Location", location.clone());
            answer.with("X-Linked-Size", "3000000").with("X-Linked-ETag", format!("\"{COMMIT}\""))
        });
        words(read(&hub, "a.safetensors"));
    }
    let to_token = odd("/resolve/", |_| {
        let link = format!("http://127.0.0.1:9/{TOKEN}");
        Response::new(302, "").with("Location", link).with("X-Linked-Size", "5")
    });
    words(read(&to_token, "a.safetensors"));
    for size in ["18446744073709551615", "99999999999999", "-1", "x"] {
        let hub = odd("/resolve/", move |_| {
            Response::new(302, "").with("Location", "http://127.0.0.1:9/").with("X-Linked-Size", size)
        });
        let text = words(read(&hub, "a.safetensors"));
        assert!(text.contains("no size") || text.contains("more than any file of a Hub"), "{text}");
    }
    for range in ["bytes 1-9/3000000", "bytes 0-2999999/3000001", "bytes */3000000", "0-2999999", "bytes 0-9"]
    {
        let hub =
            odd("/repos/", move |_| Response::new(206, vec![7; 3_000_000]).with("Content-Range", range));
        assert!(words(read(&hub, "a.safetensors")).contains("the range that was asked for"), "{range}");
    }
    // The length may be left out.
    let whole =
        |_: &HttpRequest| Response::new(206, vec![7; 3_000_000]).with("Content-Range", "bytes 0-2999999/*");
    assert_eq!(read(&odd("/repos/", whole), "a.safetensors").unwrap().len(), 3_000_000);
    // Shorter than it says, longer than asked for, and other bytes.
    let hub = odd("/repos/", |_| {
        Response::new(206, vec![8; 4_000_000]).with("Content-Range", "bytes 0-3999999/3000000")
    });
    assert!(words(read(&hub, "a.safetensors")).contains("arrived damaged"));
}

#[test]
fn a_repository_is_made_once_the_hub_has_time() {
    for (message, made) in [("Creation in progress", true), ("You already created this model repo", false)] {
        let asked = AtomicU32::new(0);
        let hub = Hub::start().unwrap();
        hub.add_account(TOKEN, Account::new("ada"));
        hub.add_routes(Odd(move |request: &HttpRequest| {
            let refuses = request.path.contains("/repos/create") && asked.fetch_add(1, Ordering::SeqCst) < 2;
            refuses.then(|| Response::error(409, None, message))
        }));
        hub.add_routes(Uploads::new());
        // One that exists already is looked for, and is not there.
        assert_eq!(publish_one(&hub, false).is_ok(), made, "{message}");
        let asked = hub.log().iter().filter(|entry| entry.path.contains("/repos/create")).count();
        assert_eq!(asked, if made { 3 } else { 1 }, "{message}");
    }
}

#[test]
fn a_token_of_a_few_letters_is_not_cut_out_of_words() {
    let found = |name: &str| (name == "HF_TOKEN").then(|| "e".to_owned());
    let settings = Settings::from_variables(found);
    assert!(settings.token.is_some() && settings.cache != Path::new(""));
    let hub = odd("/revision/", |_| Response::error(400, None, "see here"));
    let client = Client::new(Settings { endpoint: hub.endpoint(), ..settings }).unwrap();
    let error = Snapshot::resolve(&client, &RepositoryId::new(ID).unwrap(), "main").unwrap_err();
    assert!(error.to_string().contains("see here"), "{error}");
}
