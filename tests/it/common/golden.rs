//! Texts that are kept in files: `cargo xtask golden` rewrites them.

use std::fs;
use std::path::Path;

/// Compares a text with `tests/golden/NAME.txt`, or writes it there if `UPDATE_GOLDEN` is set.
pub(crate) fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        return;
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    if expected == text {
        return;
    }
    let line = expected.lines().zip(text.lines()).position(|(a, b)| a != b);
    let line = line.unwrap_or(expected.lines().count().min(text.lines().count()));
    let at = |text: &str| text.lines().nth(line).unwrap_or("nothing").to_owned();
    panic!(
        "{}: line {} is {:?}, not {:?}; `cargo xtask golden` rewrites it\n{text}",
        path.display(),
        line + 1,
        at(text),
        at(&expected)
    );
}
