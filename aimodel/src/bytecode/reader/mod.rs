//! Reads a file back into a module, without touching its blobs.
//!
//! Every length, offset and count is checked against what is really there before it is used: a damaged or hostile file causes an
//! error that names the section and the byte, never a panic and never an allocation beyond the file's own size.

mod cursor;
mod entries;
mod ir;
mod resources;

use std::fs::File;
use std::io;
use std::path::Path;

use cursor::{Cursor, Fault};

use super::{DIALECT, ENCODING, MAGIC, PADDING, VERSION, section};
use crate::module::Module;

/// Bytes that can be read at any position.
pub trait ReadAt {
    /// Number of bytes.
    fn length(&self) -> io::Result<u64>;
    /// Fills `out` from `offset` on, or fails.
    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for [u8] {
    fn length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).ok();
        let bytes = start.and_then(|start| self.get(start..start.checked_add(out.len())?));
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl ReadAt for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, out, offset)
    }
}

impl ReadAt for paths::FileRange {
    fn length(&self) -> io::Result<u64> {
        Ok(paths::FileRange::length(self))
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        paths::FileRange::read_exact_at(self, out, offset)
    }
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system refused to read.
    #[error("cannot read the bytecode: {0}")]
    Io(#[from] io::Error),
    /// The bytes are not what the format says.
    #[error("{section}, byte {offset}: {reason}; the file is damaged or of another version")]
    Format {
        /// Part of the file.
        section: &'static str,
        /// Position in the file.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
}

/// Bytes of a blob that are read at a time.
const PIECE: usize = 1 << 20;

/// Place of a blob in a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlobRange {
    /// First byte, counted from the start of the file.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
}

impl BlobRange {
    /// Passes the bytes in pieces of [`PIECE`], the last one shorter.
    ///
    /// # Errors
    /// If the system refuses to read, or the file does not hold them.
    pub fn scan<R: ReadAt + ?Sized>(self, source: &R, mut look: impl FnMut(&[u8])) -> io::Result<()> {
        let mut buffer = vec![0; PIECE];
        let mut done = 0;
        while done < self.length {
            let size = usize::try_from(self.length - done).unwrap_or(PIECE).min(PIECE);
            source.read_exact_at(&mut buffer[..size], self.offset.saturating_add(done))?;
            look(&buffer[..size]);
            done += size as u64;
        }
        Ok(())
    }
}

/// A file as read: the module, and where the blobs of its resources are.
#[derive(Clone, Debug)]
pub struct Bytecode {
    /// The program.
    pub module: Module,
    /// Places of the blobs, by [`crate::ResourceId::index`].
    pub blobs: Vec<BlobRange>,
    /// What the file says wrote it.
    pub producer: String,
    /// Size of the file in bytes.
    pub length: u64,
}

impl Bytecode {
    /// Reads a `main.mlirb`.
    pub fn open(path: &Path) -> Result<Bytecode, ReadError> {
        Self::read(&paths::open(path)?)
    }

    /// Reads bytecode from anything that can be read at a position.
    pub fn read<R: ReadAt + ?Sized>(source: &R) -> Result<Bytecode, ReadError> {
        let length = source.length()?;
        let (producer, sections) = Sections::scan(source, length)?;
        let strings = entries::strings(sections.body(section::STRING)?)?;
        let op_names = entries::dialects(sections.body(section::DIALECT)?, &strings)?;
        let mut module = Module::new();
        let blobs = resources::read(source, &sections, &strings, &mut module)?;
        let (offsets, bodies) =
            (sections.body(section::ATTRIBUTE_TYPE_OFFSETS)?, sections.body(section::ATTRIBUTE_TYPE)?);
        let mut tables = entries::Tables::new(offsets, bodies, &strings, blobs.len())?;
        tables.decode_all(&mut module)?;
        let ir_body = sections.body(section::IR)?;
        let property_body = sections.body(section::PROPERTIES)?;
        ir::read(ir_body, property_body, &op_names, &tables, &mut module)?;
        Ok(Bytecode { module, blobs, producer, length })
    }
}

/// A section's bytes and their position in the file.
struct Body {
    name: &'static str,
    start: u64,
    bytes: Vec<u8>,
}

impl Body {
    fn cursor(&self) -> Cursor<'_> {
        Cursor::new(&self.bytes, self.start)
    }

    fn error(&self, fault: Fault) -> ReadError {
        ReadError::Format { section: self.name, offset: fault.offset, reason: fault.reason }
    }

    /// Reads the body with `parse`; a fault gets this section's name, and bytes left over are a fault.
    fn parse<'b, T>(
        &'b self,
        parse: impl FnOnce(&mut Cursor<'b>) -> Result<T, Fault>,
    ) -> Result<T, ReadError> {
        let mut cursor = self.cursor();
        let parsed = parse(&mut cursor).and_then(|parsed| cursor.finish().map(|()| parsed));
        parsed.map_err(|fault| self.error(fault))
    }
}

/// The sections of a file: all bodies but the resource section's, which may be larger than memory.
struct Sections {
    bodies: Vec<(u8, Body)>,
    /// First byte and length of the resource section's body.
    resource: Option<BlobRange>,
}

const HEADER: &str = "header";

fn header_error(offset: u64, reason: impl Into<String>) -> ReadError {
    ReadError::Format { section: HEADER, offset, reason: reason.into() }
}

fn name_of(id: u8) -> Option<&'static str> {
    Some(match id {
        section::STRING => "string section",
        section::DIALECT => "dialect section",
        section::ATTRIBUTE_TYPE => "attribute/type section",
        section::ATTRIBUTE_TYPE_OFFSETS => "attribute/type offsets",
        section::IR => "IR section",
        section::RESOURCE => "resource section",
        section::RESOURCE_OFFSETS => "resource offsets",
        section::PROPERTIES => "properties section",
        _ => return None,
    })
}

impl Sections {
    fn scan<R: ReadAt + ?Sized>(source: &R, length: u64) -> Result<(String, Sections), ReadError> {
        let (producer, mut position) = file_header(source, length)?;
        let mut sections = Sections { bodies: Vec::new(), resource: None };
        while position < length {
            position = sections.one(source, length, position)?;
        }
        Ok((producer, sections))
    }

    /// Takes the section at `position`; returns the position after it.
    fn one<R: ReadAt + ?Sized>(&mut self, source: &R, length: u64, position: u64) -> Result<u64, ReadError> {
        let head = window(source, length, position, 32)?;
        let mut cursor = Cursor::new(&head, position);
        let parsed = section_head(&mut cursor).map_err(|fault| header_error(fault.offset, fault.reason))?;
        let (id, body_length, alignment) = parsed;
        let mut start = position + cursor.taken() as u64;
        if let Some(alignment) = alignment {
            start = skip_padding(source, length, start, alignment)?;
        }
        let end = start.checked_add(body_length).filter(|end| *end <= length);
        let end = end.ok_or_else(|| {
            header_error(
                position,
                format!("a section of {body_length} bytes does not fit a file of {length}"),
            )
        })?;
        let name =
            name_of(id).ok_or_else(|| header_error(position, format!("no section has the id {id}")))?;
        let again = self.resource.is_some() && id == section::RESOURCE;
        if again || self.bodies.iter().any(|(other, _)| *other == id) {
            return Err(header_error(position, format!("a second {name}")));
        }
        if id == section::RESOURCE {
            self.resource = Some(BlobRange { offset: start, length: body_length });
        } else {
            let bytes = window(source, length, start, body_length)?;
            self.bodies.push((id, Body { name, start, bytes }));
        }
        Ok(end)
    }

    fn body(&self, id: u8) -> Result<&Body, ReadError> {
        let found = self.bodies.iter().find(|(other, _)| *other == id).map(|(_, body)| body);
        found.ok_or_else(|| header_error(0, format!("there is no {}", name_of(id).unwrap_or("such section"))))
    }
}

/// At most `wanted` bytes from `position` on, fewer at the end of the file.
fn window<R: ReadAt + ?Sized>(
    source: &R,
    length: u64,
    position: u64,
    wanted: u64,
) -> Result<Vec<u8>, ReadError> {
    let available = length.saturating_sub(position).min(wanted);
    let size =
        usize::try_from(available).map_err(|_| header_error(position, "more bytes than memory can hold"))?;
    let mut bytes = vec![0; size];
    source.read_exact_at(&mut bytes, position)?;
    Ok(bytes)
}

/// Magic, version, producer: returns the producer and the position of the first section.
fn file_header<R: ReadAt + ?Sized>(source: &R, length: u64) -> Result<(String, u64), ReadError> {
    let head = window(source, length, 0, 4096)?;
    if head.get(..MAGIC.len()) != Some(&MAGIC) {
        return Err(header_error(0, "does not start like MLIR bytecode"));
    }
    let mut cursor = Cursor::new(&head[MAGIC.len()..], MAGIC.len() as u64);
    let parsed = cursor.varint().and_then(|version| {
        if version != VERSION {
            return Err(cursor.fault(format!("bytecode version {version}, only {VERSION} is known")));
        }
        cursor.text_until_nul()
    });
    let producer = parsed.map_err(|fault| header_error(fault.offset, fault.reason))?;
    Ok((producer.to_owned(), (MAGIC.len() + cursor.taken()) as u64))
}

fn section_head(cursor: &mut Cursor<'_>) -> Result<(u8, u64, Option<u64>), Fault> {
    let id = cursor.byte()?;
    let length = cursor.varint()?;
    if id & section::ALIGNED == 0 {
        return Ok((id, length, None));
    }
    let alignment = cursor.varint()?;
    if !alignment.is_power_of_two() || alignment > 1 << 16 {
        return Err(cursor.fault(format!("an alignment of {alignment}")));
    }
    Ok((id & !section::ALIGNED, length, Some(alignment)))
}

/// Checks the filler from `start` to the next multiple of `alignment`.
fn skip_padding<R: ReadAt + ?Sized>(
    source: &R,
    length: u64,
    start: u64,
    alignment: u64,
) -> Result<u64, ReadError> {
    let size = super::varint::padding_to(start, alignment);
    let padding = window(source, length, start, size)?;
    if padding.len() as u64 != size || padding.iter().any(|byte| *byte != PADDING) {
        return Err(header_error(start, "bad padding in front of a section"));
    }
    Ok(start + size)
}

/// The version of the dialect must be the one that this reader knows.
fn check_encoding(bytes: &[u8]) -> bool {
    bytes == ENCODING
}

fn is_dialect(name: &str) -> bool {
    name == DIALECT
}
