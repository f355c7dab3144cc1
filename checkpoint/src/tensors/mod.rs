//! The text decoder's tensors: which ones a configuration calls for, and where a checkpoint has them.
//!
//! [`Checkpoint::new`] finds the tensor of every [`Role`] and checks its shape and type. The one thing that may be
//! missing is what the last `num_kv_shared_layers` layers never use, their key and value projections and key norm:
//! QAT checkpoints leave them out, base checkpoints still carry them. They are ignored in either case, so that both
//! forms have the same result. Layers that take their values from the key projection have no value projection: one that is there
//! contradicts the configuration and is refused.
//!
//! Weights must be BF16. The lattice of QAT weights is a fact about their bf16 values; an F16 or F32 copy may have
//! been trained further or rounded differently, and is refused.

mod error;
mod role;

use std::collections::{BTreeMap, BTreeSet};

pub use error::CheckpointError;
pub use role::{LayerRole, Role};

use crate::config::DecoderConfig;
use crate::source::{Dtype, TensorEntry};

/// Elements in a block of a quantized matrix, along its last axis.
pub const BLOCK: usize = 32;

/// The checked tensors of a text decoder.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    tensors: BTreeMap<Role, TensorEntry>,
    head_is_tied: bool,
    ignored_kv: Vec<String>,
    skipped: Vec<String>,
}

impl Checkpoint {
    /// Finds and checks the tensor of every role among a source's `tensors` (sorted by name).
    ///
    /// # Errors
    /// [`CheckpointError::Missing`] lists every tensor that is absent, [`CheckpointError::Unknown`] every tensor of
    /// the decoder that has no role, [`CheckpointError::UnusedValues`] value projections where keys are the values, [`CheckpointError::Dtype`] and [`CheckpointError::Shape`] say what was expected.
    pub fn new(config: &DecoderConfig, tensors: &[TensorEntry]) -> Result<Self, CheckpointError> {
        let by_name: BTreeMap<&str, &TensorEntry> =
            tensors.iter().map(|entry| (entry.name.as_str(), entry)).collect();
        let unused: Vec<String> =
            role::contradicting_values(config).filter(|name| by_name.contains_key(name.as_str())).collect();
        if !unused.is_empty() {
            return Err(CheckpointError::UnusedValues { names: unused });
        }
        let own_head = by_name.contains_key(Role::Head.name(config).as_str());
        let head_is_tied = config.tied_head && !own_head;

        let mut found = BTreeMap::new();
        let mut missing = Vec::new();
        for role in Role::needed(config).filter(|role| *role != Role::Head || !head_is_tied) {
            let name = role.name(config);
            match by_name.get(name.as_str()) {
                Some(entry) => {
                    found.insert(role, *entry);
                }
                None => missing.push(name),
            }
        }
        if !missing.is_empty() {
            return Err(CheckpointError::Missing { names: missing });
        }
        if head_is_tied && let Some(embedding) = found.get(&Role::EmbedTokens).copied() {
            found.insert(Role::Head, embedding);
        }
        for (role, entry) in &found {
            check(entry, &role.shape(config))?;
        }
        let (ignored_kv, skipped) = sort_others(config, tensors, &found)?;
        let tensors = found.into_iter().map(|(role, entry)| (role, entry.clone())).collect();
        Ok(Self { tensors, head_is_tied, ignored_kv, skipped })
    }

    /// The tensor of a role; `None` for a layer that does not exist and for keys and values of a layer that shares
    /// another's.
    pub fn get(&self, role: Role) -> Option<&TensorEntry> {
        self.tensors.get(&role)
    }

    /// The tensor of a role that must have one.
    ///
    /// # Errors
    /// [`CheckpointError::NoTensor`] where [`get`](Self::get) returns `None`.
    pub fn require(&self, role: Role) -> Result<&TensorEntry, CheckpointError> {
        self.get(role).ok_or_else(|| CheckpointError::NoTensor { name: role.short_name() })
    }

    /// Every role with its tensor, in the model's order. A tied head appears with the embedding's tensor.
    pub fn iter(&self) -> impl Iterator<Item = (Role, &TensorEntry)> {
        self.tensors.iter().map(|(role, entry)| (*role, entry))
    }

    /// Whether the head is the embedding table.
    pub fn head_is_tied(&self) -> bool {
        self.head_is_tied
    }

    /// Tensors of keys and values that the checkpoint carries but no layer uses, sorted.
    pub fn ignored_kv(&self) -> &[String] {
        &self.ignored_kv
    }

    /// Tensors outside the text decoder (vision, audio), sorted.
    pub fn skipped(&self) -> &[String] {
        &self.skipped
    }

    /// Checks that a matrix can be quantized in blocks of [`BLOCK`].
    ///
    /// # Errors
    /// [`CheckpointError::NotInBlocks`] if its last axis is not a multiple of the block,
    /// [`CheckpointError::NoTensor`] if the role has no tensor.
    pub fn check_blocks(&self, role: Role) -> Result<(), CheckpointError> {
        let entry = self.require(role)?;
        match entry.shape.last() {
            Some(last) if last % BLOCK == 0 => Ok(()),
            _ => Err(CheckpointError::NotInBlocks { name: entry.name.clone(), shape: entry.shape.clone() }),
        }
    }
}

fn check(entry: &TensorEntry, expected: &[usize]) -> Result<(), CheckpointError> {
    if entry.dtype != Dtype::BF16 {
        return Err(CheckpointError::Dtype {
            name: entry.name.clone(),
            file: entry.file.to_string(),
            found: entry.dtype,
        });
    }
    if entry.shape != expected {
        return Err(CheckpointError::Shape {
            name: entry.name.clone(),
            file: entry.file.to_string(),
            found: entry.shape.clone(),
            expected: expected.to_vec(),
        });
    }
    Ok(())
}

/// Sorts the tensors without a role: unused keys and values of shared layers, and what lies outside the decoder.
/// Anything else inside it (a bias, a scale, an adapter, one more layer) would change what the model computes.
fn sort_others(
    config: &DecoderConfig,
    tensors: &[TensorEntry],
    found: &BTreeMap<Role, &TensorEntry>,
) -> Result<(Vec<String>, Vec<String>), CheckpointError> {
    let used: BTreeSet<&str> = found.values().map(|entry| entry.name.as_str()).collect();
    let dead: Vec<String> = role::dead_kv_prefixes(config).collect();
    let dead: BTreeSet<&str> = dead.iter().map(String::as_str).collect();
    let (mut ignored_kv, mut skipped, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
    for name in tensors.iter().map(|entry| entry.name.as_str()).filter(|name| !used.contains(name)) {
        let list = if !name.starts_with(config.tensor_prefix()) {
            &mut skipped
        } else if name.rsplit_once('.').is_some_and(|(module, _)| dead.contains(module)) {
            &mut ignored_kv
        } else {
            &mut unknown
        };
        list.push(name.to_owned());
    }
    if unknown.is_empty() {
        Ok((ignored_kv, skipped))
    } else {
        Err(CheckpointError::Unknown { names: unknown })
    }
}
