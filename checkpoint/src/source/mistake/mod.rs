//! What people give instead of a checkpoint folder. Each of these is recognized, named, and gets its own remedy.

mod file;
mod folder;

use std::path::PathBuf;

use text::bounds;
use text::terminal::word;

pub(super) use file::{is_pointer, of_file};
#[cfg(feature = "hub")]
pub(super) use folder::of_names;
pub(super) use folder::{of_folder, of_shards, snapshot};

/// Something that was given instead of a checkpoint, or a checkpoint that is not all there.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Mistake {
    /// One file of a checkpoint.
    #[error("{} is a file of a checkpoint: give the folder that holds it, with its config.json", .path.display())]
    Weights {
        /// The file.
        path: PathBuf,
    },

    /// Weights of another quantizer.
    #[error(
        "{name} is GGUF: its codes were made by another quantizer, and cannot be the bf16 weights that were trained. Give the \
         quantization-aware checkpoint that it was made from, such as google/gemma-4-E4B-it-qat-q4_0-unquantized"
    )]
    Gguf {
        /// The file, or the folder that holds it.
        name: String,
    },

    /// Weights as Python objects.
    #[error(
        "{name} holds weights as pickled Python objects, which are programs and are not run here: load the checkpoint with \
         transformers and write it again with save_pretrained(.., safe_serialization=True)"
    )]
    Pickle {
        /// The file, or the folder that holds it.
        name: String,
    },

    /// An archive, a package, or any other file.
    #[error("{} is a file, not a checkpoint's folder: {remedy}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What to do.
        remedy: &'static str,
    },

    /// What this tool makes, not what it reads.
    #[error("{} is {what}, not a checkpoint: `coreai-bundle inspect` and `check` take it", .dir.display())]
    Output {
        /// The folder.
        dir: PathBuf,
        /// What it is.
        what: &'static str,
    },

    /// The pointer that git-lfs keeps in place of a file.
    #[error(
        "{file} is a git-lfs pointer, not the file itself: run `git lfs pull` in its folder, or download the checkpoint with \
         `hf download OWNER/NAME --local-dir DIR`"
    )]
    Pointer {
        /// File name.
        file: String,
    },

    /// Differences from another checkpoint.
    #[error(
        "{} holds a LoRA adapter (adapter_config.json), not a whole checkpoint{}: merge it first, with peft's merge_and_unload() \
         and save_pretrained(), and give the merged folder. Merged weights are not on the trained 4-bit lattice, so compare --weights \
         int8 with int4", .dir.display(), base.as_ref().map(|base| format!(" (of {})", word(base))).unwrap_or_default()
    )]
    Adapter {
        /// The folder.
        dir: PathBuf,
        /// What the adapter was trained on, as it says.
        base: Option<String>,
    },

    /// Shards without their index.
    #[error(
        "{} holds {shards} shards of weights, but no model.safetensors.index.json: download that file into the same folder", .dir.display()
    )]
    NoIndex {
        /// The folder.
        dir: PathBuf,
        /// Number of shards.
        shards: usize,
    },

    /// Weights by another name.
    #[error(
        "{} holds weights, but not by the names of a checkpoint: {}. Call a single file model.safetensors; several need \
         model.safetensors.index.json", .dir.display(), bounds::list(names)
    )]
    OtherNames {
        /// The folder.
        dir: PathBuf,
        /// Files that end in `.safetensors`.
        names: Vec<String>,
    },

    /// Shards that the index names and the folder lacks.
    #[error(
        "model.safetensors.index.json names shards that are not there, {missing} of {all}, the first {}: download them into the same \
         folder{}", word(first), unfinished(*.partial)
    )]
    ShardsAbsent {
        /// First missing shard.
        first: String,
        /// Number of missing shards.
        missing: usize,
        /// Number of shards.
        all: usize,
        /// Whether there are files of a download that was not finished.
        partial: bool,
    },

    /// A download that was not finished.
    #[error(
        "{} holds a download that was not finished ({}): run the same `hf download` again, which continues it", .dir.display(), word(file)
    )]
    Unfinished {
        /// The folder.
        dir: PathBuf,
        /// One of its files.
        file: String,
    },

    /// A folder of folders.
    #[error("{} holds checkpoints in folders below it: give one of them, such as {}", .dir.display(), bounds::list(names))]
    Above {
        /// The folder.
        dir: PathBuf,
        /// Paths of the checkpoints in it.
        names: Vec<String>,
    },

    /// A repository of the Hub's cache without a snapshot that can be chosen.
    #[error("{} is a repository of the Hub's cache, and {why}", .dir.display())]
    Cache {
        /// The folder.
        dir: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },

    /// Nothing is there.
    #[error(
        "{} is empty: download the checkpoint into it with `hf download OWNER/NAME --local-dir DIR`, or give OWNER/NAME", .dir.display()
    )]
    Empty {
        /// The folder.
        dir: PathBuf,
    },
}

fn unfinished(partial: bool) -> &'static str {
    if partial { "; a download was not finished, and the same `hf download` continues it" } else { "" }
}
