//! The weights of a graph: promises of blobs, keyed by tensor, and the few tensors that are stored in the program.

use std::collections::BTreeMap;

use aimodel::build::{BuildError, FunctionBuilder};
use aimodel::{Element, TensorType, ValueId};

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

/// What follows a matrix's name in the keys of its blobs.
const CODES: &str = "/codes";
const SCALES: &str = "/scales";

/// Makes the promises, and remembers what they hold.
pub(super) struct Weights<'c> {
    config: &'c DecoderConfig,
    options: &'c GraphOptions,
    inline: &'c InlineTensors,
    /// In the order in which the promises were first made: that of the module's resources.
    blobs: Vec<Blob>,
}

impl<'c> Weights<'c> {
    pub(super) fn new(
        config: &'c DecoderConfig,
        options: &'c GraphOptions,
        inline: &'c InlineTensors,
    ) -> Self {
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
        let blob = self.describe((role, part), shape, content);
        self.promise(graph, blob, None)
    }

    fn describe(&self, (role, part): (Role, &str), shape: &[usize], content: Content) -> Blob {
        let is_embedding = role == Role::Head && self.options.tied_head;
        let source = if is_embedding { Role::EmbedTokens } else { role };
        Blob {
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
        }
    }

    /// Promises a blob, as its own type or as another of the same length.
    fn promise(
        &mut self,
        graph: &mut FunctionBuilder,
        blob: Blob,
        ty: Option<&TensorType>,
    ) -> Result<ValueId, BuildError> {
        let value = graph.blob(&blob.key, ty.unwrap_or(&blob.ty()))?;
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
        let codes = self.codes(graph, role)?;
        let scales = self.scales(graph, role)?;
        let scale_shape = self.scale_shape(role);
        let code_offset = graph.zeros(&fixed(&scale_shape, treatment.element()));
        let value_offset = graph.zeros(&fixed(&scale_shape, Element::F16));
        graph.blockwise_shift_scale(codes, scales, code_offset, value_offset)
    }

    /// How a role's tensor is stored as a matrix.
    pub(super) fn treatment(&self, role: Role) -> Treatment {
        self.options.recipe.treatment(role)
    }

    /// The codes of a matrix: si4 or si8 `[n, k]`.
    pub(super) fn codes(&mut self, graph: &mut FunctionBuilder, role: Role) -> Result<ValueId, BuildError> {
        let content = Content::Tensor(self.treatment(role));
        self.blob(graph, (role, CODES), &role.shape(self.config), content)
    }

    /// The codes of 4 bits of a matrix as the bytes that hold two each: ui8 `[n, k / 2]`. The blob is that of the codes.
    pub(super) fn code_bytes(
        &mut self,
        graph: &mut FunctionBuilder,
        role: Role,
    ) -> Result<ValueId, BuildError> {
        let content = Content::Tensor(self.treatment(role));
        let mut shape = role.shape(self.config);
        let codes = self.describe((role, CODES), &shape, content);
        if let Some(columns) = shape.last_mut() {
            *columns /= 2;
        }
        self.promise(graph, codes, Some(&fixed(&shape, Element::Ui8)))
    }

    /// The scales of a matrix's blocks: f16 `[n, k / 32]`.
    pub(super) fn scales(&mut self, graph: &mut FunctionBuilder, role: Role) -> Result<ValueId, BuildError> {
        let content = Content::Scales(self.treatment(role));
        self.blob(graph, (role, SCALES), &self.scale_shape(role), content)
    }

    fn scale_shape(&self, role: Role) -> Vec<usize> {
        let mut shape = role.shape(self.config);
        if let Some(columns) = shape.last_mut() {
            *columns /= BLOCK;
        }
        shape
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
