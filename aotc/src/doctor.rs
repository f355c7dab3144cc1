//! What this machine can do, line by line, with the remedy for what it cannot.

use std::ffi::OsString;
use std::fmt;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use aimodel::staging::available_bytes;
use serde::Serialize;

use crate::error::Error;
use crate::interrupt::Interrupt;
use crate::process;
use crate::toolchain::{MetalToolchain, Toolchain, ToolchainOptions};

/// Bytes of the larger model's graph and of its tables: what a machine should have room for.
const GRAPH_BYTES: u64 = 3_700_000_000;
const TABLE_BYTES: u64 = 3_600_000_000;
/// The graph, its tables, an artifact, and the compiler's work files.
const DISK_BYTES: u64 = GRAPH_BYTES * 5 + TABLE_BYTES;
/// The compiler and the reference both map a whole graph.
const MEMORY_BYTES: u64 = GRAPH_BYTES * 2;
/// Longest time for one question.
const LIMIT: Duration = Duration::from_secs(30);
/// Longest time for the network's answer.
const NETWORK_LIMIT: Duration = Duration::from_secs(5);
const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
/// Prints the version of the judge's package, once it is known to load.
const JUDGE: &str = "import importlib.metadata as m, coreai.runtime; print(m.version('coreai-core'))";

/// One line of the report.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Check {
    /// What was looked for.
    pub subject: &'static str,
    /// Whether it is there.
    pub ok: bool,
    /// What was found. Never a secret.
    pub detail: String,
    /// What to do where it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Check {
    fn ok(subject: &'static str, detail: impl Into<String>) -> Self {
        Self { subject, ok: true, detail: detail.into(), remedy: None }
    }

    fn missing(subject: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { subject, ok: false, detail: detail.into(), remedy: Some(remedy.into()) }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.ok { "ok" } else { "missing" };
        write!(f, "{state:<8} {:<16} {}", self.subject, self.detail)?;
        match &self.remedy {
            Some(remedy) => write!(f, "\n{:26}-> {remedy}", ""),
            None => Ok(()),
        }
    }
}

/// Where to look.
pub struct DoctorOptions<'a> {
    /// Which toolchain.
    pub toolchain: ToolchainOptions,
    /// Where outputs would go.
    pub output: PathBuf,
    /// The Python of the judge; those that the tests make under `target/judges`, and `python3`, otherwise.
    pub python: Option<PathBuf>,
    /// Looks up an environment variable.
    pub environment: &'a dyn Fn(&str) -> Option<OsString>,
}

/// Examines the machine.
///
/// # Errors
/// [`Error::Interrupted`] only: what is missing is a line, not an error.
pub fn examine(options: &DoctorOptions<'_>, interrupt: &Interrupt) -> Result<Vec<Check>, Error> {
    let mut checks = toolchain(options, interrupt)?;
    checks.push(disk(&options.output));
    checks.push(memory(interrupt)?);
    checks.push(token(options.environment));
    checks.push(endpoint(options.environment));
    checks.push(judge(options.python.as_deref(), interrupt)?);
    checks.push(program("ssh", &["ssh", "-V"], "install the OpenSSH client, for `aotc --ssh`", interrupt)?);
    checks.push(program("rsync", &["rsync", "--version"], "install rsync, for `aotc --ssh`", interrupt)?);
    Ok(checks)
}

fn toolchain(options: &DoctorOptions<'_>, interrupt: &Interrupt) -> Result<Vec<Check>, Error> {
    let mut checks = Vec::new();
    let found = match Toolchain::find(&options.toolchain, interrupt) {
        Err(Error::Interrupted) => return Err(Error::Interrupted),
        found => found,
    };
    match found {
        Ok(toolchain) => {
            checks.push(Check::ok("toolchain", toolchain.compiler.display().to_string()));
            checks.push(Check::ok("version", toolchain.version));
        }
        Err(error) => {
            let remedy = error.hint().unwrap_or_default();
            checks.push(Check::missing("toolchain", error.to_string(), remedy.clone()));
            checks.push(Check::missing("version", "not known", remedy));
        }
    }
    let install = "xcodebuild -downloadComponent MetalToolchain";
    checks.push(match MetalToolchain::ask(&options.toolchain, interrupt) {
        Err(Error::Interrupted) => return Err(Error::Interrupted),
        Err(error) => {
            Check::missing("Metal toolchain", "cannot be asked for", error.hint().unwrap_or_default())
        }
        Ok(MetalToolchain::Installed(build)) => Check::ok("Metal toolchain", build),
        Ok(MetalToolchain::Missing(state)) => Check::missing("Metal toolchain", state, install),
    });
    Ok(checks)
}

fn disk(output: &Path) -> Check {
    let remedy =
        format!("{} are enough for the larger model: free some, or choose another disk", size(DISK_BYTES));
    match available_bytes(output) {
        Ok(bytes) => {
            let detail = format!("{} free in {}", size(bytes), output.display());
            if bytes >= DISK_BYTES {
                Check::ok("disk", detail)
            } else {
                Check::missing("disk", detail, remedy)
            }
        }
        Err(error) => Check::missing("disk", error.to_string(), remedy),
    }
}

fn memory(interrupt: &Interrupt) -> Result<Check, Error> {
    let remedy = format!("{} are enough for the larger model", size(MEMORY_BYTES));
    Ok(match total_memory(interrupt)? {
        Some(bytes) if bytes >= MEMORY_BYTES => Check::ok("memory", size(bytes)),
        Some(bytes) => Check::missing("memory", size(bytes), remedy),
        None => Check::missing("memory", "not known", remedy),
    })
}

fn total_memory(interrupt: &Interrupt) -> Result<Option<u64>, Error> {
    if let Ok(text) = std::fs::read_to_string("/proc/meminfo") {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let kilobytes = line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
        return Ok(kilobytes.map(|k| k.saturating_mul(1024)));
    }
    Ok(answer_of(&["sysctl", "-n", "hw.memsize"], interrupt)?.and_then(|text| text.parse().ok()))
}

/// Where a token of the Hub is found, in the order in which the Hub's own clients look.
fn token(environment: &dyn Fn(&str) -> Option<OsString>) -> Check {
    let set = |name: &str| environment(name).filter(|value| !value.is_empty());
    if set("HF_TOKEN").is_some() {
        return Check::ok("Hub token", "set in HF_TOKEN");
    }
    let home = || set("HOME").map(|home| PathBuf::from(home).join(".cache/huggingface"));
    let cache = set("XDG_CACHE_HOME").map(|cache| PathBuf::from(cache).join("huggingface"));
    let hub_home = set("HF_HOME").map(PathBuf::from).or(cache).or_else(home);
    let file = set("HF_TOKEN_PATH").map(PathBuf::from).or(hub_home.map(|folder| folder.join("token")));
    let remedy = "set HF_TOKEN, or log in with `hf auth login`; gated checkpoints and publishing need it";
    match file {
        Some(file) if std::fs::metadata(&file).is_ok_and(|m| m.is_file() && m.len() > 0) => {
            Check::ok("Hub token", format!("in {}", file.display()))
        }
        Some(file) => Check::missing("Hub token", format!("not set, and none in {}", file.display()), remedy),
        None => Check::missing("Hub token", "not set", remedy),
    }
}

fn endpoint(environment: &dyn Fn(&str) -> Option<OsString>) -> Check {
    let text = |name: &str| environment(name).and_then(|v| v.into_string().ok()).filter(|v| !v.is_empty());
    let url = text("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.into());
    if text("HF_HUB_OFFLINE").is_some_and(|v| ["1", "true", "yes", "on"].contains(&v.to_lowercase().as_str()))
    {
        return Check::missing("Hub endpoint", format!("{} (offline)", public(&url)), "unset HF_HUB_OFFLINE");
    }
    let secure = url.starts_with("https:");
    let names = if secure { ["HTTPS_PROXY", "https_proxy"] } else { ["HTTP_PROXY", "http_proxy"] };
    let proxy = names.into_iter().chain(["ALL_PROXY", "all_proxy"]).find_map(text);
    let asked = proxy.as_deref().unwrap_or(&url);
    let detail = match &proxy {
        Some(proxy) => format!("{} through the proxy {}", public(&url), public(proxy)),
        None => public(&url),
    };
    match reach(asked) {
        Ok(()) => Check::ok("Hub endpoint", detail),
        Err(reason) => Check::missing(
            "Hub endpoint",
            format!("{detail}: {reason}"),
            "check the network, HF_ENDPOINT and the proxy variables; local folders work without it",
        ),
    }
}

/// A URL without the user and password that it may carry.
fn public(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        (None, Some((_, host))) => host.to_owned(),
        _ => url.to_owned(),
    }
}

/// Opens a connection to the host of `url` and closes it.
fn reach(url: &str) -> Result<(), String> {
    let shown = public(url);
    let (scheme, rest) = shown.split_once("://").unwrap_or(("http", &shown));
    let host = rest.split('/').next().unwrap_or_default();
    let default_port = if scheme == "https" { 443 } else { 80 };
    let with_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let address = if with_port { host.to_owned() } else { format!("{host}:{default_port}") };
    let (sender, receiver) = mpsc::channel();
    // Looking a name up has no time limit of its own: the thread is left behind where it does not end in time.
    std::thread::spawn(move || {
        // Nobody listens any more if it took too long.
        let _ = sender.send(connect(&address));
    });
    receiver.recv_timeout(NETWORK_LIMIT).unwrap_or_else(|_| Err("no answer".into()))
}

fn connect(address: &str) -> Result<(), String> {
    let addresses = address.to_socket_addrs().map_err(|e| e.to_string())?;
    let mut reason = "its name has no address".to_owned();
    for address in addresses {
        match TcpStream::connect_timeout(&address, NETWORK_LIMIT) {
            Ok(_) => return Ok(()),
            Err(e) => reason = e.to_string(),
        }
    }
    Err(reason)
}

fn judge(python: Option<&Path>, interrupt: &Interrupt) -> Result<Check, Error> {
    let candidates = python.map_or_else(usual_pythons, |python| vec![python.to_path_buf()]);
    for python in candidates {
        let mut command = Command::new(&python);
        let Ok(answer) = process::capture(command.args(["-c", JUDGE]), LIMIT, interrupt) else { continue };
        stop_if_raised(interrupt)?;
        if answer.succeeded() {
            let detail = format!("coreai-core {} in {}", answer.stdout.trim(), python.display());
            return Ok(Check::ok("Python judge", detail));
        }
    }
    let remedy = "only this project's tests need it: `cargo xtask apple-check` in a clone makes it";
    Ok(Check::missing("Python judge", "no Python here has coreai-core", remedy))
}

/// The environments that the project's own tests make under the current folder, then the system's Python.
fn usual_pythons() -> Vec<PathBuf> {
    let made = std::fs::read_dir("target/judges").into_iter().flatten().flatten();
    let mut pythons: Vec<PathBuf> =
        made.map(|entry| entry.path().join("bin/python")).filter(|python| python.is_file()).collect();
    pythons.sort();
    pythons.push("python3".into());
    pythons
}

fn program(
    subject: &'static str,
    command: &[&str],
    remedy: &str,
    interrupt: &Interrupt,
) -> Result<Check, Error> {
    Ok(match answer_of(command, interrupt)? {
        Some(answer) => Check::ok(subject, answer.lines().next().unwrap_or_default()),
        None => Check::missing(subject, "cannot be run", remedy),
    })
}

/// What a command prints, if it can be run and succeeds.
pub(crate) fn answer_of(words: &[&str], interrupt: &Interrupt) -> Result<Option<String>, Error> {
    let Some((program, arguments)) = words.split_first() else { return Ok(None) };
    let answer = process::capture(Command::new(program).args(arguments), LIMIT, interrupt);
    stop_if_raised(interrupt)?;
    Ok(answer.ok().filter(process::Captured::succeeded).map(|answer| {
        let stdout = answer.stdout.trim();
        if stdout.is_empty() { answer.stderr.trim().to_owned() } else { stdout.to_owned() }
    }))
}

fn stop_if_raised(interrupt: &Interrupt) -> Result<(), Error> {
    if interrupt.is_raised() { Err(Error::Interrupted) } else { Ok(()) }
}

fn size(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn environment<'a>(entries: &'a [(&'a str, String)]) -> impl Fn(&str) -> Option<OsString> + 'a {
        |name| entries.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
    }

    #[test]
    fn token_is_told_of_and_never_told() {
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| home.path().join(name).display().to_string();
        let secret = "hf_abcdefgh";
        let look = |entries: &[(&str, String)]| {
            let check = token(&environment(entries));
            assert!(!format!("{check:?} {check}").contains(secret), "{check}");
            check.ok
        };
        assert!(look(&[("HF_TOKEN", secret.into())]));
        assert!(!look(&[("HF_TOKEN", String::new()), ("HOME", path(""))]));
        assert!(!look(&[]));
        std::fs::write(home.path().join("token"), secret).unwrap();
        assert!(look(&[("HF_TOKEN_PATH", path("token"))]));
        assert!(look(&[("HF_HOME", path(""))]));
        let cache = home.path().join(".cache/huggingface");
        std::fs::create_dir_all(&cache).unwrap();
        std::fs::write(cache.join("token"), secret).unwrap();
        assert!(look(&[("HOME", path(""))]));
    }

    #[test]
    fn endpoint_is_reached_or_not_and_hides_passwords() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = format!("http://{}", server.local_addr().unwrap());
        assert!(endpoint(&environment(&[("HF_ENDPOINT", here.clone())])).ok);
        let proxy = here.replace("http://", "http://user:secret@");
        let proxied = endpoint(&environment(&[("HTTPS_PROXY", proxy)]));
        assert!(proxied.ok && !proxied.detail.contains("secret"), "{proxied}");
        let offline = [("HF_ENDPOINT", here.clone()), ("HF_HUB_OFFLINE", "1".into())];
        assert!(!endpoint(&environment(&offline)).ok);
        drop(server);
        let gone = endpoint(&environment(&[("HF_ENDPOINT", here)]));
        assert!(!gone.ok && gone.remedy.is_some(), "{gone}");
    }

    #[test]
    fn memory_of_this_machine_is_known() {
        assert!(total_memory(&Interrupt::new()).unwrap().unwrap() > 1 << 28);
    }

    #[test]
    fn lines_are_aligned_and_carry_the_remedy() {
        let check = Check::missing("rsync", "cannot be run", "install rsync");
        let expected = "missing  rsync            cannot be run\n                          -> install rsync";
        assert_eq!(check.to_string(), expected);
    }
}
