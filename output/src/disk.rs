//! How files are written: in chunks of which size, and, in tests, up to the byte at which the disk fails.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Pages of a chunk: 4 MiB.
pub(crate) const CHUNK_PAGES: usize = 1024;
/// Chunks of a file that are being filled, written, or are waiting.
pub(crate) const CHUNKS: usize = 3;

/// A disk to write files to. The default one only fails when the real one does.
#[derive(Clone, Debug)]
pub struct Disk {
    /// Pages of a chunk.
    pub(crate) chunk_pages: usize,
    /// Chunks of a file. With a single one, the thread that fills it waits until it is written.
    pub(crate) chunks: usize,
    /// Bytes that can still be written, if there is a limit.
    room: Option<Arc<AtomicU64>>,
}

impl Default for Disk {
    fn default() -> Self {
        Disk { chunk_pages: CHUNK_PAGES, chunks: CHUNKS, room: None }
    }
}

impl Disk {
    /// A disk for tests that fails for good once `bytes` bytes are written, in the middle of a write if need be. Every
    /// [`step`](Self::step) takes one byte. It writes page by page in the order of the calls, so equal runs fail at equal places.
    pub fn failing_after(bytes: u64) -> Self {
        Disk { chunk_pages: 1, chunks: 1, room: Some(Arc::new(AtomicU64::new(bytes))) }
    }

    /// Bytes that can still be written, if there is a limit.
    pub fn room(&self) -> Option<u64> {
        self.room.as_ref().map(|room| room.load(Ordering::SeqCst))
    }

    /// Lets `write` write these bytes, or as many of them as there is room for.
    ///
    /// # Errors
    /// As `write`, and if not all bytes found room.
    pub fn write(&self, bytes: &[u8], write: impl FnOnce(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let Some(room) = &self.room else { return write(bytes) };
        let wanted = bytes.len() as u64;
        let take = |left: u64| Some(left.saturating_sub(wanted));
        let left = room.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).unwrap_or(0);
        if wanted <= left {
            return write(bytes);
        }
        if left > 0 {
            write(&bytes[..left as usize])?;
        }
        Err(io::Error::new(io::ErrorKind::StorageFull, "the disk of this test has failed"))
    }

    /// Call before other operations on the disk than writing: a sync, a rename.
    ///
    /// # Errors
    /// If the disk has failed.
    pub fn step(&self) -> io::Result<()> {
        self.write(&[0], |_| Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::Disk;

    #[test]
    fn a_failing_disk_takes_the_bytes_it_has_room_for_and_then_nothing() {
        let disk = Disk::failing_after(6);
        let mut written = Vec::new();
        let mut put = |bytes: &[u8]| {
            disk.write(bytes, |bytes| {
                written.extend_from_slice(bytes);
                Ok(())
            })
        };
        put(b"abc").unwrap();
        disk.step().unwrap();
        put(b"defg").unwrap_err();
        put(b"h").unwrap_err();
        put(b"").unwrap();
        assert_eq!(written, b"abcde" as &[u8]);
        assert_eq!(disk.room(), Some(0));
        disk.step().unwrap_err();
        Disk::default().step().unwrap();
    }
}
