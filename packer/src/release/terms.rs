//! What a card names besides its members, checked before it is used.

use text::names;
use text::terminal::word;

use super::Release;
use crate::manifest::SourceRecord;

/// Characters of a license identifier: the longest that the Hub knows has 21.
const LONGEST_ID: usize = 64;

/// A term that no card may carry.
#[derive(Debug, thiserror::Error)]
pub enum TermError {
    /// Not an identifier of a license.
    #[error(
        "the license identifier \"{}\" is not valid: the Hub's have lower-case letters, digits, `.` and `-`, such as apache-2.0; \
         give --license-id",
        word(.0)
    )]
    License(String),
    /// Not the name of a commit.
    #[error(
        "the manifests name the revision \"{}\", which is not a commit (40 hexadecimal digits): make the bundles again",
        word(.0)
    )]
    Revision(String),
}

/// Checks the license and the revision of a release.
pub(super) fn check(release: &Release<'_>, source: Option<&SourceRecord>) -> Result<(), TermError> {
    let id = &release.license.id;
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
    let is_id = id.starts_with(|c: char| c.is_ascii_alphanumeric()) && id.bytes().all(is_plain);
    if !is_id || id.len() > LONGEST_ID {
        return Err(TermError::License(id.clone()));
    }
    let revision = source.and_then(|source| source.revision.as_ref());
    match revision.filter(|revision| !names::is_commit(revision)) {
        Some(revision) => Err(TermError::Revision(revision.clone())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::License;

    fn checked(id: &str, revision: &str) -> Result<(), TermError> {
        let license = License { id: id.to_owned(), text: Vec::new() };
        let release = Release {
            name: "r",
            tool: "t",
            bundles: &[],
            tables: &[],
            base_model: "o/n",
            license: &license,
            recipe: &serde_json::Value::Null,
        };
        check(
            &release,
            Some(&SourceRecord { revision: Some(revision.to_owned()), ..SourceRecord::default() }),
        )
    }

    #[test]
    fn only_identifiers_and_commits_pass() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        for id in ["apache-2.0", "gemma", "cc-by-nc-sa-4.0", "0bsd"] {
            checked(id, commit).unwrap();
        }
        for id in ["", "MIT", "mit\nx: y", "a b", "-", "mit # no", &"m".repeat(65)] {
            assert!(matches!(checked(id, commit), Err(TermError::License(_))), "{id:?}");
        }
        for revision in ["main", "", "`x`\n", &commit[1..]] {
            assert!(matches!(checked("mit", revision), Err(TermError::Revision(_))), "{revision:?}");
        }
    }
}
