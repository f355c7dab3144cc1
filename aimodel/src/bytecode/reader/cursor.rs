//! Checked reading of the container's primitives.

/// A fault in the bytes: where, and what.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) offset: u64,
    pub(super) reason: String,
}

/// Reads forward through some bytes of a file.
#[derive(Clone)]
pub(super) struct Cursor<'b> {
    bytes: &'b [u8],
    taken: usize,
    start: u64,
}

impl<'b> Cursor<'b> {
    /// `start` is the position of the first byte in the file.
    pub(super) fn new(bytes: &'b [u8], start: u64) -> Self {
        Cursor { bytes, taken: 0, start }
    }

    pub(super) fn taken(&self) -> usize {
        self.taken
    }

    pub(super) fn remaining(&self) -> usize {
        self.bytes.len() - self.taken
    }

    pub(super) fn position(&self) -> u64 {
        self.start + self.taken as u64
    }

    pub(super) fn fault(&self, reason: impl Into<String>) -> Fault {
        Fault { offset: self.position(), reason: reason.into() }
    }

    /// Checks that no bytes are left.
    pub(super) fn finish(&self) -> Result<(), Fault> {
        match self.remaining() {
            0 => Ok(()),
            left => Err(self.fault(format!("{left} bytes too many"))),
        }
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'b [u8], Fault> {
        if count > self.remaining() {
            return Err(self.fault(format!("{count} bytes expected, {} left", self.remaining())));
        }
        let taken = &self.bytes[self.taken..self.taken + count];
        self.taken += count;
        Ok(taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Fault> {
        Ok(self.take(1)?[0])
    }

    /// Prefix varint; longer forms than needed are accepted, as by Apple's loader.
    pub(super) fn varint(&mut self) -> Result<u64, Fault> {
        let first = *self.bytes.get(self.taken).ok_or_else(|| self.fault("a number is missing"))?;
        let length = first.trailing_zeros() as usize + 1;
        let bytes = self.take(length)?;
        let mut wide = [0_u8; 8];
        if length == 9 {
            wide.copy_from_slice(&bytes[1..]);
            return Ok(u64::from_le_bytes(wide));
        }
        wide[..length].copy_from_slice(bytes);
        Ok(u64::from_le_bytes(wide) >> length)
    }

    pub(super) fn flagged(&mut self) -> Result<(u64, bool), Fault> {
        let value = self.varint()?;
        Ok((value >> 1, value & 1 == 1))
    }

    pub(super) fn signed(&mut self) -> Result<i64, Fault> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A byte count, which must be there.
    pub(super) fn length(&mut self) -> Result<usize, Fault> {
        self.count()
    }

    /// A count of entries of at least one byte each, so it cannot exceed what is left.
    pub(super) fn count(&mut self) -> Result<usize, Fault> {
        let count = self.varint()?;
        match usize::try_from(count) {
            Ok(count) if count <= self.remaining() => Ok(count),
            _ => Err(self.fault(format!("{count} entries announced, but {} bytes left", self.remaining()))),
        }
    }

    pub(super) fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T, Fault>,
    ) -> Result<Vec<T>, Fault> {
        let count = self.count()?;
        (0..count).map(|_| item(self)).collect()
    }

    /// An index into a table of `length` entries.
    pub(super) fn index(&mut self, length: usize, what: &str) -> Result<usize, Fault> {
        let index = self.varint()?;
        self.check_index(index, length, what)
    }

    pub(super) fn check_index(&self, index: u64, length: usize, what: &str) -> Result<usize, Fault> {
        match usize::try_from(index) {
            Ok(index) if index < length => Ok(index),
            _ => Err(self.fault(format!("{what} {index} of {length}"))),
        }
    }

    /// Text up to a NUL, which is consumed too.
    pub(super) fn text_until_nul(&mut self) -> Result<&'b str, Fault> {
        let rest = &self.bytes[self.taken..];
        let length =
            rest.iter().position(|byte| *byte == 0).ok_or_else(|| self.fault("text without an end"))?;
        let bytes = self.take(length + 1)?;
        std::str::from_utf8(&bytes[..length]).map_err(|_| self.fault("text is not UTF-8"))
    }

    /// A nested section with this id: a cursor over its body.
    pub(super) fn section(&mut self, id: u8) -> Result<Cursor<'b>, Fault> {
        let found = self.byte()?;
        if found != id {
            return Err(self.fault(format!("section {found} where {id} is expected")));
        }
        let length = self.length()?;
        let start = self.position();
        Ok(Cursor::new(self.take(length)?, start))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Cursor;
    use crate::bytecode::varint::Buffer;

    /// Numbers of every length, equally likely.
    fn number() -> impl Strategy<Value = u64> {
        (any::<u64>(), 0..64_u32).prop_map(|(number, shift)| number >> shift)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn numbers_survive_writing_and_reading(numbers in proptest::collection::vec((number(), any::<bool>()), 0..20)) {
            let mut buffer = Buffer::default();
            for (number, flag) in &numbers {
                buffer.varint(*number);
                buffer.signed(*number as i64);
                buffer.flagged(number >> 1, *flag);
            }
            let mut cursor = Cursor::new(&buffer.bytes, 0);
            for (number, flag) in &numbers {
                prop_assert_eq!(cursor.varint().unwrap(), *number);
                prop_assert_eq!(cursor.signed().unwrap(), *number as i64);
                prop_assert_eq!(cursor.flagged().unwrap(), (number >> 1, *flag));
            }
            prop_assert!(cursor.finish().is_ok());
        }

        #[test]
        fn any_bytes_read_as_numbers_or_not_at_all(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let mut cursor = Cursor::new(&bytes, 0);
            if let Ok(number) = cursor.varint() {
                let mut shortest = Buffer::default();
                shortest.varint(number);
                prop_assert!(shortest.bytes.len() <= cursor.taken());
                prop_assert_eq!(cursor.taken() + cursor.remaining(), bytes.len());
            }
        }
    }
}
