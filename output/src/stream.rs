//! A large file that is hashed and written by a separate thread while its bytes are still being made.
//!
//! Bytes go into aligned chunks, which go to the file past the page cache where the system can do that (`O_DIRECT` on Linux,
//! `F_NOCACHE` on macOS): nothing is copied twice, pages of other files stay in memory, and the sync at the end is
//! short. Where it cannot, the same chunks are written the usual way. It needs the memory of three chunks.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread::JoinHandle;

use memmap2::MmapMut;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::disk::Disk;

/// Alignment that direct writes ask for, of memory and of positions, on every disk of today.
const PAGE: usize = 4096;
/// Bytes that are read at a time to be hashed.
const READ: usize = 1 << 17;

/// Bytes on their way to the file.
struct Chunk {
    /// Mapped, so that it is aligned and a small file takes only the pages that it fills.
    pages: MmapMut,
    filled: usize,
    /// Leading bytes that are in the digest already.
    hashed: usize,
    /// Positions at which the digest is asked for, in order.
    marks: Vec<usize>,
}

impl Chunk {
    fn new(pages: usize) -> io::Result<Self> {
        Ok(Chunk { pages: MmapMut::map_anon(pages * PAGE)?, filled: 0, hashed: 0, marks: Vec::new() })
    }

    fn clear(&mut self) {
        (self.filled, self.hashed) = (0, 0);
        self.marks.clear();
    }

    /// Takes as many bytes as fit, and returns the others.
    fn fill<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let room = &mut self.pages[self.filled..];
        let (taken, left) = bytes.split_at(bytes.len().min(room.len()));
        room[..taken.len()].copy_from_slice(taken);
        self.filled += taken.len();
        left
    }

    fn is_full(&self) -> bool {
        self.filled == self.pages.len()
    }

    fn bytes(&self) -> &[u8] {
        &self.pages[..self.filled]
    }
}

/// What was written: a whole file, or the bytes of one up to a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WrittenFile {
    /// SHA-256 of the bytes.
    pub digest: Digest,
    /// Number of bytes.
    pub bytes: u64,
}

impl WrittenFile {
    /// What a file holds.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn of(path: &Path) -> io::Result<Self> {
        Self::of_reader(File::open(path)?)
    }

    /// What a reader returns up to its end.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn of_reader(reader: impl Read) -> io::Result<Self> {
        let (hasher, bytes) = hash(reader)?;
        Ok(WrittenFile { digest: hasher.into(), bytes })
    }

    /// Whether a file holds these bytes and no others; false if there is none.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn is_whole(&self, path: &Path) -> io::Result<bool> {
        match fs::metadata(path) {
            Ok(metadata) if !metadata.is_file() || metadata.len() != self.bytes => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            _ => {}
        }
        Ok(Self::of(path)? == *self)
    }
}

/// Hashes and counts what a reader returns up to its end.
fn hash(mut reader: impl Read) -> io::Result<(Sha256, u64)> {
    let (mut hasher, mut bytes) = (Sha256::new(), 0);
    let mut buffer = vec![0; READ];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok((hasher, bytes)),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                bytes += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A new, unfinished file. Dropped before [`StreamedFile::finish`], it is left incomplete, and nothing writes to it any more.
#[derive(Debug)]
pub struct StreamedFile {
    disk: Disk,
    chunk: Option<Chunk>,
    /// Chunks that exist.
    chunks: usize,
    full: Option<SyncSender<Chunk>>,
    empty: Receiver<Chunk>,
    reached: Receiver<WrittenFile>,
    writer: Option<JoinHandle<io::Result<WrittenFile>>>,
}

impl std::fmt::Debug for Chunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.filled)
    }
}

impl StreamedFile {
    /// Makes the file, which must not exist.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn create(path: &Path) -> io::Result<Self> {
        Self::create_on(&Disk::default(), path)
    }

    /// As [`StreamedFile::create`], on this disk.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn create_on(disk: &Disk, path: &Path) -> io::Result<Self> {
        Self::start(Target::create(disk, path)?, Sha256::new(), 0, None)
    }

    /// Continues a file that was left incomplete, after these bytes; what follows them is cut off.
    ///
    /// # Errors
    /// `InvalidData` if the file does not begin with them; else if the system refuses.
    pub fn resume_on(disk: &Disk, path: &Path, front: &WrittenFile) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        let (hasher, bytes) = hash(Read::by_ref(&mut file).take(front.bytes))?;
        if (WrittenFile { digest: hasher.clone().into(), bytes }) != *front {
            return Err(io::ErrorKind::InvalidData.into());
        }
        // Written from the last whole page on, so that writing can continue directly.
        let start = front.bytes / PAGE as u64 * PAGE as u64;
        let mut chunk = Chunk::new(disk.chunk_pages)?;
        chunk.filled = (front.bytes - start) as usize;
        chunk.hashed = chunk.filled;
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut chunk.pages[..chunk.filled])?;
        // The page that is written again keeps its bytes until then: this run may be cut off, too.
        file.set_len(front.bytes)?;
        let mut target = Target::open(disk, path, file)?;
        target.file.seek(SeekFrom::Start(start))?;
        Self::start(target, hasher, start, Some(chunk))
    }

    fn start(target: Target, hasher: Sha256, bytes: u64, chunk: Option<Chunk>) -> io::Result<Self> {
        let disk = target.disk.clone();
        let (full, filled) = mpsc::sync_channel(disk.chunks);
        let (give_back, empty) = mpsc::sync_channel(disk.chunks);
        let (reach, reached) = mpsc::channel();
        let writing = Writing { target, hasher, bytes };
        let writer = std::thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || writing.write_chunks(&filled, &give_back, &reach))?;
        let chunks = usize::from(chunk.is_some());
        Ok(StreamedFile { disk, chunk, chunks, full: Some(full), empty, reached, writer: Some(writer) })
    }

    /// Marks the place after what was appended so far; [`StreamedFile::reached`] reports when the file holds everything before it.
    ///
    /// # Errors
    /// If earlier bytes cannot be written.
    pub fn mark(&mut self) -> io::Result<()> {
        let mut chunk = match self.chunk.take() {
            Some(chunk) => chunk,
            None => self.empty_chunk()?,
        };
        chunk.marks.push(chunk.filled);
        self.chunk = Some(chunk);
        Ok(())
    }

    /// The next mark, in order, that the file has reached, once: the bytes in front of it.
    pub fn reached(&self) -> Option<WrittenFile> {
        self.reached.try_recv().ok()
    }

    /// Appends bytes. Waits while too many are not yet written.
    ///
    /// # Errors
    /// If these bytes or earlier ones cannot be written.
    pub fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut chunk = match self.chunk.take() {
                Some(chunk) => chunk,
                None => self.empty_chunk()?,
            };
            bytes = chunk.fill(bytes);
            if chunk.is_full() {
                self.send(chunk)?;
            } else {
                self.chunk = Some(chunk);
            }
        }
        Ok(())
    }

    /// Waits until all bytes are written. They are not synced.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn finish(mut self) -> io::Result<WrittenFile> {
        if let Some(chunk) = self.chunk.take() {
            self.send(chunk)?;
        }
        self.join()
    }

    fn empty_chunk(&mut self) -> io::Result<Chunk> {
        if let Ok(chunk) = self.empty.try_recv() {
            return Ok(chunk);
        }
        if self.chunks < self.disk.chunks {
            self.chunks += 1;
            return Chunk::new(self.disk.chunk_pages);
        }
        self.empty.recv().map_err(|_| self.failure())
    }

    fn send(&mut self, chunk: Chunk) -> io::Result<()> {
        if self.full.as_ref().is_none_or(|full| full.send(chunk).is_err()) {
            return Err(self.failure());
        }
        if self.disk.chunks == 1 {
            self.chunk = Some(self.empty_chunk()?);
        }
        Ok(())
    }

    /// Why the writer has left early.
    fn failure(&mut self) -> io::Error {
        self.join().err().unwrap_or_else(|| io::Error::other("nothing can be appended to a finished file"))
    }

    fn join(&mut self) -> io::Result<WrittenFile> {
        self.full = None;
        let ended = || io::Error::other("the file's writer has ended already");
        let writer = self.writer.take().ok_or_else(ended)?;
        writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for StreamedFile {
    fn drop(&mut self) {
        self.full = None;
        if let Some(writer) = self.writer.take() {
            // Whoever drops the file ignores errors.
            let _ = writer.join();
        }
    }
}

/// What the writer's thread holds.
struct Writing {
    target: Target,
    hasher: Sha256,
    /// Bytes in the file.
    bytes: u64,
}

impl Writing {
    fn write_chunks(
        mut self,
        filled: &Receiver<Chunk>,
        give_back: &SyncSender<Chunk>,
        reach: &Sender<WrittenFile>,
    ) -> io::Result<WrittenFile> {
        for mut chunk in filled {
            let reached = self.hash(&chunk);
            if !chunk.is_full() {
                // The last one may end anywhere.
                self.target.write_through_cache()?;
            }
            self.target.write_all(chunk.bytes())?;
            self.bytes += chunk.filled as u64;
            for mark in reached {
                // The receiver is gone when the file is being finished.
                let _ = reach.send(mark);
            }
            chunk.clear();
            let _ = give_back.send(chunk);
        }
        Ok(WrittenFile { digest: self.hasher.into(), bytes: self.bytes })
    }

    /// Hashes a chunk, stopping at its marks.
    fn hash(&mut self, chunk: &Chunk) -> Vec<WrittenFile> {
        let (bytes, mut hashed) = (chunk.bytes(), chunk.hashed);
        let mut reached = Vec::with_capacity(chunk.marks.len());
        for mark in &chunk.marks {
            self.hasher.update(&bytes[hashed..*mark]);
            hashed = *mark;
            let digest = self.hasher.clone().into();
            reached.push(WrittenFile { digest, bytes: self.bytes + hashed as u64 });
        }
        self.hasher.update(&bytes[hashed..]);
        reached
    }
}

/// The file, written directly if the file system can do that.
struct Target {
    disk: Disk,
    file: File,
    is_direct: bool,
}

impl Target {
    fn create(disk: &Disk, path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        Self::open(disk, path, file)
    }

    /// Of an open file.
    #[cfg(target_os = "linux")]
    fn open(disk: &Disk, path: &Path, file: File) -> io::Result<Self> {
        let disk = disk.clone();
        use std::os::unix::fs::OpenOptionsExt;
        // Opened a second time, since a file system that cannot write directly may refuse after having made the file.
        let flags = rustix::fs::OFlags::DIRECT.bits().cast_signed();
        match OpenOptions::new().write(true).custom_flags(flags).open(path) {
            Ok(direct) => Ok(Target { disk, file: direct, is_direct: true }),
            Err(_) => Ok(Target { disk, file, is_direct: false }),
        }
    }

    /// Of an open file.
    #[cfg(not(target_os = "linux"))]
    fn open(disk: &Disk, _path: &Path, file: File) -> io::Result<Self> {
        // No alignment is asked for there, so there is nothing to turn off later. A hint: it may be refused.
        #[cfg(target_os = "macos")]
        let _ = rustix::fs::fcntl_nocache(&file, true);
        Ok(Target { disk: disk.clone(), file, is_direct: false })
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let disk = self.disk.clone();
        disk.write(bytes, |bytes| self.write_bytes(bytes))
    }

    fn write_bytes(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.file.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The disk wants another alignment, or a write ended in the middle of a page.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput && self.is_direct => {
                    self.write_through_cache()?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Makes the following bytes be written the usual way.
    fn write_through_cache(&mut self) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if self.is_direct {
            let flags = rustix::fs::fcntl_getfl(&self.file)?;
            rustix::fs::fcntl_setfl(&self.file, flags - rustix::fs::OFlags::DIRECT)?;
        }
        self.is_direct = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io;

    use sha2::{Digest as _, Sha256};

    use super::{PAGE, StreamedFile};
    use crate::digest::Digest;
    use crate::disk::{CHUNK_PAGES, CHUNKS, Disk};

    const CHUNK: usize = CHUNK_PAGES * PAGE;

    #[test]
    fn bytes_arrive_whatever_their_number_and_the_pieces_they_come_in() {
        let dir = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..CHUNK * (CHUNKS + 2) + 5).map(|at| ((at * 31) >> 7) as u8).collect();
        for length in [0, 1, PAGE, PAGE + 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, bytes.len()] {
            for piece in [4097, 3 * CHUNK / 2, bytes.len()] {
                let path = dir.path().join(format!("{length}-{piece}"));
                let mut file = StreamedFile::create(&path).unwrap();
                bytes[..length].chunks(piece).for_each(|piece| file.write(piece).unwrap());
                let written = file.finish().unwrap();
                assert_eq!(written.bytes, length as u64);
                assert_eq!(written.digest, Digest::of_bytes(&bytes[..length]));
                assert!(fs::read(&path).unwrap() == bytes[..length], "{length} bytes in pieces of {piece}");
                fs::remove_file(path).unwrap();
            }
        }
    }

    #[test]
    fn a_file_that_exists_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("there");
        fs::write(&path, "kept").unwrap();
        assert_eq!(StreamedFile::create(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "kept");
    }

    #[test]
    fn nothing_is_written_after_a_drop() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dropped");
        let mut file = StreamedFile::create(&path).unwrap();
        file.write(&vec![1; 2 * CHUNK + 1]).unwrap();
        drop(file);
        let length = fs::metadata(&path).unwrap().len();
        fs::remove_file(&path).unwrap();
        assert_eq!(length, 2 * CHUNK as u64);
    }

    /// A run that was killed after a mark: what was appended later may be in the file, in part, or not.
    #[test]
    fn a_file_continues_after_any_mark_that_it_reached() {
        let dir = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..2 * CHUNK + 7 * PAGE + 5).map(|at| ((at * 37) >> 5) as u8).collect();
        let places = [0, 1, PAGE, PAGE + 9, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + PAGE];
        let path = dir.path().join("file");
        let mut file = StreamedFile::create(&path).unwrap();
        let mut start = 0;
        for place in places {
            file.write(&bytes[start..place]).unwrap();
            file.mark().unwrap();
            start = place;
        }
        file.write(&bytes[start..]).unwrap();
        let StreamedFile { reached, .. } = &file;
        let mut marks = vec![reached.recv().unwrap()];
        drop(file.full.take());
        marks.extend(file.reached.iter());
        drop(file);
        let at: Vec<u64> = marks.iter().map(|mark| mark.bytes).collect();
        assert_eq!(at, [0, 1, PAGE, PAGE + 9, CHUNK - 1, CHUNK, CHUNK + 1].map(|place| place as u64));
        for mark in marks {
            let copy = dir.path().join("copy");
            fs::copy(&path, &copy).unwrap();
            // A run that is cut off before anything of it is in the file loses nothing.
            let mut cut_off = StreamedFile::resume_on(&Disk::default(), &copy, &mark).unwrap();
            cut_off.write(&[7; 100]).unwrap();
            drop(cut_off);
            assert!(mark.is_whole(&copy).unwrap());
            let mut resumed = StreamedFile::resume_on(&Disk::default(), &copy, &mark).unwrap();
            resumed.write(&bytes[mark.bytes as usize..]).unwrap();
            let written = resumed.finish().unwrap();
            assert_eq!(written.bytes, bytes.len() as u64);
            assert_eq!(written.digest, Digest::of_bytes(&bytes));
            assert!(fs::read(&copy).unwrap() == bytes, "behind {}", mark.bytes);
        }
    }

    #[test]
    fn a_file_that_lost_bytes_does_not_continue() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, [1, 2, 3, 4]).unwrap();
        let front = |bytes: &[u8]| super::WrittenFile::of_reader(bytes).unwrap();
        for lost in [front(&[1, 2, 4]), front(&[1, 2, 3, 4, 5])] {
            let resumed = StreamedFile::resume_on(&Disk::default(), &path, &lost);
            assert_eq!(resumed.unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
        assert_eq!(fs::read(&path).unwrap(), [1, 2, 3, 4], "what is there is left alone");
    }

    #[test]
    fn a_file_is_whole_with_its_bytes_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, [1, 2, 3]).unwrap();
        let file = super::WrittenFile::of(&path).unwrap();
        assert!(file.is_whole(&path).unwrap());
        for other in [&[1, 2, 3, 0][..], &[1, 2], &[1, 2, 4], &[]] {
            fs::write(&path, other).unwrap();
            assert!(!file.is_whole(&path).unwrap(), "{other:?}");
        }
        fs::remove_file(&path).unwrap();
        assert!(!file.is_whole(&path).unwrap(), "nothing is there");
        assert!(!file.is_whole(dir.path()).unwrap(), "a folder");
    }

    #[test]
    fn a_failing_disk_keeps_what_it_took() {
        let dir = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..5 * PAGE + 9).map(|at| (at * 37) as u8).collect();
        for room in [0, 1, PAGE - 1, PAGE, PAGE + 1, 5 * PAGE, bytes.len() - 1, bytes.len()] {
            let path = dir.path().join(room.to_string());
            let mut file = StreamedFile::create_on(&Disk::failing_after(room as u64), &path).unwrap();
            let written = file.write(&bytes).and_then(|()| file.finish());
            assert_eq!(written.is_ok(), room == bytes.len(), "{room}");
            assert!(fs::read(&path).unwrap() == bytes[..room], "{room}");
        }
    }

    /// `/dev/full` has no room for anything.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error() {
        let target = super::Target {
            disk: Disk::default(),
            file: fs::OpenOptions::new().write(true).open("/dev/full").unwrap(),
            is_direct: false,
        };
        let (send, filled) = std::sync::mpsc::sync_channel(1);
        let (give_back, _empty) = std::sync::mpsc::sync_channel(1);
        let (reach, _reached) = std::sync::mpsc::channel();
        let mut chunk = super::Chunk::new(1).unwrap();
        chunk.fill(&[1]);
        send.send(chunk).unwrap();
        let writing = super::Writing { target, hasher: Sha256::new(), bytes: 0 };
        let error = writing.write_chunks(&filled, &give_back, &reach).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
