//! The compiler's output: kept in a file, quoted in errors, searched for known faults.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::TempPath;

/// Lines quoted from the end of a log.
const TAIL_LINES: usize = 20;
/// Lines that look like errors, quoted from further up.
const ERROR_LINES: usize = 8;
/// Only this much of the end of a log is searched.
const WINDOW: u64 = 1 << 20;
/// Longer lines are cut.
const LINE_CHARACTERS: usize = 300;

/// The file that collects what a compile prints.
#[derive(Debug)]
pub struct Log {
    file: File,
    path: PathBuf,
    /// Removes the file, unless a failure makes it worth keeping.
    temporary: Option<TempPath>,
    /// Where the output of the running command begins.
    start: u64,
}

impl Log {
    /// A log at `path`, emptied first, or a temporary one.
    pub(crate) fn create(path: Option<&Path>) -> io::Result<Self> {
        match path {
            Some(path) => {
                fs::write(path, "")?;
                let file = OpenOptions::new().append(true).read(true).open(path)?;
                Ok(Self { file, path: path.to_path_buf(), temporary: None, start: 0 })
            }
            None => {
                let mut builder = tempfile::Builder::new();
                builder.prefix("coreai-bundle-aotc-").suffix(".log").append(true);
                let (file, path) = builder.tempfile()?.into_parts();
                Ok(Self { file, path: path.to_path_buf(), temporary: Some(path), start: 0 })
            }
        }
    }

    /// Starts the output of a command.
    pub(crate) fn begin(&mut self, command: &str) -> io::Result<()> {
        self.file.write_all(format!("$ {command}\n").as_bytes())?;
        self.start = self.file.seek(SeekFrom::End(0))?;
        Ok(())
    }

    /// Adds output that was printed elsewhere.
    pub(crate) fn append(&mut self, text: &str) -> io::Result<()> {
        self.file.write_all(text.as_bytes())
    }

    /// Where output goes.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// What to quote of the running command's output. The file stays from now on.
    pub(crate) fn excerpt(&mut self) -> LogExcerpt {
        let text = self.text().unwrap_or_else(|e| format!("the log cannot be read: {e}"));
        if let Some(temporary) = self.temporary.take() {
            // A temporary file that cannot be kept is still quoted.
            let _ = temporary.keep();
        }
        LogExcerpt::new(&text, Some(self.path.clone()))
    }

    /// The end of the running command's output.
    pub(crate) fn text(&self) -> io::Result<String> {
        let mut file = File::open(&self.path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(self.start.max(length.saturating_sub(WINDOW))))?;
        let mut bytes = Vec::new();
        file.take(WINDOW).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// The relevant lines of a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogExcerpt {
    /// Lines that look like errors, then the last ones; control characters removed.
    pub lines: Vec<String>,
    /// The whole log.
    pub path: Option<PathBuf>,
    /// What the log says, if it is a known fault.
    pub fault: Option<KnownFault>,
}

impl LogExcerpt {
    pub(crate) fn new(text: &str, path: Option<PathBuf>) -> Self {
        let all: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let (head, tail) = all.split_at(all.len().saturating_sub(TAIL_LINES));
        let errors: Vec<&&str> = head.iter().filter(|line| looks_like_error(line)).collect();
        let errors = errors.get(errors.len().saturating_sub(ERROR_LINES)..).unwrap_or_default();
        let lines = errors.iter().copied().chain(tail).map(|line| printable(line)).collect();
        Self { lines, path, fault: KnownFault::in_text(text) }
    }
}

impl fmt::Display for LogExcerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lines.is_empty() {
            write!(f, "\n  it printed nothing")?;
        } else {
            write!(f, "\n  it printed:")?;
        }
        for line in &self.lines {
            write!(f, "\n  | {line}")?;
        }
        match &self.path {
            Some(path) => write!(f, "\n  whole log: {}", path.display()),
            None => Ok(()),
        }
    }
}

fn looks_like_error(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    ["error:", "fatal", "failed", "abort"].iter().any(|word| line.contains(word))
}

/// A line without control characters, cut to a length that a terminal takes.
fn printable(line: &str) -> String {
    let visible = line.chars().map(|c| if c == '\t' { ' ' } else { c }).filter(|c| !c.is_control());
    visible.take(LINE_CHARACTERS).collect()
}

/// Faults that are recognized in the compiler's output.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KnownFault {
    /// The compiler's component is not installed, or another Xcode is selected.
    MetalToolchain,
    /// `xcrun` does not know the compiler.
    ToolNotFound,
    /// The disk is full.
    DiskFull,
    /// The compiler does not know the architecture.
    Architecture,
    /// The compiler found no program in the package.
    NoSource,
}

impl KnownFault {
    /// Whether it is about the user's input or installation, and not about the machine.
    pub(crate) fn is_the_users(self) -> bool {
        self != Self::DiskFull
    }

    fn in_text(text: &str) -> Option<Self> {
        let patterns = [
            ("requires the Metal Toolchain", Self::MetalToolchain),
            ("missing Metal Toolchain", Self::MetalToolchain),
            ("unable to find utility", Self::ToolNotFound),
            ("missing DEVELOPER_DIR path", Self::ToolNotFound),
            ("No space left on device", Self::DiskFull),
            ("no storage space", Self::DiskFull),
            ("Unknown architecture", Self::Architecture),
            ("is not supported for the requested deployment target", Self::Architecture),
            ("missing the source bytecode", Self::NoSource),
        ];
        patterns.into_iter().find(|(pattern, _)| text.contains(pattern)).map(|(_, fault)| fault)
    }

    /// What to do about it.
    pub fn hint(self) -> &'static str {
        match self {
            Self::MetalToolchain | Self::ToolNotFound => METAL_TOOLCHAIN_HINT,
            Self::DiskFull => {
                "free space on the disk of the output folder and of $TMPDIR, or choose another with -o"
            }
            Self::Architecture => {
                "this toolchain does not compile for the architecture: update Xcode and its Metal Toolchain, or \
                 choose another --arch, --platform or --min-os"
            }
            Self::NoSource => {
                "the .aimodel package is incomplete: write the bundle again and run `coreai-bundle check`"
            }
        }
    }
}

/// How to get the compiler.
pub(crate) const METAL_TOOLCHAIN_HINT: &str = "the compiler is part of Xcode 27's Metal Toolchain component: install it with `xcodebuild -downloadComponent \
     MetalToolchain`, and point `sudo xcode-select -s` or DEVELOPER_DIR at that Xcode";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_above_the_tail_are_quoted_and_control_characters_are_not() {
        let mut text = String::from("noise\nfoo: error: \u{1b}[31mbad\u{1b}[0m op\n\n");
        for line in 0..40 {
            text.push_str(&format!("warning {line}\n"));
        }
        let excerpt = LogExcerpt::new(&text, None);
        assert_eq!(excerpt.lines.len(), 1 + TAIL_LINES);
        assert_eq!(excerpt.lines[0], "foo: error: [31mbad[0m op");
        assert_eq!(excerpt.lines[20], "warning 39");
        assert_eq!(LogExcerpt::new("", None).to_string(), "\n  it printed nothing");
    }

    #[test]
    fn known_faults_are_recognized() {
        let fault = |text: &str| LogExcerpt::new(text, None).fault;
        assert_eq!(fault("error: Core AI requires the Metal Toolchain"), Some(KnownFault::MetalToolchain));
        assert_eq!(fault("x: No space left on device (os error 28)"), Some(KnownFault::DiskFull));
        assert_eq!(fault("all is well"), None);
    }

    #[test]
    fn only_a_failure_keeps_a_temporary_log() {
        let mut log = Log::create(None).unwrap();
        log.begin("true").unwrap();
        log.file().write_all(b"hello\n").unwrap();
        assert_eq!(log.text().unwrap(), "hello\n");
        let path = log.path.clone();
        drop(log);
        assert!(!path.exists());

        let mut log = Log::create(None).unwrap();
        let excerpt = log.excerpt();
        drop(log);
        let kept = excerpt.path.unwrap();
        assert!(kept.exists());
        fs::remove_file(kept).unwrap();
    }
}
