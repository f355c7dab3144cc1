//! Single files that may be replaced.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::archive;

/// Bytes at the beginning of a file that identify its kind.
const HEAD: u64 = 64 << 10;

/// How a file of logits begins.
pub const LOGITS_MAGIC: &[u8; 8] = b"CAIBLOGT";

/// Kinds of output files. Each kind is recognized by its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// An archive of `pack`.
    Archive,
    /// An oracle, written by `oracle`.
    Oracle,
    /// A checkpoint's logits, written by `eval --save-logits`.
    Logits,
    /// The manifest of a folder.
    Manifest,
    /// A bundle's continuation, written by `gate --probe`.
    Probe,
    /// Facts of a conversion.
    ReportFacts,
    /// The page that shows them.
    ReportPage,
    /// The per-layer table as one safetensors file.
    Safetensors,
    /// A script or a workflow of `aotc`.
    Script,
    /// What a toolchain did, of `aotc --report`.
    CompileReport,
    /// What a compiler printed, of `aotc --log`.
    CompileLog,
    /// A recipe, written by `init`.
    Recipe,
    /// What `build` has finished.
    BuildRecord,
}

impl FileKind {
    /// Whether a regular file may be replaced by one of this kind.
    pub(super) fn may_replace(self, path: &Path) -> Result<(), String> {
        let head = head(path).map_err(|error| format!("is not replaced: {error}"))?;
        if head.is_empty() || self.is_begun_by(&head) {
            return Ok(());
        }
        Err(format!(
            "is not replaced, because it is not {} of this tool: move it away or choose another output",
            self.noun()
        ))
    }

    fn is_begun_by(self, head: &[u8]) -> bool {
        let holds = |marks: &[&str]| marks.iter().all(|mark| contains(head, mark.as_bytes()));
        match self {
            Self::Archive => archive::is_begun_by(head),
            Self::Oracle => head[0] == b'{' && holds(&["\"reference\":", "\"cases\":"]),
            Self::Logits => head.starts_with(LOGITS_MAGIC),
            Self::Manifest => head[0] == b'{' && holds(&["\"manifest_version\":"]),
            Self::Probe => head[0] == b'{' && holds(&["\"prompt_ids\":", "\"generated_ids\":"]),
            Self::ReportFacts => head[0] == b'{' && holds(&["\"tool\":\"coreai-bundle "]),
            Self::ReportPage => holds(&["<meta name=\"generator\" content=\"coreai-bundle "]),
            Self::Safetensors => holds(&["\"embed_tokens_per_layer\":", "\"ple_zero_point\":"]),
            Self::Script => holds(&["# Written by coreai-bundle "]),
            Self::CompileReport => head[0] == b'{' && holds(&["\"tool\": \"coreai-bundle "]),
            Self::CompileLog => head.starts_with(b"$ "),
            Self::Recipe => holds(&["# A recipe for `coreai-bundle build`"]),
            Self::BuildRecord => head[0] == b'{' && holds(&["\"tool\": \"coreai-bundle ", "\"steps\":"]),
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Self::Archive => "an archive",
            Self::Oracle => "an oracle",
            Self::Logits => "a file of logits",
            Self::Manifest => "a manifest",
            Self::Probe => "a probe",
            Self::ReportFacts | Self::ReportPage | Self::CompileReport => "a report",
            Self::Safetensors => "a table",
            Self::Script => "a script",
            Self::CompileLog => "a log",
            Self::Recipe => "a recipe",
            Self::BuildRecord => "the record of a build",
        }
    }
}

fn head(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path)?.take(HEAD).read_to_end(&mut head)?;
    Ok(head)
}

fn contains(bytes: &[u8], mark: &[u8]) -> bool {
    bytes.windows(mark.len()).any(|window| window == mark)
}
