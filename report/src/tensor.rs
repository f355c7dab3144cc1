//! What is known of one matrix.

use serde::{Deserialize, Serialize};

/// A matrix that is stored as codes with scales.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tensor {
    /// Name in the package, such as `layers.5.mlp.down_proj.weight`.
    pub name: String,
    /// Name in the checkpoint.
    pub source: Option<String>,
    /// Format, such as `int4`.
    pub format: String,
    /// Rows and columns.
    pub shape: Vec<u64>,
    /// Bytes of codes and scales.
    pub bytes: u64,
    /// What quantization did to it; unknown for packages that somebody else made.
    pub recovery: Option<Recovery>,
    /// Its 4-bit codes.
    pub codes: Option<Codes>,
    /// How often a scale has an exponent: entry `e` counts magnitudes from 2^(e-15) up to twice that, entry 0 those below 2^-14.
    pub scale_exponents: [u64; 32],
}

/// What quantization did to a matrix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recovery {
    /// Blocks of 32 weights.
    pub blocks: u64,
    /// Blocks on a lattice: their codes are the trained ones, whether or not f16 holds their scale.
    pub blocks_on_lattice: u64,
    /// Blocks of which every weight is the checkpoint's, byte for byte in bf16: f16 holds their scale.
    pub blocks_exact: u64,
    /// Weights.
    pub weights: u64,
    /// Weights that are the checkpoint's.
    pub weights_exact: u64,
    /// Root of the summed squared error over that of the summed squared weights.
    pub relative_error: f64,
    /// The block with the largest relative error.
    pub worst: Option<Worst>,
}

impl Recovery {
    /// Whether every weight is the checkpoint's.
    pub fn is_exact(&self) -> bool {
        self.weights_exact == self.weights
    }
}

/// A block and its error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Worst {
    /// Row of the matrix.
    pub row: u64,
    /// Block of the row.
    pub block: u64,
    /// Root of the block's squared error over its squared weights.
    pub relative_error: f32,
}

/// How often codes occur: entry 0 counts code -8, entry 15 counts code 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Codes {
    /// The code of each block's extremum, the first of its weights with the largest magnitude.
    OfExtrema([u64; 16]),
    /// All codes.
    All([u64; 16]),
}

impl Codes {
    /// The counts.
    pub fn counts(&self) -> &[u64; 16] {
        match self {
            Self::OfExtrema(counts) | Self::All(counts) => counts,
        }
    }
}

impl Tensor {
    /// Whether its codes have four bits, so that a lattice says something about it.
    pub fn has_4_bit_codes(&self) -> bool {
        self.codes.is_some()
    }

    /// The layer it belongs to, by its name.
    pub fn layer(&self) -> Option<usize> {
        layer_of(&self.name)
    }

    /// Its name within the layer, such as `q_proj`; the whole name outside of the layers.
    pub fn projection(&self) -> &str {
        let name = self.name.strip_suffix(".weight").unwrap_or(&self.name);
        match self.layer() {
            Some(_) => name.rsplit('.').next().unwrap_or(name),
            None => name,
        }
    }
}

/// The layer in a name such as `layers.5.mlp.down_proj.weight`.
pub fn layer_of(name: &str) -> Option<usize> {
    let (_, after) = name.split_once("layers.")?;
    after.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::layer_of;

    #[test]
    fn layers_are_read_from_names() {
        assert_eq!(layer_of("layers.5.mlp.down_proj.weight"), Some(5));
        assert_eq!(layer_of("model.language_model.layers.41.norm.weight"), Some(41));
        assert_eq!(layer_of("per_layer_model_projection.weight"), None);
        assert_eq!(layer_of("layers.x"), None);
    }
}
