//! One range of bytes in a graph's file.

use aimodel::{Element, TensorType};
use checkpoint::Role;
use serde::{Serialize, Serializer};

use crate::recipe::Treatment;

/// What a blob holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// The tensor: in half precision, or its codes (si4 packed two per byte, or si8), directly followed by the scales.
    Tensor(Treatment),
    /// Scales of the codes before it: f16 `[n, k / 32]`.
    Scales(Treatment),
    /// The columns of this layer in the per-layer table, as codes: si8 `[V, ld]`.
    TableCodes(usize),
    /// Row scales of the per-layer table: f32 `[V]`.
    TableScales,
}

impl Content {
    /// How the tensor is stored, for listings.
    pub fn name(self) -> String {
        match self {
            Content::Tensor(treatment) | Content::Scales(treatment) => treatment.name(),
            Content::TableCodes(_) | Content::TableScales => "int8 rows".to_owned(),
        }
    }
}

/// A blob of a graph.
#[derive(Clone, PartialEq, Debug)]
pub struct Blob {
    /// Key in the package, such as `layers.5.mlp.down_proj.weight/codes`.
    pub key: String,
    /// Role of the tensor that it is made from.
    pub role: Role,
    /// Name of that tensor in the checkpoint.
    pub tensor: String,
    /// What it holds.
    pub content: Content,
    /// Shape in the package.
    pub shape: Vec<u64>,
    /// Element type in the package.
    pub element: Element,
    /// First byte in `main.mlirb`; 0 until the graph is laid out.
    pub offset: u64,
}

impl Blob {
    /// Layer that uses it; nothing for blobs that all layers share.
    pub fn layer(&self) -> Option<usize> {
        match (self.content, self.role) {
            (Content::TableCodes(layer), _) | (_, Role::Layer(layer, _)) => Some(layer),
            _ => None,
        }
    }

    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Number of bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes_of(self.elements())
    }

    /// Bytes of some of its elements, whose number must fill whole bytes.
    pub(crate) fn bytes_of(&self, elements: u64) -> u64 {
        elements * self.element.bits() / 8
    }

    /// Its type in the package.
    pub(crate) fn ty(&self) -> TensorType {
        TensorType::fixed(&self.shape, self.element)
    }

    /// What was done to a matrix whose codes it holds.
    pub(crate) fn codes(&self) -> Option<Treatment> {
        match self.content {
            Content::Tensor(treatment) if treatment.has_codes() => Some(treatment),
            _ => None,
        }
    }
}

/// A blob in the JSON of a plan.
#[derive(Serialize)]
struct Listed<'b> {
    key: &'b str,
    tensor: &'b str,
    treatment: ListedTreatment,
    shape: &'b [u64],
    element: &'static str,
    offset: u64,
    bytes: u64,
}

#[derive(Serialize)]
#[serde(untagged)]
enum ListedTreatment {
    Graph(Treatment),
    Table(&'static str),
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let treatment = match self.content {
            Content::Tensor(treatment) | Content::Scales(treatment) => ListedTreatment::Graph(treatment),
            Content::TableCodes(_) | Content::TableScales => ListedTreatment::Table("row_int8"),
        };
        let (key, tensor, shape) = (&*self.key, &*self.tensor, &*self.shape);
        let (element, offset, bytes) = (self.element.name(), self.offset, self.bytes());
        Listed { key, tensor, treatment, shape, element, offset, bytes }.serialize(serializer)
    }
}
