//! Constants: bytes that fill their type exactly. Loaders do not check the length of a blob and read past its end.

use super::Checked;
use crate::attribute::{Attribute, ResourceId};
use crate::element::Element;
use crate::module::{Module, Op};
use crate::types::TensorType;

/// Largest alignment of a blob that loaders accept in every file.
const LARGEST_ALIGNMENT: u64 = 16;

pub(super) fn check(module: &Module, op: &Op) -> Checked {
    let ty =
        op.results.first().and_then(|result| module.tensor(*result)).ok_or("its result is not a tensor")?;
    match op.properties.first().copied().flatten().map(|value| module.attribute(value)) {
        Some(Attribute::DenseElements { splat, bytes }) => check_inline(&ty, *splat, bytes),
        Some(Attribute::DenseResource(resource)) => check_blob(module, &ty, *resource),
        _ => Err("it has no value".to_owned()),
    }
}

/// Inline elements take a byte at least. A splat is one element, except for bools, which have all elements of the type.
fn check_inline(ty: &TensorType, splat: bool, bytes: &[u8]) -> Checked {
    if ty.element == Element::Ui1 {
        return Err("loaders refuse ui1 inline".to_owned());
    }
    let count = ty.elements().ok_or_else(|| format!("{ty} has no fixed size"))?;
    if splat && count == 0 {
        return Err(format!("{ty} has no element that all could equal"));
    }
    let stored = if splat && ty.element != Element::Bool { 1 } else { count };
    let expected = stored.checked_mul(ty.element.inline_bytes());
    if expected != Some(bytes.len() as u64) {
        let splat = if splat { ", all equal," } else { "" };
        return Err(format!("{} bytes do not fill {ty}{splat} inline", bytes.len()));
    }
    if ty.element == Element::Bool {
        return check_bools(splat, bytes);
    }
    Ok(())
}

fn check_bools(splat: bool, bytes: &[u8]) -> Checked {
    if let Some(other) = bytes.iter().find(|byte| **byte > 1) {
        return Err(format!("a bool is {other}"));
    }
    if splat && bytes.iter().any(|byte| *byte != bytes[0]) {
        return Err("bools are marked as equal but are not".to_owned());
    }
    Ok(())
}

fn check_blob(module: &Module, ty: &TensorType, id: ResourceId) -> Checked {
    let resource = module.resource(id);
    let expected = ty.blob_bytes().ok_or_else(|| format!("{ty} has no fixed size"))?;
    if resource.length != expected {
        let (key, length) = (&resource.key, resource.length);
        return Err(format!("the blob {key:?} has {length} bytes, but {ty} takes {expected}"));
    }
    if expected == 0 {
        return Err(format!("loaders crash on the blob {:?}: it is empty", resource.key));
    }
    let alignment = resource.alignment;
    if !alignment.is_power_of_two() || alignment > LARGEST_ALIGNMENT {
        return Err(format!(
            "the blob {:?} is aligned to {alignment}, a power of two up to {LARGEST_ALIGNMENT} is needed",
            resource.key
        ));
    }
    Ok(())
}
