//! Weights of the graph: promises of blobs, and the ops that turn stored codes into f16.

use std::collections::BTreeMap;

use aimodel::build::{BuildError, FunctionBuilder};
use aimodel::{Element, TensorType, ValueId};
use serde::{Deserialize, Serialize};

use super::{GraphOptions, fixed};
use checkpoint::config::DecoderConfig;
use checkpoint::{BLOCK, Role};

/// How a matrix is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightFormat {
    /// Signed 4-bit codes with an f16 scale for each block of 32 along the last axis.
    Int4,
    /// Signed 8-bit codes with an f16 scale for each block of 32 along the last axis.
    Int8,
    /// Half-precision numbers.
    F16,
}

impl WeightFormat {
    /// The name on the command line and in metadata.
    pub fn name(self) -> &'static str {
        match self {
            WeightFormat::Int4 => "int4",
            WeightFormat::Int8 => "int8",
            WeightFormat::F16 => "f16",
        }
    }

    /// Element type of the codes; `None` where there are none.
    fn code_element(self) -> Option<Element> {
        match self {
            WeightFormat::Int4 => Some(Element::Si4),
            WeightFormat::Int8 => Some(Element::Si8),
            WeightFormat::F16 => None,
        }
    }
}

/// Which part of a quantized matrix a blob holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// Codes `[n, k]`, si4 packed two a byte or si8.
    Codes,
    /// Scales `[n, k / 32]`, f16.
    Scales,
}

/// What a blob of the graph holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlobContent {
    /// A tensor in half precision.
    Whole(Role),
    /// A part of a quantized matrix. Codes stand right before the scales of the same matrix.
    Quantized {
        /// The matrix.
        role: Role,
        /// How it is stored.
        format: WeightFormat,
        /// The part.
        part: Part,
    },
    /// One layer's columns of the per-layer table: si8 `[V, ld]`.
    PerLayerCodes {
        /// The layer.
        layer: usize,
    },
    /// Row scales of the per-layer table: f32 `[V]`.
    PerLayerScales,
}

/// Tensors with fewer elements than this stand in the program itself, as in Apple's own exports. Apple's tools merge blobs of
/// equal content when they save a package; among tensors this small equal ones are common (a scalar of 1 in every layer).
pub const INLINE_ELEMENTS: usize = 256;

/// Half-precision bytes, little-endian, of the tensors that stand in the program.
pub type InlineTensors = BTreeMap<Role, Vec<u8>>;

/// Makes the promises, and remembers what they hold.
pub(super) struct Weights<'c> {
    options: GraphOptions,
    inline: &'c InlineTensors,
    blobs: Vec<BlobContent>,
    keys: Vec<String>,
}

impl<'c> Weights<'c> {
    pub(super) fn new(options: GraphOptions, inline: &'c InlineTensors) -> Self {
        Weights { options, inline, blobs: Vec::new(), keys: Vec::new() }
    }

    /// Contents in the order in which the promises were first made: that of the module's resources.
    pub(super) fn into_blobs(self) -> Vec<BlobContent> {
        self.blobs
    }

    fn blob(
        &mut self,
        graph: &mut FunctionBuilder,
        key: String,
        ty: &TensorType,
        content: BlobContent,
    ) -> Result<ValueId, BuildError> {
        let value = graph.blob(&key, ty)?;
        if !self.keys.contains(&key) {
            self.keys.push(key);
            self.blobs.push(content);
        }
        Ok(value)
    }

    /// A tensor in half precision.
    pub(super) fn whole(
        &mut self,
        graph: &mut FunctionBuilder,
        config: &DecoderConfig,
        role: Role,
    ) -> Result<ValueId, BuildError> {
        let ty = fixed(&role.shape(config), Element::F16);
        if let Some(bytes) = self.inline.get(&role) {
            return graph.elements(&ty, bytes.clone());
        }
        self.blob(graph, role.short_name(), &ty, BlobContent::Whole(role))
    }

    /// A matrix as f16 `[n, k]`, dequantized in the graph if it is stored as codes.
    pub(super) fn matrix(
        &mut self,
        graph: &mut FunctionBuilder,
        config: &DecoderConfig,
        role: Role,
    ) -> Result<ValueId, BuildError> {
        let format = if role == Role::Head { self.options.head } else { self.options.weights };
        let Some(element) = format.code_element() else {
            let shared = role == Role::Head && self.options.tied_head;
            return self.whole(graph, config, if shared { Role::EmbedTokens } else { role });
        };
        let shape = role.shape(config);
        let [rows, columns] = shape[..] else { unreachable!("projections have two axes") };
        let scale_shape = [rows, columns / BLOCK];
        let name = role.short_name();
        let content = |part| BlobContent::Quantized { role, format, part };
        let codes =
            self.blob(graph, format!("{name}/codes"), &fixed(&shape, element), content(Part::Codes))?;
        let scale_type = fixed(&scale_shape, Element::F16);
        let scales = self.blob(graph, format!("{name}/scales"), &scale_type, content(Part::Scales))?;
        let code_offset = graph.zeros(&fixed(&scale_shape, element));
        let value_offset = graph.zeros(&scale_type);
        graph.blockwise_shift_scale(codes, scales, code_offset, value_offset)
    }

    /// One layer's columns of the per-layer table, as codes.
    pub(super) fn per_layer_codes(
        &mut self,
        graph: &mut FunctionBuilder,
        config: &DecoderConfig,
        layer: usize,
    ) -> Result<ValueId, BuildError> {
        let ty = fixed(&[config.vocab, config.ple_width], Element::Si8);
        let key = format!("{}/layers.{layer}/codes", Role::EmbedTokensPerLayer.short_name());
        self.blob(graph, key, &ty, BlobContent::PerLayerCodes { layer })
    }

    /// Row scales of the per-layer table.
    pub(super) fn per_layer_scales(
        &mut self,
        graph: &mut FunctionBuilder,
        config: &DecoderConfig,
    ) -> Result<ValueId, BuildError> {
        let key = format!("{}/scales", Role::EmbedTokensPerLayer.short_name());
        self.blob(graph, key, &fixed(&[config.vocab], Element::F32), BlobContent::PerLayerScales)
    }
}
