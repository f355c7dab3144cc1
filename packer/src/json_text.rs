//! Edits of one value in a JSON text that leave every other byte as it was.
//!
//! Parsing and printing a foreign file again would change its indentation and its numbers: a tokenizer
//! configuration may hold integers far beyond 64 bits.

use std::ops::Range;

use indexmap::IndexMap;
use serde_json::value::RawValue;

/// A text that is not one JSON object.
#[derive(Debug, thiserror::Error)]
#[error("not a JSON object: {0}")]
pub(crate) struct NotAnObject(#[from] serde_json::Error);

/// Sets the string `value` for `key` of the object `text`: instead of the value that is there, or as a new
/// last entry in the style of the others.
pub(crate) fn set_string(text: &str, key: &str, value: &str) -> Result<String, NotAnObject> {
    let entries: IndexMap<String, &RawValue> = serde_json::from_str(text)?;
    let value = serde_json::to_string(value)?;
    if let Some(old) = entries.get(key) {
        return Ok(replaced(text, span(text, old), &value));
    }
    let entry = format!("{}: {value}", serde_json::to_string(key)?);
    let open = text.find('{').map_or(0, |at| at + 1);
    let Some((_, last)) = entries.last() else {
        return Ok(replaced(text, open..open, &entry));
    };
    let end = span(text, last).end;
    let separator = match indentation(text, open) {
        Some(indentation) => format!(",{indentation}{entry}"),
        None => format!(", {entry}"),
    };
    Ok(replaced(text, end..end, &separator))
}

/// As [`set_string`], but where the value is an object, as tokens with properties are, its `content` is set.
pub(crate) fn set_token(text: &str, key: &str, value: &str) -> Result<String, NotAnObject> {
    let entries: IndexMap<String, &RawValue> = serde_json::from_str(text)?;
    match entries.get(key) {
        Some(old) if old.get().starts_with('{') => {
            let edited = set_string(old.get(), "content", value)?;
            Ok(replaced(text, span(text, old), &edited))
        }
        _ => set_string(text, key, value),
    }
}

/// Where `part`, which was parsed from `text`, lies in it.
fn span(text: &str, part: &RawValue) -> Range<usize> {
    let start = (part.get().as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    start..start + part.get().len()
}

fn replaced(text: &str, range: Range<usize>, with: &str) -> String {
    let mut edited = text.to_owned();
    edited.replace_range(range, with);
    edited
}

/// The white space before the first key, if it begins a new line.
fn indentation(text: &str, open: usize) -> Option<&str> {
    let rest = text.get(open..)?;
    let blank = rest.get(..rest.find('"')?)?;
    blank.contains('\n').then_some(blank)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    #[test]
    fn value_is_replaced_and_nothing_else() {
        let text =
            "{\n \"a\": 1000000000000000019884624838656,\n \"eos_token\": \"<eos>\",\n \"b\": 1e-06\n}\n";
        let edited = set_string(text, "eos_token", "<turn|>").unwrap();
        assert_eq!(edited, text.replace("<eos>", "<turn|>"));
    }

    #[test]
    fn missing_key_is_appended_in_the_style_of_the_file() {
        let cases = [
            ("{\n   \"a\": 1\n}", "{\n   \"a\": 1,\n   \"k\": \"v\"\n}"),
            ("{\"a\": [1, {\"b\": 2}]}", "{\"a\": [1, {\"b\": 2}], \"k\": \"v\"}"),
            ("{}\n", "{\"k\": \"v\"}\n"),
        ];
        for (text, expected) in cases {
            assert_eq!(set_string(text, "k", "v").unwrap(), expected);
        }
    }

    #[test]
    fn content_of_a_token_object_is_set() {
        let text = r#"{"eos_token": {"content": "<eos>", "lstrip": false}, "x": 1}"#;
        let edited = set_token(text, "eos_token", "<turn|>").unwrap();
        assert_eq!(edited, text.replace("<eos>", "<turn|>"));
        assert_eq!(set_token("{}", "eos_token", "t").unwrap(), r#"{"eos_token": "t"}"#);
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "[]", "{\"a\":", "null", "{} {}"] {
            assert!(set_string(text, "k", "v").is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn only_the_asked_key_changes(
            entries in proptest::collection::vec((".*", ".*"), 0..6),
            key in ".*",
            value in ".*",
            pretty in any::<bool>(),
        ) {
            let mut object: Map<String, Value> = entries.into_iter().map(|(k, v)| (k, v.into())).collect();
            let text = if pretty { serde_json::to_string_pretty(&object) } else { serde_json::to_string(&object) };
            let edited = set_string(&text.unwrap(), &key, &value).unwrap();
            object.insert(key, value.into());
            let parsed: Map<String, Value> = serde_json::from_str(&edited).unwrap();
            prop_assert_eq!(parsed.iter().collect::<Vec<_>>(), object.iter().collect::<Vec<_>>());
        }
    }
}
