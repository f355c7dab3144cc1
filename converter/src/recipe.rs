//! What happens to each tensor on its way into a graph. It is defined here only, and read everywhere else.

use aimodel::Element;
use checkpoint::Role;
use quantizer::Int4Rule;
use serde::{Deserialize, Serialize};

use crate::pattern::TensorPattern;

/// How a tensor is stored in a graph.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Treatment {
    /// Rounded to half precision.
    F16,
    /// Signed 4-bit codes, by a rule, with an f16 scale for each block of 32 along the last axis.
    Int4(Int4Rule),
    /// Signed 8-bit codes with an f16 scale for each block of 32 along the last axis.
    Int8,
}

impl Treatment {
    /// The format alone: the name on the command line and in metadata.
    pub fn format(self) -> &'static str {
        match self {
            Treatment::F16 => "f16",
            Treatment::Int4(_) => "int4",
            Treatment::Int8 => "int8",
        }
    }

    /// Format and rule, for listings: `int4 lattice`.
    pub fn name(self) -> String {
        match self {
            Treatment::Int4(rule) => format!("int4 {}", rule.name()),
            other => other.format().to_owned(),
        }
    }

    /// Element type of the stored tensor: of the codes, where there are codes.
    pub fn element(self) -> Element {
        match self {
            Treatment::F16 => Element::F16,
            Treatment::Int4(_) => Element::Si4,
            Treatment::Int8 => Element::Si8,
        }
    }

    /// Whether it makes codes, which are followed by scales.
    pub fn has_codes(self) -> bool {
        self != Treatment::F16
    }
}

/// How a graph looks up the embedding of a token.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EmbeddingForm {
    /// In a table of its own, in half precision.
    F16,
    /// In the head's codes, gathered as bytes: one blob serves both.
    Shared,
    /// In the head, dequantized as a whole.
    Dequantized,
    /// In the head's codes, gathered as numbers of 4 bits.
    Si4,
}

impl EmbeddingForm {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            EmbeddingForm::F16 => "f16",
            EmbeddingForm::Shared => "shared",
            EmbeddingForm::Dequantized => "dequantized",
            EmbeddingForm::Si4 => "si4",
        }
    }
}

/// How a graph stores the per-layer table, if it holds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PerLayerForm {
    /// Signed 8-bit codes with one f32 scale for each row.
    Int8,
    /// As a matrix of 4-bit codes, by a rule.
    Int4(Int4Rule),
}

impl PerLayerForm {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            PerLayerForm::Int8 => "int8",
            PerLayerForm::Int4(_) => "int4",
        }
    }
}

/// A treatment for some of the tensors that may be quantized.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Override {
    /// Which ones.
    pub tensors: TensorPattern,
    /// How they are stored.
    pub treatment: Treatment,
}

/// The first treatment that is for the tensor of a role.
pub fn overridden(overrides: &[Override], role: Role) -> Option<Treatment> {
    overrides.iter().find(|given| given.tensors.matches(role)).map(|given| given.treatment)
}

/// How the tensors of a graph are stored, by their roles.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recipe {
    /// Of every projection that is in no override.
    pub projections: Treatment,
    /// Of other projections; the first that matches counts. The head's is below, resolved.
    pub overrides: Vec<Override>,
    /// Of the head.
    pub head: Treatment,
    /// Of the embedding, which is the head's tensor as a rule.
    pub embedding: EmbeddingForm,
    /// Of the per-layer table, in graphs that hold it.
    pub per_layer: PerLayerForm,
}

impl Recipe {
    /// A recipe whose tables are stored as in the published bundles.
    pub fn new(projections: Treatment, head: Treatment) -> Self {
        Recipe {
            projections,
            overrides: Vec::new(),
            head,
            embedding: EmbeddingForm::F16,
            per_layer: PerLayerForm::Int8,
        }
    }

    /// How the tensor of a role is stored as a matrix. Embeddings of their own and norms are stored in half precision.
    pub fn treatment(&self, role: Role) -> Treatment {
        match (role, self.per_layer) {
            (Role::Head, _) => self.head,
            (Role::EmbedTokensPerLayer, PerLayerForm::Int4(rule)) => Treatment::Int4(rule),
            (role, _) => self.of_other(role),
        }
    }

    fn of_other(&self, role: Role) -> Treatment {
        match role {
            role if role.is_projection() => overridden(&self.overrides, role).unwrap_or(self.projections),
            _ => Treatment::F16,
        }
    }

    /// The rule for 4-bit codes; the default one where there are none.
    pub fn rule(&self) -> Int4Rule {
        match (self.projections, self.head) {
            (Treatment::Int4(rule), _) | (_, Treatment::Int4(rule)) => rule,
            _ => Int4Rule::default(),
        }
    }
}
