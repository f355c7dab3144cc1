//! Words of commands that are shown to be typed.

use std::path::Path;

/// A path, quoted for a shell where it has to be.
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_would_take_apart_is_quoted() {
        for (path, shown) in
            [("out/a-b_c.1", "out/a-b_c.1"), ("my out", "'my out'"), ("it's", r"'it'\''s'"), ("", "''")]
        {
            assert_eq!(quoted(Path::new(path)), shown);
        }
    }
}
