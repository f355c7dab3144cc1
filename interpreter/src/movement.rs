//! Ops that move elements without computing: views where strides can express the result, copies otherwise.

use aimodel::Element;
use bytemuck::Pod;

use crate::tensor::{Tensor, by_width, count, dense_strides};

/// An axis number that may count from the end.
pub(crate) fn axis(number: i64, rank: usize) -> Result<usize, String> {
    let positive = if number < 0 { number + rank as i64 } else { number };
    usize::try_from(positive)
        .ok()
        .filter(|axis| *axis < rank)
        .ok_or_else(|| format!("axis {number} is outside a tensor of rank {rank}"))
}

pub(crate) fn axes(numbers: &Tensor, rank: usize) -> Result<Vec<usize>, String> {
    numbers.to_integers()?.into_iter().map(|number| axis(number, rank)).collect()
}

fn one_axis(number: &Tensor, rank: usize) -> Result<usize, String> {
    match numbers(number)?[..] {
        [only] => axis(only, rank),
        ref others => Err(format!("needs one axis, but has {}", others.len())),
    }
}

fn numbers(tensor: &Tensor) -> Result<Vec<i64>, String> {
    tensor.to_integers()
}

fn extent(number: i64) -> Result<usize, String> {
    usize::try_from(number).map_err(|_| format!("{number} is not an extent"))
}

pub(crate) fn extents(tensor: &Tensor) -> Result<Vec<usize>, String> {
    numbers(tensor)?.into_iter().map(extent).collect()
}

pub(crate) fn get_shape(x: &Tensor) -> Result<Tensor, String> {
    let extents: Vec<i64> = x.shape().iter().map(|extent| *extent as i64).collect();
    Tensor::from_integers(Element::Ui32, &[extents.len()], &extents)
}

pub(crate) fn reshape(x: &Tensor, shape: &Tensor) -> Result<Tensor, String> {
    let shape = filled_in(&numbers(shape)?, x.elements())?;
    if count(&shape)? != x.elements() {
        return Err(format!("cannot reshape {:?} to {shape:?}", x.shape()));
    }
    let dense = x.to_dense()?;
    let strides = dense_strides(&shape);
    Ok(dense.view(shape, strides, dense.offset()))
}

/// The extents of a shape in which one may be -1: that one follows from the number of elements.
fn filled_in(shape: &[i64], elements: usize) -> Result<Vec<usize>, String> {
    let Some(open) = shape.iter().position(|number| *number == -1) else {
        return shape.iter().copied().map(extent).collect();
    };
    let mut filled = shape.to_vec();
    filled[open] = 1;
    let mut filled: Vec<usize> = filled.into_iter().map(extent).collect::<Result<_, _>>()?;
    let others = count(&filled)?;
    filled[open] = elements.checked_div(others).unwrap_or(0);
    Ok(filled)
}

pub(crate) fn permutation(order: &Tensor, rank: usize) -> Result<Vec<usize>, String> {
    let order = axes(order, rank)?;
    let mut sorted = order.clone();
    sorted.sort_unstable();
    if sorted == (0..rank).collect::<Vec<_>>() {
        Ok(order)
    } else {
        Err(format!("{order:?} is not a permutation of {rank} axes"))
    }
}

pub(crate) fn transpose(x: &Tensor, order: &Tensor) -> Result<Tensor, String> {
    let order = permutation(order, x.rank())?;
    let shape = order.iter().map(|axis| x.shape()[*axis]).collect();
    let strides = order.iter().map(|axis| x.strides()[*axis]).collect();
    Ok(x.view(shape, strides, x.offset()))
}

/// The part of a tensor that a slice selects. Negative bounds count from the end; all bounds are clamped.
fn window(x: &Tensor, start: &Tensor, end: &Tensor, stride: &Tensor) -> Result<Tensor, String> {
    let (start, end, stride) = (numbers(start)?, numbers(end)?, numbers(stride)?);
    if [start.len(), end.len(), stride.len()] != [x.rank(); 3] {
        return Err(format!("bounds need {} elements each", x.rank()));
    }
    let (mut shape, mut strides, mut offset) = (Vec::new(), Vec::new(), x.offset());
    for axis in 0..x.rank() {
        let extent = x.shape()[axis] as i64;
        let clamp = |at: i64| (if at < 0 { at + extent } else { at }).clamp(0, extent) as usize;
        let step = usize::try_from(stride[axis]).ok().filter(|step| *step > 0);
        let step = step.ok_or_else(|| format!("the stride {} is not positive", stride[axis]))?;
        let (from, to) = (clamp(start[axis]), clamp(end[axis]));
        let length = to.saturating_sub(from).div_ceil(step);
        shape.push(length);
        // A step may be any number, which could overflow the stride; a single position needs none.
        strides.push(if length > 1 { x.strides()[axis] * step } else { 0 });
        if length > 0 {
            offset += from * x.strides()[axis];
        }
    }
    Ok(x.view(shape, strides, offset))
}

pub(crate) fn slice(x: &Tensor, start: &Tensor, end: &Tensor, stride: &Tensor) -> Result<Tensor, String> {
    window(x, start, end, stride)
}

/// Overwrites a part of `x`: in place if its bytes are not shared.
pub(crate) fn slice_update(
    x: Tensor,
    start: &Tensor,
    end: &Tensor,
    stride: &Tensor,
    update: &Tensor,
) -> Result<Tensor, String> {
    // The original view must be dropped before the bytes are written, or they count as shared and are copied.
    let mut x = if x.is_dense() { x } else { x.to_dense()? };
    if update.element() != x.element() {
        return Err(format!("cannot write {} into {}", update.element(), x.element()));
    }
    let (shape, strides, offset) = {
        let part = window(&x, start, end, stride)?;
        (part.shape().to_vec(), part.strides().to_vec(), part.offset())
    };
    if shape != update.shape() {
        return Err(format!("cannot write {:?} into a part of {shape:?}", update.shape()));
    }
    by_width!(x.element(), T => {
        let source = update.dense_items::<T>()?.into_owned();
        put(&mut x, (shape, strides, offset), &source)?;
        Ok(x)
    })
}

/// Writes row-major items to the part of `x` that a view describes.
fn put<T: Pod>(x: &mut Tensor, part: (Vec<usize>, Vec<usize>, usize), source: &[T]) -> Result<(), String> {
    let (shape, strides, offset) = part;
    let mut starts = Vec::new();
    // The view is dropped before the bytes are borrowed for writing, or they would count as shared.
    x.view(shape, strides, offset).rows(&mut |start, length, stride| starts.push((start, length, stride)));
    let target = x.items_mut::<T>()?;
    let mut source = source.iter();
    for (start, length, stride) in starts {
        for (at, item) in (0..length).zip(&mut source) {
            target[start + at * stride] = *item;
        }
    }
    Ok(())
}

/// Joins along an axis; a scalar counts as a vector of one element.
pub(crate) fn concat(along: &Tensor, parts: &[Tensor]) -> Result<Tensor, String> {
    let parts: Vec<Tensor> = parts.iter().map(at_least_a_vector).collect();
    let first = parts.first().ok_or("has no tensors to join")?;
    let axis = one_axis(along, first.rank())?;
    let mut shape = first.shape().to_vec();
    shape[axis] = 0;
    for part in &parts {
        let fits = part.element() == first.element()
            && part.rank() == first.rank()
            && (0..shape.len()).all(|other| other == axis || part.shape()[other] == shape[other]);
        if !fits {
            return Err(format!("cannot join {:?} and {:?} along axis {axis}", first.shape(), part.shape()));
        }
        shape[axis] = shape[axis].checked_add(part.shape()[axis]).ok_or("the parts are too long")?;
    }
    by_width!(first.element(), T => {
        let sources: Vec<_> = parts.iter().map(Tensor::dense_items::<T>).collect::<Result<_, _>>()?;
        let runs: Vec<usize> = parts.iter().map(|part| part.shape()[axis..].iter().product()).collect();
        let outer: usize = shape[..axis].iter().product();
        let mut joined = Vec::with_capacity(count(&shape)?);
        for at in 0..outer {
            for (source, run) in sources.iter().zip(&runs) {
                joined.extend_from_slice(&source[at * run..(at + 1) * run]);
            }
        }
        Tensor::from_items(first.element(), &shape, joined)
    })
}

fn at_least_a_vector(x: &Tensor) -> Tensor {
    if x.rank() == 0 { x.view(vec![1], vec![1], x.offset()) } else { x.clone() }
}

fn position(index: i64, extent: usize) -> Result<usize, String> {
    usize::try_from(index)
        .ok()
        .filter(|at| *at < extent)
        .ok_or_else(|| format!("index {index} is outside an axis of length {extent}"))
}

/// Selects the sub-tensors that the rows of `indices` address.
pub(crate) fn gather_nd(x: &Tensor, indices: &Tensor) -> Result<Tensor, String> {
    let depth = indices.shape().last().copied().ok_or("the indices are a scalar")?;
    if depth > x.rank() || depth == 0 {
        return Err(format!("indices of {depth} numbers do not fit a tensor of rank {}", x.rank()));
    }
    let (outer, inner) = (&indices.shape()[..indices.rank() - 1], &x.shape()[depth..]);
    let numbers = numbers(indices)?;
    let shape = [outer, inner].concat();
    let total = count(&shape)?;
    by_width!(x.element(), T => {
        let items = x.items::<T>()?;
        let mut picked = Vec::with_capacity(total);
        for address in numbers.chunks_exact(depth) {
            let mut offset = x.offset();
            for (axis, index) in address.iter().enumerate() {
                offset += position(*index, x.shape()[axis])? * x.strides()[axis];
            }
            let row = x.view(inner.to_vec(), x.strides()[depth..].to_vec(), offset);
            row.rows(&mut |start, length, stride| picked.extend((0..length).map(|at| items[start + at * stride])));
        }
        Tensor::from_items(x.element(), &shape, picked)
    })
}

/// For each element of `indices`: the element of `x` at the same position, but at the index on the axis.
pub(crate) fn gather_along_axis(x: &Tensor, indices: &Tensor, along: &Tensor) -> Result<Tensor, String> {
    let axis = one_axis(along, x.rank())?;
    let shape = indices.shape();
    let fits = x.rank() == shape.len()
        && (0..shape.len()).all(|other| other == axis || shape[other] <= x.shape()[other]);
    if !fits {
        return Err(format!("indices of {shape:?} do not fit {:?}", x.shape()));
    }
    by_width!(x.element(), T => {
        let picked = if varies_only_along(indices, axis) {
            gather_rows::<T>(x, indices, axis)?
        } else {
            gather_elements::<T>(x, indices, axis)?
        };
        Tensor::from_items(x.element(), shape, picked)
    })
}

/// Whether the strides show that all indices at one position of the axis are equal.
fn varies_only_along(indices: &Tensor, axis: usize) -> bool {
    let repeats = |other: usize| indices.strides()[other] == 0 || indices.shape()[other] <= 1;
    (0..indices.rank()).all(|other| other == axis || repeats(other))
}

fn gather_rows<T: Pod>(x: &Tensor, indices: &Tensor, axis: usize) -> Result<Vec<T>, String> {
    let shape = indices.shape();
    let total = count(shape)?;
    let mut picked = Vec::with_capacity(total);
    if total == 0 {
        return Ok(picked);
    }
    let mut only = vec![1; shape.len()];
    only[axis] = shape[axis];
    let wanted = numbers(&indices.view(only, indices.strides().to_vec(), indices.offset()))?;
    let items = x.items::<T>()?;
    let outer = x.view(shape[..axis].to_vec(), x.strides()[..axis].to_vec(), x.offset());
    let mut starts = Vec::new();
    outer.rows(&mut |start, length, stride| starts.extend((0..length).map(|at| start + at * stride)));
    for start in starts {
        for index in &wanted {
            let offset = start + position(*index, x.shape()[axis])? * x.strides()[axis];
            let rest = x.view(shape[axis + 1..].to_vec(), x.strides()[axis + 1..].to_vec(), offset);
            rest.rows(&mut |start, length, stride| match stride {
                1 => picked.extend_from_slice(&items[start..start + length]),
                _ => picked.extend((0..length).map(|at| items[start + at * stride])),
            });
        }
    }
    Ok(picked)
}

fn gather_elements<T: Pod>(x: &Tensor, indices: &Tensor, axis: usize) -> Result<Vec<T>, String> {
    let items = x.items::<T>()?;
    let places = x.view(indices.shape().to_vec(), without(x.strides(), axis), x.offset());
    let mut offsets = Vec::with_capacity(count(indices.shape())?);
    places.rows(&mut |start, length, stride| offsets.extend((0..length).map(|at| start + at * stride)));
    let pick = |(offset, index): (usize, i64)| {
        Ok(items[offset + position(index, x.shape()[axis])? * x.strides()[axis]])
    };
    offsets.into_iter().zip(numbers(indices)?).map(pick).collect()
}

fn without(strides: &[usize], axis: usize) -> Vec<usize> {
    let mut strides = strides.to_vec();
    strides[axis] = 0;
    strides
}

pub(crate) fn shrink_dims(x: &Tensor, gone: &Tensor) -> Result<Tensor, String> {
    let gone = axes(gone, x.rank())?;
    if let Some(axis) = gone.iter().find(|axis| x.shape()[**axis] != 1) {
        return Err(format!("axis {axis} of {:?} does not have extent 1", x.shape()));
    }
    let kept = |values: &[usize]| {
        values.iter().enumerate().filter(|(axis, _)| !gone.contains(axis)).map(|(_, value)| *value).collect()
    };
    Ok(x.view(kept(x.shape()), kept(x.strides()), x.offset()))
}

pub(crate) fn expand_dims(x: &Tensor, added: &Tensor) -> Result<Tensor, String> {
    let rank = x.rank() + added.elements();
    let added = axes(added, rank)?;
    let mut rest = x.shape().iter().zip(x.strides());
    let (mut shape, mut strides) = (Vec::new(), Vec::new());
    for axis in 0..rank {
        let (extent, stride) = match added.contains(&axis) {
            true => (1, 0),
            false => {
                rest.next().map(|(extent, stride)| (*extent, *stride)).ok_or("an axis is named twice")?
            }
        };
        shape.push(extent);
        strides.push(stride);
    }
    if rest.next().is_some() {
        return Err("an axis is named twice".to_owned());
    }
    Ok(x.view(shape, strides, x.offset()))
}

/// Pads with a constant. `amounts` holds the numbers of elements before and after, for each axis.
pub(crate) fn pad(x: &Tensor, amounts: &Tensor, fill: &Tensor) -> Result<Tensor, String> {
    let amounts = extents(amounts)?;
    if amounts.len() != 2 * x.rank() || fill.elements() != 1 || fill.element() != x.element() {
        return Err(format!("{:?} needs {} amounts and one element to fill with", x.shape(), 2 * x.rank()));
    }
    let padded = |(axis, extent): (usize, &usize)| {
        extent.checked_add(amounts[2 * axis])?.checked_add(amounts[2 * axis + 1])
    };
    let shape: Option<Vec<usize>> = x.shape().iter().enumerate().map(padded).collect();
    let shape = shape.ok_or("the amounts are too large")?;
    by_width!(x.element(), T => {
        let filler = fill.dense_items::<T>()?.first().copied().ok_or("has no element to fill with")?;
        let mut result = Tensor::from_items(x.element(), &shape, vec![filler; count(&shape)?])?;
        let offset = (0..x.rank()).map(|axis| amounts[2 * axis] * result.strides()[axis]).sum();
        let part = (x.shape().to_vec(), result.strides().to_vec(), offset);
        put(&mut result, part, &x.dense_items::<T>()?)?;
        Ok(result)
    })
}

pub(crate) fn range(start: &Tensor, stop: &Tensor, step: &Tensor) -> Result<Tensor, String> {
    let one = |bound: &Tensor| numbers(bound)?.first().copied().ok_or_else(|| "a bound is empty".to_owned());
    let (from, to, by) = (one(start)?, one(stop)?, one(step)?);
    let by = usize::try_from(by)
        .ok()
        .filter(|by| *by > 0)
        .ok_or_else(|| format!("the step {by} is not positive"))?;
    let length = usize::try_from(to.saturating_sub(from).max(0)).unwrap_or(usize::MAX).div_ceil(by);
    count(&[length])?;
    let elements: Vec<i64> = (from..to).step_by(by).collect();
    Tensor::from_integers(start.element(), &[elements.len()], &elements)
}

/// Broadcasts `x` to a shape: extents of 1 are repeated, missing outer axes are added.
pub(crate) fn stretch(x: &Tensor, shape: &[usize]) -> Result<Tensor, String> {
    count(shape)?;
    let mismatch = || format!("cannot broadcast {:?} to {shape:?}", x.shape());
    let added = shape.len().checked_sub(x.rank()).ok_or_else(mismatch)?;
    let mut strides = vec![0; added];
    for (axis, to) in shape[added..].iter().enumerate() {
        strides.push(match x.shape()[axis] {
            1 => 0,
            from if from == *to => x.strides()[axis],
            _ => return Err(mismatch()),
        });
    }
    Ok(x.view(shape.to_vec(), strides, x.offset()))
}

pub(crate) fn broadcast_to(x: &Tensor, shape: &Tensor) -> Result<Tensor, String> {
    stretch(x, &extents(shape)?)
}

pub(crate) fn broadcast_in_dims(x: &Tensor, sizes: &Tensor, which: &Tensor) -> Result<Tensor, String> {
    let (sizes, axes) = (extents(sizes)?, axes(which, x.rank())?);
    if sizes.len() != axes.len() {
        return Err(format!("{} sizes for {} axes", sizes.len(), axes.len()));
    }
    let mut shape = x.shape().to_vec();
    for (axis, size) in axes.into_iter().zip(sizes) {
        shape[axis] = size;
    }
    stretch(x, &shape)
}

/// The shape that two shapes broadcast to.
pub(crate) fn common_shape(a: &[usize], b: &[usize]) -> Result<Vec<usize>, String> {
    let rank = a.len().max(b.len());
    let at =
        |shape: &[usize], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(1, |axis| shape[axis]);
    let both = |axis: usize| match (at(a, axis), at(b, axis)) {
        (a, b) if a == b => Ok(a),
        (1, other) | (other, 1) => Ok(other),
        _ => Err(format!("{a:?} and {b:?} do not broadcast")),
    };
    (0..rank).map(both).collect()
}

pub(crate) fn broadcast_shapes(a: &Tensor, b: &Tensor) -> Result<Tensor, String> {
    let shape = common_shape(&extents(a)?, &extents(b)?)?;
    let numbers: Vec<i64> = shape.iter().map(|extent| *extent as i64).collect();
    Tensor::from_integers(a.element(), &[numbers.len()], &numbers)
}

/// Selects from `a` where the condition is true, from `b` elsewhere.
pub(crate) fn where_(condition: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor, String> {
    if condition.element() != Element::Bool || a.element() != b.element() {
        let (a, b, condition) = (a.element(), b.element(), condition.element());
        return Err(format!("cannot select from {a} and {b} by {condition}"));
    }
    let shape = common_shape(&common_shape(condition.shape(), a.shape())?, b.shape())?;
    let condition = stretch(condition, &shape)?;
    let (a, b) = (stretch(a, &shape)?, stretch(b, &shape)?);
    by_width!(a.element(), T => {
        let condition = condition.dense_items::<u8>()?;
        let (from_a, from_b) = (a.dense_items::<T>()?, b.dense_items::<T>()?);
        let pick = |(condition, (a, b)): (&u8, (&T, &T))| if *condition != 0 { *a } else { *b };
        let picked: Vec<T> = condition.iter().zip(from_a.iter().zip(from_b.iter())).map(pick).collect();
        Tensor::from_items(a.element(), &shape, picked)
    })
}
