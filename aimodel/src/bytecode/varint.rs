//! Writing of the container's primitives.

use super::{PADDING, section};

/// A byte buffer with the container's primitives.
#[derive(Default)]
pub(super) struct Buffer {
    pub(super) bytes: Vec<u8>,
}

impl Buffer {
    pub(super) fn byte(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Prefix varint in its shortest form: the count of trailing zero bits of the first byte says how long it is.
    pub(super) fn varint(&mut self, value: u64) {
        let significant = 64 - value.leading_zeros();
        let length = significant.div_ceil(7).max(1) as usize;
        if length > 8 {
            self.byte(0);
            self.raw(&value.to_le_bytes());
        } else {
            let marked = (u128::from(value) << length) | (1 << (length - 1));
            self.raw(&marked.to_le_bytes()[..length]);
        }
    }

    /// A value with a flag in its lowest bit.
    pub(super) fn flagged(&mut self, value: u64, flag: bool) {
        self.varint((value << 1) | u64::from(flag));
    }

    /// A signed value, zigzag.
    pub(super) fn signed(&mut self, value: i64) {
        self.varint(((value << 1) ^ (value >> 63)) as u64);
    }

    pub(super) fn length(&mut self, count: usize) {
        self.varint(count as u64);
    }

    /// A section whose body needs no alignment.
    pub(super) fn section(&mut self, id: u8, body: &Buffer) {
        self.byte(id);
        self.length(body.bytes.len());
        self.raw(&body.bytes);
    }

    /// The head of a section whose body, of `length` bytes, starts at a multiple of `alignment`. `self` must begin at the
    /// start of the file.
    pub(super) fn aligned_section_head(&mut self, id: u8, length: u64, alignment: u64) {
        let at = self.bytes.len();
        self.byte(id);
        self.varint(length);
        if !(self.bytes.len() as u64).is_multiple_of(alignment) {
            self.bytes[at] |= section::ALIGNED;
            self.varint(alignment);
            let padding = padding_to(self.bytes.len() as u64, alignment);
            self.bytes.resize(self.bytes.len() + padding as usize, PADDING);
        }
    }
}

/// Bytes from `position` to the next multiple of `alignment`.
pub(super) fn padding_to(position: u64, alignment: u64) -> u64 {
    position.next_multiple_of(alignment) - position
}

#[cfg(test)]
mod tests {
    use super::Buffer;

    fn varint(value: u64) -> Vec<u8> {
        let mut buffer = Buffer::default();
        buffer.varint(value);
        buffer.bytes
    }

    #[test]
    fn varints_take_the_shortest_form() {
        assert_eq!(varint(0), [0x01]);
        assert_eq!(varint(6), [0x0D]);
        assert_eq!(varint(127), [0xFF]);
        assert_eq!(varint(128), [0x02, 0x02]);
        assert_eq!(varint((1 << 56) - 1).len(), 8);
        assert_eq!(varint(1 << 56), [0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(varint(u64::MAX), [0, 255, 255, 255, 255, 255, 255, 255, 255]);
    }

    #[test]
    fn a_dynamic_extent_is_the_longest_varint() {
        let mut buffer = Buffer::default();
        buffer.signed(i64::MIN);
        assert_eq!(buffer.bytes, [0, 255, 255, 255, 255, 255, 255, 255, 255]);
    }
}
