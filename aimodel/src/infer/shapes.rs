//! The rules themselves, one short function per op.

use super::known::slice_extent;
use super::{Known, TypeError};
use crate::element::Element;
use crate::module::{Module, ValueId};
use crate::opcode::Opcode;
use crate::types::{Dim, TensorType};

type Inferred = Result<TensorType, String>;

/// Operands of any op but a concatenation, which takes any number.
const MOST_OPERANDS: usize = 5;

/// An op whose result is inferred: operand types and what is known of their elements.
pub(super) struct Context<'a> {
    pub(super) opcode: Opcode,
    module: &'a Module,
    known: &'a Known,
    values: &'a [ValueId],
    /// Types of the first few operands only: a type is far larger than the byte that it takes to name a value in a file.
    types: Vec<TensorType>,
}

impl<'a> Context<'a> {
    pub(super) fn new(
        module: &'a Module,
        known: &'a Known,
        opcode: Opcode,
        values: &'a [ValueId],
    ) -> Result<Self, TypeError> {
        let types = values
            .iter()
            .take(MOST_OPERANDS)
            .enumerate()
            .map(|(at, value)| {
                let reason = || TypeError { opcode, reason: format!("operand {at} is not a tensor") };
                module.tensor(*value).ok_or_else(reason)
            })
            .collect::<Result<_, _>>()?;
        Ok(Context { opcode, module, known, values, types })
    }

    pub(super) fn operand(&self, at: usize) -> Result<&TensorType, String> {
        self.types
            .get(at)
            .ok_or_else(|| format!("has {} operands, operand {at} is missing", self.values.len()))
    }

    fn exactly(&self, count: usize) -> Result<(), String> {
        let found = self.values.len();
        if found == count { Ok(()) } else { Err(format!("takes {count} operands, has {found}")) }
    }

    /// Elements of an integer vector operand; unknown ones are `None`.
    fn vector(&self, at: usize) -> Result<Vec<Option<i64>>, String> {
        let ty = self.operand(at)?;
        if ty.rank() > 1 || !ty.element.is_integer() {
            return Err(format!("operand {at} is {ty}, an integer vector is needed"));
        }
        if let Some(elements) = self.known.elements(self.values[at]) {
            return Ok(elements.to_vec());
        }
        match ty.elements() {
            Some(length) if length <= 64 => Ok(vec![None; length as usize]),
            _ => Err(format!("operand {at} is {ty}, a short vector of known length is needed")),
        }
    }

    /// Elements of an integer vector operand, all of which must be known.
    fn constants(&self, at: usize) -> Result<Vec<i64>, String> {
        let all: Option<Vec<i64>> = self.vector(at)?.into_iter().collect();
        all.ok_or_else(|| format!("operand {at} must be a constant"))
    }

    /// An operand that lists axes of a tensor of rank `rank`.
    fn axes(&self, at: usize, rank: usize) -> Result<Vec<usize>, String> {
        self.constants(at)?.into_iter().map(|axis| normalize_axis(axis, rank)).collect()
    }

    pub(super) fn same_as_first(&self) -> Inferred {
        if self.opcode == Opcode::Softmax {
            self.exactly(2)?;
            self.axes(1, self.operand(0)?.rank())?;
        } else {
            self.exactly(1)?;
        }
        Ok(self.operand(0)?.clone())
    }

    pub(super) fn get_shape(&self) -> Inferred {
        self.exactly(1)?;
        Ok(TensorType::fixed(&[self.operand(0)?.rank() as u64], Element::Ui32))
    }

    pub(super) fn reshape(&self) -> Inferred {
        self.exactly(2)?;
        let source = self.operand(0)?;
        let shape = self.vector(1)?;
        let open = shape.iter().filter(|extent| **extent == Some(FOLLOWS)).count();
        if open > 1 {
            return Err("only one extent can follow from the others".to_owned());
        }
        let known = shape.iter().copied().filter(|extent| *extent != Some(FOLLOWS)).map(extent);
        let known = TensorType::new(known.collect::<Result<Vec<_>, _>>()?, source.element);
        let fits =
            |from: u64, to: u64| if open == 1 { to > 0 && from.is_multiple_of(to) } else { from == to };
        let follows = match (source.elements(), known.elements()) {
            (Some(from), Some(to)) if !fits(from, to) => {
                return Err(format!("cannot make {known} of {source}"));
            }
            (Some(from), Some(to)) => Dim::Fixed(from / to.max(1)),
            _ => Dim::Dynamic,
        };
        let shape = shape.into_iter().map(|at| if at == Some(FOLLOWS) { Ok(follows) } else { extent(at) });
        Ok(TensorType::new(shape.collect::<Result<_, _>>()?, source.element))
    }

    pub(super) fn transpose(&self) -> Inferred {
        self.exactly(2)?;
        let source = self.operand(0)?;
        let order = self.axes(1, source.rank())?;
        let mut sorted = order.clone();
        sorted.sort_unstable();
        if sorted != (0..source.rank()).collect::<Vec<_>>() {
            return Err(format!("{order:?} is not a permutation of {} axes", source.rank()));
        }
        Ok(TensorType::new(order.iter().map(|axis| source.shape[*axis]).collect(), source.element))
    }

    pub(super) fn slice(&self) -> Inferred {
        self.exactly(4)?;
        self.taken(self.operand(0)?)
    }

    /// What operands 1 to 3, the bounds of a slice, take from `source`.
    fn taken(&self, source: &TensorType) -> Inferred {
        let (start, end, stride) = (self.vector(1)?, self.vector(2)?, self.vector(3)?);
        if [&start, &end, &stride].iter().any(|bounds| bounds.len() != source.rank()) {
            return Err(format!("bounds need {} elements each", source.rank()));
        }
        let shape = (0..source.rank())
            .map(|axis| slice_extent(source.shape[axis], start[axis], end[axis], stride[axis]))
            .collect();
        Ok(TensorType::new(shape, source.element))
    }

    pub(super) fn slice_update(&self) -> Inferred {
        self.exactly(5)?;
        let (target, update) = (self.operand(0)?, self.operand(4)?);
        let place = self.taken(target)?;
        if !place.compatible(update) {
            return Err(format!("cannot put {update} into {place} of {target}"));
        }
        Ok(target.clone())
    }

    /// Joins along an axis; a scalar counts as a vector of one element.
    pub(super) fn concat(&self) -> Inferred {
        let part = |value: &ValueId| {
            let part = self.module.tensor(*value).ok_or("has an operand that is not a tensor")?;
            Ok::<_, String>(at_least_a_vector(part))
        };
        let (first, rest) = self.values.get(1..).and_then(<[_]>::split_first).ok_or("has nothing to join")?;
        let mut joined = part(first)?;
        let axis = *self.axes(0, joined.rank())?.first().ok_or("the axis is missing")?;
        for value in rest {
            let part = part(value)?;
            let mut expected = joined.clone();
            if part.rank() == joined.rank() {
                expected.shape[axis] = part.shape[axis];
            }
            if !expected.compatible(&part) {
                return Err(format!("cannot join {joined} and {part} along axis {axis}"));
            }
            joined.shape[axis] = match (joined.shape[axis], part.shape[axis]) {
                (Dim::Fixed(sum), Dim::Fixed(more)) => Dim::Fixed(sum.checked_add(more).ok_or("too long")?),
                _ => Dim::Dynamic,
            };
        }
        Ok(joined)
    }

    pub(super) fn gather_nd(&self) -> Inferred {
        self.exactly(2)?;
        let (source, indices) = (self.operand(0)?, self.operand(1)?);
        let depth =
            indices.shape.last().and_then(|dim| dim.fixed()).and_then(|depth| usize::try_from(depth).ok());
        match depth {
            Some(depth) if depth <= source.rank() => {
                let outer = &indices.shape[..indices.rank() - 1];
                Ok(TensorType::new([outer, &source.shape[depth..]].concat(), source.element))
            }
            _ => Err(format!("indices {indices} do not address {source}")),
        }
    }

    pub(super) fn gather_along_axis(&self) -> Inferred {
        self.exactly(3)?;
        let (source, indices) = (self.operand(0)?, self.operand(1)?);
        let along = self.axes(2, source.rank())?;
        if source.rank() != indices.rank() {
            return Err(format!("indices {indices} do not have the rank of {source}"));
        }
        let mut pairs = source.shape.iter().zip(&indices.shape).enumerate();
        if let Some((axis, _)) = pairs.find(|(axis, (a, b))| !along.contains(axis) && !a.compatible(**b)) {
            return Err(format!("axis {axis} of the indices {indices} is not that of {source}"));
        }
        Ok(indices.with_element(source.element))
    }

    pub(super) fn shrink_dims(&self) -> Inferred {
        self.exactly(2)?;
        let source = self.operand(0)?;
        let axes = self.axes(1, source.rank())?;
        if let Some(axis) = axes.iter().find(|axis| source.shape[**axis] != Dim::Fixed(1)) {
            return Err(format!("axis {axis} of {source} is not 1"));
        }
        let kept =
            source.shape.iter().enumerate().filter(|(axis, _)| !axes.contains(axis)).map(|(_, dim)| *dim);
        Ok(TensorType::new(kept.collect(), source.element))
    }

    pub(super) fn expand_dims(&self) -> Inferred {
        self.exactly(2)?;
        let source = self.operand(0)?;
        let rank = source.rank() + self.vector(1)?.len();
        let axes = self.axes(1, rank)?;
        let mut rest = source.shape.iter().copied();
        let shape =
            (0..rank).map(|axis| if axes.contains(&axis) { Some(Dim::Fixed(1)) } else { rest.next() });
        let shape: Option<Vec<Dim>> = shape.collect();
        Ok(TensorType::new(shape.ok_or("an axis is named twice")?, source.element))
    }

    pub(super) fn pad(&self) -> Inferred {
        self.exactly(3)?;
        let (source, fill) = (self.operand(0)?, self.operand(2)?);
        let amounts = self.constants(1)?;
        if amounts.len() != 2 * source.rank() || fill.rank() != 0 || fill.element != source.element {
            return Err(format!("{source} needs {} amounts and a scalar to fill with", 2 * source.rank()));
        }
        let padded = |(axis, dim): (usize, &Dim)| match dim {
            Dim::Fixed(extent) => {
                let sum =
                    amounts[2 * axis].checked_add(amounts[2 * axis + 1])?.checked_add_unsigned(*extent)?;
                u64::try_from(sum).ok().map(Dim::Fixed)
            }
            Dim::Dynamic => Some(Dim::Dynamic),
        };
        let shape: Option<Vec<Dim>> = source.shape.iter().enumerate().map(padded).collect();
        Ok(TensorType::new(shape.ok_or("the amounts do not fit")?, source.element))
    }

    pub(super) fn range(&self) -> Inferred {
        self.exactly(3)?;
        if self.types.iter().any(|bound| bound.element != self.types[0].element) {
            return Err("its bounds are of several types".to_owned());
        }
        let bounds: Vec<_> = (0..3).map(|at| self.vector(at)).collect::<Result<_, _>>()?;
        let one = |at: usize| bounds[at].first().copied().flatten();
        let length = || {
            let (start, stop, step) = (one(0)?, one(1)?, one(2)?);
            let span = stop.checked_sub(start)?.max(0) as u64;
            u64::try_from(step).ok().filter(|step| *step > 0).map(|step| span.div_ceil(step))
        };
        Ok(TensorType::new(vec![length().map_or(Dim::Dynamic, Dim::Fixed)], self.operand(0)?.element))
    }

    pub(super) fn broadcast_in_dims(&self) -> Inferred {
        self.exactly(3)?;
        let source = self.operand(0)?;
        let (sizes, axes) = (self.vector(1)?, self.axes(2, source.rank())?);
        if sizes.len() != axes.len() {
            return Err(format!("{} sizes for {} axes", sizes.len(), axes.len()));
        }
        let mut shape = source.shape.clone();
        for (axis, size) in axes.into_iter().zip(sizes) {
            if !source.shape[axis].compatible(Dim::Fixed(1)) {
                return Err(format!("axis {axis} of {source} is not 1"));
            }
            shape[axis] = extent(size)?;
        }
        Ok(TensorType::new(shape, source.element))
    }

    pub(super) fn broadcast_to(&self) -> Inferred {
        self.exactly(2)?;
        let source = self.operand(0)?;
        let mut shape = self.vector(1)?.into_iter().map(extent).collect::<Result<Vec<_>, _>>()?;
        let Some(added) = shape.len().checked_sub(source.rank()) else {
            return Err(format!("cannot broadcast {source} to rank {}", shape.len()));
        };
        for (dim, from) in shape[added..].iter_mut().zip(&source.shape) {
            *dim = match (*dim, *from) {
                (Dim::Dynamic, Dim::Fixed(extent)) if extent != 1 => Dim::Fixed(extent),
                (Dim::Fixed(to), Dim::Fixed(extent)) if extent != 1 && extent != to => {
                    return Err(format!("cannot broadcast {source}: {extent} is not {to}"));
                }
                (dim, _) => dim,
            };
        }
        Ok(TensorType::new(shape, source.element))
    }

    pub(super) fn broadcast_shapes(&self) -> Inferred {
        self.exactly(2)?;
        let longest = self.vector(0)?.len().max(self.vector(1)?.len());
        Ok(TensorType::fixed(&[longest as u64], Element::Ui32))
    }

    pub(super) fn blockwise_shift_scale(&self) -> Inferred {
        self.exactly(4)?;
        let (data, scale) = (self.operand(0)?, self.operand(1)?);
        let (code_offset, value_offset) = (self.operand(2)?, self.operand(3)?);
        let block_counts_fit = data.rank() == scale.rank()
            && data.shape.iter().zip(&scale.shape).all(|(extent, blocks)| match (extent, blocks) {
                (Dim::Fixed(extent), Dim::Fixed(blocks)) => *blocks > 0 && extent % blocks == 0,
                _ => false,
            });
        if !block_counts_fit {
            return Err(format!("scales {scale} do not divide {data} into blocks"));
        }
        if *code_offset != scale.with_element(data.element) || *value_offset != *scale {
            return Err(format!("offsets {code_offset}, {value_offset} do not match scales {scale}"));
        }
        Ok(data.with_element(value_offset.element))
    }

    pub(super) fn matmul(&self) -> Inferred {
        self.exactly(2)?;
        let (a, b) = (self.operand(0)?, self.operand(1)?);
        let mismatch = || format!("cannot multiply {a} by {b}");
        if a.rank() < 2 || b.rank() < 2 || a.element != b.element {
            return Err(mismatch());
        }
        let alike = || {
            let batches = a.shape.iter().zip(&b.shape).take(a.rank() - 2);
            a.rank() == b.rank() && batches.into_iter().all(|(a, b)| a.compatible(*b))
        };
        if self.opcode == Opcode::BatchMatmul && !alike() {
            return Err(mismatch());
        }
        let ((a_batch, a_matrix), (b_batch, b_matrix)) =
            (a.shape.split_at(a.rank() - 2), b.shape.split_at(b.rank() - 2));
        if !a_matrix[1].compatible(b_matrix[0]) {
            return Err(mismatch());
        }
        let batch = broadcast(a_batch, b_batch).ok_or_else(mismatch)?;
        Ok(TensorType::new([batch.as_slice(), &[a_matrix[0], b_matrix[1]]].concat(), a.element))
    }

    pub(super) fn where_(&self) -> Inferred {
        self.exactly(3)?;
        let (condition, a, b) = (self.operand(0)?, self.operand(1)?, self.operand(2)?);
        let shape = broadcast(&condition.shape, &a.shape).and_then(|shape| broadcast(&shape, &b.shape));
        let alike = self.opcode == Opcode::BroadcastingWhere
            || (a == b && condition.compatible(&a.with_element(condition.element)));
        match shape.filter(|_| alike) {
            Some(shape) if condition.element == Element::Bool && a.element == b.element => {
                Ok(TensorType::new(shape, a.element))
            }
            _ => Err(format!("cannot pick from {a} and {b} by {condition}")),
        }
    }

    pub(super) fn reduce(&self) -> Inferred {
        self.exactly(if self.opcode == Opcode::Reduce { 3 } else { 2 })?;
        let source = self.operand(0)?;
        let mut shape = source.shape.clone();
        let axes = self.axes(1, source.rank())?;
        for (at, axis) in axes.iter().enumerate() {
            if axes[..at].contains(axis) {
                return Err(format!("axis {axis} is named twice"));
            }
            shape[*axis] = Dim::Fixed(1);
        }
        Ok(TensorType::new(shape, source.element))
    }

    pub(super) fn binary(&self) -> Inferred {
        self.exactly(2)?;
        let (a, b) = (self.operand(0)?, self.operand(1)?);
        let fits = match self.opcode {
            Opcode::Greater => a.compatible(b),
            opcode if opcode.broadcasts().is_some() => a.element == b.element,
            _ => a == b,
        };
        if !fits {
            return Err(format!("cannot combine {a} and {b}"));
        }
        let shape = broadcast(&a.shape, &b.shape).ok_or_else(|| format!("cannot combine {a} and {b}"))?;
        let compares = matches!(self.opcode, Opcode::Greater | Opcode::BroadcastingGreater);
        Ok(TensorType::new(shape, if compares { Element::Bool } else { a.element }))
    }
}

fn at_least_a_vector(ty: TensorType) -> TensorType {
    if ty.rank() == 0 { TensorType::fixed(&[1], ty.element) } else { ty }
}

/// The extent of a reshape that follows from the number of elements.
const FOLLOWS: i64 = -1;

/// An element of a shape vector as an extent.
fn extent(element: Option<i64>) -> Result<Dim, String> {
    match element {
        None => Ok(Dim::Dynamic),
        Some(extent) => {
            u64::try_from(extent).map(Dim::Fixed).map_err(|_| format!("{extent} is not an extent"))
        }
    }
}

fn normalize_axis(axis: i64, rank: usize) -> Result<usize, String> {
    let positive = if axis < 0 { axis.checked_add(rank as i64) } else { Some(axis) };
    positive
        .and_then(|axis| usize::try_from(axis).ok())
        .filter(|axis| *axis < rank)
        .ok_or_else(|| format!("axis {axis} of a tensor of rank {rank}"))
}

/// Broadcast of two shapes: equal extents stay, 1 yields to any other, a known extent above 1 wins over a dynamic one.
pub(crate) fn broadcast(a: &[Dim], b: &[Dim]) -> Option<Vec<Dim>> {
    let rank = a.len().max(b.len());
    let at = |shape: &[Dim], axis: usize| {
        let missing = rank - shape.len();
        if axis < missing { Dim::Fixed(1) } else { shape[axis - missing] }
    };
    (0..rank).map(|axis| broadcast_dim(at(a, axis), at(b, axis))).collect()
}

fn broadcast_dim(a: Dim, b: Dim) -> Option<Dim> {
    match (a, b) {
        (a, b) if a == b => Some(a),
        (Dim::Fixed(1), other) | (other, Dim::Fixed(1)) => Some(other),
        (Dim::Dynamic, other) | (other, Dim::Dynamic) => Some(other),
        _ => None,
    }
}
