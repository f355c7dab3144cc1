//! The per-layer rows of a table folder (`.._gather_raw`), computed as in the engine.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aimodel::Element;
use interpreter::Tensor;
use memmap2::Mmap;
use serde::Deserialize;
use text::small;

/// File of the codes: int8 `[V, L * ld]`.
pub const CODES_FILE: &str = "embed_per_layer.i8";
/// File of the row scales: f32 `[V]`.
pub const SCALES_FILE: &str = "embed_per_layer.scale.f32";
/// File that gives the sizes.
pub const META_FILE: &str = "meta.json";

/// A table folder that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The system refused to read or map a file.
    #[error("{path}: {source}; is this the gather_raw folder of the bundle?", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// `meta.json` lacks a field, or has one of the wrong type.
    #[error("{path}: {source}", path = path.display())]
    Meta {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A file does not have the size that `meta.json` implies.
    #[error("{path}: {reason}", path = path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        reason: String,
    },
    /// A token outside the vocabulary.
    #[error("token {token} is outside the tables' vocabulary of {vocab}")]
    Token {
        /// The token's id.
        token: u32,
        /// Number of rows.
        vocab: usize,
    },
}

#[derive(Deserialize)]
struct Meta {
    #[serde(rename = "V")]
    vocab: usize,
    #[serde(rename = "PLD")]
    total: usize,
    #[serde(rename = "L")]
    layers: usize,
    ld: usize,
    embed_scale_pl: f64,
}

/// The mapped per-layer tables.
#[derive(Debug)]
pub struct Tables {
    codes: Arc<Mmap>,
    scales: Arc<Mmap>,
    vocab: usize,
    layers: usize,
    width: usize,
    embed_scale: f32,
}

impl Tables {
    /// Maps the tables of a folder; reads `meta.json` and checks the files' sizes against it.
    ///
    /// # Errors
    /// [`TableError`] names the file that is missing or does not fit.
    pub fn open(dir: &Path) -> Result<Tables, TableError> {
        let path = dir.join(META_FILE);
        let json = paths::read(&path, small::JSON)
            .map_err(|source| TableError::Io { path: path.clone(), source })?;
        let meta: Meta = serde_json::from_slice(&json)
            .map_err(|source| TableError::Meta { path: path.clone(), source })?;
        if meta.layers.checked_mul(meta.ld) != Some(meta.total) {
            let reason = format!("PLD {} is not L {} times ld {}", meta.total, meta.layers, meta.ld);
            return Err(TableError::Size { path, reason });
        }
        let codes = map(&dir.join(CODES_FILE), meta.vocab.checked_mul(meta.total))?;
        let scales = map(&dir.join(SCALES_FILE), meta.vocab.checked_mul(4))?;
        Ok(Tables {
            codes,
            scales,
            vocab: meta.vocab,
            layers: meta.layers,
            width: meta.ld,
            embed_scale: meta.embed_scale_pl as f32,
        })
    }

    /// Number of rows.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// A token's row as the engine computes it: `code * scale * embed_scale_pl` in f32, `[L * ld]`.
    ///
    /// # Errors
    /// [`TableError::Token`] if the token has no row.
    pub fn row(&self, token: u32) -> Result<Vec<f32>, TableError> {
        let mut row = self.stored_row(token)?;
        row.iter_mut().for_each(|value| *value *= self.embed_scale);
        Ok(row)
    }

    /// A token's row as it is stored: `code * scale` in f32, `[L * ld]`.
    ///
    /// # Errors
    /// [`TableError::Token`] if the token has no row.
    pub fn stored_row(&self, token: u32) -> Result<Vec<f32>, TableError> {
        let outside = TableError::Token { token, vocab: self.vocab };
        let at = usize::try_from(token).ok().filter(|at| *at < self.vocab).ok_or(outside)?;
        let total = self.layers * self.width;
        // Both files were checked to hold `vocab` rows.
        let codes = &self.codes[at * total..(at + 1) * total];
        let mut scale = [0; 4];
        scale.copy_from_slice(&self.scales[at * 4..at * 4 + 4]);
        let scale = f32::from_le_bytes(scale);
        Ok(codes.iter().map(|code| f32::from(*code as i8) * scale).collect())
    }

    /// A token's row as the provider graph's input `ple_tokens`: f16 `[1, 1, L, ld]`.
    ///
    /// # Errors
    /// [`TableError::Token`] if the token has no row.
    pub fn input(&self, token: u32) -> Result<Tensor, TableError> {
        let shape = [1, 1, self.layers, self.width];
        let row = self.row(token)?;
        Tensor::from_floats(Element::F16, &shape, row).map_err(|reason| self.size(CODES_FILE, reason))
    }

    /// The tables as the tbl graph's inputs `ple_table` si8 `[V, L * ld]` and `ple_scale` f32 `[V]`; nothing is copied.
    ///
    /// # Errors
    /// Never for tables that were opened.
    pub fn inputs(&self) -> Result<(Tensor, Tensor), TableError> {
        let codes = Tensor::mapped(Element::Si8, &[self.vocab, self.layers * self.width], &self.codes, 0);
        let scales = Tensor::mapped(Element::F32, &[self.vocab], &self.scales, 0);
        Ok((
            codes.map_err(|reason| self.size(CODES_FILE, reason))?,
            scales.map_err(|reason| self.size(SCALES_FILE, reason))?,
        ))
    }

    fn size(&self, file: &str, reason: String) -> TableError {
        TableError::Size { path: file.into(), reason }
    }
}

fn map(path: &Path, expected: Option<usize>) -> Result<Arc<Mmap>, TableError> {
    let io = |source| TableError::Io { path: path.to_owned(), source };
    let map = paths::open(path).and_then(|file| file.map()).map_err(io)?;
    match expected {
        Some(expected) if expected == map.len() => Ok(Arc::new(map)),
        _ => {
            let wanted = expected.map_or("more than memory can map".to_owned(), |bytes| bytes.to_string());
            let reason = format!(
                "has {} bytes, but meta.json implies {wanted}: the copy is incomplete or belongs to other tables",
                map.len()
            );
            Err(TableError::Size { path: path.to_owned(), reason })
        }
    }
}
