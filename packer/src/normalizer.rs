//! What a `tokenizer.json` may do to a text before and after its tokens are found. The library that runs it has no
//! limits: some settings make a text grow without bound, and some make it panic. Gemma's tokenizers need none of those.

use serde::Deserialize;
use serde_json::Value;

/// Largest factor by which normalization may lengthen a text: Gemma's own turns a space into three bytes.
const MAX_GROWTH: f64 = 64.0;

/// Most steps of a normalizer, and most pieces of a post-processor's templates.
const MAX_STEPS: usize = 64;

/// The steps around the model.
#[derive(Deserialize)]
pub(crate) struct Steps {
    #[serde(default)]
    truncation: Value,
    #[serde(default)]
    padding: Value,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    post_processor: Value,
}

impl Steps {
    /// Why they are not run, if they are not.
    pub(crate) fn refusal(&self) -> Option<String> {
        for (name, setting) in [("truncation", &self.truncation), ("padding", &self.padding)] {
            if !setting.is_null() {
                return Some(format!("it has a {name}, which changes prompts: set it to null"));
            }
        }
        if pieces(&self.post_processor) > MAX_STEPS {
            return Some(format!("its post_processor has more than {MAX_STEPS} pieces"));
        }
        let mut steps = 0;
        match growth(&self.normalizer, &mut steps) {
            Ok(growth) if growth > MAX_GROWTH => {
                Some(format!("its normalizer may make a text more than {MAX_GROWTH} times as long"))
            }
            Ok(_) => None,
            Err(reason) => Some(reason),
        }
    }
}

/// Elements of all lists in a value.
fn pieces(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.len() + items.iter().map(pieces).sum::<usize>(),
        Value::Object(members) => members.values().map(pieces).sum(),
        _ => 0,
    }
}

/// The factor by which a normalizer may lengthen a text.
fn growth(normalizer: &Value, steps: &mut usize) -> Result<f64, String> {
    *steps += 1;
    if *steps > MAX_STEPS {
        return Err(format!("its normalizer has more than {MAX_STEPS} steps"));
    }
    if normalizer.is_null() {
        return Ok(1.0);
    }
    let length = |text: &Value| text.as_str().map(|text| text.len() as f64);
    match normalizer["type"].as_str() {
        Some("Sequence") => {
            let parts = normalizer["normalizers"].as_array().map(Vec::as_slice).unwrap_or_default();
            parts.iter().try_fold(1.0, |product, part| Ok(product * growth(part, steps)?))
        }
        Some("Replace") => match (length(&normalizer["pattern"]["String"]), length(&normalizer["content"])) {
            (Some(from), Some(to)) if from > 0.0 => Ok((to / from).max(1.0)),
            _ => Err("its normalizer replaces something other than a text with a text".to_owned()),
        },
        // At most one text in front of each; decomposition turns one character into at most four.
        Some("Prepend") if length(&normalizer["prepend"]).is_some_and(|bytes| bytes <= 16.0) => Ok(2.0),
        Some("NFC" | "NFD" | "NFKC" | "NFKD") => Ok(4.0),
        Some("Lowercase" | "Strip") => Ok(2.0),
        _ => Err("its normalizer has a step that Gemma's tokenizers do not have".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::Steps;
    use serde_json::{Value, json};

    fn refusal(file: &Value) -> Option<String> {
        serde_json::from_value::<Steps>(file.clone()).unwrap().refusal()
    }

    #[test]
    fn what_gemmas_tokenizers_do_is_accepted() {
        let replace =
            |from: &str, to: &str| json!({"type": "Replace", "pattern": {"String": from}, "content": to});
        assert_eq!(refusal(&json!({})), None);
        assert_eq!(refusal(&json!({"normalizer": replace(" ", "\u{2581}"), "padding": null})), None);
        let several =
            json!({"type": "Sequence", "normalizers": [{"type": "NFKC"}, replace(" ", "\u{2581}")]});
        assert_eq!(refusal(&json!({"normalizer": several})), None);
    }

    #[test]
    fn what_grows_without_bound_or_changes_prompts_is_refused() {
        let bomb = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "a".repeat(1000)});
        let regex = json!({"type": "Replace", "pattern": {"Regex": ""}, "content": "aa"});
        let doubling = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
        let many = |step: Value, count| json!({"type": "Sequence", "normalizers": vec![step; count]});
        let mut nested = json!({"type": "NFC"});
        for _ in 0..60 {
            nested = json!({"type": "Sequence", "normalizers": [nested, {"type": "Strip"}]});
        }
        let piece = json!({"Sequence": {"id": "A", "type_id": 0}});
        for file in [
            json!({"truncation": {"max_length": 1, "stride": 5}}),
            json!({"padding": {"strategy": {"Fixed": 1_000_000_000}}}),
            json!({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}),
            json!({"normalizer": bomb}),
            json!({"normalizer": regex}),
            json!({"normalizer": many(doubling, 7)}),
            json!({"normalizer": many(json!({"type": "Strip"}), 100)}),
            json!({"normalizer": nested}),
            json!({"post_processor": {"type": "TemplateProcessing", "single": vec![piece; 100_000]}}),
        ] {
            assert!(refusal(&file).is_some(), "{}", &file.to_string()[..80.min(file.to_string().len())]);
        }
    }
}
