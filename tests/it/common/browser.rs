//! Chromium behind ChromeDriver, whose protocol is JSON over HTTP.

#![allow(clippy::print_stderr)]

use std::cell::RefCell;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Height of the window, and of pictures.
const HEIGHT: u32 = 1700;

/// A browser with one window.
pub(crate) struct Browser {
    driver: Child,
    session: String,
    /// Everything that was requested from the network so far.
    requests: RefCell<Vec<String>>,
    _profile: TempDir,
}

impl Browser {
    /// Starts one; says why not if there is no ChromeDriver, which is a failure only in CI.
    pub(crate) fn start() -> Option<Self> {
        let driver = Command::new("chromedriver").arg("--port=0").stdout(Stdio::piped()).spawn();
        let mut driver = match driver {
            Ok(driver) => driver,
            Err(error) if std::env::var_os("CI").is_none() => {
                eprintln!(
                    "skipped: chromedriver cannot be started ({error}); install Chromium and its driver"
                );
                return None;
            }
            Err(error) => panic!("chromedriver: {error}"),
        };
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port: u16 = lines
            .find_map(|line| {
                let line = line.unwrap();
                line.split_once("successfully on port ")?.1.trim_end_matches('.').parse().ok()
            })
            .expect("chromedriver names its port");
        let profile = tempfile::tempdir().unwrap();
        let base = format!("http://127.0.0.1:{port}/session");
        let answer = post(&base, &capabilities(profile.path()));
        let session = format!("{base}/{}", answer["sessionId"].as_str().unwrap());
        Some(Browser { driver, session, requests: RefCell::default(), _profile: profile })
    }

    /// Opens a file in a window of a width, in the light or the dark scheme.
    pub(crate) fn show(&self, page: &Path, width: u32, scheme: &str) {
        let size = json!({"width": width, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.devtools("Emulation.setEmulatedMedia", &features);
        let page = page.canonicalize().unwrap();
        post(&format!("{}/url", self.session), &json!({"url": format!("file://{}", page.display())}));
    }

    /// The result of a script.
    pub(crate) fn run(&self, script: &str) -> Value {
        post(&format!("{}/execute/sync", self.session), &json!({"script": script, "args": []}))
    }

    /// The messages of the browser's console.
    pub(crate) fn complaints(&self) -> Vec<String> {
        self.log("browser").iter().map(|entry| entry["message"].to_string()).collect()
    }

    /// Addresses that were requested since the start.
    pub(crate) fn requests(&self) -> Vec<String> {
        let mut requests = self.requests.borrow_mut();
        for entry in self.log("performance") {
            let event: Value = serde_json::from_str(entry["message"].as_str().unwrap()).unwrap();
            if event["message"]["method"] == "Network.requestWillBeSent" {
                let url = event["message"]["params"]["request"]["url"].as_str().unwrap();
                requests.push(url.chars().take(200).collect());
            }
        }
        assert!(!requests.is_empty(), "the page itself is asked for");
        requests.clone()
    }

    /// Stores a picture of the top of a page if UPDATE_SCREENSHOTS is set.
    pub(crate) fn picture(&self, page: &Path, width: u32, scheme: &str, path: &str) {
        if std::env::var_os("UPDATE_SCREENSHOTS").is_none() {
            return;
        }
        self.show(page, width, scheme);
        let picture = self.devtools("Page.captureScreenshot", &json!({"format": "png"}));
        let bytes = STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
        fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(path), bytes).unwrap();
    }

    fn devtools(&self, command: &str, parameters: &Value) -> Value {
        post(&format!("{}/goog/cdp/execute", self.session), &json!({"cmd": command, "params": parameters}))
    }

    fn log(&self, kind: &str) -> Vec<Value> {
        let log = post(&format!("{}/se/log", self.session), &json!({"type": kind}));
        log.as_array().unwrap().clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // This also ends the browser, which is the driver's child.
        let _ = client().delete(&self.session).send();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

fn capabilities(profile: &Path) -> Value {
    let arguments = [
        "--headless".to_owned(),
        "--no-sandbox".to_owned(),
        "--disable-gpu".to_owned(),
        "--hide-scrollbars".to_owned(),
        "--disable-quic".to_owned(),
        "--disable-dev-shm-usage".to_owned(),
        "--no-first-run".to_owned(),
        "--disable-background-networking".to_owned(),
        "--disable-component-update".to_owned(),
        "--disable-sync".to_owned(),
        format!("--user-data-dir={}", profile.display()),
    ];
    json!({"capabilities": {"alwaysMatch": {
        "browserName": "chrome",
        "goog:chromeOptions": {"args": arguments},
        "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
    }}})
}

/// The driver is on this machine, and may take its time.
fn client() -> reqwest::blocking::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::blocking::Client::builder().no_proxy().timeout(None).build().unwrap()
}

/// The `value` of the answer.
fn post(url: &str, body: &Value) -> Value {
    let request = client().post(url).header("Content-Type", "application/json");
    let answer = request.body(body.to_string()).send().unwrap();
    let (status, text) = (answer.status(), answer.text().unwrap());
    assert!(status.is_success(), "{url}: {text}");
    let mut answer: Value = serde_json::from_str(&text).unwrap();
    answer["value"].take()
}
