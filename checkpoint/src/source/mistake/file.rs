//! A file where a folder is expected, or a file that stands in for another.

use std::path::Path;

use super::Mistake;

/// How a git-lfs pointer begins.
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Whether a file that begins with these bytes is a git-lfs pointer.
pub(in crate::source) fn is_pointer(head: &[u8]) -> bool {
    head.starts_with(POINTER)
}

/// What a file is that was given as a checkpoint, by the end of its name.
pub(in crate::source) fn of_file(path: &Path) -> Mistake {
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    let path = path.to_owned();
    if ends(&[".safetensors", ".safetensors.index.json"])
        || ["config.json", "tokenizer.json"].contains(&&*name)
    {
        Mistake::Weights { path }
    } else if ends(&[".gguf"]) {
        Mistake::Gguf { name: path.display().to_string() }
    } else if ends(&[".bin", ".pt", ".pth", ".ckpt"]) {
        Mistake::Pickle { name: path.display().to_string() }
    } else {
        let remedy = if ends(&[".zip"]) {
            "unpack a checkpoint first; archives of `pack` are taken by commands that take bundles"
        } else if ends(&[".tar", ".tar.gz", ".tgz", ".tar.zst", ".7z"]) {
            "unpack it, and give the folder with config.json"
        } else if ends(&[".mlirb", ".aimodel", ".aimodelc"]) {
            "a package is the result of a conversion; `inspect`, `check` and `diff` take its folder"
        } else {
            "give the folder with config.json and the weights, or OWNER/NAME of the Hub"
        };
        Mistake::File { path, remedy }
    }
}
