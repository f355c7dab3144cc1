//! Where a checkpoint is, as people write or paste it: a folder, a name of the Hub, or an address of it.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use hub::{RepositoryId, Settings};
use percent_encoding::percent_decode_str;

/// Hosts of the Hub, besides the one of the settings.
const HOSTS: [&str; 3] = ["huggingface.co", "www.huggingface.co", "hf.co"];
/// First parts of addresses that name something else than a model, and what.
const OTHER_KINDS: [(&str, &str); 6] = [
    ("datasets", "a dataset"),
    ("spaces", "a space"),
    ("collections", "a collection"),
    ("papers", "a paper"),
    ("docs", "documentation"),
    ("blog", "an article"),
];

/// A checkpoint that is named, but not opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceSpec {
    /// A folder, or something else on this machine.
    Local(PathBuf),
    /// A repository of the Hub.
    Repository {
        /// `owner/name`.
        id: String,
        /// Branch, tag or commit, if one was given.
        revision: Option<String>,
    },
}

impl fmt::Display for SourceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => path.display().fmt(f),
            Self::Repository { id, .. } => f.write_str(id),
        }
    }
}

impl SourceSpec {
    /// Reads what was typed, with the Hub of the environment. What exists on this machine wins.
    ///
    /// # Errors
    /// If it is neither there nor an address or name of a repository, or contradicts `revision`.
    pub fn parse(typed: &str, revision: Option<&str>) -> anyhow::Result<Self> {
        let is_here = |path: &&Path| path.exists() || paths::archive_of(path).is_some();
        if let Some(path) = [typed, typed.trim()].map(Path::new).into_iter().find(is_here) {
            if revision.is_some() {
                bail!("{} is a folder: --revision is for repositories of the Hub", path.display());
            }
            return Ok(Self::Local(path.to_owned()));
        }
        Self::of_hub(typed, &Settings::from_environment().public_endpoint())?.at(revision)
    }

    /// The path, if it is on this machine.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Local(path) => Some(path),
            Self::Repository { .. } => None,
        }
    }

    /// The same at the revision of an option, which must not be another one than that of the address.
    fn at(self, option: Option<&str>) -> anyhow::Result<Self> {
        match (self, option) {
            (Self::Repository { revision: Some(named), .. }, Some(option)) if named != option => bail!(
                "the address names the revision {named}, and --revision is {option}: leave one of them out"
            ),
            (Self::Repository { id, .. }, Some(option)) => {
                Ok(Self::Repository { id, revision: Some(option.to_owned()) })
            }
            (spec, _) => Ok(spec),
        }
    }

    /// Reads the name or address of a repository of the Hub at this address.
    fn of_hub(typed: &str, endpoint: &str) -> anyhow::Result<Self> {
        let text = typed.trim();
        if let Some(rest) = strip_scheme(text, &["hf"]) {
            return Self::of_path(typed, rest);
        }
        if let Some(rest) = strip_scheme(text, &["https", "http"]) {
            let Some(path) = path_of_hub(rest, endpoint) else {
                let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
                bail!(
                    "{typed:?} is an address of {host}, which is not the Hub ({endpoint}): download the checkpoint and give its folder; \
                     if {host} is a mirror of the Hub, set HF_ENDPOINT to it and give OWNER/NAME"
                );
            };
            return Self::of_path(typed, path);
        }
        if let Some((scheme, _)) = text.split_once("://") {
            bail!(
                "{typed:?}: addresses that begin with {scheme}:// are not read; download the checkpoint and give its folder"
            );
        }
        if let Some(path) = path_of_hub(text, endpoint) {
            return Self::of_path(typed, path);
        }
        if text.is_empty() {
            bail!("the source is empty: give the folder of a checkpoint, or OWNER/NAME of the Hub");
        }
        let parts = text.trim_end_matches('/').split('/').count();
        if parts != 2 || text.starts_with(['.', '/', '~']) {
            bail!(
                "there is no folder {typed:?}, and a repository of the Hub is named by OWNER/NAME or its address"
            );
        }
        Self::of_path(typed, text)
    }

    /// Reads what follows the host in an address: `OWNER/NAME`, perhaps `@REVISION`, perhaps a place in the repository.
    fn of_path(typed: &str, path: &str) -> anyhow::Result<Self> {
        let end = path.find(['?', '#']).unwrap_or(path.len());
        let mut parts: Vec<&str> = path[..end].split('/').filter(|part| !part.is_empty()).collect();
        if parts.first() == Some(&"api") {
            parts.remove(0);
        }
        if parts.first() == Some(&"models") {
            parts.remove(0);
        }
        if let Some((_, kind)) = OTHER_KINDS.iter().find(|(first, _)| parts.first() == Some(first)) {
            bail!("{typed:?} is {kind}, not a model: give OWNER/NAME of a checkpoint's repository");
        }
        let [owner, name, place @ ..] = &parts[..] else {
            bail!("{typed:?} names no repository: give OWNER/NAME");
        };
        let (name, at) = match name.split_once('@') {
            Some((name, revision)) => (name, Some(decoded(revision)?)),
            None => (*name, None),
        };
        let id = RepositoryId::new(&format!("{owner}/{name}"))?;
        let revision = match (at, revision_of(typed, place)?) {
            (Some(at), Some(other)) if at != other => {
                bail!("{typed:?} names two revisions, {at} and {other}: leave one of them out")
            }
            (at, other) => at.or(other),
        };
        Ok(Self::Repository { id: id.to_string(), revision })
    }
}

/// What follows a scheme, whose case does not matter.
fn strip_scheme<'t>(text: &'t str, schemes: &[&str]) -> Option<&'t str> {
    let (scheme, rest) = text.split_once("://")?;
    schemes.iter().any(|known| scheme.eq_ignore_ascii_case(known)).then_some(rest)
}

/// What follows the Hub's host and path in an address without scheme; None for other hosts.
fn path_of_hub<'t>(address: &'t str, endpoint: &str) -> Option<&'t str> {
    let endpoint = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    // A user or a token may stand before the host.
    let end = address.find(['/', '?', '#']).unwrap_or(address.len());
    let host = address[..end].rfind('@').map_or(0, |at| at + 1);
    let address = &address[host..];
    let rest = HOSTS.iter().copied().chain([endpoint]).find_map(|known| {
        let (front, rest) = address.split_at_checked(known.len())?;
        front.eq_ignore_ascii_case(known).then_some(rest)
    })?;
    (rest.is_empty() || rest.starts_with(['/', '?', '#'])).then_some(rest)
}

/// The revision in `tree/REVISION`, `blob/REVISION/FILE` and the like, after the name of a repository.
fn revision_of(typed: &str, place: &[&str]) -> anyhow::Result<Option<String>> {
    let ["tree" | "blob" | "resolve" | "raw" | "commit" | "commits", revision, rest @ ..] = place else {
        return Ok(None);
    };
    match (place[0], rest) {
        ("tree", [_, ..]) => bail!(
            "{typed:?} is a folder in a repository, and a checkpoint is read from the top of one: download the folder, and give it"
        ),
        (_, [.., file]) if file.to_ascii_lowercase().ends_with(".gguf") => bail!(
            "{typed:?} is a GGUF file: its codes were made by another quantizer, and cannot be the bf16 weights that were trained; \
             give the repository of the quantization-aware checkpoint, such as google/gemma-4-E4B-it-qat-q4_0-unquantized"
        ),
        _ => Ok(Some(decoded(revision)?)),
    }
}

/// A part of an address, without its escapes.
fn decoded(part: &str) -> anyhow::Result<String> {
    let text = percent_decode_str(part).decode_utf8();
    Ok(text.with_context(|| format!("the revision {part:?} is not UTF-8"))?.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HUB: &str = "http://127.0.0.1:8080/mirror";

    fn read(typed: &str) -> Result<(String, Option<String>), String> {
        match SourceSpec::of_hub(typed, HUB) {
            Ok(SourceSpec::Repository { id, revision }) => Ok((id, revision)),
            Ok(SourceSpec::Local(path)) => Err(format!("a path: {}", path.display())),
            Err(error) => Err(format!("{error:#}")),
        }
    }

    #[test]
    fn names_and_addresses_of_repositories_are_read() {
        for (typed, revision) in [
            ("me/it", None),
            (" me/it\n", None),
            ("me/it/", None),
            ("me/it//", None),
            ("me/it@v1", Some("v1")),
            ("hf://me/it", None),
            ("hf://models/me/it", None),
            ("HF://me/it@refs%2Fpr%2F1", Some("refs/pr/1")),
            ("hf.co/me/it", None),
            ("huggingface.co/me/it/tree/main", Some("main")),
            ("https://huggingface.co/me/it", None),
            ("https://HuggingFace.co/me/it/", None),
            ("https://user:secret@huggingface.co/me/it", None),
            ("https://www.huggingface.co/me/it?library=transformers", None),
            ("http://hf.co/me/it#usage", None),
            ("https://huggingface.co/me/it/tree/v1", Some("v1")),
            ("https://huggingface.co/me/it/tree/v1/", Some("v1")),
            ("https://huggingface.co/me/it/tree/refs%2Fpr%2F1", Some("refs/pr/1")),
            ("https://huggingface.co/me/it/blob/v1/config.json", Some("v1")),
            ("https://huggingface.co/me/it/resolve/v1/model.safetensors?download=true", Some("v1")),
            ("https://huggingface.co/me/it/commit/v1", Some("v1")),
            ("https://huggingface.co/me/it/discussions/3", None),
            ("https://huggingface.co/api/models/me/it", None),
            ("http://127.0.0.1:8080/mirror/me/it/tree/v1", Some("v1")),
            ("https://127.0.0.1:8080/mirror/me/it", None),
        ] {
            assert_eq!(read(typed), Ok(("me/it".to_owned(), revision.map(str::to_owned))), "{typed:?}");
        }
    }

    #[test]
    fn everything_else_is_named() {
        for (typed, words) in [
            ("https://github.com/me/it", "an address of github.com, which is not the Hub (http://127"),
            ("https://huggingface.co.evil.example/me/it", "an address of huggingface.co.evil.example"),
            ("https://evil.example/huggingface.co/me/it", "an address of evil.example"),
            ("http://127.0.0.1:8080/me/it", "an address of 127.0.0.1:8080"),
            ("s3://bucket/it", "begin with s3://"),
            ("https://huggingface.co/datasets/me/it", "is a dataset, not a model"),
            ("hf://spaces/me/it", "is a space, not a model"),
            ("https://huggingface.co/me", "names no repository"),
            ("https://huggingface.co", "names no repository"),
            ("hf://me/it/tree/v1/sub", "is a folder in a repository"),
            ("hf://me/it@v1/tree/v2", "two revisions, v1 and v2"),
            ("https://huggingface.co/me/it/blob/main/it-Q4_0.gguf", "is a GGUF file"),
            ("", "the source is empty"),
            ("it", "there is no folder \"it\""),
            ("./me/it", "there is no folder"),
            ("~/it", "there is no folder"),
            ("/me/it", "there is no folder"),
            ("a/b/c", "there is no folder"),
            ("https://huggingface.co/me/../it", "OWNER/NAME"),
        ] {
            let error = read(typed).unwrap_err();
            assert!(error.to_lowercase().contains(&words.to_lowercase()), "{typed:?}: {error}");
        }
    }

    #[test]
    fn revisions_must_agree() {
        let spec = || SourceSpec::of_hub("hf://me/it@v1", HUB).unwrap();
        assert_eq!(spec().at(Some("v1")).unwrap(), spec());
        let error = spec().at(Some("v2")).unwrap_err().to_string();
        assert_eq!(error, "the address names the revision v1, and --revision is v2: leave one of them out");
        let plain = SourceSpec::of_hub("me/it", HUB).unwrap().at(Some("v2")).unwrap();
        assert_eq!(plain, SourceSpec::Repository { id: "me/it".to_owned(), revision: Some("v2".to_owned()) });
    }
}
