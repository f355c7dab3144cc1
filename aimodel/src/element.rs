//! Element types of tensors.

use std::fmt;

macro_rules! elements {
    ($($variant:ident, $code:literal, $name:literal, $bits:literal;)*) => {
        /// The type of one element of a tensor.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
        #[allow(missing_docs)]
        pub enum Element { $($variant),* }

        impl Element {
            /// Every element type of the dialect.
            pub const ALL: &[Element] = &[$(Element::$variant),*];

            /// The type's code in the attribute/type section.
            pub fn code(self) -> u64 {
                match self { $(Element::$variant => $code),* }
            }

            /// The element type with this code, if it is one.
            pub fn from_code(code: u64) -> Option<Element> {
                match code { $($code => Some(Element::$variant),)* _ => None }
            }

            /// The name used in listings, such as `f16` or `si4`.
            pub fn name(self) -> &'static str {
                match self { $(Element::$variant => $name),* }
            }

            /// Bits that one element takes in a blob. A bool takes a whole byte.
            pub fn bits(self) -> u64 {
                match self { $(Element::$variant => $bits),* }
            }
        }
    };
}

elements! {
    Bool, 4, "bool", 8;
    F64, 5, "f64", 64;
    F32, 6, "f32", 32;
    F16, 7, "f16", 16;
    Bf16, 8, "bf16", 16;
    F8E5M2, 9, "f8E5M2", 8;
    F8E4M3Fn, 10, "f8E4M3FN", 8;
    ComplexF64, 11, "complex_f64", 128;
    ComplexF32, 12, "complex_f32", 64;
    ComplexF16, 13, "complex_f16", 32;
    ComplexBf16, 14, "complex_bf16", 32;
    ComplexF8E5M2, 15, "complex_f8E5M2", 16;
    ComplexF8E4M3Fn, 16, "complex_f8E4M3FN", 16;
    Si64, 17, "si64", 64;
    Si32, 18, "si32", 32;
    Si16, 19, "si16", 16;
    Si8, 20, "si8", 8;
    Si4, 21, "si4", 4;
    Si2, 22, "si2", 2;
    Ui64, 23, "ui64", 64;
    Ui32, 24, "ui32", 32;
    Ui16, 25, "ui16", 16;
    Ui8, 26, "ui8", 8;
    Ui4, 27, "ui4", 4;
    Ui2, 28, "ui2", 2;
    Ui1, 29, "ui1", 1;
    Ui6, 36, "ui6", 6;
    Ui3, 37, "ui3", 3;
    Tf32, 38, "tf32", 32;
    F4E2M1Fn, 46, "f4E2M1FN", 4;
    F8E8M0Fn, 47, "f8E8M0FN", 8;
}

impl Element {
    /// Bytes of one element when it is stored inline: sub-byte types take a byte each.
    pub fn inline_bytes(self) -> u64 {
        self.bits().div_ceil(8)
    }

    /// Converts inline elements, which take a byte each even if they have 4 bits, to the form of blobs.
    pub(crate) fn as_in_a_blob(self, inline: &[u8]) -> Vec<u8> {
        if self.bits() != 4 {
            return inline.to_vec();
        }
        inline.chunks(2).map(|pair| (pair[0] & 15) | (pair.get(1).copied().unwrap_or(0) << 4)).collect()
    }

    /// Whether this is an integer type (bool is not one).
    pub fn is_integer(self) -> bool {
        self.is_signed_integer() || self.is_unsigned_integer()
    }

    /// Whether this is a signed integer type.
    pub fn is_signed_integer(self) -> bool {
        use Element::*;
        matches!(self, Si64 | Si32 | Si16 | Si8 | Si4 | Si2)
    }

    /// Whether this is an unsigned integer type.
    pub fn is_unsigned_integer(self) -> bool {
        use Element::*;
        matches!(self, Ui64 | Ui32 | Ui16 | Ui8 | Ui6 | Ui4 | Ui3 | Ui2 | Ui1)
    }

    /// Whether this is a type of complex numbers.
    pub fn is_complex(self) -> bool {
        use Element::*;
        matches!(self, ComplexF64 | ComplexF32 | ComplexF16 | ComplexBf16 | ComplexF8E5M2 | ComplexF8E4M3Fn)
    }

    /// Whether this is a real floating-point type.
    pub fn is_float(self) -> bool {
        use Element::*;
        matches!(self, F64 | F32 | F16 | Bf16 | F8E5M2 | F8E4M3Fn | Tf32 | F4E2M1Fn | F8E8M0Fn)
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
