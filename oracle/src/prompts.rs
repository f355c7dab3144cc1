//! Prompts whose continuation any language model is sure of, so that nearly every position gates.

use crate::file::Prompt;
use crate::text::{Text, TextError};

/// Sequences that continue themselves.
const SHORT: [&str; 3] = [
    "Count up: 1, 2, 3, 4, 5, 6, 7, 8, 9,",
    "The alphabet: A B C D E F G H I J K",
    "Days: Monday, Tuesday, Wednesday, Thursday,",
];
/// Errors of a mismatched int4 grid show at this length, and not at 8 tokens.
const MIDDLE: usize = 270;
/// How far beyond the sliding window the longest prompt goes.
const BEYOND_WINDOW: usize = 24;

/// The default prompts: counting, alphabet, days; one of about 270 tokens; one longer than the sliding window.
///
/// # Errors
/// If the tokenizer refuses.
pub fn default_prompts(text: &Text, sliding_window: usize) -> Result<Vec<Prompt>, TextError> {
    let mut prompts = Vec::new();
    for short in SHORT {
        prompts.push(Prompt { text: short.to_owned(), ids: text.encode(short)? });
    }
    for length in [MIDDLE, sliding_window.saturating_add(BEYOND_WINDOW)] {
        prompts.push(counting(text, length)?);
    }
    Ok(prompts)
}

/// Counts up until the prompt has at least that many tokens.
fn counting(text: &Text, tokens: usize) -> Result<Prompt, TextError> {
    let mut counted = "Count up: 1,".to_owned();
    let mut ids = text.encode(&counted)?;
    let mut number = 2;
    while ids.len() < tokens {
        // Every number adds at least one token, so that a few are added before they are counted again.
        for _ in 0..(tokens - ids.len()).div_ceil(8) {
            counted.push_str(&format!(" {number},"));
            number += 1;
        }
        ids = text.encode(&counted)?;
    }
    Ok(Prompt { text: counted, ids })
}
