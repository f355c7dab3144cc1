//! The weights of a graph: promises of blobs, keyed by tensor, and the few tensors that are stored in the program.

use std::collections::BTreeMap;

use aimodel::build::{BuildError, FunctionBuilder};
use aimodel::{Element, ValueId};

use super::{GraphOptions, fixed};
use crate::blob::{Blob, Content};
use crate::recipe::Treatment;
use checkpoint::config::{DecoderConfig, PerLayer};
use checkpoint::{BLOCK, Role};

/// Tensors with fewer elements than this are stored in the program itself, as in Apple's own exports. Apple's tools merge blobs of
/// equal content when they save a package; among tensors this small equal ones are common (a scalar of 1 in every layer).
pub const INLINE_ELEMENTS: usize = 256;

/// Half-precision bytes, little-endian, of the tensors that are stored in the program.
pub type InlineTensors = BTreeMap<Role, Vec<u8>>;

/// Makes the promises, and remembers what they hold.
pub(super) struct Weights<'c> {
    config: &'c DecoderConfig,
    options: GraphOptions,
    inline: &'c InlineTensors,
    /// In the order in which the promises were first made: that of the module's resources.
    blobs: Vec<Blob>,
}

impl<'c> Weights<'c> {
    pub(super) fn new(config: &'c DecoderConfig, options: GraphOptions, inline: &'c InlineTensors) -> Self {
        Weights { config, options, inline, blobs: Vec::new() }
    }

    pub(super) fn into_blobs(self) -> Vec<Blob> {
        self.blobs
    }

    /// Promises a blob made from a role's tensor. `part` follows the tensor's name in its key.
    fn blob(
        &mut self,
        graph: &mut FunctionBuilder,
        (role, part): (Role, &str),
        shape: &[usize],
        content: Content,
    ) -> Result<ValueId, BuildError> {
        let is_embedding = role == Role::Head && self.options.tied_head;
        let source = if is_embedding { Role::EmbedTokens } else { role };
        let blob = Blob {
            key: format!("{}{part}", role.short_name()),
            role,
            tensor: source.name(self.config),
            content,
            shape: shape.iter().map(|extent| *extent as u64).collect(),
            element: match content {
                Content::Tensor(treatment) => treatment.element(),
                Content::Scales(_) => Element::F16,
                Content::TableCodes(_) => Element::Si8,
                Content::TableScales => Element::F32,
            },
            offset: 0,
        };
        let value = graph.blob(&blob.key, &blob.ty())?;
        if !self.blobs.iter().any(|known| known.key == blob.key) {
            self.blobs.push(blob);
        }
        Ok(value)
    }

    /// A tensor in half precision.
    pub(super) fn whole(&mut self, graph: &mut FunctionBuilder, role: Role) -> Result<ValueId, BuildError> {
        let shape = role.shape(self.config);
        if let Some(bytes) = self.inline.get(&role) {
            return graph.elements(&fixed(&shape, Element::F16), bytes.clone());
        }
        self.blob(graph, (role, ""), &shape, Content::Tensor(Treatment::F16))
    }

    /// Whether a matrix is dequantized in the graph.
    pub(super) fn has_codes(&self, role: Role) -> bool {
        self.options.recipe.treatment(role).has_codes()
    }

    /// A matrix as f16 `[n, k]`, dequantized in the graph if it is stored as codes.
    pub(super) fn matrix(&mut self, graph: &mut FunctionBuilder, role: Role) -> Result<ValueId, BuildError> {
        let treatment = self.options.recipe.treatment(role);
        if !self.has_codes(role) {
            let is_shared = role == Role::Head && self.options.tied_head;
            return self.whole(graph, if is_shared { Role::EmbedTokens } else { role });
        }
        let shape = role.shape(self.config);
        let [rows, columns] = shape[..] else { unreachable!("projections have two axes") };
        let scale_shape = [rows, columns / BLOCK];
        let codes = self.blob(graph, (role, "/codes"), &shape, Content::Tensor(treatment))?;
        let scales = self.blob(graph, (role, "/scales"), &scale_shape, Content::Scales(treatment))?;
        let code_offset = graph.zeros(&fixed(&scale_shape, treatment.element()));
        let value_offset = graph.zeros(&fixed(&scale_shape, Element::F16));
        graph.blockwise_shift_scale(codes, scales, code_offset, value_offset)
    }

    /// One layer's columns of the per-layer table, as codes.
    pub(super) fn table_codes(
        &mut self,
        graph: &mut FunctionBuilder,
        per_layer: PerLayer,
        layer: usize,
    ) -> Result<ValueId, BuildError> {
        let part = format!("/layers.{layer}/codes");
        let shape = [self.config.vocab, per_layer.width];
        self.blob(graph, (Role::EmbedTokensPerLayer, &part), &shape, Content::TableCodes(layer))
    }

    /// Row scales of the per-layer table.
    pub(super) fn table_scales(&mut self, graph: &mut FunctionBuilder) -> Result<ValueId, BuildError> {
        let table = (Role::EmbedTokensPerLayer, "/scales");
        self.blob(graph, table, &[self.config.vocab], Content::TableScales)
    }
}
