//! Parts of each op: how many operands, results, regions and properties, and of which kinds.

use super::Checked;
use crate::attribute::{Attribute, Enumeration};
use crate::describe::describe_type_within;
use crate::element::Element;
use crate::module::{Module, Op, OpId, ValueId};
use crate::opcode::Opcode;
use crate::types::{TensorType, Type};

/// What an operand or a result must be. Loaders refuse every other element type, even where a number would fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Any tensor.
    Tensor,
    /// A tensor of numbers that have an order, of a byte or more.
    Number,
    /// A tensor of what can be added: numbers, complex numbers, bools.
    Summand,
    /// A tensor of real or complex floating-point numbers.
    Float,
    Bool,
    /// A tensor of what weights are stored as.
    Codes,
    /// A tensor without axes.
    Scalar,
    /// An si32 tensor: places in another one.
    Indices,
    /// An si32 vector: axes, or a bound for each axis.
    Axes,
    /// A ui32 vector: an extent, or an axis, for each axis.
    Extents,
    /// A vector of either: extents of a reshaped tensor.
    Shape,
    /// An si32 without axes.
    Axis,
    /// A handle to a tensor.
    Handle,
    Token,
}

use Kind::{
    Axes, Axis, Codes, Extents, Float, Handle, Indices, Number, Scalar, Shape, Summand, Tensor, Token,
};

/// Kinds of an op's operands.
enum Operands {
    Exactly(&'static [Kind]),
    /// Those listed, then one tensor or more.
    AndTensors(&'static [Kind]),
    /// Checked with the graph around it.
    Any,
}

fn operands(opcode: Opcode) -> Operands {
    use Opcode as O;
    use Operands::{AndTensors, Any, Exactly};
    match opcode {
        O::Asset | O::Graph | O::CreateToken | O::Constant => Exactly(&[]),
        O::ReadHandle => Exactly(&[Handle, Token]),
        O::WriteHandle => Exactly(&[Handle, Tensor, Token]),
        O::Output | O::Yield => Any,
        O::Cast | O::GetShape => Exactly(&[Tensor]),
        O::Reshape => Exactly(&[Tensor, Shape]),
        O::Transpose | O::BroadcastTo => Exactly(&[Tensor, Extents]),
        O::ShrinkDims | O::ExpandDims => Exactly(&[Tensor, Axes]),
        O::Slice => Exactly(&[Tensor, Axes, Axes, Axes]),
        O::SliceUpdate => Exactly(&[Tensor, Axes, Axes, Axes, Tensor]),
        O::Concat => AndTensors(&[Axis]),
        O::GatherNd => Exactly(&[Tensor, Indices]),
        O::GatherAlongAxis => Exactly(&[Tensor, Indices, Axis]),
        O::Pad => Exactly(&[Tensor, Extents, Scalar]),
        O::Range => Exactly(&[Scalar, Scalar, Scalar]),
        O::BroadcastInDims => Exactly(&[Tensor, Extents, Axes]),
        O::BroadcastShapes => Exactly(&[Extents, Extents]),
        O::BlockwiseShiftScale => Exactly(&[Codes, Float, Codes, Float]),
        O::BatchMatmul | O::BroadcastingBatchMatmul => Exactly(&[Summand, Summand]),
        O::Where | O::BroadcastingWhere => Exactly(&[Kind::Bool, Tensor, Tensor]),
        O::Reduce => Exactly(&[Number, Axes, Scalar]),
        O::ReduceSum | O::ReduceProduct | O::ReduceMax | O::ReduceMin => Exactly(&[Number, Axes]),
        O::ReduceMean => Exactly(&[Float, Axes]),
        O::Gelu | O::Rsqrt | O::Exp | O::Tanh | O::Sin | O::Cos | O::Sigmoid | O::Silu => Exactly(&[Float]),
        O::Softmax => Exactly(&[Float, Axis]),
        O::Relu => Exactly(&[Number]),
        O::Not => Exactly(&[Kind::Bool]),
        O::LogicalXor | O::BroadcastingLogicalXor => Exactly(&[Kind::Bool, Kind::Bool]),
        O::Add | O::Sub | O::Mul | O::Divide => Exactly(&[Summand, Summand]),
        O::BroadcastingAdd | O::BroadcastingSub | O::BroadcastingMul | O::BroadcastingDivide => {
            Exactly(&[Summand, Summand])
        }
        O::Pow | O::Maximum | O::Minimum | O::Greater => Exactly(&[Number, Number]),
        O::BroadcastingPow | O::BroadcastingMaximum | O::BroadcastingMinimum | O::BroadcastingGreater => {
            Exactly(&[Number, Number])
        }
    }
}

fn results(opcode: Opcode) -> &'static [Kind] {
    match opcode {
        Opcode::Asset | Opcode::Graph | Opcode::Output | Opcode::Yield => &[],
        Opcode::CreateToken | Opcode::WriteHandle => &[Token],
        Opcode::ReadHandle => &[Tensor, Token],
        _ => &[Tensor],
    }
}

/// Whether the type of an op's result follows from its operands.
pub(super) fn is_inferred(opcode: Opcode) -> bool {
    opcode.is_pure() && opcode != Opcode::Constant
}

/// Checks the parts of one op.
pub(super) fn check(module: &Module, id: OpId) -> Checked {
    let op = module.op(id);
    check_operands(module, op)?;
    check_kinds(module, "result", &op.results, results(op.opcode))?;
    let holds_code = matches!(op.opcode, Opcode::Asset | Opcode::Graph | Opcode::Reduce);
    let wanted = usize::from(holds_code || op.opcode.is_composite());
    if op.regions.len() != wanted {
        return Err(format!("has {} regions instead of {wanted}", op.regions.len()));
    }
    if wanted == 1 && module.body(id).is_none() {
        return Err("its region is not one block".to_owned());
    }
    if op.opcode == Opcode::Asset
        && module.body(id).is_some_and(|block| !module.block(block).arguments.is_empty())
    {
        return Err("its block takes arguments".to_owned());
    }
    check_properties(module, op)
}

fn check_operands(module: &Module, op: &Op) -> Checked {
    match operands(op.opcode) {
        Operands::Exactly(kinds) => check_kinds(module, "operand", &op.operands, kinds),
        Operands::AndTensors(kinds) => {
            let Some((first, rest)) =
                op.operands.split_at_checked(kinds.len()).filter(|(_, rest)| !rest.is_empty())
            else {
                return Err(format!("has {} operands, more are needed", op.operands.len()));
            };
            check_kinds(module, "operand", first, kinds)?;
            check_kinds(module, "operand after the first", rest, &vec![Tensor; rest.len()])
        }
        Operands::Any => Ok(()),
    }
}

fn check_kinds(module: &Module, what: &str, values: &[ValueId], kinds: &[Kind]) -> Checked {
    if values.len() != kinds.len() {
        return Err(format!("has {} {what}s instead of {}", values.len(), kinds.len()));
    }
    for (at, (value, kind)) in values.iter().zip(kinds).enumerate() {
        let ty = module.value(*value).ty;
        let fits = match (kind, module.ty(ty)) {
            (Handle, Type::Handle(inner)) => module.as_tensor(*inner).is_some(),
            (Token, Type::Token) => true,
            (Handle | Token, _) => false,
            (kind, _) => module.as_tensor(ty).is_some_and(|tensor| tensor_fits(*kind, &tensor)),
        };
        if !fits {
            let ty = describe_type_within(module, ty, super::LONGEST);
            return Err(format!("{what} {at} is {ty}, {} is needed", describe(*kind)));
        }
    }
    Ok(())
}

fn tensor_fits(kind: Kind, tensor: &TensorType) -> bool {
    let (element, rank) = (tensor.element, tensor.rank());
    let whole = element.bits() >= 8;
    match kind {
        Kind::Tensor => true,
        Kind::Number => whole && (element.is_float() || element.is_integer()),
        Kind::Summand => whole,
        Kind::Float => element.is_float() || element.is_complex(),
        Kind::Bool => element == Element::Bool,
        Kind::Codes => element.is_float() || (element.is_integer() && element.bits() <= 16),
        Kind::Scalar => rank == 0,
        Kind::Indices => element == Element::Si32,
        Kind::Axes => element == Element::Si32 && rank == 1,
        Kind::Extents => element == Element::Ui32 && rank == 1,
        Kind::Shape => matches!(element, Element::Si32 | Element::Ui32) && rank == 1,
        Kind::Axis => element == Element::Si32 && rank == 0,
        Kind::Handle | Kind::Token => false,
    }
}

fn describe(kind: Kind) -> &'static str {
    match kind {
        Kind::Tensor => "a tensor",
        Kind::Number => "a tensor of ordered numbers of 8 bits or more",
        Kind::Summand => "a tensor of 8 bits or more an element",
        Kind::Float => "a floating-point tensor",
        Kind::Bool => "a bool tensor",
        Kind::Codes => "a tensor of integers of 16 bits or less, or of floating-point numbers",
        Kind::Scalar => "a scalar",
        Kind::Indices => "an si32 tensor",
        Kind::Axes => "an si32 vector",
        Kind::Extents => "a ui32 vector",
        Kind::Shape => "an si32 or ui32 vector",
        Kind::Axis => "an si32 scalar",
        Kind::Handle => "a handle to a tensor",
        Kind::Token => "a token",
    }
}

/// Checks that the properties are there, and are of the kind that the op takes.
fn check_properties(module: &Module, op: &Op) -> Checked {
    let names = op.opcode.properties();
    if op.properties.len() != names.len() {
        return Err(format!("has {} properties instead of {}", op.properties.len(), names.len()));
    }
    for (name, property) in names.iter().zip(&op.properties) {
        let Some(property) = property else {
            if name.ends_with('?') {
                continue;
            }
            return Err(format!("its property {name} is missing"));
        };
        let fits = match (*name, module.attribute(*property)) {
            ("source?" | "name", Attribute::String(_))
            | ("compositeDecl?", Attribute::Opaque { .. })
            | ("argAttrs" | "paramDecls" | "resAttrs", Attribute::Array(_))
            | ("value", Attribute::DenseElements { .. } | Attribute::DenseResource(_)) => true,
            ("version?", Attribute::Integer { width: 32, unsigned, .. }) => *unsigned,
            ("externalize" | "isPrivate" | "noInline", Attribute::Integer { width, .. }) => *width == 1,
            ("functionType", Attribute::Type(ty)) => matches!(module.ty(*ty), Type::Function { .. }),
            ("padding_mode", Attribute::Enumeration { of, value }) => {
                *of == Enumeration::PaddingMode && of.case(*value).is_some()
            }
            ("approximate", Attribute::Enumeration { of, value }) => {
                *of == Enumeration::Approximate && of.case(*value).is_some()
            }
            _ => false,
        };
        if !fits {
            return Err(format!("its property {} is of another kind", name.trim_end_matches('?')));
        }
    }
    Ok(())
}
