//! An OpenSSH server on loopback, and a connection to it that can be cut.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::checker;

/// When a connection is cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cut {
    Never,
    /// At once.
    Refuse,
    /// After this many bytes from the client.
    Sent(usize),
    /// After this many bytes to the client.
    Received(usize),
    /// After this time.
    After(Duration),
}

/// The server, the connection, and the client's configuration.
pub(crate) struct Server {
    folder: tempfile::TempDir,
    child: Child,
    line: Arc<Mutex<Line>>,
}

#[derive(Default)]
struct Line {
    /// How the next connections are cut; if it is empty, none are, unless `down`.
    cuts: Vec<Cut>,
    down: bool,
    /// Bytes from the client, one entry per connection.
    sent: Vec<usize>,
}

impl Server {
    /// Starts a server whose sessions find programs in `tools` first. None where OpenSSH or rsync is missing.
    pub(crate) fn start(tools: &Path) -> Option<Self> {
        let sshd = checker("sshd")?;
        checker("rsync")?;
        checker("ssh-keygen")?;
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name).display().to_string();
        for key in ["host", "user"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f", &file(key)]);
            assert!(keygen.status().unwrap().success());
        }
        // The server refuses to run as root without it.
        let _ = fs::create_dir_all("/run/sshd");
        let port = free_port();
        let settings = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\n\
             UsePAM no\nUseDNS no\nKexAlgorithms curve25519-sha256\nPasswordAuthentication no\nPermitRootLogin yes\nSetEnv PATH={}:/usr/bin:/bin\n",
            file("host"),
            file("user.pub"),
            tools.display(),
        );
        fs::write(file("sshd_config"), settings).unwrap();
        let log = fs::File::create(file("sshd.log")).unwrap();
        let mut command = Command::new(sshd);
        command.args(["-D", "-e", "-f", &file("sshd_config")]).stdin(Stdio::null()).stderr(log);
        let child = command.spawn().unwrap();
        wait_for_port(port);

        let line = Arc::new(Mutex::new(Line::default()));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let public = listener.local_addr().unwrap().port();
        let shared = Arc::clone(&line);
        std::thread::spawn(move || serve(&listener, port, &shared));

        let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
        let key = fs::read_to_string(file("host.pub")).unwrap();
        fs::write(file("known_hosts"), format!("mac {key}")).unwrap();
        let settings = format!(
            "Host mac\n  HostName 127.0.0.1\n  Port {public}\n  User {}\n  IdentityFile {}\n  IdentitiesOnly yes\n  \
             HostKeyAlias mac\n  UserKnownHostsFile {}\n",
            user.trim(),
            file("user"),
            file("known_hosts"),
        );
        fs::write(file("config"), settings).unwrap();
        Some(Self { folder, child, line })
    }

    /// The client's configuration; the server is its host `mac`.
    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("config")
    }

    /// Cuts the next connections in this way, one entry each.
    pub(crate) fn cut(&self, cuts: &[Cut]) {
        let mut line = self.line.lock().unwrap();
        line.cuts = cuts.to_vec();
        line.sent.clear();
    }

    /// Refuses every connection after the planned ones, or none.
    pub(crate) fn set_down(&self, down: bool) {
        self.line.lock().unwrap().down = down;
    }

    /// Bytes from the client since [`Self::cut`], one entry per connection.
    pub(crate) fn sent(&self) -> Vec<usize> {
        self.line.lock().unwrap().sent.clone()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("sshd.log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn wait_for_port(port: u16) {
    let started = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(started.elapsed() < Duration::from_secs(20), "sshd does not answer");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn serve(listener: &TcpListener, port: u16, line: &Arc<Mutex<Line>>) {
    for client in listener.incoming().flatten() {
        let (cut, index) = {
            let mut line = line.lock().unwrap();
            let planned = !line.cuts.is_empty();
            let cut = if planned { line.cuts.remove(0) } else { Cut::Never };
            line.sent.push(0);
            (if !planned && line.down { Cut::Refuse } else { cut }, line.sent.len() - 1)
        };
        if cut == Cut::Refuse {
            continue;
        }
        let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { return };
        forward(&client, &server, cut, index, line);
    }
}

fn forward(client: &TcpStream, server: &TcpStream, cut: Cut, index: usize, line: &Arc<Mutex<Line>>) {
    let (up, down) = match cut {
        Cut::Sent(bytes) => (bytes, usize::MAX),
        Cut::Received(bytes) => (usize::MAX, bytes),
        _ => (usize::MAX, usize::MAX),
    };
    let clones = || (client.try_clone().unwrap(), server.try_clone().unwrap());
    let (from, to) = clones();
    let counted = Arc::clone(line);
    std::thread::spawn(move || {
        pump(from, to, up, |bytes| {
            if let Some(sent) = counted.lock().unwrap().sent.get_mut(index) {
                *sent += bytes;
            }
        });
    });
    let (to, from) = clones();
    std::thread::spawn(move || pump(from, to, down, |_| {}));
    if let Cut::After(time) = cut {
        let (client, server) = clones();
        std::thread::spawn(move || {
            std::thread::sleep(time);
            // A connection that has ended already cannot be shut down.
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        });
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, limit: usize, count: impl Fn(usize)) {
    let mut buffer = vec![0; 16 << 10];
    let mut passed = 0;
    while let Ok(read) = from.read(&mut buffer) {
        if read == 0 || to.write_all(&buffer[..read]).is_err() {
            break;
        }
        passed += read;
        count(read);
        if passed >= limit {
            // What has passed arrives before the connection breaks.
            std::thread::sleep(Duration::from_millis(300));
            break;
        }
    }
    // A connection that has ended already cannot be shut down.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
