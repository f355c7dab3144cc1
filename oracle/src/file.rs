//! The oracle file: the checkpoint's predictions in fp32, with which bundles are compared.
//!
//! A superset of the files that are made with `transformers`: those lack some fields, but can be read too.

use std::path::{Path, PathBuf};

use checkpoint::source::Source;
use progress::Progress;
use serde::{Deserialize, Serialize};
use text::small;

use crate::contexts::Contexts;
use crate::reference::{Reference, ReferenceError, fed_together};
use crate::score::{QUALIFYING_MARGIN, digest, norm, winner};
use crate::validate;

/// Most bytes of an oracle file, enough for some 600,000 positions.
const MAX_BYTES: u64 = 64 << 20;
/// Number of leading logits of the last position that are stored.
const HEAD: usize = 16;

/// An oracle file that cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum OracleError {
    /// The system refused to read it.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// It does not have the fields of an oracle file.
    // The reason can quote text of any length from the file.
    #[error("{path} is not an oracle file: {reason:.300}", path = path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// It has the fields of an oracle file, but their contents cannot be used.
    #[error("{path}: {reason}; make the oracle again with `coreai-bundle oracle`", path = path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The field, and what is wrong with it.
        reason: String,
    },
    /// A prompt without tokens.
    #[error("the prompt {prompt:?} has no tokens")]
    Empty {
        /// The prompt.
        prompt: String,
    },
    /// A prompt and its continuation do not fit into the model's context.
    #[error(
        "a prompt of {prompt} tokens plus {new} new ones is longer than the model's context of {limit} positions: \
         give a shorter prompt or fewer new tokens"
    )]
    TooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens to add.
        new: usize,
        /// Positions of the context.
        limit: usize,
    },
    /// The reference cannot be computed.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
}

/// The checkpoint that an oracle was made from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointIdentity {
    /// Digest of `config.json` and of all tensor headers.
    pub fingerprint: String,
    /// Hub repository, if known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub repository: Option<String>,
    /// Commit of the repository, if known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub revision: Option<String>,
}

/// An oracle file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Oracle {
    /// The program that computed it.
    pub reference: String,
    /// The checkpoint; not in files made with `transformers`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub checkpoint: Option<CheckpointIdentity>,
    /// The sequences.
    pub cases: Vec<Case>,
}

/// One prompt, its greedy continuation, and statistics of the logits at every position.
///
/// With `n = prompt_ids.len() + generated_ids.len()`, position `i` of the teacher-forced lists is the prediction after the first
/// `i + 1` tokens of prompt and continuation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// The prompt's text.
    pub prompt: String,
    /// The prompt's ids.
    pub prompt_ids: Vec<u32>,
    /// The greedy continuation.
    pub generated_ids: Vec<u32>,
    /// Prompt and continuation, decoded.
    pub text: String,
    /// Top-2 margins of the generated tokens.
    pub margins: Vec<f32>,
    /// `[n]`: the id of the largest logit.
    pub teacher_forced_argmax: Vec<u32>,
    /// `[n]`: difference of the two largest logits, after the soft cap.
    pub teacher_forced_margins: Vec<f32>,
    /// The first 16 logits of the last position.
    pub last_logits_head: Vec<f32>,
    /// `[n]`: Euclidean norm of the logits.
    pub logit_norms: Vec<f32>,
    /// `[n]`: first 8 bytes of the SHA-256 of the f32 logits, in hexadecimal. May differ between machines.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub logit_digests: Vec<String>,
}

impl Case {
    /// Prompt and continuation: the sequence to feed.
    pub fn ids(&self) -> impl Iterator<Item = u32> {
        self.prompt_ids.iter().chain(&self.generated_ids).copied()
    }

    /// Number of positions of the sequence.
    pub fn len(&self) -> usize {
        self.prompt_ids.len() + self.generated_ids.len()
    }

    /// Whether the sequence has no positions. [`Oracle::read`] rejects such a sequence.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a position's margin is large enough for the position to count.
    pub fn qualifies(&self, position: usize) -> bool {
        self.teacher_forced_margins.get(position).is_some_and(|margin| *margin >= QUALIFYING_MARGIN)
    }

    /// Positions that do not qualify because they are near-ties.
    pub fn ties(&self) -> Vec<usize> {
        (0..self.teacher_forced_margins.len()).filter(|position| !self.qualifies(*position)).collect()
    }
}

impl Oracle {
    /// Reads an oracle file.
    ///
    /// # Errors
    /// If it cannot be read, is not an oracle file, or has contents that a bundle cannot be compared with.
    pub fn read(path: &Path) -> Result<Oracle, OracleError> {
        let json = small::read(path, MAX_BYTES)
            .map_err(|source| OracleError::Io { path: path.to_owned(), source })?;
        let oracle: Oracle = serde_json::from_slice(&json)
            .map_err(|error| OracleError::Json { path: path.to_owned(), reason: error.to_string() })?;
        validate::check(&oracle).map_err(|reason| OracleError::Content { path: path.to_owned(), reason })?;
        Ok(oracle)
    }

    /// For each sequence, how many of its leading positions have a context that already occurs in an earlier sequence.
    pub fn repeated(&self) -> Vec<usize> {
        let mut contexts = Contexts::default();
        self.cases.iter().map(|case| contexts.repeated(case.ids())).collect()
    }

    /// Number of qualified positions; positions with the same context count once.
    pub fn qualified(&self) -> usize {
        let qualified = |(case, repeated): (&Case, usize)| {
            (repeated..case.len()).filter(|at| case.qualifies(*at)).count()
        };
        self.cases.iter().zip(self.repeated()).map(qualified).sum()
    }

    /// The file's text.
    ///
    /// # Errors
    /// Never for an oracle that was made or read here.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self).map(|json| json + "\n")
    }
}

/// A text from which a case is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// The text as it is shown.
    pub text: String,
    /// Its ids.
    pub ids: Vec<u32>,
}

/// The identity of a checkpoint.
///
/// # Errors
/// If its `config.json` cannot be read.
pub fn identity(source: &dyn Source) -> Result<CheckpointIdentity, ReferenceError> {
    let known = source.identity();
    Ok(CheckpointIdentity {
        fingerprint: source.fingerprint()?.to_string(),
        repository: known.repository.clone(),
        revision: known.revision.clone(),
    })
}

/// Continues each prompt greedily by `new_tokens` and records the statistics of every position. Many are continued together, since all
/// weights are read for each token of a continuation; last bits depend on it, see [`Reference::feed_together`].
///
/// `decode` turns ids into text. The last token of a continuation is fed as well, so that its position has statistics too.
///
/// # Errors
/// [`OracleError::Empty`] for a prompt without tokens, [`OracleError::TooLong`] for one that exceeds the context,
/// [`OracleError::Reference`] if the checkpoint cannot be computed, or soon after `progress` is cancelled.
pub fn make_cases(
    reference: &Reference<'_>,
    prompts: &[Prompt],
    new_tokens: usize,
    decode: &dyn Fn(&[u32]) -> String,
    progress: &dyn Progress,
) -> Result<Vec<Case>, OracleError> {
    let limit = reference.config().max_positions;
    for prompt in prompts {
        if prompt.ids.is_empty() {
            return Err(OracleError::Empty { prompt: prompt.text.clone() });
        }
        if prompt.ids.len().saturating_add(new_tokens) > limit {
            return Err(OracleError::TooLong { prompt: prompt.ids.len(), new: new_tokens, limit });
        }
    }
    let mut cases = Vec::with_capacity(prompts.len());
    let mut rest = prompts;
    while !rest.is_empty() {
        let (group, later) = rest.split_at(fed_together(rest.iter().map(|prompt| prompt.ids.len())));
        cases.extend(continued(reference, group, new_tokens, progress)?);
        rest = later;
    }
    for case in &mut cases {
        case.text = decode(&case.ids().collect::<Vec<_>>());
    }
    Ok(cases)
}

/// The cases of prompts that are fed together.
fn continued(
    reference: &Reference<'_>,
    prompts: &[Prompt],
    new_tokens: usize,
    progress: &dyn Progress,
) -> Result<Vec<Case>, ReferenceError> {
    let mut cases: Vec<Case> = prompts.iter().map(Case::new).collect();
    let mut sequences = reference.sequences(cases.len());
    let mut fed: Vec<Vec<u32>> = prompts.iter().map(|prompt| prompt.ids.clone()).collect();
    loop {
        let tokens: Vec<&[u32]> = fed.iter().map(Vec::as_slice).collect();
        let hidden = reference.feed_together(&mut sequences, &tokens, progress)?;
        // The case of each row.
        let of_rows: Vec<usize> =
            tokens.iter().enumerate().flat_map(|(case, tokens)| tokens.iter().map(move |_| case)).collect();
        reference.logits(&hidden, progress, &mut |row, logits| record(&mut cases[of_rows[row]], logits))?;
        if cases.iter().all(|case| case.generated_ids.len() == new_tokens) {
            return Ok(cases);
        }
        fed = cases.iter_mut().map(|case| case.next().into_iter().collect()).collect();
    }
}

impl Case {
    /// Nothing but a prompt.
    fn new(prompt: &Prompt) -> Self {
        Case {
            prompt: prompt.text.clone(),
            prompt_ids: prompt.ids.clone(),
            generated_ids: Vec::new(),
            text: String::new(),
            margins: Vec::new(),
            teacher_forced_argmax: Vec::new(),
            teacher_forced_margins: Vec::new(),
            last_logits_head: Vec::new(),
            logit_norms: Vec::new(),
            logit_digests: Vec::new(),
        }
    }

    /// Continues the sequence by the last position's winner.
    fn next(&mut self) -> Option<u32> {
        let (next, margin) = (*self.teacher_forced_argmax.last()?, *self.teacher_forced_margins.last()?);
        self.generated_ids.push(next);
        self.margins.push(margin);
        Some(next)
    }
}

fn record(case: &mut Case, logits: &[f32]) {
    let best = winner(logits);
    case.teacher_forced_argmax.push(best.id);
    case.teacher_forced_margins.push(best.margin);
    case.logit_norms.push(norm(logits) as f32);
    case.logit_digests.push(digest(logits));
    case.last_logits_head = logits.iter().take(HEAD).copied().collect();
}
