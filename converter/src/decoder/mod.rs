//! The decoder as a graph, op for op as the published bundles have it.
//!
//! One function over the configuration builds every variant; they differ in where the per-layer rows come from. The order of
//! ops, their types and their constants are those that Apple's GPU compiler was measured on: do not tidy them. Pure ops with
//! equal operands are one op in the builder, so asking for the same value twice costs nothing.

mod attention;
mod cache;
mod feedforward;
mod mask;
mod norm;
mod per_layer;
mod rope;
mod weights;

use aimodel::build::{AssetBuilder, BuildError, FunctionBuilder, Scalar};
use aimodel::{Dim, Element, Module, TensorType, ValueId};

pub use weights::{INLINE_ELEMENTS, InlineTensors};

use crate::blob::Blob;
use crate::recipe::Recipe;
use checkpoint::config::{DecoderConfig, Layer, PerLayer};
use checkpoint::{LayerRole, Role};
use weights::Weights;

/// "To the end" in slices.
const TO_END: i32 = i32::MAX;

/// Where the per-layer rows come from, and so who can run the graph.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Variant {
    /// The host reads the row from the tables and gives it as an input at each step.
    Provider,
    /// The tables are inputs, bound once; the graph gathers the row.
    Table,
    /// The tables are constants in the graph.
    Stock,
}

impl Variant {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Variant::Provider => "provider",
            Variant::Table => "tbl",
            Variant::Stock => "stock",
        }
    }
}

/// What to build, apart from the model's own facts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GraphOptions {
    /// Where the per-layer rows come from.
    pub variant: Variant,
    /// How tensors are stored.
    pub recipe: Recipe,
    /// Whether the head is the embedding table; then an f16 head shares its blob.
    pub tied_head: bool,
}

/// A graph, and what its blobs hold.
#[derive(Debug)]
pub struct DecoderGraph {
    /// The program.
    pub module: Module,
    /// The module's resources, by [`aimodel::ResourceId::index`].
    pub blobs: Vec<Blob>,
}

/// Builds the decoder of a configuration.
///
/// Inputs: `input_ids` si32 `[1, 1]`, `position_ids` si32 `[1, ?]` holding 0..n, then those of the variant; states `keyCache` and
/// `valueCache` f16 `[slots, 1, kv_heads, ?, global_head_dim]`; output `logits` f16 `[1, 1, V]`.
///
/// Tensors in `inline` stand in the program; all others are promises of blobs.
///
/// # Errors
/// [`BuildError`] if the configuration makes an op whose operands do not fit; a configuration that was read without an error never does.
pub fn build(
    config: &DecoderConfig,
    options: GraphOptions,
    inline: &InlineTensors,
) -> Result<DecoderGraph, BuildError> {
    let mut decoder = Decoder::new(config, options, inline)?;
    decoder.embed()?;
    for layer in &config.layers {
        decoder.layer(layer)?;
    }
    decoder.finish()
}

/// The tensors that the layers pass on.
struct Decoder<'c> {
    config: &'c DecoderConfig,
    graph: FunctionBuilder,
    weights: Weights<'c>,
    input_ids: ValueId,
    position_ids: ValueId,
    /// In models with per-layer embeddings.
    rows: Option<(PerLayer, Rows)>,
    keys: State,
    values: State,
    /// Number of positions so far, this one included: si32 `[1]`.
    length: ValueId,
    /// Residual stream: f16 `[1, 1, H]`.
    stream: ValueId,
    /// Per-layer inputs, in models that have them: f16 `[1, 1, L, ld]`.
    per_layer: Option<ValueId>,
}

/// Inputs that the per-layer rows come from.
#[derive(Clone, Copy)]
enum Rows {
    /// f16 `[1, 1, L, ld]`.
    Given(ValueId),
    /// si8 `[V, L * ld]` and f32 `[V]`.
    Table { codes: ValueId, scales: ValueId },
    /// Constants.
    Stock,
}

/// A cache: its handle, the tensor as last read, and the token of that read.
struct State {
    handle: ValueId,
    tensor: ValueId,
    token: ValueId,
}

impl<'c> Decoder<'c> {
    fn new(
        config: &'c DecoderConfig,
        options: GraphOptions,
        inline: &'c InlineTensors,
    ) -> Result<Self, BuildError> {
        let mut graph = AssetBuilder::new().function("main");
        let input_ids = graph.input("input_ids", &fixed(&[1, 1], Element::Si32));
        let position_ids =
            graph.input("position_ids", &TensorType::new(vec![Dim::Fixed(1), Dim::Dynamic], Element::Si32));
        let rows = config
            .per_layer
            .map(|per_layer| (per_layer, row_inputs(&mut graph, config, per_layer, options.variant)));
        let cache = cache::tensor_type(config);
        let (key_handle, value_handle) = (graph.state("keyCache", &cache), graph.state("valueCache", &cache));
        let token = graph.create_token();
        let (value_tensor, value_token) = graph.read_handle(value_handle, token)?;
        let (key_tensor, key_token) = graph.read_handle(key_handle, token)?;
        let shape = graph.get_shape(position_ids)?;
        let shape = graph.cast(shape, Element::Si32)?;
        let (one, two) = (graph.si32(&[1]), graph.si32(&[2]));
        let length = graph.slice(shape, one, two, one)?;
        Ok(Decoder {
            config,
            weights: Weights::new(config, options, inline),
            graph,
            input_ids,
            position_ids,
            rows,
            keys: State { handle: key_handle, tensor: key_tensor, token: key_token },
            values: State { handle: value_handle, tensor: value_tensor, token: value_token },
            length,
            stream: input_ids,
            per_layer: None,
        })
    }

    /// Looks the token up and prepares the per-layer inputs.
    fn embed(&mut self) -> Result<(), BuildError> {
        let scale_rows = self.flat_token()?;
        let shape = self.graph.ui32(&[1, 1, 1]);
        let token = self.graph.reshape(self.input_ids, shape)?;
        let table = self.weights.whole(&mut self.graph, Role::EmbedTokens)?;
        let row = self.graph.gather_nd(table, token)?;
        let scale = self.graph.scalar(Scalar::F16((self.config.hidden as f64).sqrt()));
        self.stream = self.graph.mul(row, scale)?;
        if let Some((per_layer, rows)) = self.rows {
            self.per_layer = Some(self.per_layer_inputs(per_layer, rows, scale_rows)?);
        }
        Ok(())
    }

    fn layer(&mut self, layer: &Layer) -> Result<(), BuildError> {
        let row = self.per_layer.map(|inputs| self.per_layer_row(inputs, layer)).transpose()?;
        self.attention(layer)?;
        self.feedforward(layer)?;
        if let Some(row) = row {
            self.per_layer_gate(layer, row)?;
        }
        let scalar = self.weights.whole(&mut self.graph, Role::Layer(layer.index, LayerRole::LayerScalar))?;
        self.stream = self.graph.mul(self.stream, scalar)?;
        Ok(())
    }

    fn finish(mut self) -> Result<DecoderGraph, BuildError> {
        let normed = self.norm(self.stream, Role::FinalNorm)?;
        let head = self.projection(normed, Role::Head)?;
        let cap = self.graph.scalar(Scalar::F16(self.config.softcap));
        let scaled = self.graph.divide(head, cap)?;
        let bounded = self.graph.tanh(scaled)?;
        let logits = self.graph.mul(bounded, cap)?;
        let tokens = [self.keys.token, self.values.token];
        let module = self.graph.finish(&tokens, &[("logits", logits)])?.finish();
        Ok(DecoderGraph { module, blobs: self.weights.into_blobs() })
    }

    /// `x [.., k]` times the transpose of a weight `[n, k]`.
    fn projection(&mut self, x: ValueId, role: Role) -> Result<ValueId, BuildError> {
        let weight = self.transposed(role)?;
        self.graph.matmul(x, weight)
    }

    /// A weight `[n, k]` as `[k, n]`.
    fn transposed(&mut self, role: Role) -> Result<ValueId, BuildError> {
        let weight = self.weights.matrix(&mut self.graph, role)?;
        let order = self.graph.ui32(&[1, 0]);
        self.graph.transpose(weight, order)
    }
}

fn row_inputs(
    graph: &mut FunctionBuilder,
    config: &DecoderConfig,
    per_layer: PerLayer,
    variant: Variant,
) -> Rows {
    match variant {
        Variant::Provider => {
            let shape = [1, 1, config.layers.len(), per_layer.width];
            Rows::Given(graph.input("ple_tokens", &fixed(&shape, Element::F16)))
        }
        Variant::Table => Rows::Table {
            codes: graph.input("ple_table", &fixed(&[config.vocab, per_layer.total], Element::Si8)),
            scales: graph.input("ple_scale", &fixed(&[config.vocab], Element::F32)),
        },
        Variant::Stock => Rows::Stock,
    }
}

/// A tensor type of known shape, from sizes of the configuration.
fn fixed(shape: &[usize], element: Element) -> TensorType {
    TensorType::new(shape.iter().map(|extent| Dim::Fixed(*extent as u64)).collect(), element)
}

/// A size of the configuration, all of which fit, as an element of a shape.
fn si32(size: usize) -> i32 {
    i32::try_from(size).unwrap_or(i32::MAX)
}

/// A size of the configuration, all of which fit, as an element of a shape.
fn ui32(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}
