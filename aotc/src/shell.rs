//! Quoting for POSIX shells.

use std::ffi::OsStr;

/// The words as one command line. Names that are not UTF-8 are shown with replacement characters.
pub(crate) fn join<W: AsRef<OsStr>>(words: impl IntoIterator<Item = W>) -> String {
    let quoted: Vec<String> = words.into_iter().map(|word| quote(&word.as_ref().to_string_lossy())).collect();
    quoted.join(" ")
}

/// The word in single quotes, unless it needs none.
pub(crate) fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./,:=+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        for word in
            ["plain-1.0", "", "two words", "it's", "$HOME `id` \"x\"", "naïve/模型", "-n", "a\nb", "*", "~"]
        {
            let script = format!("printf '%s' {}", quote(word));
            let output = Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word, "{script}");
        }
        assert_eq!(join(["xcrun", "a b", "c"]), "xcrun 'a b' c");
    }
}
