//! One object of the configuration and its fields, read with their bounds.

use serde_json::{Map, Value};

use super::ConfigError;

/// Largest size accepted: graphs count in signed 32-bit integers.
pub(super) const MAX_SIZE: usize = i32::MAX as usize;

/// Longest value that an error quotes, in characters.
pub(super) const QUOTED: usize = 60;

/// Longest name that an error quotes, in characters.
const LONGEST_NAME: usize = 160;

/// An object of the configuration, with its place in the file for errors.
#[derive(Debug, Clone)]
pub(super) struct Fields<'a> {
    place: String,
    object: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// The file's outermost value.
    pub(super) fn root(value: &'a Value) -> Result<Self, ConfigError> {
        let object = value
            .as_object()
            .ok_or_else(|| refused("the whole file".to_owned(), Some(value), "an object"))?;
        Ok(Self { place: String::new(), object })
    }

    /// Full name of a field.
    pub(super) fn field(&self, name: &str) -> String {
        if self.place.is_empty() { name.to_owned() } else { format!("{}.{name}", self.place) }
    }

    /// The field's value; `null` counts as absent, as it does in transformers.
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    /// All fields, in the file's order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'a str, &'a Value)> + use<'a> {
        self.object.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// An error about the field, quoting what it says.
    pub(super) fn refuse(&self, name: &str, expected: impl Into<String>) -> ConfigError {
        refused(self.field(name), self.object.get(name), expected)
    }

    /// An error about one item of a list.
    pub(super) fn refuse_item(&self, name: &str, index: usize, item: &Value, expected: &str) -> ConfigError {
        refused(format!("{}[{index}]", self.field(name)), Some(item), expected)
    }

    /// An object inside this one.
    pub(super) fn object(&self, name: &str) -> Result<Fields<'a>, ConfigError> {
        let object = self.get(name).and_then(Value::as_object);
        let object = object.ok_or_else(|| self.refuse(name, "an object"))?;
        Ok(Fields { place: self.field(name), object })
    }

    /// An integer in `range`.
    fn integer(&self, name: &str, min: usize, max: usize) -> Result<usize, ConfigError> {
        self.get(name)
            .and_then(Value::as_u64)
            .and_then(|value| usize::try_from(value).ok())
            .filter(|value| (min..=max).contains(value))
            .ok_or_else(|| self.refuse(name, format!("an integer from {min} to {max}")))
    }

    /// A size: an integer of at least 1.
    pub(super) fn size(&self, name: &str) -> Result<usize, ConfigError> {
        self.integer(name, 1, MAX_SIZE)
    }

    /// A size with its own limit.
    pub(super) fn size_up_to(&self, name: &str, max: usize) -> Result<usize, ConfigError> {
        self.integer(name, 1, max)
    }

    /// A size that is split into halves.
    pub(super) fn even_size(&self, name: &str) -> Result<usize, ConfigError> {
        let size = self.size(name)?;
        if size % 2 == 0 {
            Ok(size)
        } else {
            Err(self.refuse(name, "an even number: heads rotate by halves"))
        }
    }

    /// A count: an integer of at least 0; 0 if absent.
    pub(super) fn count(&self, name: &str) -> Result<usize, ConfigError> {
        if self.get(name).is_none() { Ok(0) } else { self.integer(name, 0, MAX_SIZE) }
    }

    /// `true` or `false`; `default` if absent.
    pub(super) fn flag(&self, name: &str, default: bool) -> Result<bool, ConfigError> {
        match self.get(name) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.refuse(name, "true or false")),
        }
    }

    /// A number from `min` to `max`.
    pub(super) fn number(&self, name: &str, min: f64, max: f64) -> Result<f64, ConfigError> {
        self.get(name)
            .and_then(Value::as_f64)
            .filter(|value| (min..=max).contains(value))
            .ok_or_else(|| self.refuse(name, format!("a number from {min:?} to {max:?}")))
    }

    /// Refuses every field that is given and not among `known`.
    pub(super) fn nothing_but(&self, known: &[&str]) -> Result<(), ConfigError> {
        match self.iter().find(|(name, value)| !value.is_null() && !known.contains(name)) {
            Some((name, _)) => {
                Err(self.refuse(name, format!("none: only {} are supported here", known.join(", "))))
            }
            None => Ok(()),
        }
    }

    /// A text.
    pub(super) fn text(&self, name: &str) -> Result<&'a str, ConfigError> {
        self.get(name).and_then(Value::as_str).ok_or_else(|| self.refuse(name, "a text"))
    }

    /// A text of which only one value is accepted.
    pub(super) fn only(&self, name: &str, accepted: &str) -> Result<(), ConfigError> {
        if self.get(name).and_then(Value::as_str) == Some(accepted) {
            Ok(())
        } else {
            Err(self.refuse(name, format!("{accepted:?}")))
        }
    }

    /// A list.
    pub(super) fn list(&self, name: &str) -> Result<&'a [Value], ConfigError> {
        self.get(name).and_then(Value::as_array).map(Vec::as_slice).ok_or_else(|| self.refuse(name, "a list"))
    }

    /// A token, if given.
    pub(super) fn token(&self, name: &str, vocab: usize) -> Result<Option<u32>, ConfigError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        token_of(value, vocab).map(Some).ok_or_else(|| self.refuse(name, format!("a token below {vocab}")))
    }

    /// One token or a list of them; none if absent.
    pub(super) fn tokens(&self, name: &str, vocab: usize) -> Result<Vec<u32>, ConfigError> {
        let Some(value) = self.get(name) else { return Ok(Vec::new()) };
        let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        values
            .iter()
            .map(|value| token_of(value, vocab))
            .collect::<Option<Vec<u32>>>()
            .ok_or_else(|| self.refuse(name, format!("a token below {vocab}, or a list of them")))
    }
}

fn token_of(value: &Value, vocab: usize) -> Option<u32> {
    let id = value.as_u64().filter(|id| usize::try_from(*id).is_ok_and(|id| id < vocab))?;
    u32::try_from(id).ok()
}

/// An error about a field that says `value`.
fn refused(field: String, value: Option<&Value>, expected: impl Into<String>) -> ConfigError {
    let found = match value {
        None => "missing".to_owned(),
        // Named by its kind: a whole configuration does not fit into a message.
        Some(Value::Array(items)) => format!("a list of {}", items.len()),
        Some(Value::Object(object)) => format!("an object of {}", object.len()),
        Some(value) => shortened(&value.to_string(), QUOTED),
    };
    ConfigError::Field { field: shortened(&field, LONGEST_NAME), found, expected: expected.into() }
}

/// The beginning of a text that may be long.
pub(super) fn shortened(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((cut, _)) => format!("{}..", &text[..cut]),
        None => text.to_owned(),
    }
}
