//! Two JSON files field by field.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

/// A field that differs.
#[derive(Debug, PartialEq, Serialize)]
pub struct FieldDifference {
    /// Path of the field, such as `/language/vocab_size`.
    pub path: String,
    /// Absent if it is missing on the left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<Value>,
    /// Absent if it is missing on the right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub right: Option<Value>,
}

/// Fields in which two values differ, sorted by path within each object.
pub(super) fn differences(left: &Value, right: &Value) -> Vec<FieldDifference> {
    let mut found = Vec::new();
    descend("", Some(left), Some(right), &mut found);
    found
}

fn descend(path: &str, left: Option<&Value>, right: Option<&Value>, found: &mut Vec<FieldDifference>) {
    if left == right {
        return;
    }
    match (left, right) {
        (Some(Value::Object(ours)), Some(Value::Object(theirs))) => {
            let keys: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
            for key in keys {
                descend(&format!("{path}/{key}"), ours.get(key), theirs.get(key), found);
            }
        }
        (Some(Value::Array(ours)), Some(Value::Array(theirs))) => {
            for at in 0..ours.len().max(theirs.len()) {
                descend(&format!("{path}/{at}"), ours.get(at), theirs.get(at), found);
            }
        }
        _ => {
            let (left, right) = (left.cloned(), right.cloned());
            found.push(FieldDifference { path: path.to_owned(), left, right });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_named_by_their_path() {
        let found =
            differences(&json!({"a": [1, 2], "b": {"c": 1}}), &json!({"a": [1], "b": {"c": 2}, "d": null}));
        let paths: Vec<&str> = found.iter().map(|field| field.path.as_str()).collect();
        assert_eq!(paths, ["/a/1", "/b/c", "/d"]);
        assert_eq!((&found[0].left, &found[0].right), (&Some(json!(2)), &None));
        assert_eq!(found[2].right, Some(Value::Null));
        assert!(differences(&json!({"a": 1, "b": 2}), &json!({"b": 2, "a": 1})).is_empty());
    }
}
