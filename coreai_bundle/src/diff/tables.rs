//! Two files of gather tables number by number.

use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;

use super::bytes::ByteDifference;

/// Numbers that differ.
#[derive(Debug, Serialize)]
pub struct TableDifference {
    /// How many differ.
    pub differing: u64,
    /// How many there are.
    pub numbers: u64,
    /// Root of the squared difference over the squared numbers on the left; none where those are zero.
    pub relative_error: Option<f64>,
    /// Row of the first: a token, except in the projection and its norm.
    pub row: u64,
    /// Its column.
    pub column: u64,
    /// The first on the left.
    pub left: f64,
    /// The first on the right.
    pub right: f64,
}

/// Numbers of a row in a file of tables, according to `meta.json`.
fn columns(name: &str, meta: &Value) -> Option<u64> {
    let key = match name {
        "embed_per_layer.i8" => "PLD",
        "embed_tokens.i8" | "proj.f32" => "D",
        "proj_norm.f32" => "ld",
        _ if name.ends_with(".scale.f32") => return Some(1),
        _ => return None,
    };
    meta.get(key)?.as_u64().filter(|columns| *columns > 0)
}

/// The numbers in which two files of equal size differ; `None` if it is not known what they hold.
pub(super) fn compare(
    name: &str,
    (left, right): (&Path, &Path),
    found: &ByteDifference,
) -> anyhow::Result<Option<TableDifference>> {
    let meta = left.with_file_name("meta.json");
    let meta: Option<Value> =
        paths::read(&meta, ::text::small::JSON).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let columns = meta.and_then(|meta| columns(name, &meta));
    let (Some(columns), true) = (columns, found.left_bytes == found.right_bytes) else { return Ok(None) };
    let width: usize = if name.ends_with(".i8") { 1 } else { 4 };
    let number = |bytes: &[u8]| match bytes {
        [a, b, c, d] => f64::from(f32::from_le_bytes([*a, *b, *c, *d])),
        [code] => f64::from(*code as i8),
        _ => 0.0,
    };
    let start = found.first / width as u64;
    let (mut ours, mut theirs) = (Numbers::open(left, width)?, Numbers::open(right, width)?);
    let mut difference = TableDifference {
        differing: 0,
        numbers: found.left_bytes / width as u64,
        relative_error: None,
        row: start / columns,
        column: start % columns,
        left: 0.0,
        right: 0.0,
    };
    let (mut squared, mut weight, mut index) = (0.0, 0.0, 0);
    while let (Some(a), Some(b)) = (ours.next()?, theirs.next()?) {
        for (a, b) in a.chunks_exact(width).zip(b.chunks_exact(width)) {
            let (x, y) = (number(a), number(b));
            if index == start {
                (difference.left, difference.right) = (x, y);
            }
            difference.differing += u64::from(a != b);
            squared += (x - y) * (x - y);
            weight += x * x;
            index += 1;
        }
    }
    difference.relative_error = (weight > 0.0).then(|| (squared / weight).sqrt());
    Ok(Some(difference))
}

/// A file in pieces of whole numbers.
struct Numbers<'p> {
    path: &'p Path,
    file: paths::Reader,
    width: usize,
    buffer: Vec<u8>,
}

impl<'p> Numbers<'p> {
    fn open(path: &'p Path, width: usize) -> anyhow::Result<Self> {
        let file = paths::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Numbers { path, file: file.reader(), width, buffer: vec![0; 1 << 20] })
    }

    fn next(&mut self) -> anyhow::Result<Option<&[u8]>> {
        use std::io::Read;
        let mut filled = 0;
        while filled < self.buffer.len() {
            let count = self
                .file
                .read(&mut self.buffer[filled..])
                .with_context(|| format!("cannot read {}", self.path.display()))?;
            if count == 0 {
                break;
            }
            filled += count;
        }
        Ok(Some(&self.buffer[..filled - filled % self.width]).filter(|bytes| !bytes.is_empty()))
    }
}
