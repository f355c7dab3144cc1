//! Places of the blobs. Only the few bytes in front of each are read.

use super::cursor::{Cursor, Fault};
use super::{BlobRange, ReadAt, ReadError, Sections, header_error, window};
use crate::bytecode::varint::padding_to;
use crate::bytecode::{PADDING, section};
use crate::module::{Module, Resource};

/// Largest plausible alignment.
const LARGEST_ALIGNMENT: u64 = 1 << 16;

/// A resource as the offsets section lists it.
struct Listed {
    key: String,
    /// Bytes in the resource section, head and padding included.
    size: u64,
}

/// Adds the file's resources to the module; returns the places of their blobs in the same order.
pub(super) fn read<R: ReadAt + ?Sized>(
    source: &R,
    sections: &Sections,
    strings: &[String],
    module: &mut Module,
) -> Result<Vec<BlobRange>, ReadError> {
    // Files without resources may leave both sections out.
    let (offsets, body) = match (sections.body(section::RESOURCE_OFFSETS), sections.resource) {
        (Ok(offsets), Some(body)) => (offsets, body),
        (Err(_), None) => return Ok(Vec::new()),
        _ => return Err(header_error(0, "only one of the two resource sections is there")),
    };
    let listed = offsets.parse(|cursor| list(cursor, strings))?;
    let end = body.offset + body.length;
    let mut position = body.offset;
    let mut blobs = Vec::new();
    for entry in listed {
        let (resource, blob) = one(source, end, position, body.offset, entry)?;
        let key = resource.key.clone();
        if module.add_resource(resource).index() != blobs.len() {
            return Err(header_error(position, format!("two blobs have the key {key:?}")));
        }
        position = blob.offset + blob.length;
        blobs.push(blob);
    }
    if position != end {
        return Err(header_error(position, "bytes left in the resource section"));
    }
    Ok(blobs)
}

fn list(cursor: &mut Cursor<'_>, strings: &[String]) -> Result<Vec<Listed>, Fault> {
    let external = cursor.varint()?;
    if external != 0 {
        return Err(cursor.fault("external resources are not supported"));
    }
    let mut listed = Vec::new();
    while cursor.remaining() > 0 {
        cursor.index(strings.len(), "string")?;
        let group = cursor.list(|cursor| {
            let key = strings[cursor.index(strings.len(), "string")?].clone();
            let size = cursor.varint()?;
            match cursor.byte()? {
                0 => Ok(Listed { key, size }),
                kind => Err(cursor.fault(format!("resource {key:?} is of kind {kind}, not a blob"))),
            }
        })?;
        listed.extend(group);
    }
    Ok(listed)
}

/// Reads the head of the entry at `position`. Padding is counted from the start of the section's body.
fn one<R: ReadAt + ?Sized>(
    source: &R,
    end: u64,
    position: u64,
    body: u64,
    entry: Listed,
) -> Result<(Resource, BlobRange), ReadError> {
    let bad = |reason: &str| header_error(position, format!("blob {:?}: {reason}", entry.key));
    let head = window(source, end, position, 18)?;
    let mut cursor = Cursor::new(&head, position);
    let numbers = cursor.varint().and_then(|alignment| Ok((alignment, cursor.varint()?)));
    let (alignment, length) = numbers.map_err(|fault| bad(&fault.reason))?;
    if !alignment.is_power_of_two() || alignment > LARGEST_ALIGNMENT {
        return Err(bad(&format!("an alignment of {alignment}")));
    }
    let unpadded = position + cursor.taken() as u64;
    let padding = window(source, end, unpadded, padding_to(unpadded - body, alignment))?;
    let offset = unpadded + padding_to(unpadded - body, alignment);
    if padding.iter().any(|byte| *byte != PADDING) {
        return Err(bad("bad padding"));
    }
    let fits = offset.checked_add(length).is_some_and(|past| past <= end && past - position == entry.size);
    if !fits {
        return Err(bad(&format!("{length} bytes do not fit its entry of {}", entry.size)));
    }
    Ok((Resource { key: entry.key, length, alignment }, BlobRange { offset, length }))
}
