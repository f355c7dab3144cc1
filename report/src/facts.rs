//! Everything that a report shows.

use serde::{Deserialize, Serialize};

use crate::tensor::Tensor;

/// A report. What is not known is empty or absent, and `unknown` says so.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What it is about: the name of a model or of a file, never a path.
    pub name: String,
    /// Name and version of the tool that wrote it.
    pub tool: String,
    /// Name and version of the tool that made what it is about, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_by: Option<String>,
    /// The checkpoint.
    pub origin: Option<Origin>,
    /// What was asked for.
    pub conversion: Option<Conversion>,
    /// Options that the outputs depend on, as typed, without paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// Digests of what was written: the programs of the bundles, then the stamp of their tables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub digests: Vec<Digest>,
    /// What a device downloads for each bundle, beside the checkpoint.
    #[serde(default)]
    pub downloads: Vec<Download>,
    /// Bytes of the outputs by group and layer.
    pub sizes: Vec<Size>,
    /// Matrices that are stored as codes, in the order of the package.
    pub tensors: Vec<Tensor>,
    /// What each 4-bit rule keeps of one sample of the matrices with 4-bit codes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleOutcome>,
    /// Layers, in order, each with the cache slot that it uses.
    pub slots: Vec<Slot>,
    /// What running the largest graph takes.
    #[serde(default)]
    pub memory: Option<Memory>,
    /// What the package's functions cost for each token. Packages of one run that take one token at a time cost the same.
    #[serde(default)]
    pub functions: Vec<FunctionWork>,
    /// Stages of the run.
    pub timings: Vec<Timing>,
    /// Where the time of the conversion went: consecutive tensors of one layer are one entry.
    pub stretches: Vec<Stretch>,
    /// A verdict for each bundle that was compared with the checkpoint.
    pub gates: Vec<Gate>,
    /// How far bundles are from their checkpoint on a text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evaluations: Vec<Evaluation>,
    /// Sentences about what could not be determined.
    pub unknown: Vec<String>,
}

/// Where the weights come from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// The repository, or the folder's own name.
    pub name: String,
    /// Commit of the repository.
    pub revision: Option<String>,
    /// Bytes of all its weights, those that are not converted included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_bytes: Option<u64>,
}

/// SHA-256 of something that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// What it is of.
    pub of: String,
    /// In hexadecimal.
    pub sha256: String,
}

/// What a 4-bit rule keeps of a sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleOutcome {
    /// The rule.
    pub rule: String,
    /// Weights of the sample, which is the same for all rules.
    pub weights: u64,
    /// Weights that are the checkpoint's.
    pub weights_exact: u64,
    /// Root of the summed squared error over that of the summed squared weights.
    pub relative_error: f64,
}

/// What was asked for, and what was chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conversion {
    /// Graphs that were written.
    pub variants: Vec<String>,
    /// Rule for 4-bit codes.
    pub rule: String,
    /// Format of projections.
    pub weights: String,
    /// Format of the head.
    pub head: String,
    /// Why the head has that format.
    pub head_reason: String,
    /// Whether an earlier run had done part of it.
    pub resumed: bool,
}

/// What a device downloads to run a bundle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Download {
    /// The variant of the graph.
    pub variant: String,
    /// Bytes of the graph, weights included.
    pub graph_bytes: u64,
    /// Bytes of the tables that it needs beside it.
    pub tables_bytes: u64,
    /// Bytes of the bundle's other files: tokenizer and metadata.
    #[serde(default)]
    pub other_bytes: u64,
    /// Bytes of the checkpoint's tensors that graph and tables are made from.
    pub checkpoint_bytes: u64,
}

impl Download {
    /// All of it.
    pub fn bytes(&self) -> u64 {
        self.graph_bytes.saturating_add(self.tables_bytes).saturating_add(self.other_bytes)
    }
}

/// What bytes are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// Projections of attention.
    Attention,
    /// Projections of the MLP.
    Mlp,
    /// Projections of the per-layer inputs.
    PerLayer,
    /// The embedding in the graph.
    Embedding,
    /// The head.
    Head,
    /// Anything else: the program, norms, constants.
    Program,
    /// Gather tables.
    Tables,
}

impl Group {
    /// All of them, in display order.
    pub const ALL: [Self; 7] = [
        Self::Attention,
        Self::Mlp,
        Self::PerLayer,
        Self::Embedding,
        Self::Head,
        Self::Program,
        Self::Tables,
    ];

    /// The group of a weight by its name in the package.
    pub fn of(name: &str) -> Self {
        let holds = |part: &str| name.contains(part);
        if holds("self_attn.") {
            Self::Attention
        } else if holds(".mlp.") {
            Self::Mlp
        } else if holds("per_layer") {
            Self::PerLayer
        } else if holds("embed_tokens") {
            Self::Embedding
        } else if holds("lm_head") {
            Self::Head
        } else {
            Self::Program
        }
    }

    /// What the page calls it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Attention => "attention",
            Self::Mlp => "MLP",
            Self::PerLayer => "per-layer inputs",
            Self::Embedding => "embedding",
            Self::Head => "head",
            Self::Program => "program and norms",
            Self::Tables => "gather tables",
        }
    }
}

/// Bytes of one group in one layer, or in none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Size {
    /// What they are for.
    pub group: Group,
    /// The layer, if they belong to one.
    pub layer: Option<usize>,
    /// How many.
    pub bytes: u64,
}

/// What running a graph takes, as far as it follows from sizes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// Bytes of the graph, weights included.
    pub graph_bytes: u64,
    /// Positions that the caches may grow to.
    pub max_context: u64,
    /// Forms of the caches that the model can be converted with.
    pub caches: Vec<CacheMemory>,
}

/// A form of the caches of keys and values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CacheMemory {
    /// Its name on the command line.
    pub form: String,
    /// Bytes of all caches for each position.
    pub position_bytes: u64,
    /// Whether the graph has it.
    pub is_used: bool,
}

/// A layer's attention.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slot {
    /// The layer.
    pub layer: usize,
    /// The cache slot that it reads.
    pub slot: usize,
    /// Whether it writes it too.
    pub writes: bool,
    /// Whether it sees every earlier position, or a window of the last ones.
    pub full: bool,
    /// Width of a head.
    pub head_dim: usize,
}

/// What a function costs for each token, computed from its graph. Attention to earlier tokens, which grows with their number, is left
/// out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FunctionWork {
    /// The function.
    pub name: String,
    /// Tokens of a call, or, if it takes any number, as many as the engine feeds at a time.
    pub tokens: u64,
    /// Multiply-adds of products with weights for a token.
    pub multiply_adds: u64,
    /// Bytes of weights read for a token: weights of products are read once a call.
    pub weight_bytes: u64,
}

/// A stage of the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// What was done.
    pub stage: String,
    /// Wall time.
    pub seconds: f64,
    /// Bytes that were read and written for it, if that is meaningful.
    pub bytes: Option<u64>,
}

/// A part of the conversion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stretch {
    /// Layer, or the tensor outside of the layers.
    pub name: String,
    /// Wall time from its first piece to that of the next part.
    pub seconds: f64,
    /// Bytes of the checkpoint in it.
    pub bytes: u64,
}

/// The verdict about a bundle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    /// The bundle.
    pub bundle: String,
    /// Whether it passed.
    pub passed: bool,
    /// The verdict in a line.
    pub verdict: String,
    /// What computed the logits that it is compared with.
    pub reference: String,
    /// Positions where the reference is sure.
    #[serde(default)]
    pub qualified: u64,
    /// Those of them with the reference's token.
    #[serde(default)]
    pub agreed: u64,
    /// Distances of all logits, if they were computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distances: Option<Distances>,
    /// What was found wrong.
    pub causes: Vec<String>,
    /// Positions with another token than the reference's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flips: Vec<Flip>,
    /// How many weights are exact, if they were counted.
    #[serde(default)]
    pub exactness: Vec<Exactness>,
    /// Sequences of tokens that were fed.
    pub sequences: Vec<Sequence>,
}

/// How far logits are from the reference's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Distances {
    /// Mean of KL(reference || bundle), in nats.
    pub mean_kl: f64,
    /// Largest of a position.
    pub max_kl: f64,
}

/// A position where a bundle has another token than the reference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flip {
    /// The sequence's prompt.
    pub prompt: String,
    /// Position in the sequence.
    pub position: u64,
    /// The reference's token.
    pub expected: Token,
    /// The bundle's token.
    pub found: Token,
    /// By how much the reference prefers its token to its second one, in logits.
    pub margin: Option<f32>,
    /// By how much the bundle prefers its token to the reference's. Absent if logits are not finite.
    pub lead: Option<f32>,
    /// Whether the reference's margin is large enough to count; otherwise the bundle's lead is too large for a near-tie.
    pub qualified: bool,
}

/// A token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Its number.
    pub id: u32,
    /// Its text, if the tokenizer is known.
    pub text: Option<String>,
}

/// How many weights of one part of the model are those of the checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exactness {
    /// The part.
    pub part: String,
    /// Weights of the checkpoint.
    pub weights: u64,
    /// Those that are equal after rounding to bf16.
    pub weights_exact: u64,
}

/// A sequence of tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sequence {
    /// The prompt.
    pub prompt: String,
    /// What was found after each token.
    pub positions: Vec<Position>,
}

/// What was found after a token.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// By how much the reference's winner leads, in logits.
    pub expected_margin: f32,
    /// By how much the bundle's winner leads.
    pub margin: f32,
    /// Cosine of all logits to the reference's, if it could be computed.
    pub cosine: Option<f64>,
    /// Whether the reference's margin is large enough to count.
    pub qualified: bool,
    /// Whether both have the same winner.
    pub agrees: bool,
}

/// How far a bundle is from its checkpoint on a text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The bundle.
    pub bundle: String,
    /// What the text is called.
    pub text: String,
    /// Positions that were scored.
    pub positions: u64,
    /// Tokens of a window.
    pub window: u64,
    /// Perplexity of the bundle.
    pub perplexity: f64,
    /// Perplexity of the checkpoint.
    pub reference_perplexity: f64,
    /// Mean of KL(checkpoint || bundle), in nats.
    pub mean_kl: f64,
    /// Largest of a position.
    pub max_kl: f64,
    /// Positions with the checkpoint's winner.
    pub agreement: Agreement,
    /// The same where the checkpoint is sure.
    pub sure: Agreement,
    /// The same by the position in the window.
    pub curve: Vec<CurvePart>,
}

/// Positions that agree.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// How many do.
    pub agreed: u64,
    /// All of them.
    pub of: u64,
    /// Lower bound of the share, 95 %.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
}

/// Positions of windows by the number of tokens before them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CurvePart {
    /// The fewest tokens.
    pub first: u64,
    /// The most.
    pub last: u64,
    /// Scored positions.
    pub positions: u64,
    /// Mean divergence.
    pub mean_kl: f64,
    /// Share of positions with the checkpoint's winner.
    pub agreement: f64,
}
