//! A folder that is not a checkpoint, or not all of one.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use text::{bounds, names, small};

use super::Mistake;
use crate::config::CONFIG_FILE;
use crate::source::{INDEX_FILE, SINGLE_FILE, ShardIndex};

/// Files of an adapter: its configuration.
const ADAPTER: &str = "adapter_config.json";
/// Where downloads into a folder keep what is not finished.
const DOWNLOADS: &str = ".cache/huggingface/download";
/// Most folders that are looked into.
const MOST_FOLDERS: usize = 1000;

/// What a folder without the weights of a checkpoint is. `files` are its regular files, sorted; none if nothing is recognized.
pub(in crate::source) fn of_folder(dir: &Path, files: &[String]) -> Option<Mistake> {
    let owned = || dir.to_owned();
    if let Some(what) = output_of_this_tool(dir, files) {
        return Some(Mistake::Output { dir: owned(), what });
    }
    if is_adapter(files) {
        return Some(Mistake::Adapter { dir: owned(), base: base_of_adapter(dir) });
    }
    if let Some(file) = unfinished(dir, files) {
        return Some(Mistake::Unfinished { dir: owned(), file });
    }
    let weights: Vec<String> = files.iter().filter(|name| name.ends_with(".safetensors")).cloned().collect();
    let shards = weights.iter().filter(|name| is_shard(name)).count();
    if shards > 0 {
        return Some(Mistake::NoIndex { dir: owned(), shards });
    }
    if !weights.is_empty() {
        return Some(Mistake::OtherNames { dir: owned(), names: weights });
    }
    if let Some(mistake) = of_names(dir, files) {
        return Some(mistake);
    }
    let below = checkpoints_below(dir);
    if !below.is_empty() {
        return Some(Mistake::Above { dir: owned(), names: below });
    }
    let is_empty = fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none());
    is_empty.then(|| Mistake::Empty { dir: owned() })
}

/// What a folder or repository without the weights of a checkpoint is by the names of its files; none if they say nothing.
pub(in crate::source) fn of_names(place: &Path, files: &[String]) -> Option<Mistake> {
    let has = |endings: &[&str]| files.iter().any(|file| endings.iter().any(|end| file.ends_with(end)));
    if is_adapter(files) {
        Some(Mistake::Adapter { dir: place.to_owned(), base: None })
    } else if has(&[".gguf"]) {
        Some(Mistake::Gguf { name: place.display().to_string() })
    } else if has(&[".bin", ".pt", ".pth"]) {
        Some(Mistake::Pickle { name: place.display().to_string() })
    } else {
        None
    }
}

fn is_adapter(files: &[String]) -> bool {
    files.iter().any(|file| file == ADAPTER)
}

/// What is wrong if shards that an index names are not among the files.
pub(in crate::source) fn of_shards(dir: &Path, files: &[String], index: &ShardIndex) -> Option<Mistake> {
    let shards = index.shards();
    let missing: Vec<&&str> = shards
        .iter()
        .filter(|shard| files.binary_search_by(|file| file.as_str().cmp(shard)).is_err())
        .collect();
    // Links to nowhere and folders are files that cannot be read: opening them says so.
    let first = missing.iter().find(|shard| fs::symlink_metadata(dir.join(shard)).is_err())?;
    Some(Mistake::ShardsAbsent {
        first: (**first).to_string(),
        missing: missing.len(),
        all: shards.len(),
        partial: unfinished(dir, files).is_some(),
    })
}

/// The folder to read where a repository of the Hub's cache is given: the snapshot that `refs/main` names, or the only one.
/// None for any other folder.
pub(in crate::source) fn snapshot(dir: &Path) -> Result<Option<PathBuf>, Mistake> {
    let whole = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let named = whole.file_name().is_some_and(|name| name.to_string_lossy().starts_with("models--"));
    let snapshots = dir.join("snapshots");
    if !named || dir.join(CONFIG_FILE).exists() {
        return Ok(None);
    }
    let cache = |why: String| Mistake::Cache { dir: dir.to_owned(), why };
    let main = small::read_text(&dir.join("refs/main"), small::TEXT).ok();
    let main = main.map(|commit| commit.trim().to_owned()).filter(|commit| names::is_commit(commit));
    if let Some(commit) = &main
        && snapshots.join(commit).is_dir()
    {
        return Ok(Some(snapshots.join(commit)));
    }
    let found = folders(&snapshots);
    match &found[..] {
        [only] => Ok(Some(snapshots.join(only))),
        [] => Err(cache("holds no snapshot: give OWNER/NAME with --download".to_owned())),
        several => Err(cache(format!(
            "refs/main names none of its {} snapshots: give the one that is meant, such as snapshots/{}",
            several.len(),
            bounds::list(several)
        ))),
    }
}

/// `model-00001-of-00002.safetensors`.
fn is_shard(name: &str) -> bool {
    let numbers = name.strip_suffix(".safetensors").and_then(|stem| stem.rsplit_once("-of-"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    numbers.is_some_and(|(stem, all)| {
        is_number(all) && stem.rsplit_once('-').is_some_and(|(_, at)| is_number(at))
    })
}

/// A file of a download that was not finished.
fn unfinished(dir: &Path, files: &[String]) -> Option<String> {
    let is_partial = |name: &&String| name.ends_with(".incomplete") || name.ends_with(".part");
    if let Some(name) = files.iter().find(is_partial) {
        return Some(name.clone());
    }
    let entries = fs::read_dir(dir.join(DOWNLOADS)).ok()?;
    let names =
        entries.flatten().take(MOST_FOLDERS).map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| is_partial(&name)).min()
}

/// What an adapter was trained on.
fn base_of_adapter(dir: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Adapter {
        base_model_name_or_path: Option<String>,
    }
    let text = small::read(&dir.join(ADAPTER), small::TEXT).ok()?;
    let base = serde_json::from_slice::<Adapter>(&text).ok()?.base_model_name_or_path?;
    (!base.is_empty()).then(|| bounds::shortened(&base, 200).into_owned())
}

/// What this tool calls a folder of this kind, if it made it.
fn output_of_this_tool(dir: &Path, files: &[String]) -> Option<&'static str> {
    let holds = |name: &str| files.iter().any(|file| file == name);
    let is_named = |name: &str, ending: &str| name.ends_with(ending);
    let below = || folders(dir);
    if holds("main.mlirb") {
        Some("a package")
    } else if holds("metadata.json")
        && below().iter().any(|name| name.ends_with(".aimodel") || name.ends_with(".aimodelc"))
    {
        Some("a bundle")
    } else if holds("meta.json") && files.iter().any(|name| is_named(name, ".i8")) {
        Some("a table folder")
    } else if below().iter().any(|name| name == "gpu-pipelined") {
        Some("a release")
    } else if below().iter().any(|name| {
        dir.join(name).join("metadata.json").is_file() && dir.join(name).join("manifest.json").is_file()
    }) {
        Some("a folder of bundles")
    } else {
        None
    }
}

/// Checkpoints in folders of this one, or of repositories of the Hub's cache in it, sorted.
fn checkpoints_below(dir: &Path) -> Vec<String> {
    let is_checkpoint = |folder: &Path| {
        let holds = |name: &str| folder.join(name).is_file();
        holds(CONFIG_FILE) && (holds(SINGLE_FILE) || holds(INDEX_FILE))
    };
    let is_meant =
        |name: &String| name.starts_with("models--") || name == "snapshots" || is_checkpoint(&dir.join(name));
    let mut found: Vec<String> = folders(dir).into_iter().filter(is_meant).collect();
    // The folder of snapshots itself is not a checkpoint.
    if let Some(at) = found.iter().position(|name| name == "snapshots") {
        found.remove(at);
        let inner = folders(&dir.join("snapshots")).into_iter().map(|name| format!("snapshots/{name}"));
        found.extend(inner.filter(|name| is_checkpoint(&dir.join(name))));
    }
    found
}

/// Names of the folders in a folder, sorted, the first of many; links count as what they lead to.
fn folders(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .take(MOST_FOLDERS)
        .collect();
    names.sort();
    names
}
