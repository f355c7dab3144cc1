//! Default prompts of different kinds: lists with an obvious continuation, prose, code and other languages.

use crate::file::Prompt;
use crate::text::{Text, TextError};

/// Lists that any language model continues with confidence.
const LISTS: [&str; 2] =
    ["The alphabet: A B C D E F G H I J K", "Days: Monday, Tuesday, Wednesday, Thursday,"];

/// Texts of the kinds that models are used for. They use other tokens, and so other weights, than counting.
const PASSAGES: [&str; 4] = [
    "The lighthouse keeper climbed the stairs every evening, lit the lamp, and wrote down how the sea had looked that day. \
     When fog came in, he rang the bell instead and waited for the boats to answer. Most of them did.",
    "/// Median of the readings, or nothing if there are none.\n\
     fn median(mut readings: Vec<f64>) -> Option<f64> {\n    \
         readings.sort_by(f64::total_cmp);\n    \
         readings.get(readings.len() / 2).copied()\n\
     }\n\n\
     assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));\n",
    "Am Morgen lag Schnee auf den Dächern. Die Bäckerin öffnete wie immer um sechs Uhr ihren Laden, doch außer dem \
     Briefträger kam niemand vorbei. Erst gegen Mittag hörte man wieder Kinder auf der Straße.",
    "朝の駅はとても静かでした。最初の電車を待つ人たちは、温かいお茶を飲みながら、山の上に昇る太陽を眺めていました。\
     やがて遠くから線路の音が聞こえてきました。",
];
/// Least tokens of a passage; a shorter passage is used whole. Several short passages test more than a long one.
const PASSAGE_TOKENS: usize = 48;
/// Tokens by which the longest prompt exceeds the sliding window.
const BEYOND_WINDOW: usize = 24;
/// More tokens than any one number takes.
const NUMBER_TOKENS: usize = 16;

/// The default prompts: two lists; beginnings of texts in English, Rust, German and Japanese; and one that counts until it is
/// longer than the sliding window, if `longest` tokens are enough for that.
///
/// All of them begin differently, so that nearly every position has a unique context.
///
/// # Errors
/// If the tokenizer fails.
pub fn default_prompts(text: &Text, sliding_window: usize, longest: usize) -> Result<Vec<Prompt>, TextError> {
    let mut prompts = Vec::new();
    for list in LISTS {
        prompts.push(Prompt { text: list.to_owned(), ids: text.encode(list)? });
    }
    for passage in PASSAGES {
        prompts.push(grown(text, "", passage.chars().map(String::from), PASSAGE_TOKENS)?);
    }
    let length = sliding_window.saturating_add(BEYOND_WINDOW).min(longest.saturating_sub(NUMBER_TOKENS));
    // Every number adds at least one token.
    prompts.push(grown(text, "Count up: 1,", (2..=length).map(|number| format!(" {number},")), length)?);
    Ok(prompts)
}

/// Adds pieces to a text until it has at least that many tokens, or no pieces are left.
fn grown(
    text: &Text,
    start: &str,
    mut pieces: impl Iterator<Item = String>,
    tokens: usize,
) -> Result<Prompt, TextError> {
    let mut prompt = Prompt { text: start.to_owned(), ids: text.encode(start)? };
    while prompt.ids.len() < tokens {
        let before = prompt.text.len();
        // Each round encodes the whole text, so it adds several pieces, but only as many as cannot overshoot by much.
        let missing = tokens - prompt.ids.len();
        prompt.text.extend(pieces.by_ref().take(missing.div_ceil(8)));
        if prompt.text.len() == before {
            break;
        }
        prompt.ids = text.encode(&prompt.text)?;
    }
    Ok(prompt)
}
