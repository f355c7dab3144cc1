//! Every key of a configuration is wrong once in every way: the reader names the key, or the key has no effect.

use crate::source_support::{DENSE_31B, E2B, E4B};
use checkpoint::config::{ConfigError, DecoderConfig};
use serde_json::{Map, Value, json};

const TINY_DENSE: &str = include_str!("../../../fixtures/data/tiny-12b-qat/config.json");
const DENSE_BY_LAYER: &str = include_str!("../../../fixtures/data/configs/gemma-4-12b.per_layer_config.json");
const TINY: &str = include_str!("../../../fixtures/data/tiny-e4b-qat/config.json");

/// Longest acceptable message.
const LONGEST: usize = 600;

/// What a key may say instead; `None` leaves it out.
fn lies() -> Vec<Option<Value>> {
    let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
    let wide = json!(vec![0; 5000]);
    let values = json!([
        null, true, false, -1, 0, 0.5, -0.5, 1.5, 1e308, -1e308, 5e-324, 1u64 << 40, u64::MAX, i64::MIN,
        "", "0", "NaN", "-Infinity", "null", "\u{1b}[31m", "x".repeat(100_000),
        [], {}, [null], [[]], {"": null}, {"rope_type": "yarn", "factor": 8.0}, deep, wide,
    ]);
    let values = values.as_array().unwrap().iter().cloned().map(Some);
    values.chain([None]).collect()
}

/// Values that describe another model that can be converted, or a plain default: they cannot be recognized as wrong.
fn is_another_model(key: &str, lie: Option<&Value>) -> bool {
    let absent = lie.is_none_or(Value::is_null);
    match key {
        "use_double_wide_mlp" | "tie_word_embeddings" => absent || lie.is_some_and(Value::is_boolean),
        "attention_k_eq_v" => absent || lie == Some(&json!(false)),
        "num_global_key_value_heads" | "layer_types" => absent,
        "num_kv_shared_layers" => absent || lie == Some(&json!(0)),
        "eos_token_id" => absent || [json!([]), json!(0), json!(vec![0; 5000])].contains(lie.unwrap()),
        "bos_token_id" | "pad_token_id" => absent || lie == Some(&json!(0)),
        "partial_rotary_factor" => absent || lie == Some(&json!(0.5)),
        "architectures" => absent || lie.is_some_and(Value::is_array),
        _ => false,
    }
}

/// The pointers of all keys, and of those of objects inside.
fn keys(object: &Map<String, Value>, at: &str, found: &mut Vec<String>) {
    for (key, value) in object {
        let pointer = format!("{at}/{key}");
        if let Some(object) = value.as_object() {
            keys(object, &pointer, found);
        }
        found.push(pointer);
    }
}

fn all_keys(config: &Value) -> Vec<String> {
    let mut found = Vec::new();
    keys(config.as_object().unwrap(), "", &mut found);
    found
}

fn parent_of<'c, 'p>(config: &'c mut Value, pointer: &'p str) -> (&'c mut Map<String, Value>, &'p str) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    (config.pointer_mut(parent).unwrap().as_object_mut().unwrap(), key)
}

#[test]
fn every_key_lies_in_every_way() {
    let (lies, mut told, mut silent) = (lies(), 0, 0);
    for text in [TINY, E4B, E2B, TINY_DENSE, DENSE_31B, DENSE_BY_LAYER] {
        let truth: Value = serde_json::from_str(text).unwrap();
        let expected = DecoderConfig::from_json(text.as_bytes()).unwrap();
        for pointer in all_keys(&truth) {
            for lie in &lies {
                let mut config = truth.clone();
                let (object, key) = parent_of(&mut config, &pointer);
                match lie {
                    Some(value) => object.insert(key.to_owned(), value.clone()),
                    None => object.remove(key),
                };
                let shown = lie
                    .as_ref()
                    .map_or("missing".into(), |lie| lie.to_string().chars().take(60).collect::<String>());
                match DecoderConfig::from_json(config.to_string().as_bytes()) {
                    Err(ConfigError::Json(_)) => panic!("{pointer} = {shown}: valid JSON"),
                    Err(error) => {
                        let message = error.to_string();
                        assert!(
                            message.contains(key.trim_start_matches('0')) && message.len() < LONGEST,
                            "{pointer} = {shown}: {message}"
                        );
                        told += 1;
                    }
                    Ok(config) => {
                        assert!(
                            config == expected || is_another_model(key, lie.as_ref()),
                            "{pointer} = {shown} is believed"
                        );
                        silent += 1;
                    }
                }
            }
        }
    }
    assert!(told > 2500 && silent > 2500, "{told} told, {silent} silent");
}

/// Settings that transformers knows elsewhere, and that this decoder would have to compute.
#[test]
fn settings_that_are_not_implemented() {
    let rope =
        ["rope_scaling", "attention_factor", "beta_fast", "short_factor", "original_max_position_embeddings"];
    let places = [
        (
            "/text_config",
            [
                "rope_scaling",
                "rope_theta",
                "attention_factor",
                "attn_logit_softcapping",
                "query_pre_attn_scalar",
            ],
        ),
        (
            "",
            [
                "rope_scaling",
                "rope_theta",
                "attention_factor",
                "rope_local_base_freq",
                "partial_rotary_factor",
            ],
        ),
        ("/text_config/rope_parameters", rope),
        ("/text_config/rope_parameters/full_attention", rope),
        ("/text_config/rope_parameters/sliding_attention", rope),
    ];
    for (place, names) in places {
        for name in names {
            let mut config: Value = serde_json::from_str(E4B).unwrap();
            let object = config.pointer_mut(place).unwrap();
            object[name] = Value::Null;
            assert!(DecoderConfig::from_json(config.to_string().as_bytes()).is_ok(), "{place}/{name}");
            config.pointer_mut(place).unwrap()[name] = json!(1.5);
            let error = DecoderConfig::from_json(config.to_string().as_bytes()).unwrap_err().to_string();
            let field =
                format!("{place}/{name} is 1.5, expected none").replacen('/', "", 1).replace('/', ".");
            assert!(error.contains(&field), "{field}: {error}");
        }
    }
}

#[test]
fn numbers_that_no_model_has() {
    let cases = [
        ("/text_config/rms_norm_eps", [json!(1), json!(0.1), json!(1e-30), json!(1e308), json!("1e-6")]),
        (
            "/text_config/final_logit_softcapping",
            [json!(0.1), json!(1e-6), json!(65504), json!(1e308), json!(-30)],
        ),
        (
            "/text_config/rope_parameters/full_attention/rope_theta",
            [json!(0), json!(1), json!(1e300), json!(-1e6), json!("1e6")],
        ),
        (
            "/text_config/rope_parameters/full_attention/factor",
            [json!(0.5), json!(2), json!("1"), json!(true), json!([1])],
        ),
    ];
    for (pointer, values) in cases {
        for value in values {
            let mut config: Value = serde_json::from_str(E4B).unwrap();
            let (object, key) = parent_of(&mut config, pointer);
            object.insert(key.to_owned(), value.clone());
            let error = DecoderConfig::from_json(config.to_string().as_bytes()).unwrap_err().to_string();
            assert!(
                error.contains(&format!(
                    "{key} is {}",
                    if value.is_array() { "a list".into() } else { value.to_string() }
                )),
                "{error}"
            );
        }
    }
}

/// Keys given twice: which of the values counts depends on the reader.
#[test]
fn every_key_is_given_twice() {
    for text in [TINY, E4B, E2B, TINY_DENSE, DENSE_31B, DENSE_BY_LAYER] {
        let truth: Value = serde_json::from_str(text).unwrap();
        for pointer in all_keys(&truth) {
            let key = pointer.rsplit_once('/').unwrap().1;
            // A key that the object has once becomes its twin when the text is written.
            let mut config = truth.clone();
            parent_of(&mut config, &pointer).0.insert("A TWIN".to_owned(), json!(1));
            let twice = config.to_string().replace("\"A TWIN\"", &json!(key).to_string());
            let error = DecoderConfig::from_json(twice.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(&format!("the key {key:?} is given twice")), "{pointer}: {error}");
        }
    }
}

/// What is not JSON, in place of every value.
#[test]
fn every_value_is_broken() {
    let deep = "[".repeat(100_000);
    let deep_objects = "{\"a\":".repeat(100_000);
    let truth: Value = serde_json::from_str(TINY).unwrap();
    for pointer in all_keys(&truth) {
        let mut config = truth.clone();
        let (object, key) = parent_of(&mut config, &pointer);
        object.insert(key.to_owned(), json!("A VALUE"));
        let config = config.to_string();
        for broken in ["NaN", "Infinity", "-", "1e999", "01", "'x'", "\"\\ud800\"", "", &deep, &deep_objects]
        {
            let error =
                DecoderConfig::from_json(config.replace("\"A VALUE\"", broken).as_bytes()).unwrap_err();
            assert!(matches!(error, ConfigError::Json(_)), "{pointer}: {error}");
        }
    }
}
