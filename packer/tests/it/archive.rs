//! Archives: contents, alignment, determinism, sizes beyond 4 GiB, and what `unzip` thinks of them.

#![allow(clippy::print_stderr)]

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use packer::archive::{ALIGNMENT, ArchiveError, ArchivePlan, pack};
use progress::{Progress, Silent};
use zip::{CompressionMethod, DateTime, ZipArchive};

fn write(root: &Path, path: &str, content: &[u8]) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn release(root: &Path) -> std::path::PathBuf {
    let release = root.join("release");
    write(&release, "README.md", b"card");
    write(&release, "gpu-pipelined/b/metadata.json", b"{}");
    write(&release, "gpu-pipelined/b/b.aimodel/main.mlirb", &[7; 70_000]);
    write(&release, "ios-frontend/empty", b"");
    // Local headers of these names end just before and just after a multiple of the alignment.
    for length in [30, 60, 90, 120, 150] {
        write(&release, &format!("names/{}", "n".repeat(length)), &vec![1; ALIGNMENT as usize - length - 60]);
    }
    release
}

/// `unzip -t` of these entries, or of all, where it is installed.
fn assert_unzip_accepts(archive: &Path, entries: &[&str]) {
    match Command::new("unzip").arg("-tq").arg(archive).args(entries).output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout)),
        Err(e) => eprintln!("unzip is not installed ({e}): its opinion was not asked"),
    }
}

/// Counts bytes, and cancels the run after a number of them.
struct Seen {
    expected: AtomicU64,
    advanced: AtomicU64,
    enough: u64,
}

impl Default for Seen {
    fn default() -> Self {
        Seen { expected: AtomicU64::new(0), advanced: AtomicU64::new(0), enough: u64::MAX }
    }
}

impl Progress for Seen {
    fn expect(&self, bytes: u64) {
        self.expected.store(bytes, Ordering::Relaxed);
    }
    fn advance(&self, bytes: u64) {
        self.advanced.fetch_add(bytes, Ordering::Relaxed);
    }
    fn cancelled(&self) -> bool {
        self.advanced.load(Ordering::Relaxed) >= self.enough
    }
}

#[test]
fn a_run_that_is_cancelled_keeps_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let release = release(scratch.path());
    let output = scratch.path().join("release.zip");
    let error = pack(&release, &output, false, &Seen { enough: 5, ..Seen::default() }).unwrap_err();
    assert!(matches!(error, ArchiveError::Interrupted), "{error}");
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
}

#[test]
fn archive_holds_every_file_stored_and_aligned() {
    let scratch = tempfile::tempdir().unwrap();
    let release = release(scratch.path());
    write(&release, ".DS_Store", b"x");
    write(&release, "gpu-pipelined/.b.partial-1-0/half", b"x");
    let output = scratch.path().join("out/release.zip");
    let seen = Seen::default();
    let report = pack(&release, &output, false, &seen).unwrap();
    let [expected, seen] = [seen.expected, seen.advanced].map(AtomicU64::into_inner);
    assert_eq!(report.skipped, [".DS_Store", "gpu-pipelined/.b.partial-1-0/half"]);
    assert_eq!((report.files, report.content_bytes, expected), (9, seen, seen));
    assert_eq!(report.archive_bytes, fs::metadata(&output).unwrap().len());

    let mut archive = ZipArchive::new(File::open(&output).unwrap()).unwrap();
    assert_eq!(archive.len(), report.files);
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).unwrap();
        let name = entry.name().unwrap().to_string();
        assert_eq!(entry.compression(), CompressionMethod::Stored, "{name}");
        assert_eq!(entry.data_start().unwrap() % u64::from(ALIGNMENT), 0, "{name}");
        assert_eq!(entry.last_modified(), Some(DateTime::DEFAULT), "{name}");
        assert_eq!(entry.unix_mode().map(|mode| mode & 0o777), Some(0o644), "{name}");
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        assert!(content == fs::read(scratch.path().join(&name)).unwrap(), "{name}");
    }
    assert_unzip_accepts(&output, &[]);
}

#[test]
fn same_files_give_the_same_bytes() {
    let scratch = tempfile::tempdir().unwrap();
    let pack_once = |place: &str| {
        let root = scratch.path().join(place);
        let release = release(&root);
        pack(&release, &root.join("r.zip"), false, &Silent).unwrap();
        fs::read(root.join("r.zip")).unwrap()
    };
    assert!(pack_once("first") == pack_once("second"));
}

#[test]
fn links_and_empty_or_missing_folders_are_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let output = scratch.path().join("r.zip");
    let refused = |release: &Path| pack(release, &output, false, &Silent).unwrap_err();
    let empty = scratch.path().join("empty");
    fs::create_dir(&empty).unwrap();
    assert!(matches!(refused(&empty), ArchiveError::Empty { .. }));
    assert!(matches!(refused(&scratch.path().join("missing")), ArchiveError::File(_)));
    let release = release(scratch.path());
    std::os::unix::fs::symlink("README.md", release.join("link")).unwrap();
    let error = refused(&release);
    assert!(error.to_string().contains("link is a symbolic link"), "{error}");
    assert!(!output.exists());
}

#[test]
fn output_inside_the_release_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let release = release(scratch.path());
    let error = pack(&release, &release.join("new/r.zip"), false, &Silent).unwrap_err();
    assert!(error.to_string().contains("is inside the input"), "{error}");
    assert!(!release.join("new").exists());
}

#[test]
fn existing_output_is_replaced_only_when_asked() {
    let scratch = tempfile::tempdir().unwrap();
    let release = release(scratch.path());
    let output = scratch.path().join("r.zip");
    fs::write(&output, "mine").unwrap();
    for is_forced in [false, true] {
        let packed = pack(&release, &output, is_forced, &Silent);
        assert!(matches!(packed, Err(ArchiveError::Staging(_))));
        assert_eq!(fs::read(&output).unwrap(), b"mine");
    }
    fs::remove_file(&output).unwrap();
    pack(&release, &output, false, &Silent).unwrap();
    let error = pack(&release, &output, false, &Silent).unwrap_err();
    assert!(error.to_string().contains("pass --force"), "{error}");
    pack(&release, &output, true, &Silent).unwrap();
    assert_unzip_accepts(&output, &[]);
}

#[test]
fn file_that_changes_while_it_is_packed_is_noticed() {
    let scratch = tempfile::tempdir().unwrap();
    let release = release(scratch.path());
    let plan = ArchivePlan::new(&release).unwrap();
    write(&release, "README.md", b"a longer card");
    let error = plan.write(io::Cursor::new(Vec::new()), &Silent).unwrap_err();
    assert!(matches!(error, ArchiveError::Changed { expected: 4, found: 13, .. }), "{error}");
}

#[test]
fn failing_sink_is_an_error() {
    struct Full(u64);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len() as u64).ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    impl Seek for Full {
        fn seek(&mut self, _: SeekFrom) -> io::Result<u64> {
            Ok(0)
        }
    }
    let scratch = tempfile::tempdir().unwrap();
    let plan = ArchivePlan::new(&release(scratch.path())).unwrap();
    for space in [0, 100, 10_000, 80_000] {
        let error = plan.write(Full(space), &Silent).unwrap_err();
        assert!(matches!(error, ArchiveError::Zip { .. }), "{error}");
    }
}

/// Writes a file with holes where whole chunks are zero, so that gigabytes of zeros take no disk.
struct Sparse {
    file: File,
    zeros: Vec<u8>,
}

impl Sparse {
    fn create(path: &Path) -> Self {
        Self { file: File::create(path).unwrap(), zeros: vec![0; 1 << 20] }
    }
}

/// A scratch folder where reading holes is fast: in memory, if the system has such a place.
fn scratch_for_holes() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

impl Write for Sparse {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes == &self.zeros[..bytes.len().min(self.zeros.len())] {
            self.file.seek(SeekFrom::Current(bytes.len() as i64))?;
            return Ok(bytes.len());
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for Sparse {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}

#[test]
fn file_beyond_four_gibibytes_is_packed() {
    const SIZE: u64 = (4 << 30) + (1 << 20);
    let scratch = scratch_for_holes();
    let release = scratch.path().join("release");
    write(&release, "a-small-one", b"first");
    write(&release, "z-small-one", b"last");
    let mut big = File::create(release.join("main.mlirb")).unwrap();
    big.set_len(SIZE).unwrap();
    big.seek(SeekFrom::Start(SIZE - 3)).unwrap();
    big.write_all(b"end").unwrap();

    let output = scratch.path().join("release.zip");
    let plan = ArchivePlan::new(&release).unwrap();
    assert_eq!(plan.content_bytes(), SIZE + 9);
    let size = plan.write(Sparse::create(&output), &Silent).unwrap();
    assert_eq!(size, fs::metadata(&output).unwrap().len());

    let mut archive = ZipArchive::new(File::open(&output).unwrap()).unwrap();
    let start = {
        let entry = archive.by_name("release/main.mlirb").unwrap();
        assert_eq!((entry.size(), entry.compressed_size()), (SIZE, SIZE));
        // That of the 4 GiB of zeros and the three letters, as zlib computes it.
        assert_eq!(entry.crc32(), 0x3919_618B);
        entry.data_start().unwrap()
    };
    assert_eq!(start % u64::from(ALIGNMENT), 0);
    let mut file = File::open(&output).unwrap();
    file.seek(SeekFrom::Start(start + SIZE - 3)).unwrap();
    let mut end = [0; 3];
    file.read_exact(&mut end).unwrap();
    assert_eq!(&end, b"end");
    // The one after it has an offset beyond 32 bits.
    let mut last = String::new();
    archive.by_name("release/z-small-one").unwrap().read_to_string(&mut last).unwrap();
    assert_eq!(last, "last");
    // It is slow for gigabytes, and finds these through the same directory.
    assert_unzip_accepts(&output, &["release/a-small-one", "release/z-small-one"]);
}

#[test]
fn names_that_are_other_files_elsewhere_are_refused() {
    let scratch = tempfile::tempdir().unwrap();
    for (at, name) in ["..\\x", "C:\\x", "a\nb", "nul.txt", "a.", "\u{202e}b"].into_iter().enumerate() {
        let release = scratch.path().join(at.to_string());
        write(&release, "README.md", b"card");
        write(&release, name, b"x");
        let output = scratch.path().join("x.zip");
        let error = pack(&release, &output, false, &Silent).unwrap_err();
        assert!(matches!(error, ArchiveError::Name(_)), "{name:?}: {error}");
        assert!(!output.exists());
    }
    let release = scratch.path().join("case");
    write(&release, "A/x", b"x");
    write(&release, "a/y", b"x");
    // A file system that ignores case has one folder of the two.
    if fs::read_dir(&release).unwrap().count() == 2 {
        let error = pack(&release, &scratch.path().join("x.zip"), false, &Silent);
        assert!(matches!(error, Err(ArchiveError::Collision(_))));
    }
}
