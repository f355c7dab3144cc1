//! The directory of an archive, read without trusting it. Only what `coreai-bundle pack` writes is accepted: stored entries whose data
//! is aligned and does not overlap, below one folder, with names that are the same file on every system.
//!
//! The format is that of APPNOTE.TXT 6.3.10, sections 4.3.7 (local header), 4.3.12 (central directory) and 4.3.14 to 4.3.16 (its end).

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use text::terminal::word;
use text::{bounds, names, small};

use crate::{Entry, FileRange, Kind};

/// Data of every entry starts at a multiple of this many bytes.
pub const ALIGNMENT: u64 = 4096;
/// Most entries of an archive; releases have dozens.
pub const MOST_ENTRIES: u64 = 50_000;
/// Most bytes of a directory.
const LARGEST_DIRECTORY: u64 = 32 << 20;

/// Bytes of the end of the directory.
const END: u64 = 22;
/// Bytes of the pointer to the larger form of the end.
const LOCATOR: u64 = 20;
/// Bytes of the larger form of the end.
const LARGE_END: usize = 56;
/// Bytes of an entry of the directory, besides its name and its extra fields.
const ENTRY: usize = 46;
/// Bytes of the header before an entry's data, besides name and extra fields.
const LOCAL: usize = 30;
/// Type of the extra field with 64-bit sizes.
const LARGE_FIELD: u16 = 1;

/// A file as it was when its directory was read: device, inode, size, time of change.
type Stamp = (u64, u64, u64, i64, i64);
/// Archives that were opened.
type Opened = HashMap<PathBuf, (Stamp, Arc<Archive>)>;

/// Directories are read once, however often a path leads into an archive.
static OPENED: LazyLock<Mutex<Opened>> = LazyLock::new(Mutex::default);

/// An archive and its directory.
#[derive(Debug)]
pub(crate) struct Archive {
    file: Arc<File>,
    /// First byte and number of bytes of each entry, by its path in the archive's one folder.
    entries: BTreeMap<String, (u64, u64)>,
}

impl Archive {
    /// Opens an archive, or returns it if it was opened before and is still the same.
    pub(crate) fn open(path: &Path) -> io::Result<Arc<Self>> {
        let file = small::open_regular(path)?;
        let metadata = file.metadata()?;
        let stamp = (metadata.dev(), metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec());
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, archive)) = opened.get(path)
            && *known == stamp
        {
            return Ok(Arc::clone(archive));
        }
        let archive = Arc::new(Self::read(file, metadata.len()).map_err(|error| of_archive(path, error))?);
        opened.insert(path.to_owned(), (stamp, Arc::clone(&archive)));
        Ok(archive)
    }

    fn read(file: File, length: u64) -> io::Result<Self> {
        let directory = Directory::find(&file, length)?;
        let mut bytes = vec![0; usize::try_from(directory.length).map_err(|_| refused("is too large"))?];
        file.read_exact_at(&mut bytes, directory.start)?;
        let mut rest = &bytes[..];
        let mut entries = BTreeMap::new();
        for _ in 0..directory.count {
            let record = Record::take(&mut rest)?;
            let start = record.data(&file, directory.start)?;
            let Record { name, length, .. } = record;
            names::path(&name).map_err(|error| refused(error.to_string()))?;
            if entries.insert(name, (start, length)).is_some() {
                return Err(refused("names a file twice"));
            }
        }
        if !rest.is_empty() {
            return Err(refused("has more entries than it says"));
        }
        names::distinct(entries.keys().map(String::as_str)).map_err(|error| refused(error.to_string()))?;
        refuse_overlaps(&entries)?;
        Ok(Archive { file: Arc::new(file), entries: below_one_folder(entries)? })
    }

    /// The file at a path in the archive.
    pub(crate) fn file(&self, inner: &str) -> Option<FileRange> {
        let (start, length) = self.entries.get(inner)?;
        Some(FileRange::new(&self.file, *start, *length))
    }

    /// Whether there is a file or a folder at a path in the archive; the archive itself is one.
    pub(crate) fn holds(&self, inner: &str) -> bool {
        inner.is_empty() || self.entries.contains_key(inner) || self.below(inner).next().is_some()
    }

    /// What is in a folder of the archive; None if there is no such folder.
    pub(crate) fn list(&self, inner: &str) -> Option<Vec<Entry>> {
        let skipped = if inner.is_empty() { 0 } else { inner.len() + 1 };
        let mut found: Vec<Entry> = Vec::new();
        for (path, (_, length)) in self.below(inner) {
            let (name, kind) = match path[skipped..].split_once('/') {
                Some((folder, _)) => (folder, Kind::Folder),
                None => (&path[skipped..], Kind::File(*length)),
            };
            // Entries of one folder follow one another.
            if found.last().is_none_or(|last| last.name != *name) {
                found.push(Entry { name: OsString::from(name), kind });
            }
        }
        (!found.is_empty()).then_some(found)
    }

    /// Entries below a folder, sorted.
    fn below(&self, inner: &str) -> impl Iterator<Item = (&String, &(u64, u64))> {
        let prefix = if inner.is_empty() { String::new() } else { format!("{inner}/") };
        let from = self.entries.range(prefix.clone()..);
        from.take_while(move |(path, _)| path.starts_with(&prefix))
    }
}

/// Where the directory is.
struct Directory {
    start: u64,
    length: u64,
    count: u64,
}

impl Directory {
    /// Finds the directory by the record at the very end of the file; `pack` writes no comment after it.
    fn find(file: &File, length: u64) -> io::Result<Self> {
        let end = length.checked_sub(END).ok_or_else(|| refused("is too short for an archive"))?;
        let mut record = [0; END as usize];
        file.read_exact_at(&mut record, end)?;
        if !record.starts_with(b"PK\x05\x06") {
            return Err(refused(
                "does not end as an archive: the copy or download is not complete, or it has a comment",
            ));
        }
        let mut directory = Directory {
            count: u64::from(u16_at(&record, 10)),
            length: u64::from(u32_at(&record, 12)),
            start: u64::from(u32_at(&record, 16)),
        };
        let is_large = directory.count == u64::from(u16::MAX)
            || directory.length == u64::from(u32::MAX)
            || directory.start == u64::from(u32::MAX);
        if is_large {
            let locator = end.checked_sub(LOCATOR).ok_or_else(|| refused("has no 64-bit end"))?;
            let mut pointer = [0; LOCATOR as usize];
            file.read_exact_at(&mut pointer, locator)?;
            let mut record = [0; LARGE_END];
            file.read_exact_at(&mut record, u64_at(&pointer, 8))?;
            if !pointer.starts_with(b"PK\x06\x07") || !record.starts_with(b"PK\x06\x06") {
                return Err(refused("has no 64-bit end"));
            }
            directory = Directory {
                count: u64_at(&record, 32),
                length: u64_at(&record, 40),
                start: u64_at(&record, 48),
            };
        }
        let is_inside = directory.start.checked_add(directory.length).is_some_and(|last| last <= end);
        if !is_inside || directory.length > LARGEST_DIRECTORY || directory.count > MOST_ENTRIES {
            return Err(refused("has a directory that is not possible"));
        }
        Ok(directory)
    }
}

/// One entry of the directory.
struct Record {
    name: String,
    length: u64,
    /// Where its local header is.
    header: u64,
}

impl Record {
    /// Takes the next entry off the directory.
    fn take(rest: &mut &[u8]) -> io::Result<Self> {
        let short = || refused("has a directory that ends early");
        let (fixed, after) = rest.split_at_checked(ENTRY).ok_or_else(short)?;
        if !fixed.starts_with(b"PK\x01\x02") {
            return Err(refused("has a directory with something else in it"));
        }
        let sizes = [28, 30, 32].map(|at| usize::from(u16_at(fixed, at)));
        let (name, after) = after.split_at_checked(sizes[0]).ok_or_else(short)?;
        let (extra, after) = after.split_at_checked(sizes[1]).ok_or_else(short)?;
        let (_, after) = after.split_at_checked(sizes[2]).ok_or_else(short)?;
        *rest = after;
        let name = std::str::from_utf8(name).map_err(|_| refused("has a name that is not UTF-8"))?.to_owned();
        let shown = || word(&bounds::shortened(&name, 200)).to_string();
        if u16_at(fixed, 10) != 0 || u16_at(fixed, 8) & 1 != 0 {
            return Err(refused(format!("has an entry that is compressed or encrypted, {}", shown())));
        }
        // The file type of Unix in the upper half: none, or that of a regular file.
        let file_type = u32_at(fixed, 38) >> 28;
        if !matches!(file_type, 0 | 8) || name.ends_with('/') {
            return Err(refused(format!("has an entry that is not a file, {}", shown())));
        }
        let stated = [24, 20, 42].map(|at| u64::from(u32_at(fixed, at)));
        let [length, packed, header] = large(stated, extra).ok_or_else(short)?;
        if length != packed {
            return Err(refused(format!("has an entry of two sizes, {}", shown())));
        }
        Ok(Record { name, length, header })
    }

    /// The first byte of the data, which ends before the directory.
    fn data(&self, file: &File, directory: u64) -> io::Result<u64> {
        let bad = || refused(format!("has an entry in an impossible place, {}", word(&self.name)));
        let mut fixed = [0; LOCAL];
        let room = self.header.checked_add(LOCAL as u64).filter(|end| *end <= directory).ok_or_else(bad)?;
        file.read_exact_at(&mut fixed, self.header)?;
        let (name, extra) = (u64::from(u16_at(&fixed, 26)), u64::from(u16_at(&fixed, 28)));
        let start = room + name + extra;
        let end = start.checked_add(self.length).ok_or_else(bad)?;
        if !fixed.starts_with(b"PK\x03\x04") || name != self.name.len() as u64 || end > directory {
            return Err(bad());
        }
        let mut found = vec![0; self.name.len()];
        file.read_exact_at(&mut found, room)?;
        if found != self.name.as_bytes() || u16_at(&fixed, 8) != 0 {
            return Err(bad());
        }
        if !start.is_multiple_of(ALIGNMENT) {
            return Err(refused("has entries that are not aligned"));
        }
        Ok(start)
    }
}

/// Numbers of 32 bits, of which those at their limit are in an extra field with 64.
fn large(mut stated: [u64; 3], mut extra: &[u8]) -> Option<[u64; 3]> {
    if !stated.contains(&u64::from(u32::MAX)) {
        return Some(stated);
    }
    while !extra.is_empty() {
        let (fixed, rest) = extra.split_at_checked(4)?;
        let (mut field, rest) = rest.split_at_checked(usize::from(u16_at(fixed, 2)))?;
        extra = rest;
        if u16_at(fixed, 0) == LARGE_FIELD {
            for number in stated.iter_mut().filter(|number| **number == u64::from(u32::MAX)) {
                let (value, rest) = field.split_at_checked(8)?;
                *number = u64_at(value, 0);
                field = rest;
            }
            return Some(stated);
        }
    }
    None
}

fn refuse_overlaps(entries: &BTreeMap<String, (u64, u64)>) -> io::Result<()> {
    let mut places: Vec<(u64, u64)> = entries.values().copied().collect();
    places.sort_unstable();
    let overlap = places.windows(2).any(|pair| pair[0].0 + pair[0].1 > pair[1].0);
    let is_both = |name: &String| {
        let folder = format!("{name}/");
        entries.range(folder.clone()..).next().is_some_and(|(next, _)| next.starts_with(&folder))
    };
    if overlap || entries.keys().any(is_both) {
        return Err(refused("has entries that overlap"));
    }
    Ok(())
}

/// Paths in the one folder that the archive unpacks to.
fn below_one_folder(entries: BTreeMap<String, (u64, u64)>) -> io::Result<BTreeMap<String, (u64, u64)>> {
    let first = entries.keys().next().ok_or_else(|| refused("is empty"))?;
    let folder = first.split_once('/').map(|(folder, _)| format!("{folder}/"));
    let folder = folder.ok_or_else(|| refused("unpacks to files, not to one folder"))?;
    let inner = |(path, place): (String, (u64, u64))| {
        let path = path.strip_prefix(&folder).map(str::to_owned);
        Ok((path.ok_or_else(|| refused("unpacks to several folders"))?, place))
    };
    entries.into_iter().map(inner).collect()
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|two| two.try_into().ok()).map(u16::from_le_bytes).unwrap_or_default()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_le_bytes).unwrap_or_default()
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|eight| eight.try_into().ok()).map(u64::from_le_bytes).unwrap_or_default()
}

fn refused(what: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what.into())
}

/// Says which archive it is, and what to do.
fn of_archive(path: &Path, error: io::Error) -> io::Error {
    let what = format!(
        "the archive {} {error}; only whole archives of `coreai-bundle pack` are read in place: copy or download it again, or, if another tool made it, unpack it and give the folder",
        word(&path.display().to_string())
    );
    io::Error::new(error.kind(), what)
}
