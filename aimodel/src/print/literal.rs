//! Elements of constants as text.

use std::fmt::{self, Write};

use half::{bf16, f16};
use sha2::{Digest, Sha256};

use crate::element::Element;
use crate::types::TensorType;

/// Most elements that are written out.
const MOST: usize = 16;

/// Writes inline elements: a scalar as a number, few elements as a list, all-equal ones as `splat(number)`. Of many elements,
/// the first few and a digest of all are written, so that two texts are equal only if the constants are.
pub(crate) fn write_literal(out: &mut impl Write, ty: &TensorType, splat: bool, bytes: &[u8]) -> fmt::Result {
    let width = ty.element.inline_bytes() as usize;
    if ty.element == Element::Ui1 || !bytes.len().is_multiple_of(width) {
        let Some((first, [_, ..])) = bytes.split_at_checked(2 * MOST) else {
            return write!(out, "bytes({})", hex::encode(bytes));
        };
        let (count, digest) = (bytes.len(), Sha256::digest(bytes));
        return write!(
            out,
            "bytes({}... {count} in all, sha256 {})",
            hex::encode(first),
            hex::encode(&digest[..8])
        );
    }
    let elements = bytes.chunks_exact(width);
    let count = elements.len();
    match (elements.clone().next(), ty.rank()) {
        (Some(only), 0) if count == 1 => write_element(out, ty.element, only),
        // A splat of bools holds each of its elements.
        (Some(first), _) if splat => {
            out.write_str("splat(")?;
            write_element(out, ty.element, first)?;
            out.write_str(")")
        }
        _ => {
            out.write_str("[")?;
            for (at, element) in elements.take(MOST).enumerate() {
                out.write_str(if at == 0 { "" } else { ", " })?;
                write_element(out, ty.element, element)?;
            }
            if count > MOST {
                let digest = Sha256::digest(bytes);
                write!(out, ", ... {count} in all, sha256 {}", hex::encode(&digest[..8]))?;
            }
            out.write_str("]")
        }
    }
}

/// Writes one element; types that are only stored and never computed with are written as their bytes.
fn write_element(out: &mut impl Write, element: Element, bytes: &[u8]) -> fmt::Result {
    let mut wide = [0; 8];
    let length = bytes.len().min(8);
    wide[..length].copy_from_slice(&bytes[..length]);
    let bits = u64::from_le_bytes(wide);
    match element {
        Element::Bool if bits <= 1 => write!(out, "{}", bits == 1),
        Element::F16 => write!(out, "{:?}", f16::from_bits(bits as u16).to_f32()),
        Element::Bf16 => write!(out, "{:?}", bf16::from_bits(bits as u16).to_f32()),
        Element::F32 => write!(out, "{:?}", f32::from_bits(bits as u32)),
        Element::F64 => write!(out, "{:?}", f64::from_bits(bits)),
        signed if signed.is_signed_integer() => {
            let unused = 64 - signed.bits();
            write!(out, "{}", ((bits << unused) as i64) >> unused)
        }
        unsigned if unsigned.is_unsigned_integer() => write!(out, "{bits}"),
        _ => write!(out, "0x{}", hex::encode(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(shape: &[u64], element: Element, splat: bool, bytes: &[u8]) -> String {
        let mut out = String::new();
        write_literal(&mut out, &TensorType::fixed(shape, element), splat, bytes).unwrap();
        out
    }

    #[test]
    fn numbers_of_every_kind() {
        assert_eq!(text(&[], Element::F16, true, &[0, 0x3C]), "1.0");
        assert_eq!(text(&[2], Element::F32, false, &[0, 0, 0, 0x80, 0, 0, 0x80, 0xFF]), "[-0.0, -inf]");
        assert_eq!(text(&[2], Element::Bf16, false, &[0x80, 0x3F, 0, 0xC0]), "[1.0, -2.0]");
        assert_eq!(text(&[], Element::F64, true, &2.5_f64.to_le_bytes()), "2.5");
        assert_eq!(text(&[3], Element::Si4, false, &[0x0E, 7, 8]), "[-2, 7, -8]");
        assert_eq!(text(&[1], Element::Si64, true, &[0xFF; 8]), "splat(-1)");
        assert_eq!(text(&[1], Element::Ui8, false, &[200]), "[200]");
        assert_eq!(text(&[3], Element::Bool, true, &[1, 1, 1]), "splat(true)");
        assert_eq!(text(&[2], Element::Bool, false, &[0, 7]), "[false, 0x07]");
        assert_eq!(text(&[], Element::ComplexF16, true, &[0, 0x3C, 0, 0]), "0x003c0000");
        assert_eq!(text(&[9], Element::Ui1, false, &[0xFF, 1]), "bytes(ff01)");
        assert_eq!(text(&[0], Element::F16, false, &[]), "[]");
        assert_eq!(text(&[2], Element::F16, false, &[1, 2, 3]), "bytes(010203)");
    }

    #[test]
    fn many_bytes_without_a_meaning_are_cut() {
        let cut = text(&[800], Element::Ui1, false, &[7; 100]);
        assert!(cut.starts_with("bytes(0707") && cut.contains("... 100 in all, sha256 "), "{cut}");
        assert!(cut.len() < 120, "{cut}");
    }

    #[test]
    fn many_elements_are_distinguished_by_a_digest() {
        let mut bytes = [0_u8; 40];
        let zeros = text(&[40], Element::Si8, false, &bytes);
        bytes[39] = 1;
        let other = text(&[40], Element::Si8, false, &bytes);
        assert!(zeros.starts_with("[0, 0, ") && zeros.contains("... 40 in all, sha256 "));
        assert_ne!(zeros, other);
    }
}
