//! The decoder as a graph, op for op as the published bundles have it.
//!
//! One description of the layers builds every variant and every function; they differ in where the per-layer rows come from, in
//! how many positions they take at a time, and in whether they end with logits. Apple's GPU compiler was measured with this
//! order of ops, these types and these constants: do not tidy them up. Pure ops with equal operands are one op in the builder,
//! so asking for the same value twice costs nothing.

mod attention;
mod cache;
mod feedforward;
mod lookup;
mod mask;
mod norm;
mod per_layer;
mod rope;
mod sequence;
mod weights;

use std::collections::BTreeMap;

use aimodel::build::{AssetBuilder, BuildError, FunctionBuilder, Scalar};
use aimodel::{Dim, Element, Module, TensorType, ValueId};

pub use checkpoint::config::CacheForm;
pub use sequence::Sequence;
pub use weights::{INLINE_ELEMENTS, InlineTensors};

use crate::blob::Blob;
use crate::recipe::{EmbeddingForm, PerLayerForm, Recipe};
use cache::{Cache, Pair};
use checkpoint::config::{DecoderConfig, Layer, PerLayer};
use checkpoint::{LayerRole, Role};
use sequence::Count;
use weights::Weights;

/// Name of the function that every package has.
pub const MAIN: &str = "main";
/// Name of the function that reads prompts.
pub const PREFILL: &str = "prefill";

/// "To the end" in slices.
const TO_END: i32 = i32::MAX;

/// Where the per-layer rows come from, which decides what can run the graph. Models without per-layer embeddings have one variant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Variant {
    /// The host reads the row from the tables and passes it as an input at each step.
    Provider,
    /// The tables are inputs, bound once; the graph gathers the row.
    Table,
    /// The tables are constants in the graph, if there are any.
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
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GraphOptions {
    /// Where the per-layer rows come from.
    pub variant: Variant,
    /// How tensors are stored.
    pub recipe: Recipe,
    /// Whether the head is the embedding table; then an f16 head shares its blob.
    pub tied_head: bool,
    /// The functions of the package.
    pub functions: Functions,
    /// The caches of keys and values.
    pub caches: CacheForm,
}

/// The functions of a package.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Functions {
    /// How many positions `main` takes at a time.
    pub main: Sequence,
    /// What reads prompts, if not `main` alone.
    pub prefill: Option<Prefill>,
}

impl Functions {
    /// `main` alone, one position at a time: the published bundles.
    pub const MAIN: Self = Functions { main: Sequence::One, prefill: None };
}

/// The function that reads prompts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Prefill {
    /// Takes any number of positions and only fills the caches, as Apple's engine wants it.
    Caches,
    /// Takes this many positions and returns their logits, as the community's engine for gather tables wants it.
    Logits(u32),
}

impl Prefill {
    /// How many positions it takes at a time.
    pub fn sequence(self) -> Sequence {
        match self {
            Prefill::Caches => Sequence::Dynamic,
            Prefill::Logits(count) => Sequence::Fixed(count),
        }
    }
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
/// Inputs of each function: `input_ids` si32 `[1, q]`, `position_ids` si32 `[1, ?]` holding 0..n, then those of the variant; states:
/// those of [`DecoderConfig::cache_pairs`]; output of `main`: `logits` f16 `[1, q, V]`.
///
/// Tensors in `inline` are stored in the program; all others are promises of blobs.
///
/// # Errors
/// [`BuildError`] if the configuration makes an op whose operands do not fit; a configuration that was read without an error never does.
pub fn build(
    config: &DecoderConfig,
    options: &GraphOptions,
    inline: &InlineTensors,
) -> Result<DecoderGraph, BuildError> {
    let mut parts = (AssetBuilder::new(), Weights::new(config, options, inline));
    let all = &config.layers[..];
    let main = Function { name: MAIN, sequence: options.functions.main, layers: all };
    parts = Decoder::new(config, options, main, parts)?.with_logits()?;
    match (options.functions.prefill, config.last_owner()) {
        (Some(prefill @ Prefill::Caches), Some(last)) => {
            let layers = &all[..last.index];
            let prefill = Function { name: PREFILL, sequence: prefill.sequence(), layers };
            parts = Decoder::new(config, options, prefill, parts)?.with_caches(last)?;
        }
        (Some(prefill @ Prefill::Logits(_)), _) => {
            let prefill = Function { name: PREFILL, sequence: prefill.sequence(), layers: all };
            parts = Decoder::new(config, options, prefill, parts)?.with_logits()?;
        }
        _ => {}
    }
    let (asset, weights) = parts;
    Ok(DecoderGraph { module: asset.finish(), blobs: weights.into_blobs() })
}

/// A function to build.
#[derive(Clone, Copy)]
struct Function<'c> {
    name: &'static str,
    sequence: Sequence,
    /// The layers that run whole: the first ones, or all.
    layers: &'c [Layer],
}

/// What functions of one asset share.
type Parts<'c> = (AssetBuilder, Weights<'c>);

/// The tensors that the layers pass on.
struct Decoder<'c> {
    config: &'c DecoderConfig,
    layers: &'c [Layer],
    sequence: Sequence,
    graph: FunctionBuilder,
    weights: Weights<'c>,
    input_ids: ValueId,
    position_ids: ValueId,
    /// In models with per-layer embeddings.
    rows: Option<(PerLayer, Rows)>,
    embedding: EmbeddingForm,
    caches: CacheForm,
    pairs: Vec<Pair>,
    /// What each owner of a slot read from it, in functions of many positions: f16 `[1, kv_heads, ?, head_dim]`.
    owners: BTreeMap<(usize, Cache), ValueId>,
    /// Number of positions of this call.
    count: Count,
    /// Number of positions so far, those of this call included: si32 `[1]`.
    length: ValueId,
    /// Residual stream: f16 `[1, q, H]`.
    stream: ValueId,
    /// Per-layer inputs, in models that have them: f16 `[1, q, L, ld]`.
    per_layer: Option<ValueId>,
}

/// Inputs that the per-layer rows come from.
#[derive(Clone, Copy)]
enum Rows {
    /// f16 `[1, 1, L, ld]`.
    Given(ValueId),
    /// si8 `[V, L * ld]` and f32 `[V]`.
    Table { codes: ValueId, scales: ValueId },
    /// Constants: a table of codes for each layer, with a scale for each row of all of them.
    Stock,
    /// One constant table of codes with scales of blocks.
    Blocks,
}

impl<'c> Decoder<'c> {
    fn new(
        config: &'c DecoderConfig,
        options: &GraphOptions,
        function: Function<'c>,
        (asset, weights): Parts<'c>,
    ) -> Result<Self, BuildError> {
        let GraphOptions { variant, ref recipe, caches, .. } = *options;
        let Function { name, sequence, layers } = function;
        let mut graph = asset.function(name);
        let input_ids = graph.input("input_ids", &sequence.ids());
        let position_ids =
            graph.input("position_ids", &TensorType::new(vec![Dim::Fixed(1), Dim::Dynamic], Element::Si32));
        let rows = config.per_layer.map(|per_layer| {
            let inputs = row_inputs(&mut graph, config, per_layer, (variant, recipe.per_layer));
            (per_layer, inputs)
        });
        let pairs = Pair::read_all(&mut graph, &config.cache_pairs(caches))?;
        let count = sequence.count(&mut graph, input_ids)?;
        let length = sequence::last_extent(&mut graph, position_ids)?;
        Ok(Decoder {
            config,
            layers,
            sequence,
            weights,
            graph,
            input_ids,
            position_ids,
            rows,
            embedding: recipe.embedding,
            caches,
            pairs,
            owners: BTreeMap::new(),
            count,
            length,
            stream: input_ids,
            per_layer: None,
        })
    }

    /// Looks the tokens up, prepares the per-layer inputs and runs the layers.
    fn body(&mut self) -> Result<(), BuildError> {
        self.embed()?;
        self.layers.iter().try_for_each(|layer| self.layer(layer))
    }

    fn embed(&mut self) -> Result<(), BuildError> {
        if !self.takes_many() && matches!(self.rows, Some((_, Rows::Table { .. } | Rows::Stock))) {
            // The exports of one position begin with the index by which the row scale is gathered.
            self.flat_tokens()?;
        }
        let row = self.embedding_rows()?;
        let scale = self.graph.scalar(Scalar::F16((self.config.hidden as f64).sqrt()));
        self.stream = self.graph.mul(row, scale)?;
        if let Some((per_layer, rows)) = self.rows {
            self.per_layer = Some(self.per_layer_inputs(per_layer, rows)?);
        }
        Ok(())
    }

    fn layer(&mut self, layer: &Layer) -> Result<(), BuildError> {
        if let (Some(inputs), false) = (self.per_layer, self.takes_many()) {
            // The exports of one position begin a layer with its row.
            self.per_layer_row(inputs, layer)?;
        }
        self.attention(layer)?;
        self.feedforward(layer)?;
        if let Some(inputs) = self.per_layer {
            self.per_layer_gate(layer, inputs)?;
        }
        let scalar = self.weights.whole(&mut self.graph, Role::Layer(layer.index, LayerRole::LayerScalar))?;
        self.stream = self.graph.mul(self.stream, scalar)?;
        Ok(())
    }

    /// A function that returns logits.
    fn with_logits(mut self) -> Result<Parts<'c>, BuildError> {
        self.body()?;
        let normed = self.norm(self.stream, Role::FinalNorm)?;
        let head = self.projection(normed, Role::Head)?;
        let cap = self.graph.scalar(Scalar::F16(self.config.softcap));
        let scaled = self.graph.divide(head, cap)?;
        let bounded = self.graph.tanh(scaled)?;
        let logits = self.graph.mul(bounded, cap)?;
        self.finish(&[("logits", logits)])
    }

    /// A function that only fills the caches: nothing after the last owner's keys and values matters to a later position.
    fn with_caches(mut self, last: &Layer) -> Result<Parts<'c>, BuildError> {
        self.body()?;
        let normed = self.attention_input(last)?;
        let (key, value) = self.key_value(last, normed)?;
        self.store_last(last, key, value)?;
        self.finish(&[])
    }

    fn finish(self, outputs: &[(&str, ValueId)]) -> Result<Parts<'c>, BuildError> {
        let tokens: Vec<ValueId> = self.pairs.iter().flat_map(Pair::tokens).collect();
        Ok((self.graph.finish(&tokens, outputs)?, self.weights))
    }

    /// `x [.., k]` times the transpose of a weight `[n, k]`.
    fn projection(&mut self, x: ValueId, role: Role) -> Result<ValueId, BuildError> {
        let weight = self.transposed(role)?;
        self.product(x, weight)
    }

    /// `x [.., k]` times a weight `[k, n]`.
    fn product(&mut self, x: ValueId, weight: ValueId) -> Result<ValueId, BuildError> {
        let width = self.graph.tensor(x).and_then(|ty| ty.shape.last()?.fixed());
        let is_flattened = |layer: &Layer| Some(self.config.query_width(layer) as u64) == width;
        if let Some(layer) =
            self.layers.iter().find(|layer| is_flattened(layer)).filter(|_| self.count.is_given())
        {
            // The exports compute the shape of flat rows at the first product of their width.
            self.flat_shape(self.config.query_width(layer))?;
        }
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
    (variant, table): (Variant, PerLayerForm),
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
        Variant::Stock if table == PerLayerForm::Int8 => Rows::Stock,
        Variant::Stock => Rows::Blocks,
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
