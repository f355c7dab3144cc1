//! Archives that `pack` would write, and every way in which one can be something else.

use std::io::Write;

use tempfile::TempDir;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::*;

fn stored() -> SimpleFileOptions {
    SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .large_file(true)
        .unix_permissions(0o644)
        .with_alignment(4096)
}

/// An archive of these entries.
fn archive(entries: &[(&str, &[u8])], options: SimpleFileOptions) -> Vec<u8> {
    let mut writer = ZipWriter::new(io::Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        writer.start_file(*name, options).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// An archive with a symbolic link.
fn link() -> Vec<u8> {
    let mut writer = ZipWriter::new(io::Cursor::new(Vec::new()));
    writer.add_symlink("a/x", "/etc/passwd", stored()).unwrap();
    writer.finish().unwrap().into_inner()
}

const ENTRIES: [(&str, &[u8]); 5] = [
    ("out/b/main", b"program"),
    ("out/b/t/x", b"x"),
    ("out/b-c", b"between in order"),
    ("out/empty", b""),
    ("out/z", &[7; 10_000]),
];

/// The error of reading this archive.
fn refusal(bytes: &[u8]) -> String {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.zip");
    fs::write(&path, bytes).unwrap();
    list(&path).unwrap_err().to_string()
}

#[test]
fn an_archive_is_a_folder() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.zip");
    fs::write(&path, archive(&ENTRIES, stored())).unwrap();
    let names = |folder: &Path| -> Vec<String> {
        list(folder).unwrap().into_iter().map(|entry| entry.name.into_string().unwrap()).collect()
    };
    assert_eq!(names(&path), ["b", "b-c", "empty", "z"]);
    assert_eq!(names(&path.join("b")), ["main", "t"]);
    assert_eq!(names(&path.join("b/./t")), ["x"]);
    assert_eq!(read(&path.join("b/main"), 7).unwrap(), b"program");
    assert_eq!(read(&path.join("b/main"), 6).unwrap_err().kind(), ErrorKind::FileTooLarge);
    assert_eq!(kind(&path).unwrap(), Kind::Folder);
    assert_eq!(kind(&path.join("b")).unwrap(), Kind::Folder);
    assert_eq!(kind(&path.join("z")).unwrap(), Kind::File(10_000));
    assert_eq!(open(&path.join("b")).unwrap_err().kind(), ErrorKind::IsADirectory);
    for missing in ["c", "b/m", "b/main/x", "b/../z", "../a.zip", "empty/x"] {
        assert_eq!(kind(&path.join(missing)).unwrap_err().kind(), ErrorKind::NotFound, "{missing}");
        assert!(list(&path.join(missing)).is_err() && !exists(&path.join(missing)), "{missing}");
    }
    // The file itself, and ranges that stay in theirs.
    let (whole, part) = (open(&path).unwrap(), open(&path.join("b-c")).unwrap());
    assert_eq!(whole.length(), fs::metadata(&path).unwrap().len());
    assert!(part.is_same(&part).unwrap() && !part.is_same(&whole).unwrap());
    let mapped = part.map().unwrap();
    assert_eq!((mapped.len() as u64, &mapped[12..]), (part.length(), &b"rder"[..]));
    assert!((mapped.as_ptr() as u64).is_multiple_of(ALIGNMENT));
    let mut out = [0; 4];
    part.read_exact_at(&mut out, 12).unwrap();
    assert_eq!(&out, b"rder");
    for offset in [13, 16, u64::MAX] {
        assert!(part.read_exact_at(&mut out, offset).is_err());
    }
    assert_eq!(resolve(&path.join("b/t")).unwrap(), dir.path().canonicalize().unwrap().join("a.zip/b/t"));
}

#[test]
fn any_file_can_be_read_as_a_file() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.zip");
    fs::write(&path, "of somebody else").unwrap();
    assert_eq!(read(&path, 100).unwrap(), b"of somebody else");
    assert!(list(&path).is_err() && read(&path.join("x"), 100).is_err());
    assert_eq!(list(dir.path()).unwrap()[0].kind, Kind::File(16));
}

#[test]
fn an_archive_that_was_replaced_is_read_again() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.zip");
    fs::write(&path, archive(&ENTRIES, stored())).unwrap();
    assert!(exists(&path.join("z")));
    fs::write(&path, archive(&ENTRIES[..1], stored())).unwrap();
    assert!(!exists(&path.join("z")) && exists(&path.join("b/main")));
}

#[test]
fn only_what_pack_writes_is_read() {
    let of = |entries: &[(&str, &[u8])]| refusal(&archive(entries, stored()));
    for (error, words) in [
        (refusal(b""), "too short"),
        (refusal(&[0; 100]), "does not end as an archive"),
        (refusal(&archive(&[], stored())), "is empty"),
        (of(&[("a", b"")]), "unpacks to files"),
        (of(&[("a/x", b""), ("b/x", b"")]), "unpacks to several folders"),
        (of(&[("a/../x", b"")]), "leads to another folder"),
        (of(&[("/a/x", b"")]), "empty part"),
        (of(&[("a/x\\y", b"")]), "backslash"),
        (of(&[("a/x\n", b"")]), "control"),
        (of(&[("a/nul", b"")]), "Windows device"),
        (of(&[("a/x", b""), ("a/X", b"")]), "are the same on systems"),
        (of(&[("a/x", b"1"), ("a/x/y", b"2")]), "overlap"),
        (refusal(&archive(&ENTRIES, stored().with_alignment(1))), "not aligned"),
        (refusal(&link()), "not a file"),
        (refusal(&archive(&[("a/b/", b"")], stored())), "not a file"),
    ] {
        assert!(error.contains(words) && error.contains("a.zip"), "{words}: {error}");
    }
}

/// No byte that is changed makes it panic, wait or read outside of the archive.
#[test]
fn any_changed_byte_is_an_error_or_another_archive() {
    let bytes = archive(&ENTRIES, stored());
    let dir = TempDir::new().unwrap();
    let check = |changed: &[u8], at: usize| {
        let path = dir.path().join(format!("{at}.zip"));
        fs::write(&path, changed).unwrap();
        let mut pending = vec![path.clone()];
        while let Some(folder) = pending.pop() {
            for entry in list(&folder).unwrap_or_default() {
                match entry.kind {
                    Kind::File(length) => {
                        let content = read(&folder.join(&entry.name), u64::MAX).unwrap();
                        assert!(content.len() as u64 == length && length <= changed.len() as u64);
                    }
                    _ => pending.push(folder.join(&entry.name)),
                }
            }
        }
        fs::remove_file(&path).unwrap();
    };
    // Headers and directory: everything but the zeros and contents between them.
    let interesting =
        (0..bytes.len()).filter(|at| *at + 1200 > bytes.len() || bytes[*at] != 0 && bytes[*at] != 7);
    for at in interesting {
        for value in [0, 1, 0x7f, 0xff, bytes[at] ^ 1] {
            let mut changed = bytes.clone();
            changed[at] = value;
            check(&changed, at);
        }
    }
    for length in (0..bytes.len()).rev().take(1200) {
        check(&bytes[..length], length);
    }
}
