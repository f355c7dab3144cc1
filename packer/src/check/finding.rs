//! What a check says: findings, each with what is wrong, why it matters and what fixes it.

use std::path::PathBuf;

use serde::Serialize;

use crate::contents::{FolderKind, Member};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// A loader, the engine or a user would trip over it.
    Defect,
    /// Worth knowing; the bundle works without a change.
    Note,
}

/// A rule that bundles are checked against.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// Stable name, such as `metadata.vocab-size`.
    pub id: &'static str,
    /// How bad a violation is.
    pub severity: Severity,
    /// What happens if it is ignored.
    pub why: &'static str,
    /// The command or step that fixes it, with `{path}` for the folder, `{file}` for the file in it and `{remake}`
    /// for the command that makes the folder again.
    pub fix: &'static str,
}

/// A violation of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Name of the rule.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The file, relative to what was checked; empty for the whole of it.
    pub path: String,
    /// What is wrong.
    pub what: String,
    /// Why it matters.
    pub why: &'static str,
    /// The command or step that fixes it.
    pub fix: String,
}

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// What was checked.
    pub target: FolderKind,
    /// Where it is.
    pub path: PathBuf,
    /// What lies in it and was checked, if it is a folder of outputs or a release.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<Member>,
    /// Everything found: defects first, else in the order of the checks.
    pub findings: Vec<Finding>,
}

impl CheckReport {
    /// The findings that must be fixed.
    pub fn defects(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.severity == Severity::Defect)
    }

    /// The findings that are worth knowing.
    pub fn notes(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.severity == Severity::Note)
    }

    /// Whether something must be fixed.
    pub fn has_defects(&self) -> bool {
        self.defects().next().is_some()
    }
}
