//! Decomposition regions of composite ops: a pure function of operand types (section 9 of the format's description).
//!
//! A loader that knows an op never looks inside; other systems fall back on the decomposition. Constants in here
//! are always inline, one op each.

use super::emitter::{Emitter, all_dynamic};
use crate::attribute::AttributeId;
use crate::element::Element;
use crate::infer::broadcast;
use crate::module::{BlockId, Module, OpId, ValueId};
use crate::opcode::Opcode;
use crate::types::{Dim, TensorType};

/// Writes the decomposition of a composite op as its region. Operands must have types that inference accepts.
pub fn decomposition(module: &mut Module, op: OpId) {
    let operands = module.op(op).operands.clone();
    let locations: Vec<AttributeId> = operands.iter().map(|value| module.location_of(*value)).collect();
    let location = module.op(op).location;
    // The region's own block is made by `fill`; until then nothing is appended.
    let mut emitter = Emitter { module, block: BlockId::at(0), location };
    fill(&mut emitter, op, &locations);
}

fn fill(emitter: &mut Emitter<'_>, op: OpId, locations: &[AttributeId]) {
    let (opcode, operands) = (emitter.module.op(op).opcode, emitter.module.op(op).operands.clone());
    let arguments: Vec<_> = operands
        .iter()
        .zip(locations)
        .map(|(value, location)| (emitter.module.value(*value).ty, *location))
        .collect();
    let (block, arguments) = emitter.enter(op, &arguments);
    emitter.within(block, |emitter| {
        let result = body(emitter, opcode, &arguments);
        emitter.op(Opcode::Yield, &[result]);
    });
}

fn body(e: &mut Emitter<'_>, opcode: Opcode, arguments: &[ValueId]) -> ValueId {
    match (opcode, arguments) {
        (Opcode::BroadcastingBatchMatmul, [a, b]) => Matmul::new(e, *a, *b).emit(e),
        (Opcode::BroadcastingWhere, [condition, a, b]) => where_(e, [*condition, *a, *b]),
        (Opcode::ReduceSum, [x, axes]) => reduce(e, *x, *axes, Opcode::Add, Init::Number(0.0)),
        (Opcode::ReduceProduct, [x, axes]) => reduce(e, *x, *axes, Opcode::Mul, Init::Number(1.0)),
        (Opcode::ReduceMax, [x, axes]) => reduce(e, *x, *axes, Opcode::Maximum, Init::Lowest),
        (Opcode::ReduceMin, [x, axes]) => reduce(e, *x, *axes, Opcode::Minimum, Init::Highest),
        (Opcode::ReduceMean, [x, axes]) => mean(e, *x, *axes),
        (Opcode::Softmax, [x, axis]) => softmax(e, *x, *axis),
        (Opcode::Relu, [x]) => relu(e, *x),
        (Opcode::Sigmoid, [x]) => sigmoid(e, *x),
        (Opcode::Silu, [x]) => {
            let gate = sigmoid(e, *x);
            let ty = e.tensor_type(*x);
            composite(e, Opcode::BroadcastingMul, &[*x, gate], &ty)
        }
        (opcode, [a, b]) => {
            binary(e, opcode.broadcasts().expect("a broadcasting op of two operands"), *a, *b)
        }
        _ => unreachable!("inference has checked the number of operands of {opcode}"),
    }
}

/// Appends a composite op with its own region.
fn composite(e: &mut Emitter<'_>, opcode: Opcode, operands: &[ValueId], ty: &TensorType) -> ValueId {
    let locations: Vec<_> = operands.iter().map(|value| e.module.location_of(*value)).collect();
    composite_at(e, opcode, operands, ty, &locations)
}

fn composite_at(
    e: &mut Emitter<'_>,
    opcode: Opcode,
    operands: &[ValueId],
    ty: &TensorType,
    locations: &[AttributeId],
) -> ValueId {
    let result = e.tensor(opcode, operands, ty);
    let op = *e.module.block(e.block).ops.last().expect("the op was appended");
    fill(e, op, locations);
    result
}

fn binary(e: &mut Emitter<'_>, primitive: Opcode, a: ValueId, b: ValueId) -> ValueId {
    let (a_type, b_type) = (e.tensor_type(a), e.tensor_type(b));
    let out = broadcast(&a_type.shape, &b_type.shape).expect("inference has checked the shapes");
    let (a, b) = if a_type.is_static() && b_type.is_static() {
        (static_broadcast(e, a, &out), static_broadcast(e, b, &out))
    } else {
        let shape = match fixed_extents(&out) {
            Some(extents) => e.vector(Element::Ui32, &extents),
            None => broadcast_shape(e, &[a, b]),
        };
        (expand(e, a, shape, &out), expand(e, b, shape, &out))
    };
    let element = if primitive == Opcode::Greater { Element::Bool } else { a_type.element };
    e.tensor(primitive, &[a, b], &TensorType::new(out, element))
}

fn fixed_extents(shape: &[Dim]) -> Option<Vec<f64>> {
    shape.iter().map(|dim| dim.fixed().map(|extent| extent as f64)).collect()
}

/// Broadcast between static shapes: raise the rank, then repeat the axes that differ.
fn static_broadcast(e: &mut Emitter<'_>, value: ValueId, out: &[Dim]) -> ValueId {
    let ty = e.tensor_type(value);
    let mut shape = vec![Dim::Fixed(1); out.len() - ty.rank()];
    shape.extend(&ty.shape);
    let mut value = value;
    if ty.rank() < out.len() {
        let extents = fixed_extents(&shape).expect("a static shape");
        let target = e.vector(Element::Si32, &extents);
        value = e.tensor(Opcode::Reshape, &[value, target], &TensorType::new(shape.clone(), ty.element));
    }
    let axes: Vec<usize> = (0..out.len()).filter(|axis| shape[*axis] != out[*axis]).collect();
    if axes.is_empty() {
        return value;
    }
    let sizes: Vec<f64> =
        axes.iter().filter_map(|axis| out[*axis].fixed()).map(|extent| extent as f64).collect();
    let sizes = e.vector(Element::Ui32, &sizes);
    let axes: Vec<f64> = axes.iter().map(|axis| *axis as f64).collect();
    let axes = e.vector(Element::Si32, &axes);
    e.tensor(Opcode::BroadcastInDims, &[value, sizes, axes], &TensorType::new(out.to_vec(), ty.element))
}

/// Running broadcast of the operands' shapes; operands of rank 0 are skipped.
fn broadcast_shape(e: &mut Emitter<'_>, values: &[ValueId]) -> ValueId {
    let ranked: Vec<ValueId> =
        values.iter().copied().filter(|value| e.tensor_type(*value).rank() > 0).collect();
    let shapes: Vec<ValueId> = ranked.iter().map(|value| e.shape_of(*value)).collect();
    let mut shapes = ranked.iter().map(|value| e.module.tensor(*value).map_or(0, |ty| ty.rank())).zip(shapes);
    let (mut rank, mut shape) = shapes.next().expect("a dynamic operand has rank 1 or more");
    let rest: Vec<_> = shapes.collect();
    for (next_rank, next) in rest {
        rank = rank.max(next_rank);
        let ty = TensorType::fixed(&[rank as u64], Element::Ui32);
        shape = e.tensor(Opcode::BroadcastShapes, &[shape, next], &ty);
    }
    shape
}

/// `broadcast_to`, left out where the value already has the fully static result shape.
fn expand(e: &mut Emitter<'_>, value: ValueId, shape: ValueId, out: &[Dim]) -> ValueId {
    let ty = e.tensor_type(value);
    if ty.shape == out && ty.is_static() {
        return value;
    }
    e.tensor(Opcode::BroadcastTo, &[value, shape], &TensorType::new(out.to_vec(), ty.element))
}

/// Running broadcast of a condition's and two choices' shapes. Where the first two have axes and make a shape that is known, that
/// is a constant, made after the shape of the third.
fn selection_shape(e: &mut Emitter<'_>, [condition, a, b]: [ValueId; 3]) -> ValueId {
    let types = [condition, a].map(|value| e.tensor_type(value));
    let first = broadcast(&types[0].shape, &types[1].shape).expect("inference has checked the shapes");
    let combined = types.iter().all(|ty| ty.rank() > 0);
    let Some(extents) = fixed_extents(&first).filter(|_| combined) else {
        return broadcast_shape(e, &[condition, a, b]);
    };
    let rank = e.tensor_type(b).rank();
    let second = (rank > 0).then(|| e.shape_of(b));
    let first = e.vector(Element::Ui32, &extents);
    match second {
        Some(second) => {
            let ty = TensorType::fixed(&[rank.max(extents.len()) as u64], Element::Ui32);
            e.tensor(Opcode::BroadcastShapes, &[first, second], &ty)
        }
        None => first,
    }
}

fn where_(e: &mut Emitter<'_>, values: [ValueId; 3]) -> ValueId {
    let types = values.map(|value| e.tensor_type(value));
    let out = broadcast(&types[0].shape, &types[1].shape)
        .and_then(|shape| broadcast(&shape, &types[2].shape))
        .expect("inference has checked the shapes");
    let values = if types.iter().all(|ty| ty.is_static() && ty.shape == out) {
        values
    } else {
        let shape = match fixed_extents(&out) {
            Some(extents) if types.iter().all(TensorType::is_static) => e.vector(Element::Ui32, &extents),
            _ => selection_shape(e, values),
        };
        values.map(|value| expand(e, value, shape, &out))
    };
    e.tensor(Opcode::Where, &values, &TensorType::new(out, types[1].element))
}

/// Initial value of a reduction.
enum Init {
    Number(f64),
    Lowest,
    Highest,
}

impl Init {
    fn of(&self, element: Element) -> f64 {
        let bits = element.bits();
        let largest = match element {
            Element::F16 => 65504.0,
            Element::Bf16 => f64::from(f32::from_bits(0x7F7F_0000)),
            Element::F32 => f64::from(f32::MAX),
            Element::F64 => f64::MAX,
            signed if signed.is_signed_integer() => (((1_u128 << (bits - 1)) - 1) as u64) as f64,
            _ => ((1_u128 << bits) - 1) as f64,
        };
        match self {
            Init::Number(number) => *number,
            Init::Highest => largest,
            Init::Lowest if element.is_float() => -largest,
            Init::Lowest if element.is_signed_integer() => -((1_u128 << (bits - 1)) as f64),
            Init::Lowest => 0.0,
        }
    }
}

/// Type in which sums and products are accumulated.
fn accumulator(element: Element) -> Element {
    match element {
        Element::F16 | Element::Bf16 | Element::F32 => Element::F32,
        signed if signed.is_signed_integer() => Element::Si64,
        unsigned if unsigned.is_unsigned_integer() => Element::Ui64,
        other => other,
    }
}

fn reduce(e: &mut Emitter<'_>, x: ValueId, axes: ValueId, combine: Opcode, init: Init) -> ValueId {
    let ty = e.tensor_type(x);
    let widens = matches!(combine, Opcode::Add | Opcode::Mul);
    let sum = if widens { accumulator(ty.element) } else { ty.element };
    let casts = sum != ty.element;
    let start = if casts && (ty.element.is_unsigned_integer() || ty.element == Element::Bf16) {
        let start = e.numbers(&[], ty.element, &[init.of(ty.element)]);
        e.tensor(Opcode::Cast, &[start], &TensorType::fixed(&[], sum))
    } else {
        e.numbers(&[], sum, &[init.of(ty.element)])
    };
    let result = e.tensor(Opcode::Reduce, &[x, axes, start], &all_dynamic(ty.rank(), ty.element));
    let op = *e.module.block(e.block).ops.last().expect("the reduction was appended");
    let scalars = [sum, ty.element].map(|element| e.module.tensor_type(&TensorType::fixed(&[], element)));
    let location = e.location;
    let (block, arguments) = e.enter(op, &scalars.map(|scalar| (scalar, location)));
    e.within(block, |e| {
        let scalar = TensorType::fixed(&[], sum);
        let element = if casts { e.tensor(Opcode::Cast, &[arguments[1]], &scalar) } else { arguments[1] };
        let combined = e.tensor(combine, &[arguments[0], element], &scalar);
        e.op(Opcode::Yield, &[combined]);
    });
    result
}

fn mean(e: &mut Emitter<'_>, x: ValueId, axes: ValueId) -> ValueId {
    let ty = e.tensor_type(x);
    let sum_element =
        if matches!(ty.element, Element::F16 | Element::Bf16) { Element::F32 } else { ty.element };
    let casts = sum_element != ty.element;
    let wide = if casts { e.tensor(Opcode::Cast, &[x], &ty.with_element(sum_element)) } else { x };
    let dynamic = all_dynamic(ty.rank(), sum_element);
    // Apple builds a cast in front even when it folds away: the first argument keeps this op's location.
    let locations = [e.location, e.module.location_of(axes)];
    let sum = composite_at(e, Opcode::ReduceSum, &[wide, axes], &dynamic, &locations);
    let count = element_count(e, wide, axes, sum_element);
    let mean = composite(e, Opcode::BroadcastingDivide, &[sum, count], &dynamic);
    if casts { e.tensor(Opcode::Cast, &[mean], &all_dynamic(ty.rank(), ty.element)) } else { mean }
}

/// Number of elements along `axes`, as a vector of one element.
fn element_count(e: &mut Emitter<'_>, x: ValueId, axes: ValueId, element: Element) -> ValueId {
    let shape = e.shape_of(x);
    let axis_count = e.tensor_type(axes).elements().unwrap_or(0);
    let column = e.vector(Element::Si32, &[axis_count as f64, 1.0]);
    let indices =
        e.tensor(Opcode::Reshape, &[axes, column], &TensorType::fixed(&[axis_count, 1], Element::Si32));
    let vector = |element| TensorType::fixed(&[axis_count], element);
    let extents = e.tensor(Opcode::GatherNd, &[shape, indices], &vector(Element::Ui32));
    let axis = e.vector(Element::Si32, &[0.0]);
    let extents = e.tensor(Opcode::Cast, &[extents], &vector(Element::Ui64));
    let one = |element| TensorType::fixed(&[1], element);
    let product = composite(e, Opcode::ReduceProduct, &[extents, axis], &one(Element::Ui64));
    e.tensor(Opcode::Cast, &[product], &one(element))
}

fn softmax(e: &mut Emitter<'_>, x: ValueId, axis: ValueId) -> ValueId {
    let ty = e.tensor_type(x);
    let one = e.vector(Element::Si32, &[1.0]);
    let axis = e.tensor(Opcode::Reshape, &[axis, one], &TensorType::fixed(&[1], Element::Si32));
    let exponentials = e.tensor(Opcode::Exp, &[x], &ty);
    let sum = composite(e, Opcode::ReduceSum, &[exponentials, axis], &ty);
    composite(e, Opcode::BroadcastingDivide, &[exponentials, sum], &ty)
}

fn relu(e: &mut Emitter<'_>, x: ValueId) -> ValueId {
    let ty = e.tensor_type(x);
    let zero = e.numbers(&[], ty.element, &[0.0]);
    composite(e, Opcode::BroadcastingMaximum, &[x, zero], &ty)
}

fn sigmoid(e: &mut Emitter<'_>, x: ValueId) -> ValueId {
    let ty = e.tensor_type(x);
    let zero = small_number(e, ty.element, 0.0);
    let one = small_number(e, ty.element, 1.0);
    let negative = composite(e, Opcode::BroadcastingSub, &[zero, x], &ty);
    let exponential = e.tensor(Opcode::Exp, &[negative], &ty);
    let sum = composite(e, Opcode::BroadcastingAdd, &[one, exponential], &ty);
    composite(e, Opcode::BroadcastingDivide, &[one, sum], &ty)
}

/// A vector of one element; bf16 is cast from an integer.
fn small_number(e: &mut Emitter<'_>, element: Element, value: f64) -> ValueId {
    if element != Element::Bf16 {
        return e.vector(element, &[value]);
    }
    let integer = e.vector(Element::Si32, &[value]);
    e.tensor(Opcode::Cast, &[integer], &TensorType::fixed(&[1], element))
}

/// Batch matrix product: the batch axes of each side are expanded where they are not the result's already.
struct Matmul {
    sides: [Side; 2],
    batch: Vec<Dim>,
}

struct Side {
    value: ValueId,
    ty: TensorType,
    expands: bool,
}

impl Side {
    fn has_batch(&self) -> bool {
        self.ty.rank() > 2
    }
}

/// Position of the two matrix axes in a shape vector, as constants: where they start and where they end.
struct Split {
    start: Option<ValueId>,
    end: Option<ValueId>,
}

impl Matmul {
    fn new(e: &Emitter<'_>, a: ValueId, b: ValueId) -> Self {
        let (a_type, b_type) = (e.tensor_type(a), e.tensor_type(b));
        let batch_of = |ty: &TensorType| ty.shape[..ty.rank() - 2].to_vec();
        let batch =
            broadcast(&batch_of(&a_type), &batch_of(&b_type)).expect("inference has checked the shapes");
        let expands = |ty: &TensorType, other: &TensorType| {
            other.rank() > 2 && (!ty.is_static() || batch_of(ty) != batch)
        };
        let (a_expands, b_expands) = (expands(&a_type, &b_type), expands(&b_type, &a_type));
        let sides = [
            Side { value: a, ty: a_type, expands: a_expands },
            Side { value: b, ty: b_type, expands: b_expands },
        ];
        Matmul { sides, batch }
    }

    fn emit(&self, e: &mut Emitter<'_>) -> ValueId {
        let operands = if self.sides.iter().any(|side| side.expands) {
            self.expand(e)
        } else {
            [self.sides[0].value, self.sides[1].value]
        };
        let [a, b] = &self.sides;
        let matrix = [a.ty.shape[a.ty.rank() - 2], b.ty.shape[b.ty.rank() - 1]];
        let shape = [self.batch.as_slice(), &matrix].concat();
        e.tensor(Opcode::BatchMatmul, &operands, &TensorType::new(shape, a.ty.element))
    }

    fn expand(&self, e: &mut Emitter<'_>) -> [ValueId; 2] {
        let axis = e.numbers(&[], Element::Si32, &[0.0]);
        let zero = e.vector(Element::Si32, &[0.0]);
        let one = e.vector(Element::Si32, &[1.0]);
        let splits: [Split; 2] = [0, 1].map(|at| {
            let side = &self.sides[at];
            let rank = side.ty.rank() as f64;
            let start = side.has_batch().then(|| e.vector(Element::Si32, &[rank - 2.0]));
            let end = (side.has_batch() && side.expands).then(|| e.vector(Element::Si32, &[rank]));
            Split { start, end }
        });
        let shapes = [0, 1].map(|at| e.shape_of(self.sides[at].value));
        let parts = [0, 1].map(|at| self.shape_parts(e, at, shapes[at], &splits[at], zero, one));
        let batch_type = TensorType::fixed(&[self.batch.len() as u64], Element::Ui32);
        let batch = match (parts[0].0, parts[1].0) {
            (Some(a), Some(b)) => e.tensor(Opcode::BroadcastShapes, &[a, b], &batch_type),
            (Some(only), None) | (None, Some(only)) => only,
            (None, None) => unreachable!("a side expands only towards batch axes"),
        };
        let full = TensorType::fixed(&[self.batch.len() as u64 + 2], Element::Ui32);
        let targets = parts
            .map(|(_, matrix)| matrix.map(|matrix| e.tensor(Opcode::Concat, &[axis, batch, matrix], &full)));
        [0, 1].map(|at| {
            let side = &self.sides[at];
            let Some(target) = targets[at] else { return side.value };
            let out = [self.batch.as_slice(), &side.ty.shape[side.ty.rank() - 2..]].concat();
            expand(e, side.value, target, &out)
        })
    }

    /// Batch part of a side's shape if it has one, matrix part if the side expands.
    fn shape_parts(
        &self,
        e: &mut Emitter<'_>,
        at: usize,
        shape: ValueId,
        split: &Split,
        zero: ValueId,
        one: ValueId,
    ) -> (Option<ValueId>, Option<ValueId>) {
        let side = &self.sides[at];
        let vector = |length: usize| TensorType::fixed(&[length as u64], Element::Ui32);
        let batch = split
            .start
            .map(|start| e.tensor(Opcode::Slice, &[shape, zero, start, one], &vector(side.ty.rank() - 2)));
        let matrix = side.expands.then(|| match (split.start, split.end) {
            (Some(start), Some(end)) => e.tensor(Opcode::Slice, &[shape, start, end, one], &vector(2)),
            _ => shape,
        });
        (batch, matrix)
    }
}
