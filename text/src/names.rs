//! Names that become paths. A name that passes is the same file on Linux, macOS and Windows, and is never outside its folder.

use std::collections::HashMap;

use unicode_normalization::UnicodeNormalization;

use crate::terminal::{is_hidden, word};

/// Bytes of one component, on every common file system.
const LONGEST: usize = 255;
/// Bytes of a relative path.
const LONGEST_PATH: usize = 1024;

/// A name that is not safe to use as a path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the file name \"{}\" {why}", word(name))]
pub struct NameError {
    /// The name.
    pub name: String,
    /// What is wrong with it.
    pub why: &'static str,
}

/// Two names that are one file where case or Unicode form does not matter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the file names \"{}\" and \"{}\" are the same on systems that ignore case: rename one",
    word(first),
    word(second)
)]
pub struct Collision {
    /// A name.
    pub first: String,
    /// The other.
    pub second: String,
}

/// Whether this is the whole name of a commit: 40 hexadecimal digits.
pub fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Accepts the name of one file or folder.
///
/// # Errors
/// When some system would read it otherwise, or not at all.
pub fn component(name: &str) -> Result<(), NameError> {
    match fault(name) {
        Some(why) => Err(NameError { name: name.to_owned(), why }),
        None => Ok(()),
    }
}

/// Accepts a relative path, with `/` between components.
///
/// # Errors
/// As [`component`], for each.
pub fn path(path: &str) -> Result<(), NameError> {
    let long = (path.len() > LONGEST_PATH).then_some("is longer than 1024 bytes");
    match long.or_else(|| path.split('/').find_map(fault)) {
        Some(why) => Err(NameError { name: path.to_owned(), why }),
        None => Ok(()),
    }
}

/// Accepts a set of paths if no two different ones are the same file; the caller handles equal ones.
///
/// # Errors
/// Names the first two that collide.
pub fn distinct<'a>(paths: impl IntoIterator<Item = &'a str>) -> Result<(), Collision> {
    // Folders collide too: `a/x` and `A/y` would share one.
    let mut seen: HashMap<String, &str> = HashMap::new();
    for path in paths {
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for prefix in ends.map(|end| &path[..end]) {
            match seen.get(folded(prefix).as_str()) {
                Some(first) if *first != prefix => {
                    return Err(Collision { first: (*first).to_owned(), second: prefix.to_owned() });
                }
                Some(_) => {}
                None => {
                    seen.insert(folded(prefix), prefix);
                }
            }
        }
    }
    Ok(())
}

/// What is wrong with a component.
fn fault(name: &str) -> Option<&'static str> {
    let is_reserved = |c: char| matches!(c, '<' | '>' | ':' | '"' | '|' | '?' | '*');
    Some(match name {
        "" => "is empty, or has an empty part",
        "." | ".." => "has a part . or .., which leads to another folder",
        _ if name.len() > LONGEST => "is longer than 255 bytes",
        _ if name.contains(['/', '\\']) => "contains a slash or backslash",
        _ if name.contains(is_hidden) => "contains control or invisible characters",
        _ if name.contains(is_reserved) => "contains one of < > : \" | ? *, which Windows reserves",
        _ if name.starts_with(' ') || name.ends_with([' ', '.']) => {
            "begins or ends with a space, or ends with a dot"
        }
        _ if is_device(name) => "is that of a Windows device",
        _ => return None,
    })
}

/// `NUL`, `com1.txt`: devices whatever follows the first dot.
fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end_matches(' ').to_uppercase();
    let is_port = |prefix: &str| {
        let digit = stem.strip_prefix(prefix).and_then(|rest| {
            let mut rest = rest.chars();
            rest.next().filter(|_| rest.next().is_none())
        });
        digit.is_some_and(|digit| matches!(digit, '0'..='9' | '¹' | '²' | '³'))
    };
    matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$")
        || is_port("COM")
        || is_port("LPT")
}

/// Equal for names that a file system may treat as the same.
fn folded(name: &str) -> String {
    if name.is_ascii() {
        return name.to_ascii_lowercase();
    }
    // Upper case first: ß and ss, ſ and s have it in common.
    let upper: String = name.nfkd().collect::<String>().to_uppercase();
    upper.to_lowercase().nfkd().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_names_pass() {
        for name in
            ["model-00001-of-00002.safetensors", "a b", ".gitattributes", "é.json", "com10", "x.nul", "a'b"]
        {
            assert_eq!(component(name), Ok(()), "{name}");
        }
        assert_eq!(path("gpu-pipelined/a/b.json"), Ok(()));
    }

    #[test]
    fn hostile_names_do_not() {
        let long = "x".repeat(256);
        for name in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "a\\b",
            "..\\x",
            "C:\\x",
            "C:",
            "c:x",
            "/etc",
            "\\\\host\\share",
            "a:b",
            "a\0b",
            "a\nb",
            "\x1b[31m",
            "a\u{202e}b",
            "a\u{200b}b",
            " a",
            "a ",
            "a.",
            "...",
            "nul",
            "NUL.txt",
            "Con .x",
            "com1",
            "LPT9.a.b",
            "COM²",
            "conin$",
            "a*",
            "a?",
            "a|b",
            "<a>",
            "\"",
            &long,
        ] {
            assert!(component(name).is_err(), "{name:?}");
        }
        for name in ["", "/", "/a", "a/", "a//b", "a/./b", "a/../b", "a/ b", "a/nul", &"ab/".repeat(500)] {
            assert!(path(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn errors_are_safe_to_print() {
        let error = component("a\x1b[31m\n").unwrap_err().to_string();
        assert_eq!(error, r#"the file name "a\x1b[31m\n" contains control or invisible characters"#);
    }

    #[test]
    fn names_that_differ_in_case_or_unicode_form_collide() {
        assert_eq!(distinct(["a", "b", "dir/a", "dir/b", "a"]), Ok(()));
        for pair in [
            ["README", "readme"],
            ["é", "e\u{301}"],
            ["É", "e\u{301}"],
            ["straße", "STRASSE"],
            ["a/x", "A/y"],
        ] {
            assert!(distinct(pair).is_err(), "{pair:?}");
        }
    }
}
