//! Calls of tools in what a model wrote, in the form of Gemma 4: `<|tool_call>call:name{key:value,...}<tool_call|>`. Texts are between two
//! `<|"|>`, keys are bare, objects and lists are as in JSON.

use serde_json::{Map, Value};

/// What begins a call.
const BEGIN: &str = "<|tool_call>call:";
/// What ends a call.
const END: &str = "<tool_call|>";
/// What begins and ends a text.
const QUOTE: &str = "<|\"|>";
/// Levels of objects and lists.
const DEEPEST: usize = 32;

/// A call of a tool.
#[derive(Clone, PartialEq, Debug)]
pub struct Call {
    /// The tool.
    pub name: String,
    /// Its arguments by name.
    pub arguments: Map<String, Value>,
}

/// Splits what a model wrote into text and calls; `None` if it calls nothing or a call is not well formed.
pub(super) fn split(written: &str) -> Option<(String, Vec<Call>)> {
    let (mut text, mut calls, mut rest) = (String::new(), Vec::new(), written);
    while let Some((before, after)) = rest.split_once(BEGIN) {
        text.push_str(before);
        let brace = after.find('{')?;
        let (name, after) = after.split_at(brace);
        let (arguments, after) = object(after, 0)?;
        calls.push(Call { name: name.trim().to_owned(), arguments });
        rest = after.trim_start().strip_prefix(END)?;
    }
    text.push_str(rest);
    (!calls.is_empty()).then(|| (text.trim().to_owned(), calls))
}

/// A value, and what follows it.
fn value(text: &str, depth: usize) -> Option<(Value, &str)> {
    let text = text.trim_start();
    if depth > DEEPEST {
        return None;
    }
    if let Some(quoted) = text.strip_prefix(QUOTE) {
        let (quoted, rest) = quoted.split_once(QUOTE)?;
        return Some((Value::from(quoted), rest));
    }
    if text.starts_with('{') {
        return object(text, depth).map(|(object, rest)| (Value::Object(object), rest));
    }
    if let Some(items) = text.strip_prefix('[') {
        return list(items, depth).map(|(items, rest)| (Value::Array(items), rest));
    }
    let (bare, rest) = text.split_at(text.find([',', '}', ']'])?);
    let bare = bare.trim_end();
    Some((serde_json::from_str(bare).unwrap_or_else(|_| Value::from(bare)), rest))
}

fn object(text: &str, depth: usize) -> Option<(Map<String, Value>, &str)> {
    let mut rest = text.strip_prefix('{')?.trim_start();
    let mut object = Map::new();
    while !rest.starts_with('}') {
        let (key, after) = match rest.strip_prefix(QUOTE) {
            Some(quoted) => {
                let (key, after) = quoted.split_once(QUOTE)?;
                (key, after.trim_start().strip_prefix(':')?)
            }
            None => rest.split_once(':')?,
        };
        let (found, after) = value(after, depth + 1)?;
        object.insert(key.trim().to_owned(), found);
        rest = next(after, '}')?;
    }
    Some((object, rest.strip_prefix('}')?))
}

fn list(text: &str, depth: usize) -> Option<(Vec<Value>, &str)> {
    let mut rest = text.trim_start();
    let mut items = Vec::new();
    while !rest.starts_with(']') {
        let (item, after) = value(rest, depth + 1)?;
        items.push(item);
        rest = next(after, ']')?;
    }
    Some((items, rest.strip_prefix(']')?))
}

/// What follows an item: the next one, or `end`.
fn next(text: &str, end: char) -> Option<&str> {
    let text = text.trim_start();
    match text.strip_prefix(',') {
        Some(rest) => Some(rest.trim_start()),
        None => text.starts_with(end).then_some(text),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn calls_are_separated_from_the_text_around_them() {
        let written = "Let me see.<|tool_call>call:weather{city:<|\"|>Köln, {DE}<|\"|>,days:3,units:[<|\"|>C<|\"|>,true],at:{x:-1.5}}<tool_call|>\
            <|tool_call>call:now{}<tool_call|>";
        let (text, calls) = split(written).unwrap();
        assert_eq!(text, "Let me see.");
        assert_eq!((calls[0].name.as_str(), calls[1].name.as_str()), ("weather", "now"));
        let expected = json!({"city": "Köln, {DE}", "days": 3, "units": ["C", true], "at": {"x": -1.5}});
        assert_eq!(Value::Object(calls[0].arguments.clone()), expected);
        assert!(calls[1].arguments.is_empty());
    }

    #[test]
    fn what_is_not_a_call_stays_text() {
        assert_eq!(split("call:x{}"), None);
        for broken in
            ["{", "x{a:1", "x{a}<tool_call|>", "x{a:<|\"|>b}<tool_call|>", "x{a:[1}<tool_call|>", "x{}"]
        {
            assert_eq!(split(&format!("{BEGIN}{broken}")), None, "{broken}");
        }
        let deep = format!("{BEGIN}x{{a:{}", "[".repeat(100_000));
        assert_eq!(split(&deep), None);
    }
}
