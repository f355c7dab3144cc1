//! Elementwise ops, reductions, softmax, activations.
//!
//! Floats are computed in f32 and rounded once to the result's type; sums run in row-major order. Functions that are not basic
//! arithmetic come from `libm` in f64, so that every platform gives the same bits.

use std::sync::LazyLock;

use aimodel::{Element, Opcode};
use half::f16;

use crate::Rounding;
use crate::kernels::round_to_half;
use crate::movement::{axes, common_shape, stretch};
use crate::parallel::{TOGETHER, in_pieces};
use crate::tensor::{Tensor, count, dense_strides};

/// Applies a function to the elements of two operands, aligned by broadcasting.
fn zip<A: Copy + Sync, B: Copy + Default + Send>(
    (a, b): (&Tensor, &Tensor),
    (left, right): (&[A], &[A]),
    shape: &[usize],
    f: impl Fn(A, A) -> B + Sync,
) -> Result<Vec<B>, String> {
    let mut result = vec![B::default(); count(shape)?];
    let length = shape.last().copied().unwrap_or(1).max(1);
    let (of_a, of_b) = (runs(a, shape)?, runs(b, shape)?);
    in_pieces(&mut result, length, TOGETHER.div_ceil(length), &|row, result| {
        let ((x, by_x), (y, by_y)) = (of_a[row], of_b[row]);
        match (by_x, by_y) {
            (1, 1) => {
                let pairs = left[x..x + length].iter().zip(&right[y..y + length]);
                result.iter_mut().zip(pairs).for_each(|(result, (x, y))| *result = f(*x, *y));
            }
            (1, 0) => {
                let (left, right) = (&left[x..x + length], right[y]);
                result.iter_mut().zip(left).for_each(|(result, x)| *result = f(*x, right));
            }
            _ => {
                let pick = |at: usize| f(left[x + at * by_x], right[y + at * by_y]);
                result.iter_mut().enumerate().for_each(|(at, result)| *result = pick(at));
            }
        }
        Ok(())
    })?;
    Ok(result)
}

/// For each position of a shape's outer axes, where the operand's innermost axis starts, and its stride, in row-major elements.
fn runs(operand: &Tensor, shape: &[usize]) -> Result<Vec<(usize, usize)>, String> {
    let dense = operand.view(operand.shape().to_vec(), dense_strides(operand.shape()), 0);
    let mut runs = Vec::new();
    stretch(&dense, shape)?.rows(&mut |start, _, stride| runs.push((start, stride)));
    Ok(runs)
}

pub(crate) fn binary(opcode: Opcode, a: &Tensor, b: &Tensor, rounding: Rounding) -> Result<Tensor, String> {
    if a.element() != b.element() {
        return Err(format!("its operands have types {} and {}", a.element(), b.element()));
    }
    let shape = common_shape(a.shape(), b.shape())?;
    if a.element().is_float() {
        float_binary(opcode, a, b, &shape, rounding)
    } else {
        integer_binary(opcode, a, b, &shape)
    }
}

fn float_binary(
    opcode: Opcode,
    a: &Tensor,
    b: &Tensor,
    shape: &[usize],
    rounding: Rounding,
) -> Result<Tensor, String> {
    let (x, y) = (a.to_floats()?, b.to_floats()?);
    let (both, values) = ((a, b), (x.as_slice(), y.as_slice()));
    let result = match opcode {
        Opcode::Add => zip(both, values, shape, |x, y| x + y)?,
        Opcode::Sub => zip(both, values, shape, |x, y| x - y)?,
        Opcode::Mul => zip(both, values, shape, |x, y| x * y)?,
        Opcode::Divide => zip(both, values, shape, |x, y| x / y)?,
        Opcode::Maximum => zip(both, values, shape, f32::max)?,
        Opcode::Minimum => zip(both, values, shape, f32::min)?,
        Opcode::Pow if rounding == Rounding::EachStep => zip(both, values, shape, f32::powf)?,
        Opcode::Pow => zip(both, values, shape, |x, y| libm::pow(x.into(), y.into()) as f32)?,
        Opcode::Greater => {
            let greater = zip(both, values, shape, |x, y| i64::from(x > y))?;
            return Tensor::from_integers(Element::Bool, shape, &greater);
        }
        _ => return Err(format!("is not defined for {}", a.element())),
    };
    Tensor::from_floats(a.element(), shape, result)
}

fn integer_binary(opcode: Opcode, a: &Tensor, b: &Tensor, shape: &[usize]) -> Result<Tensor, String> {
    let (x, y) = (a.to_integers()?, b.to_integers()?);
    let (both, values) = ((a, b), (x.as_slice(), y.as_slice()));
    let logical = a.element() == Element::Bool;
    let result = match opcode {
        Opcode::LogicalXor if logical => zip(both, values, shape, |x, y| i64::from((x != 0) != (y != 0)))?,
        Opcode::Greater if !logical => {
            let greater = zip(both, values, shape, |x, y| i64::from(x > y))?;
            return Tensor::from_integers(Element::Bool, shape, &greater);
        }
        _ if logical => return Err("is not defined for bool".to_owned()),
        Opcode::Add => zip(both, values, shape, i64::wrapping_add)?,
        Opcode::Sub => zip(both, values, shape, i64::wrapping_sub)?,
        Opcode::Mul => zip(both, values, shape, i64::wrapping_mul)?,
        Opcode::Maximum => zip(both, values, shape, i64::max)?,
        Opcode::Minimum => zip(both, values, shape, i64::min)?,
        Opcode::Divide => zip(both, values, shape, i64::checked_div)?
            .into_iter()
            .collect::<Option<Vec<i64>>>()
            .ok_or("division by zero")?,
        _ => return Err(format!("is not defined for {}", a.element())),
    };
    Tensor::from_integers(a.element(), shape, &result)
}

/// The logistic function.
fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-x))
}

pub(crate) fn unary(opcode: Opcode, x: &Tensor, rounding: Rounding) -> Result<Tensor, String> {
    match opcode {
        Opcode::Sin if rounding == Rounding::EachStep => map(x, |x| (x as f32).sin().into()),
        Opcode::Cos if rounding == Rounding::EachStep => map(x, |x| (x as f32).cos().into()),
        // Two roundings in f32, as in Apple's runtime; square roots are correctly rounded on every platform.
        Opcode::Rsqrt => map(x, |x| f64::from(1.0 / (x as f32).sqrt())),
        Opcode::Exp => map(x, libm::exp),
        Opcode::Tanh => map_by_table(x, &TANH_OF_HALVES, libm::tanh),
        Opcode::Sin => map(x, libm::sin),
        Opcode::Cos => map(x, libm::cos),
        Opcode::Relu => map(x, |x| x.max(0.0)),
        Opcode::Sigmoid => map(x, sigmoid),
        Opcode::Silu => map(x, |x| x * sigmoid(x)),
        Opcode::Not if x.element() == Element::Bool => {
            let flipped: Vec<i64> = x.to_integers()?.into_iter().map(|value| i64::from(value == 0)).collect();
            Tensor::from_integers(Element::Bool, x.shape(), &flipped)
        }
        _ => Err(format!("is not defined for {}", x.element())),
    }
}

/// Elements that are worth a thread where each takes tens of nanoseconds.
const MAPPED_TOGETHER: usize = 1 << 12;

fn map(x: &Tensor, f: impl Fn(f64) -> f64 + Sync) -> Result<Tensor, String> {
    let mut values = x.to_floats()?;
    in_pieces(&mut values, MAPPED_TOGETHER, 1, &|_, values| {
        values.iter_mut().for_each(|value| *value = f((*value).into()) as f32);
        Ok(())
    })?;
    Tensor::from_floats(x.element(), x.shape(), values)
}

/// Results of a function for every f16 number, by bits: there are fewer of them than values in a token's feed-forward layers, or
/// logits.
type OfHalves = LazyLock<Vec<u16>>;

static GELU_OF_HALVES: OfHalves = LazyLock::new(|| of_halves(gelu_tanh));
static TANH_OF_HALVES: OfHalves = LazyLock::new(|| of_halves(libm::tanh));

fn of_halves(f: fn(f64) -> f64) -> Vec<u16> {
    let of_bits = |bits: u16| f16::from_f32(f(f16::from_bits(bits).to_f64()) as f32).to_bits();
    (0..=u16::MAX).map(of_bits).collect()
}

/// [`map`] that looks f16 results up.
fn map_by_table(x: &Tensor, table: &OfHalves, f: fn(f64) -> f64) -> Result<Tensor, String> {
    if x.element() != Element::F16 {
        return map(x, f);
    }
    let mut values = x.dense_items::<u16>()?.into_owned();
    in_pieces(&mut values, TOGETHER, 1, &|_, values| {
        values.iter_mut().for_each(|bits| *bits = table[usize::from(*bits)]);
        Ok(())
    })?;
    Tensor::from_items(x.element(), x.shape(), values)
}

/// How a gelu is approximated: the cases of the format's `approximate` attribute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Approximation {
    None,
    Tanh,
    Sigmoid,
}

/// Factor of the cubic term; with the square root of 2 / pi from Hendrycks and Gimpel, "Gaussian Error Linear Units".
const CUBIC: f64 = 0.044715;

pub(crate) fn gelu(x: &Tensor, approximation: Approximation, rounding: Rounding) -> Result<Tensor, String> {
    match approximation {
        Approximation::Tanh if rounding == Rounding::EachStep && x.element() == Element::F16 => {
            let values = x.to_floats()?.into_iter().map(gelu_tanh_in_halves).collect();
            Tensor::from_floats(x.element(), x.shape(), values)
        }
        Approximation::None => map(x, |x| 0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2))),
        Approximation::Tanh => map_by_table(x, &GELU_OF_HALVES, gelu_tanh),
        Approximation::Sigmoid => map(x, |x| x * sigmoid(1.702 * x)),
    }
}

fn gelu_tanh(x: f64) -> f64 {
    let inner = libm::sqrt(2.0 / std::f64::consts::PI) * (x + CUBIC * x * x * x);
    0.5 * x * (1.0 + libm::tanh(inner))
}

/// The tanh approximation with every step rounded to f16. Order and constants reproduce Apple's Linux runtime: the bits are equal
/// for all of 1024 random f16 values.
fn gelu_tanh_in_halves(x: f32) -> f32 {
    // The f16 value below the square root of 2 / pi, although the one above is nearer.
    const ROOT: f32 = 0.797_363_3;
    let half = round_to_half;
    let cubic = half(half(half(half(CUBIC as f32) * x) * x) * x);
    let inner = half(ROOT * half(x + cubic));
    let tanh = half(libm::tanh(inner.into()) as f32);
    half(half(0.5 * x) * half(1.0 + tanh))
}

pub(crate) fn cast(x: &Tensor, to: Element) -> Result<Tensor, String> {
    let from = x.element();
    if from == to {
        return Ok(x.clone());
    }
    match (from.is_float(), to.is_float()) {
        (true, true) => Tensor::from_floats(to, x.shape(), x.to_floats()?),
        (false, true) => {
            let values = x.to_integers()?.into_iter().map(|value| value as f32).collect();
            Tensor::from_floats(to, x.shape(), values)
        }
        (true, false) => {
            let values = x.to_floats()?;
            let truncate =
                |value: f32| if to == Element::Bool { i64::from(value != 0.0) } else { value as i64 };
            let values: Vec<i64> = values.into_iter().map(truncate).collect();
            Tensor::from_integers(to, x.shape(), &values)
        }
        (false, false) => {
            let values = x.to_integers()?;
            let normal = |value: i64| if to == Element::Bool { i64::from(value != 0) } else { value };
            let values: Vec<i64> = values.into_iter().map(normal).collect();
            Tensor::from_integers(to, x.shape(), &values)
        }
    }
}

/// How a reduction combines two elements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Combine {
    Sum,
    Product,
    Max,
    Min,
    Mean,
}

/// Reduces axes to extent 1.
pub(crate) fn reduce(x: &Tensor, along: &Tensor, combine: Combine) -> Result<Tensor, String> {
    let along = axes(along, x.rank())?;
    let mut shape = x.shape().to_vec();
    for axis in &along {
        shape[*axis] = 1;
    }
    if x.element().is_float() {
        let values = x.to_floats()?;
        let (start, f): (f32, fn(f32, f32) -> f32) = match combine {
            Combine::Sum | Combine::Mean => (0.0, |a, b| a + b),
            Combine::Product => (1.0, |a, b| a * b),
            Combine::Max => (f32::NEG_INFINITY, f32::max),
            Combine::Min => (f32::INFINITY, f32::min),
        };
        let mut reduced = fold(x, &along, &values, start, f)?;
        if combine == Combine::Mean {
            let size: usize = along.iter().map(|axis| x.shape()[*axis]).product();
            reduced.iter_mut().for_each(|value| *value /= size as f32);
        }
        return Tensor::from_floats(x.element(), &shape, reduced);
    }
    let (start, f): (i64, fn(i64, i64) -> i64) = match combine {
        Combine::Sum => (0, i64::wrapping_add),
        Combine::Product => (1, i64::wrapping_mul),
        Combine::Max => (i64::MIN, i64::max),
        Combine::Min => (i64::MAX, i64::min),
        Combine::Mean => return Err(format!("is not defined for {}", x.element())),
    };
    Tensor::from_integers(x.element(), &shape, &fold(x, &along, &x.to_integers()?, start, f)?)
}

/// Folds row-major values along some axes, in row-major order.
fn fold<T: Copy + Send + Sync>(
    x: &Tensor,
    along: &[usize],
    values: &[T],
    start: T,
    f: fn(T, T) -> T,
) -> Result<Vec<T>, String> {
    let length = x.shape().last().copied().unwrap_or(0);
    if length > 0 && along == [x.rank() - 1] {
        let mut folded = vec![start; values.len() / length];
        in_pieces(&mut folded, 1, TOGETHER.div_ceil(length), &|row, folded| {
            folded[0] = values[row * length..][..length].iter().copied().fold(start, f);
            Ok(())
        })?;
        return Ok(folded);
    }
    let mut strides = vec![0; x.rank()];
    let mut kept = 1;
    for axis in (0..x.rank()).rev() {
        if !along.contains(&axis) {
            strides[axis] = kept;
            kept *= x.shape()[axis];
        }
    }
    let mut folded = vec![start; kept];
    let mut values = values.iter();
    // The reduced axes have stride 0, so all their elements map to the same element of the result.
    x.view(x.shape().to_vec(), strides, 0).rows(&mut |start, length, stride| {
        for (at, value) in (0..length).zip(&mut values) {
            let target = &mut folded[start + at * stride];
            *target = f(*target, *value);
        }
    });
    Ok(folded)
}

/// Softmax along one axis; the largest element is subtracted first to avoid overflow.
pub(crate) fn softmax(x: &Tensor, along: &Tensor, rounding: Rounding) -> Result<Tensor, String> {
    let exp: fn(f32) -> f32 = match rounding {
        Rounding::Once => |x| libm::exp(x.into()) as f32,
        Rounding::EachStep => f32::exp,
    };
    let &[axis] = axes(along, x.rank())?.as_slice() else {
        return Err("needs one axis".to_owned());
    };
    let mut values = x.to_floats()?;
    let length = x.shape()[axis];
    let inner: usize = x.shape()[axis + 1..].iter().product();
    // Lines along the axis, `inner` of them at a time.
    let together = MAPPED_TOGETHER.div_ceil((length * inner).max(1));
    in_pieces(&mut values, length * inner, together, &|_, lines| {
        let mut line = vec![0.0_f32; length];
        for first in 0..inner {
            let places = || (0..length).map(|step| first + step * inner);
            let largest = places().map(|place| lines[place]).fold(f32::NEG_INFINITY, f32::max);
            for (slot, place) in line.iter_mut().zip(places()) {
                *slot = exp(lines[place] - largest);
            }
            let sum: f32 = line.iter().sum();
            for (slot, place) in line.iter().zip(places()) {
                lines[place] = slot / sum;
            }
        }
        Ok(())
    })?;
    Tensor::from_floats(x.element(), x.shape(), values)
}
