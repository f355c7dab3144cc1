//! A large file that is hashed and written by a thread of its own, while its bytes are still being made.
//!
//! Bytes go into aligned chunks, which go to the file past the page cache where the system can do that (`O_DIRECT` on Linux,
//! `F_NOCACHE` on macOS): nothing is copied twice, pages of other files stay in memory, and the sync at the end has little
//! left to do. Where it cannot, the same chunks are written the usual way. Memory is that of [`CHUNKS`] chunks.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::JoinHandle;

use bytemuck::{Pod, Zeroable};
use sha2::{Digest, Sha256};

/// Alignment that direct writes ask for, of memory and of positions, on every disk of today.
const PAGE: usize = 4096;
/// Pages of a chunk: 4 MiB.
const CHUNK_PAGES: usize = 1024;
/// Chunks of a file that are filled, under way, or waiting.
const CHUNKS: usize = 3;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(4096))]
struct Page([u8; PAGE]);

/// Bytes under way to the file.
struct Chunk {
    pages: Vec<Page>,
    filled: usize,
}

impl Chunk {
    fn new() -> Self {
        Chunk { pages: bytemuck::zeroed_vec(CHUNK_PAGES), filled: 0 }
    }

    /// Takes as many bytes as fit, and gives the others back.
    fn fill<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let room = &mut bytemuck::cast_slice_mut(&mut self.pages)[self.filled..];
        let (taken, left) = bytes.split_at(bytes.len().min(room.len()));
        room[..taken.len()].copy_from_slice(taken);
        self.filled += taken.len();
        left
    }

    fn is_full(&self) -> bool {
        self.filled == self.pages.len() * PAGE
    }

    fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.pages)[..self.filled]
    }
}

/// What was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WrittenFile {
    /// SHA-256 of the bytes.
    pub digest: [u8; 32],
    /// Number of bytes.
    pub bytes: u64,
}

/// A new file under way. Dropped before [`StreamedFile::finish`], it is left incomplete, and nothing writes to it any more.
#[derive(Debug)]
pub struct StreamedFile {
    chunk: Option<Chunk>,
    /// Chunks that exist.
    chunks: usize,
    full: Option<SyncSender<Chunk>>,
    empty: Receiver<Chunk>,
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
        let target = Target::create(path)?;
        let (full, filled) = mpsc::sync_channel(CHUNKS);
        let (give_back, empty) = mpsc::sync_channel(CHUNKS);
        let writer = std::thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || write_chunks(target, &filled, &give_back))?;
        Ok(StreamedFile { chunk: None, chunks: 0, full: Some(full), empty, writer: Some(writer) })
    }

    /// Appends bytes. Waits while too many are under way.
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
        if self.chunks < CHUNKS {
            self.chunks += 1;
            return Ok(Chunk::new());
        }
        self.empty.recv().map_err(|_| self.failure())
    }

    fn send(&mut self, chunk: Chunk) -> io::Result<()> {
        let sent = self.full.as_ref().is_some_and(|full| full.send(chunk).is_ok());
        if sent { Ok(()) } else { Err(self.failure()) }
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
            // Whoever drops the file does not want to know.
            let _ = writer.join();
        }
    }
}

fn write_chunks(
    mut target: Target,
    filled: &Receiver<Chunk>,
    give_back: &SyncSender<Chunk>,
) -> io::Result<WrittenFile> {
    let (mut hasher, mut bytes) = (Sha256::new(), 0);
    for mut chunk in filled {
        hasher.update(chunk.bytes());
        if !chunk.is_full() {
            // The last one: it ends anywhere.
            target.write_through_cache()?;
        }
        target.write_all(chunk.bytes())?;
        bytes += chunk.filled as u64;
        chunk.filled = 0;
        // Nobody takes chunks any more when the file is being finished.
        let _ = give_back.send(chunk);
    }
    Ok(WrittenFile { digest: hasher.finalize().into(), bytes })
}

/// The file, written directly if the file system can do that.
struct Target {
    file: File,
    is_direct: bool,
}

impl Target {
    #[cfg(target_os = "linux")]
    fn create(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        // Opened a second time, since a file system that cannot write directly may refuse after having made the file.
        let flags = rustix::fs::OFlags::DIRECT.bits().cast_signed();
        match OpenOptions::new().write(true).custom_flags(flags).open(path) {
            Ok(direct) => Ok(Target { file: direct, is_direct: true }),
            Err(_) => Ok(Target { file, is_direct: false }),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        // No alignment is asked for there, so there is nothing to turn off later. A hint: it may be refused.
        #[cfg(target_os = "macos")]
        let _ = rustix::fs::fcntl_nocache(&file, true);
        Ok(Target { file, is_direct: false })
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
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

    /// Has the following bytes written the usual way.
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

    use sha2::{Digest, Sha256};

    use super::{CHUNK_PAGES, CHUNKS, PAGE, StreamedFile};

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
                assert_eq!(written.digest, <[u8; 32]>::from(Sha256::digest(&bytes[..length])));
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

    /// `/dev/full` has no room for anything.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error() {
        let target = super::Target {
            file: fs::OpenOptions::new().write(true).open("/dev/full").unwrap(),
            is_direct: false,
        };
        let (send, filled) = std::sync::mpsc::sync_channel(1);
        let (give_back, _empty) = std::sync::mpsc::sync_channel(1);
        let mut chunk = super::Chunk::new();
        chunk.fill(&[1]);
        send.send(chunk).unwrap();
        let error = super::write_chunks(target, &filled, &give_back).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
