//! Parts of each op: how many operands, results, regions and properties, and of which kinds.

use super::{Checked, attributes};
use crate::attribute::{Attribute, AttributeId, Enumeration};
use crate::describe::describe_type_within;
use crate::element::Element;
use crate::module::{Module, Op, OpId, ValueId};
use crate::opcode::Opcode;
use crate::types::{TensorType, Type};

/// Element types, in the groups that ops accept.
type Elements = &'static [&'static [Element]];

const REAL: &[Element] = &[Element::F64, Element::F32, Element::F16, Element::Bf16];
const FLOAT8: &[Element] = &[Element::F8E5M2, Element::F8E4M3Fn];
const FLOAT_CODES: &[Element] = &[Element::F4E2M1Fn, Element::F8E8M0Fn];
const WHOLE: &[Element] = &[
    Element::Si64,
    Element::Si32,
    Element::Si16,
    Element::Si8,
    Element::Ui64,
    Element::Ui32,
    Element::Ui16,
    Element::Ui8,
];
const PACKED: &[Element] = &[Element::Si4, Element::Si2, Element::Ui4, Element::Ui2];
const COMPLEX: &[Element] = &[Element::ComplexF32];
const BOOL: &[Element] = &[Element::Bool];

/// What can be stored and cast.
const STORED: Elements = &[REAL, FLOAT8, FLOAT_CODES, WHOLE, PACKED, COMPLEX, BOOL];
/// What can be moved about.
const MOVED: Elements = &[REAL, FLOAT8, WHOLE, PACKED, COMPLEX, BOOL];
/// What can be ordered.
const ORDERED: Elements = &[REAL, FLOAT8, WHOLE];
/// What can be subtracted, divided and multiplied as matrices.
const NUMBERS: Elements = &[REAL, FLOAT8, WHOLE, COMPLEX];
/// What can be added and multiplied.
const SUMMANDS: Elements = &[REAL, FLOAT8, WHOLE, COMPLEX, BOOL];

/// What an operand or a result must be. Apple's loader refuses every other element type, even where a number would fit; the sets are
/// those that it lists when it does. It also accepts indices, axes and extents of 16 bits, but no known tool writes them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Any tensor; the op's type rule says which.
    Tensor,
    /// A tensor of these.
    Of(Elements),
    /// A tensor of these without axes.
    Scalar(Elements),
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

use Kind::{Axes, Axis, Extents, Handle, Indices, Of, Scalar, Shape, Tensor, Token};

/// Kinds of an op's operands.
enum Operands {
    Exactly(&'static [Kind]),
    /// Those listed, then one or more tensors of these.
    And(&'static [Kind], Elements),
    /// Checked together with the graph.
    Any,
}

fn operands(opcode: Opcode) -> Operands {
    use Opcode as O;
    use Operands::{And, Any, Exactly};
    match opcode {
        O::Asset | O::Graph | O::CreateToken | O::Constant => Exactly(&[]),
        O::ReadHandle => Exactly(&[Handle, Token]),
        O::WriteHandle => Exactly(&[Handle, Tensor, Token]),
        O::Output | O::Yield => Any,
        O::Cast => Exactly(&[Of(STORED)]),
        O::GetShape => Exactly(&[Of(MOVED)]),
        O::Reshape => Exactly(&[Of(STORED), Shape]),
        O::Transpose | O::BroadcastTo => Exactly(&[Of(MOVED), Extents]),
        O::ShrinkDims | O::ExpandDims => Exactly(&[Of(MOVED), Axes]),
        O::Slice => Exactly(&[Of(MOVED), Axes, Axes, Axes]),
        O::SliceUpdate => Exactly(&[Of(MOVED), Axes, Axes, Axes, Of(MOVED)]),
        O::Concat => And(&[Axis], MOVED),
        O::GatherNd => Exactly(&[Of(MOVED), Indices]),
        O::GatherAlongAxis => Exactly(&[Of(&[REAL, FLOAT8, WHOLE, PACKED, BOOL]), Indices, Axis]),
        O::Pad => Exactly(&[Of(SUMMANDS), Extents, Scalar(SUMMANDS)]),
        O::Range => Exactly(&[Scalar(&[REAL, WHOLE]), Scalar(&[REAL, WHOLE]), Scalar(&[REAL, WHOLE])]),
        O::BroadcastInDims => Exactly(&[Of(MOVED), Extents, Axes]),
        O::BroadcastShapes => Exactly(&[Extents, Extents]),
        O::BlockwiseShiftScale => {
            const CODES: Kind = Of(&[REAL, FLOAT8, FLOAT_CODES, WHOLE, PACKED]);
            const SCALES: Kind = Of(&[&[Element::F32, Element::F16, Element::Bf16]]);
            Exactly(&[CODES, SCALES, CODES, SCALES])
        }
        O::Where | O::BroadcastingWhere => Exactly(&[Of(&[BOOL]), Of(MOVED), Of(MOVED)]),
        O::Reduce => Exactly(&[Of(SUMMANDS), Axes, Scalar(SUMMANDS)]),
        O::ReduceSum | O::ReduceProduct | O::ReduceMax | O::ReduceMin => Exactly(&[Of(ORDERED), Axes]),
        O::ReduceMean => Exactly(&[Of(&[REAL, FLOAT8]), Axes]),
        O::Softmax => Exactly(&[Of(&[REAL, FLOAT8]), Axis]),
        O::Gelu | O::Rsqrt | O::Tanh => Exactly(&[Of(&[REAL])]),
        O::Sin | O::Cos => Exactly(&[Of(&[REAL, COMPLEX])]),
        O::Exp | O::Sigmoid | O::Silu => Exactly(&[Of(&[REAL, FLOAT8, COMPLEX])]),
        O::Relu => Exactly(&[Of(ORDERED)]),
        O::Not => Exactly(&[Of(&[BOOL])]),
        O::LogicalXor | O::BroadcastingLogicalXor => Exactly(&[Of(&[BOOL]), Of(&[BOOL])]),
        O::Add | O::Mul | O::BroadcastingAdd | O::BroadcastingMul => Exactly(&[Of(SUMMANDS), Of(SUMMANDS)]),
        O::Sub
        | O::Divide
        | O::BroadcastingSub
        | O::BroadcastingDivide
        | O::BatchMatmul
        | O::BroadcastingBatchMatmul => Exactly(&[Of(NUMBERS), Of(NUMBERS)]),
        O::Pow => Exactly(&[Of(&[REAL, WHOLE, COMPLEX]), Of(&[REAL, WHOLE, COMPLEX])]),
        O::BroadcastingPow => Exactly(&[Of(&[REAL, WHOLE]), Of(&[REAL, WHOLE])]),
        O::Maximum | O::Minimum | O::Greater | O::BroadcastingMaximum | O::BroadcastingMinimum => {
            Exactly(&[Of(ORDERED), Of(ORDERED)])
        }
        O::BroadcastingGreater => Exactly(&[Of(&[REAL, WHOLE, BOOL]), Of(&[REAL, WHOLE, BOOL])]),
    }
}

fn results(opcode: Opcode) -> &'static [Kind] {
    match opcode {
        Opcode::Asset | Opcode::Graph | Opcode::Output | Opcode::Yield => &[],
        Opcode::CreateToken | Opcode::WriteHandle => &[Token],
        Opcode::ReadHandle => &[Tensor, Token],
        Opcode::Cast => &[Of(STORED)],
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
        Operands::And(kinds, elements) => {
            let Some((first, rest)) =
                op.operands.split_at_checked(kinds.len()).filter(|(_, rest)| !rest.is_empty())
            else {
                return Err(format!("has {} operands, more are needed", op.operands.len()));
            };
            check_kinds(module, "operand", first, kinds)?;
            let mut rest = rest.iter().enumerate();
            rest.try_for_each(|(at, value)| {
                check_kind(module, "operand after the first", at, *value, Of(elements))
            })
        }
        Operands::Any => Ok(()),
    }
}

fn check_kinds(module: &Module, what: &str, values: &[ValueId], kinds: &[Kind]) -> Checked {
    if values.len() != kinds.len() {
        return Err(format!("has {} {what}s instead of {}", values.len(), kinds.len()));
    }
    let mut pairs = values.iter().zip(kinds).enumerate();
    pairs.try_for_each(|(at, (value, kind))| check_kind(module, what, at, *value, *kind))
}

fn check_kind(module: &Module, what: &str, at: usize, value: ValueId, kind: Kind) -> Checked {
    let ty = module.value(value).ty;
    let fits = match (kind, module.ty(ty)) {
        (Handle, Type::Handle(inner)) => module.as_tensor(*inner).is_some(),
        (Token, Type::Token) => true,
        (Handle | Token, _) => false,
        (kind, _) => module.as_tensor(ty).is_some_and(|tensor| tensor_fits(kind, &tensor)),
    };
    if fits {
        return Ok(());
    }
    let ty = describe_type_within(module, ty, super::LONGEST);
    Err(format!("{what} {at} is {ty}, {} is needed", describe(kind)))
}

fn tensor_fits(kind: Kind, tensor: &TensorType) -> bool {
    let (element, rank) = (tensor.element, tensor.rank());
    let is_of = |elements: Elements| elements.iter().any(|group| group.contains(&element));
    match kind {
        Kind::Tensor => true,
        Kind::Of(elements) => is_of(elements),
        Kind::Scalar(elements) => is_of(elements) && rank == 0,
        Kind::Indices => element == Element::Si32,
        Kind::Axes => element == Element::Si32 && rank == 1,
        Kind::Extents => element == Element::Ui32 && rank == 1,
        Kind::Shape => matches!(element, Element::Si32 | Element::Ui32) && rank == 1,
        Kind::Axis => element == Element::Si32 && rank == 0,
        Kind::Handle | Kind::Token => false,
    }
}

fn describe(kind: Kind) -> String {
    let one_of = |elements: Elements| {
        let names: Vec<&str> =
            elements.iter().flat_map(|group| group.iter()).map(|element| element.name()).collect();
        match names.split_last() {
            Some((last, [])) => (*last).to_owned(),
            Some((last, names)) => format!("{} or {last}", names.join(", ")),
            None => String::new(),
        }
    };
    match kind {
        Kind::Tensor => "a tensor".to_owned(),
        Kind::Of(elements) => format!("a tensor of {}", one_of(elements)),
        Kind::Scalar(elements) => format!("a scalar of {}", one_of(elements)),
        Kind::Indices => "an si32 tensor".to_owned(),
        Kind::Axes => "an si32 vector".to_owned(),
        Kind::Extents => "a ui32 vector".to_owned(),
        Kind::Shape => "an si32 or ui32 vector".to_owned(),
        Kind::Axis => "an si32 scalar".to_owned(),
        Kind::Handle => "a handle to a tensor".to_owned(),
        Kind::Token => "a token".to_owned(),
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
            | ("argAttrs" | "resAttrs", Attribute::Array(_))
            | ("value", Attribute::DenseElements { .. } | Attribute::DenseResource(_)) => true,
            // Declarations have a name and a parameter each, and nothing else may be declared.
            ("compositeDecl?", Attribute::Opaque { parameters, .. }) => {
                let is_named = |id: &AttributeId| matches!(module.attribute(*id), Attribute::Opaque { .. });
                parameters.iter().all(is_named)
            }
            ("paramDecls", Attribute::Array(items)) => {
                items.iter().all(|id| matches!(module.attribute(*id), Attribute::ParameterDeclaration { .. }))
            }
            ("version?", Attribute::Integer { width: 32, unsigned, value }) => {
                *unsigned && attributes::fits(32, *value)
            }
            ("externalize" | "isPrivate" | "noInline", Attribute::Integer { width: 1, value, .. }) => {
                attributes::fits(1, *value)
            }
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
