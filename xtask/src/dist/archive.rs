//! A binary with its completions, manual pages and documents as one archive: the same files make the same bytes.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use flate2::{Compression, GzBuilder};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// Name of the binary.
const BINARY: &str = "coreai-bundle";
/// Documents of the project that are included.
const DOCUMENTS: [&str; 3] = ["CHANGELOG.md", "LICENSE", "README.md"];
/// Shells, and the file names of their completions.
const COMPLETIONS: [(&str, &str); 3] =
    [("bash", "coreai-bundle.bash"), ("fish", "coreai-bundle.fish"), ("zsh", "_coreai-bundle")];

/// A file of the archive.
struct Member {
    path: String,
    mode: u32,
    bytes: Vec<u8>,
}

/// Packs a binary into `output`; returns the archive, which has its SHA-256 beside it. `seconds` is the time of every file.
pub(crate) fn pack(binary: &Path, root: &Path, triple: &str, seconds: u64, output: &Path) -> Result<PathBuf> {
    let version = said(binary, &["--version"])?;
    let version = String::from_utf8(version).context("the version is not UTF-8")?;
    let Some(version) = version.trim().strip_prefix("coreai-bundle ") else {
        bail!("{} prints {version:?} instead of the version of coreai-bundle", binary.display());
    };
    // The commit may follow.
    let version = version.split(' ').next().unwrap_or(version);
    let stem = format!("{BINARY}-{version}-{triple}");
    let mut members = members(binary, root)?;
    members.sort_by(|a, b| a.path.cmp(&b.path));
    let mut packed = Vec::new();
    write(&members, &stem, seconds, &mut packed)?;
    let path = output.join(format!("{stem}.tar.gz"));
    publish(&path, &packed)?;
    let digest = hex::encode(Sha256::digest(&packed));
    publish(&output.join(format!("{stem}.tar.gz.sha256")), format!("{digest}  {stem}.tar.gz\n").as_bytes())?;
    Ok(path)
}

fn members(binary: &Path, root: &Path) -> Result<Vec<Member>> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let mut members = vec![Member { path: BINARY.to_owned(), mode: 0o755, bytes: read(binary)? }];
    for document in DOCUMENTS {
        members.push(Member { path: document.to_owned(), mode: 0o644, bytes: read(&root.join(document))? });
    }
    for (shell, name) in COMPLETIONS {
        let bytes = said(binary, &["completions", shell])?;
        members.push(Member { path: format!("completions/{name}"), mode: 0o644, bytes });
    }
    let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
    let pages = scratch.path().join("man1");
    said(binary, &["man", pages.to_str().context("the temporary folder is not UTF-8")?])?;
    for entry in fs::read_dir(&pages).context("there are no manual pages")? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        members.push(Member { path: format!("man/man1/{name}"), mode: 0o644, bytes: read(&path)? });
    }
    Ok(members)
}

/// The output of the binary.
fn said(binary: &Path, arguments: &[&str]) -> Result<Vec<u8>> {
    let shown = || format!("{} {}", binary.display(), arguments.join(" "));
    let output =
        Command::new(binary).args(arguments).output().with_context(|| format!("cannot run {}", shown()))?;
    if !output.status.success() {
        bail!("{}: {}\n{}", shown(), output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.stdout)
}

fn write(members: &[Member], stem: &str, seconds: u64, out: &mut Vec<u8>) -> Result<()> {
    let gzip = GzBuilder::new().mtime(0).write(out, Compression::best());
    let mut tar = Builder::new(gzip);
    for member in members {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(member.mode);
        header.set_mtime(seconds);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(member.bytes.len() as u64);
        tar.append_data(&mut header, format!("{stem}/{}", member.path), member.bytes.as_slice())?;
    }
    tar.into_inner()?.finish()?.flush()?;
    Ok(())
}

/// Writes a complete file, by rename.
fn publish(path: &Path, bytes: &[u8]) -> Result<()> {
    let told = || format!("cannot write {}", path.display());
    let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(path)).with_context(told)?;
    file.write_all(bytes).with_context(told)?;
    file.persist(path).with_context(told)?;
    Ok(())
}
