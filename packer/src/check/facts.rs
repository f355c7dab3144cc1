//! What the rules need to know of a graph.

use crate::metadata::{MAIN_FUNCTION, PREFILL_FUNCTION, QueryLength};

/// The input that holds the tokens.
pub(super) const INPUT_IDS: &str = "input_ids";

/// A graph package, as far as loaders and the engine care.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GraphFacts {
    /// The functions of the package.
    pub functions: Vec<FunctionFacts>,
    /// Whether a table of 8-bit codes, from which rows are gathered, is a constant of the graph.
    pub holds_table: bool,
    /// Whether rows of a constant are gathered as bytes.
    pub gathers_bytes: bool,
    /// Blobs that constants of different types share, with the types.
    pub shared_blobs: Vec<SharedBlob>,
    /// Every weight that is dequantized in the graph.
    pub weights: Vec<WeightFacts>,
    /// Every operation that turns an angle into a rotary factor.
    pub rotations: Vec<RotationFacts>,
    /// Operations and arguments that carry a source location other than the unknown one.
    pub debug_locations: usize,
    /// The first rule of the format that the program breaks, with the operation that breaks it.
    pub invalid: Option<String>,
}

/// One function and its signature.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FunctionFacts {
    /// Name, `main` in a language bundle.
    pub name: String,
    /// Tensors that the engine passes in, in order.
    pub inputs: Vec<PortFacts>,
    /// Tensors that live from step to step, in order.
    pub states: Vec<PortFacts>,
    /// Tensors that the engine gets back, in order.
    pub outputs: Vec<PortFacts>,
}

/// A named tensor of a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortFacts {
    /// Name by which the engine addresses it.
    pub name: String,
    /// Element type, such as `f16` or `si32`.
    pub element: String,
    /// Extents, outermost first; None where the engine chooses.
    pub shape: Vec<Option<u64>>,
}

/// A blob that several constants read, each as another type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedBlob {
    /// Its key.
    pub name: String,
    /// The types, such as `512x128xsi4`.
    pub types: Vec<String>,
    /// Whether all of them have the same rows.
    pub same_rows: bool,
}

/// A weight that is stored as codes with scales.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightFacts {
    /// Name of its codes.
    pub name: String,
    /// Element type of the codes, such as `si4`.
    pub element: String,
    /// Shape of the weight.
    pub shape: Vec<u64>,
    /// Extent of the block that shares a scale, along each axis; None where the shapes do not divide.
    pub block: Option<Vec<u64>>,
    /// Whether codes or products are shifted.
    pub shifted: bool,
    /// Scales that are infinite or not a number.
    pub bad_scales: u64,
}

/// A sine or cosine of positions times frequencies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationFacts {
    /// The operation, such as `cos_v1 0`.
    pub name: String,
    /// Float element types on the way from the frequencies to it, its own included, sorted.
    pub elements: Vec<String>,
}

impl GraphFacts {
    /// The function that the engine runs.
    pub fn main(&self) -> Option<&FunctionFacts> {
        self.functions.iter().find(|function| function.name == MAIN_FUNCTION)
    }

    /// The function that reads prompts, if there is one.
    pub fn prefill(&self) -> Option<&FunctionFacts> {
        self.functions.iter().find(|function| function.name == PREFILL_FUNCTION)
    }
}

impl FunctionFacts {
    /// The input with this name.
    pub fn input(&self, name: &str) -> Option<&PortFacts> {
        self.inputs.iter().find(|input| input.name == name)
    }

    /// Tokens that a call takes; none if the function takes no tokens.
    pub fn query_length(&self) -> Option<QueryLength> {
        let length = self.input(INPUT_IDS)?.shape.get(1)?;
        Some(length.map_or(QueryLength::Dynamic, QueryLength::Fixed))
    }

    /// The output with this name.
    pub fn output(&self, name: &str) -> Option<&PortFacts> {
        self.outputs.iter().find(|output| output.name == name)
    }
}

impl PortFacts {
    /// Whether the element type and the shape are the given ones; None means a dynamic extent.
    pub fn is(&self, element: &str, shape: &[Option<u64>]) -> bool {
        self.element == element && self.shape == shape
    }
}

impl std::fmt::Display for PortFacts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} [", self.name, self.element)?;
        for (axis, extent) in self.shape.iter().enumerate() {
            let separator = if axis == 0 { "" } else { "," };
            match extent {
                Some(extent) => write!(f, "{separator}{extent}")?,
                None => write!(f, "{separator}?")?,
            }
        }
        write!(f, "]")
    }
}
