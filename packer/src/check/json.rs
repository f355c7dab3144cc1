//! Lenient access to JSON files, for saying what is wrong with them.

use std::path::Path;

use serde_json::{Map, Value};
use text::small;

/// Why a file is not a JSON object.
pub(super) enum Unreadable {
    Missing,
    Malformed(String),
}

/// Reads the JSON object at `path`.
pub(super) fn object(path: &Path) -> Result<Map<String, Value>, Unreadable> {
    if !paths::is_file(path) {
        return Err(Unreadable::Missing);
    }
    let malformed = |message: String| Unreadable::Malformed(message);
    let bytes = paths::read(path, small::JSON).map_err(|e| malformed(e.to_string()))?;
    match serde_json::from_slice(&bytes).map_err(|e| malformed(e.to_string()))? {
        Value::Object(object) => Ok(object),
        other => Err(malformed(format!("the file holds {}, not an object", kind(&other)))),
    }
}

/// What a value is, in words.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a fraction",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// What an entry of an object is, in words.
pub(super) fn kind_of(object: &Map<String, Value>, key: &str) -> &'static str {
    object.get(key).map_or("missing", kind)
}
