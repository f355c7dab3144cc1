//! Files taken apart into sections and tables, to be damaged and put together again. Shares no code with the crate.

/// Ids of sections.
pub const STRING: u8 = 0;
pub const DIALECT: u8 = 1;
pub const ENTRIES: u8 = 2;
pub const ENTRY_OFFSETS: u8 = 3;
pub const IR: u8 = 4;
pub const RESOURCE: u8 = 5;
pub const RESOURCE_OFFSETS: u8 = 6;
pub const PROPERTIES: u8 = 8;

/// Appends a prefix varint in its shortest form.
pub fn put(out: &mut Vec<u8>, value: u64) {
    let length = (1..9).find(|length| value >> (7 * length) == 0).unwrap_or(9);
    if length == 9 {
        out.push(0);
        out.extend_from_slice(&value.to_le_bytes());
        return;
    }
    let marked = (u128::from(value) << length) | (1 << (length - 1));
    out.extend_from_slice(&marked.to_le_bytes()[..length]);
}

/// A list of varints as bytes.
pub fn varints(values: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    values.iter().for_each(|value| put(&mut out, *value));
    out
}

/// Takes a prefix varint from the front.
pub fn take(bytes: &mut &[u8]) -> u64 {
    let length = bytes[0].trailing_zeros() as usize + 1;
    let (number, rest) = bytes.split_at(length);
    *bytes = rest;
    let mut wide = [0; 16];
    wide[..length].copy_from_slice(number);
    let marked = u128::from_le_bytes(wide);
    if length == 9 { (marked >> 8) as u64 } else { (marked >> length) as u64 }
}

fn take_bytes<'b>(bytes: &mut &'b [u8], count: usize) -> &'b [u8] {
    let (taken, rest) = bytes.split_at(count);
    *bytes = rest;
    taken
}

/// A file without blobs: its header and its sections in order.
#[derive(Clone)]
pub struct Raw {
    pub header: Vec<u8>,
    pub sections: Vec<(u8, Vec<u8>)>,
}

impl Raw {
    /// Takes a file apart whose resource section is empty.
    pub fn of(bytes: &[u8]) -> Raw {
        let end = bytes.iter().position(|byte| *byte == 0).unwrap() + 1;
        let (header, mut rest) = bytes.split_at(end);
        let mut sections = Vec::new();
        while !rest.is_empty() {
            let id = take_bytes(&mut rest, 1)[0];
            assert!(id < 0x80, "an aligned section");
            let length = take(&mut rest) as usize;
            sections.push((id, take_bytes(&mut rest, length).to_vec()));
        }
        Raw { header: header.to_vec(), sections }
    }

    pub fn body(&mut self, id: u8) -> &mut Vec<u8> {
        &mut self.sections.iter_mut().find(|(other, _)| *other == id).unwrap().1
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.header.clone();
        for (id, body) in &self.sections {
            out.push(*id);
            put(&mut out, body.len() as u64);
            out.extend_from_slice(body);
        }
        out
    }

    /// Strings by id.
    pub fn strings(&mut self) -> Vec<Vec<u8>> {
        let mut rest = self.body(STRING).as_slice();
        let count = take(&mut rest);
        let mut lengths: Vec<usize> = (0..count).map(|_| take(&mut rest) as usize).collect();
        lengths.reverse();
        lengths.into_iter().map(|length| take_bytes(&mut rest, length)[..length - 1].to_vec()).collect()
    }

    pub fn set_strings(&mut self, strings: &[Vec<u8>]) {
        let mut out = varints(&[strings.len() as u64]);
        strings.iter().rev().for_each(|text| put(&mut out, text.len() as u64 + 1));
        for text in strings {
            out.extend_from_slice(text);
            out.push(0);
        }
        *self.body(STRING) = out;
    }

    /// Bytes of each attribute and of each type.
    pub fn entries(&mut self) -> [Vec<Vec<u8>>; 2] {
        let bodies = self.body(ENTRIES).clone();
        let mut bodies = bodies.as_slice();
        let mut rest = self.body(ENTRY_OFFSETS).as_slice();
        let _counts = (take(&mut rest), take(&mut rest));
        [0, 1].map(|_| {
            let _dialect = take(&mut rest);
            let count = take(&mut rest);
            (0..count).map(|_| take_bytes(&mut bodies, (take(&mut rest) >> 1) as usize).to_vec()).collect()
        })
    }

    pub fn set_entries(&mut self, [attributes, types]: &[Vec<Vec<u8>>; 2]) {
        let mut offsets = varints(&[attributes.len() as u64, types.len() as u64]);
        for entries in [attributes, types] {
            offsets.extend(varints(&[0, entries.len() as u64]));
            entries.iter().for_each(|entry| put(&mut offsets, (entry.len() as u64) << 1 | 1));
        }
        *self.body(ENTRY_OFFSETS) = offsets;
        *self.body(ENTRIES) = [attributes.concat(), types.concat()].concat();
    }

    /// Makes an attribute the `source` of the asset, whose properties are the first entry.
    pub fn set_source(&mut self, attribute: u64) {
        let mut rest = self.body(PROPERTIES).as_slice();
        let count = take(&mut rest);
        let mut entries: Vec<Vec<u8>> = Vec::new();
        for _ in 0..count {
            let length = take(&mut rest) as usize;
            entries.push(take_bytes(&mut rest, length).to_vec());
        }
        entries[0].splice(..1, varints(&[attribute << 1 | 1]));
        let mut out = varints(&[count]);
        for entry in entries {
            put(&mut out, entry.len() as u64);
            out.extend_from_slice(&entry);
        }
        *self.body(PROPERTIES) = out;
    }
}
