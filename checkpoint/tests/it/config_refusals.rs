//! Configurations that are refused: each with an error that names the field, what it says and what was expected.

use crate::source_support::{
    DENSE_12B, E4B, small_config, small_dense_config, tensors_of, text_only_config, write_single,
};
use checkpoint::config::{CacheForm, ConfigError, DecoderConfig, MAX_CONFIG_BYTES, MAX_LAYERS};
use checkpoint::source::LocalSource;
use proptest::prelude::*;
use serde_json::{Value, json};

fn read(config: &Value) -> Result<DecoderConfig, ConfigError> {
    DecoderConfig::from_json(config.to_string().as_bytes())
}

/// Sets the field at a JSON pointer; `None` removes it.
fn set(config: &mut Value, pointer: &str, value: Option<Value>) {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let object = config.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match value {
        Some(value) => object.insert(name.to_owned(), value),
        None => object.remove(name),
    };
}

/// One change to the small configuration and what the error must say of the field, what it says, what is expected.
struct Case(&'static str, Option<Value>, &'static str, &'static str);

fn check(cases: Vec<Case>) {
    for Case(pointer, value, found, expected) in cases {
        let mut config = small_config();
        set(&mut config, pointer, value);
        let error = read(&config).expect_err(pointer);
        let ConfigError::Field { field, found: is, expected: wanted } = &error else {
            panic!("{pointer}: {error}");
        };
        assert_eq!(*field, pointer[1..].replace('/', "."), "{error}");
        assert!(is.contains(found), "{pointer}: found: {found:?} is not in: {error}");
        assert!(wanted.contains(expected), "{pointer}: expected: {expected:?} is not in: {error}");
    }
}

#[test]
fn other_members_of_the_family() {
    check(vec![
        Case("/model_type", None, "missing", "a text"),
        Case("/text_config/model_type", Some(json!("gemma3_text")), "gemma3_text", "\"gemma4_text\""),
        Case("/text_config/enable_moe_block", Some(json!(true)), "true", "mixture of experts"),
        Case("/text_config/attention_k_eq_v", Some(json!(true)), "true", "project their values"),
    ]);
    // The text part must be that of the whole.
    let mut config = small_config();
    config["model_type"] = json!("gemma4_unified");
    let error = read(&config).unwrap_err().to_string();
    assert!(
        error.contains("text_config.model_type is \"gemma4_text\", expected \"gemma4_unified_text\""),
        "{error}"
    );
    // Without per-layer embeddings it is a model of the other family, in which no layer shares keys and values.
    for width in [Some(json!(0)), Some(Value::Null), None] {
        let mut config = small_config();
        set(&mut config, "/text_config/hidden_size_per_layer_input", width);
        let error = read(&config).unwrap_err().to_string();
        assert!(
            error.contains("text_config.num_kv_shared_layers is 3, expected 0: only models with"),
            "{error}"
        );
    }
}

#[test]
fn other_families_are_named() {
    for (architectures, found) in [
        (json!(["Qwen3ForCausalLM"]), "config.json says model_type qwen3 (Qwen3ForCausalLM), and only"),
        (json!(null), "config.json says model_type qwen3, and only"),
        (json!([7]), "config.json says model_type qwen3, and only"),
    ] {
        let mut config = small_config();
        config["model_type"] = json!("qwen3");
        config["architectures"] = architectures;
        let error = read(&config).unwrap_err();
        assert!(matches!(error, ConfigError::Family { .. }), "{error}");
        assert!(
            error.to_string().contains(found) && error.to_string().contains("gemma4_unified_text"),
            "{error}"
        );
    }
}

#[test]
fn weights_of_other_quantizers_are_named() {
    for (pointer, settings, by) in [
        (
            "/quantization_config",
            json!({"quant_method": "bitsandbytes", "load_in_4bit": true}),
            "bitsandbytes",
        ),
        ("/quantization_config", json!({"quant_method": "gptq", "bits": 4}), "gptq"),
        ("/text_config/quantization_config", json!({}), "another tool"),
        ("/quantization", json!({"group_size": 64, "bits": 4}), "MLX"),
    ] {
        let mut config = small_config();
        set(&mut config, pointer, Some(settings));
        let error = read(&config).unwrap_err().to_string();
        let field = pointer[1..].replace('/', ".");
        let expected =
            format!("config.json: {field} says that the weights were quantized with {by}, whose codes");
        assert!(error.starts_with(&expected), "{error}");
    }
    // MLX writes its settings under both names.
    let mut config = small_config();
    config["quantization"] = json!({"group_size": 64, "bits": 4});
    config["quantization_config"] = config["quantization"].clone();
    assert!(read(&config).unwrap_err().to_string().contains("quantized with MLX"));
}

/// What only models without per-layer embeddings have.
#[test]
fn heads_of_full_layers() {
    const OVERRIDES: &str = "/text_config/per_layer_config";
    let by_layer = |heads: [Value; 2]| {
        let [first, second] = heads.map(|heads| json!({ "head_dim": 32, "num_key_value_heads": heads }));
        json!({ "2": first, "05": second })
    };
    let cases = vec![
        Case("/text_config/enable_moe_block", Some(json!(true)), "true", "mixture of experts"),
        Case("/text_config/use_bidirectional_attention", Some(json!("all")), "all", "causal"),
        Case("/text_config/num_kv_shared_layers", Some(json!(1)), "1", "0: only models with per-layer"),
        Case("/text_config/num_key_value_heads", Some(json!(3)), "3", "a divisor of the 4 query heads"),
        Case(
            "/text_config/num_global_key_value_heads",
            Some(json!(3)),
            "3",
            "divides the 2 of sliding layers",
        ),
        Case(
            "/text_config/num_global_key_value_heads",
            Some(json!(4)),
            "4",
            "divides the 2 of sliding layers",
        ),
        Case("/text_config/num_global_key_value_heads", Some(json!(0)), "0", "an integer from 1"),
        Case("/text_config/global_head_dim", None, "missing", "or per_layer_config"),
        Case(OVERRIDES, Some(by_layer([json!(1), json!(2)])), "of 2", "one num_key_value_heads for every"),
        Case(OVERRIDES, Some(by_layer([json!(3), json!(3)])), "of 2", "sliding layers, not 3"),
        Case("/text_config/layer_types", Some(json!([])), "a list of 0", "a list of 6"),
    ];
    for Case(pointer, value, found, expected) in cases {
        let mut config = small_dense_config();
        if pointer == OVERRIDES {
            set(&mut config, "/text_config/num_global_key_value_heads", None);
        }
        set(&mut config, pointer, value);
        let error = read(&config).expect_err(pointer);
        let ConfigError::Field { field, found: is, expected: wanted } = &error else {
            panic!("{pointer}: {error}");
        };
        assert_eq!(*field, pointer[1..].replace('/', "."), "{error}");
        assert!(is.contains(found) && wanted.contains(expected), "{pointer}: {error}");
    }
    let mut config = small_dense_config();
    set(&mut config, OVERRIDES, Some(by_layer([json!(2), json!(2)])));
    let error = read(&config).unwrap_err().to_string();
    assert!(
        error.contains("num_global_key_value_heads is 1, expected 2, as per_layer_config says"),
        "{error}"
    );
}

#[test]
fn other_mathematics() {
    check(vec![
        Case("/text_config/attention_bias", Some(json!(true)), "true", "biases"),
        Case("/text_config/attention_bias", Some(json!("no")), "\"no\"", "true or false"),
        Case("/text_config/hidden_activation", Some(json!("silu")), "silu", "\"gelu_pytorch_tanh\""),
        Case("/text_config/hidden_activation", None, "missing", "\"gelu_pytorch_tanh\""),
        Case("/text_config/use_bidirectional_attention", Some(json!(true)), "true", "causal"),
        Case("/text_config/use_bidirectional_attention", Some(json!("all")), "all", "causal"),
        Case("/text_config/final_logit_softcapping", Some(Value::Null), "null", "a number from 5.0"),
        Case("/text_config/final_logit_softcapping", Some(json!(-30.0)), "-30.0", "a number from 5.0"),
        Case("/text_config/rms_norm_eps", Some(json!(0.0)), "0.0", "a number from 1e-12"),
    ]);
}

#[test]
fn layers() {
    let mut types = small_config()["text_config"]["layer_types"].clone();
    types[1] = json!("chunked_attention");
    let mut config = small_config();
    config["text_config"]["layer_types"] = types;
    let error = read(&config).unwrap_err().to_string();
    assert!(error.contains("text_config.layer_types[1] is \"chunked_attention\", expected"), "{error}");
    assert!(error.contains("\"sliding_attention\" or \"full_attention\""), "{error}");

    let sliding = json!(vec!["sliding_attention"; 6]);
    check(vec![
        Case("/text_config/layer_types", Some(json!(["full_attention"])), "a list of 1", "a list of 6"),
        Case("/text_config/layer_types", None, "missing", "a list"),
        Case("/text_config/layer_types", Some(sliding), "a list of 6", "ends with \"full_attention\""),
        Case("/text_config/num_hidden_layers", Some(json!(0)), "0", "from 1 to 1024"),
        Case("/text_config/num_hidden_layers", Some(json!(MAX_LAYERS + 1)), "1025", "from 1 to 1024"),
        Case(
            "/text_config/num_hidden_layers",
            Some(json!(u64::MAX)),
            "18446744073709551615",
            "from 1 to 1024",
        ),
        Case("/text_config/num_kv_shared_layers", Some(json!(6)), "6", "less than the 6 layers"),
        Case("/text_config/num_kv_shared_layers", Some(json!(7)), "7", "less than the 6 layers"),
        Case("/text_config/num_kv_shared_layers", Some(json!(-1)), "-1", "an integer from 0"),
        // Layers 0 and 1 slide: none is left that layer 2 could share.
        Case("/text_config/num_kv_shared_layers", Some(json!(4)), "4", "a full_attention layer for layer 2"),
    ]);
}

#[test]
fn sizes() {
    let mut cases = Vec::new();
    for field in [
        "vocab_size",
        "vocab_size_per_layer_input",
        "hidden_size",
        "intermediate_size",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "global_head_dim",
        "sliding_window",
        "max_position_embeddings",
    ] {
        let pointer: &'static str = format!("/text_config/{field}").leak();
        cases.extend([
            Case(pointer, None, "missing", "an integer from 1"),
            Case(pointer, Some(Value::Null), "null", "an integer from 1"),
            Case(pointer, Some(json!(0)), "0", "an integer from 1"),
            Case(pointer, Some(json!(-8)), "-8", "an integer from 1"),
            Case(pointer, Some(json!(8.5)), "8.5", "an integer from 1"),
            Case(pointer, Some(json!("8")), "\"8\"", "an integer from 1"),
            Case(pointer, Some(json!(1u64 << 31)), "2147483648", "to 2147483647"),
            Case(pointer, Some(json!(u64::MAX)), "18446744073709551615", "to 2147483647"),
        ]);
    }
    check(cases);
}

#[test]
fn sizes_that_do_not_fit_each_other() {
    check(vec![
        Case("/text_config/head_dim", Some(json!(15)), "15", "an even number"),
        Case("/text_config/global_head_dim", Some(json!(33)), "33", "an even number"),
        Case("/text_config/head_dim", Some(json!(34)), "34", "at most the 32 of full layers"),
        Case("/text_config/num_key_value_heads", Some(json!(3)), "3", "a divisor of the 4 query heads"),
        Case("/text_config/vocab_size_per_layer_input", Some(json!(47)), "47", "48, as vocab_size"),
        // Their products would not fit into an axis: heads * 32, 6 layers * width, 2 * width.
        Case("/text_config/num_attention_heads", Some(json!(1 << 30)), "1073741824", "at most 67108863"),
        Case(
            "/text_config/hidden_size_per_layer_input",
            Some(json!(1 << 30)),
            "1073741824",
            "at most 357913941",
        ),
        Case("/text_config/intermediate_size", Some(json!(1 << 30)), "1073741824", "at most 1073741823"),
    ]);
}

#[test]
fn rotary_embedding() {
    const FULL: &str = "/text_config/rope_parameters/full_attention";
    const SLIDING: &str = "/text_config/rope_parameters/sliding_attention";
    let at = |object: &str, field: &str| -> &'static str { format!("{object}/{field}").leak() };
    check(vec![
        Case("/text_config/rope_parameters", None, "missing", "an object"),
        Case(FULL, None, "missing", "an object"),
        Case(SLIDING, Some(json!([])), "a list of 0", "an object"),
        Case(at(FULL, "rope_type"), Some(json!("yarn")), "yarn", "\"proportional\""),
        Case(at(FULL, "rope_type"), None, "missing", "\"proportional\""),
        Case(at(SLIDING, "rope_type"), Some(json!("linear")), "linear", "\"default\""),
        Case(at(SLIDING, "partial_rotary_factor"), Some(json!(0.5)), "0.5", "1.0, or none"),
        Case(at(FULL, "partial_rotary_factor"), Some(json!(1.5)), "1.5", "from 0.0 to 1.0"),
        Case(at(FULL, "partial_rotary_factor"), Some(json!(0)), "0", "at least one pair of 32"),
        Case(at(FULL, "partial_rotary_factor"), Some(json!(0.01)), "0.01", "at least one pair of 32"),
        Case(at(FULL, "factor"), Some(json!(8.0)), "8.0", "not scaled"),
        Case(at(FULL, "rope_theta"), Some(json!(-1.0)), "-1.0", "from 10.0"),
        Case(at(SLIDING, "rope_theta"), None, "missing", "from 10.0"),
    ]);
}

#[test]
fn tokens() {
    check(vec![
        Case("/eos_token_id", Some(json!([1, 48])), "a list of 2", "a token below 48"),
        Case("/eos_token_id", Some(json!("</s>")), "</s>", "a token below 48"),
        Case("/eos_token_id", Some(json!([[1]])), "a list of 1", "a token below 48"),
        Case("/bos_token_id", Some(json!(-1)), "-1", "a token below 48"),
        Case("/text_config/pad_token_id", Some(json!(48)), "48", "a token below 48"),
        Case("/tie_word_embeddings", Some(json!(1)), "1", "true or false"),
        Case("/architectures", Some(json!("Gemma4")), "Gemma4", "a list"),
    ]);
}

#[test]
fn overrides_of_single_layers() {
    const PLACE: &str = "/text_config/per_layer_config";
    check(vec![
        Case(PLACE, Some(json!([])), "a list", "an object"),
        Case(PLACE, Some(json!({})), "an object of 0", "one head_dim for every full_attention layer"),
        Case(PLACE, Some(json!({ "2": { "head_dim": 32 } })), "an object of 1", "one head_dim for every"),
        Case(
            PLACE,
            Some(json!({ "2": { "head_dim": 32 }, "5": { "head_dim": 64 } })),
            "of 2",
            "one head_dim",
        ),
    ]);
    for (overrides, field, expected) in [
        (json!({ "1": { "head_dim": 32 } }), "per_layer_config.1 ", "the number of a full_attention layer"),
        (json!({ "99": { "head_dim": 32 } }), "per_layer_config.99 ", "the number of a full_attention layer"),
        (json!({ "x": { "head_dim": 32 } }), "per_layer_config.x ", "the number of a full_attention layer"),
        (json!({ "2": 32 }), "per_layer_config.2 ", "an object"),
        (json!({ "2": { "head_dim": 32 }, "02": { "head_dim": 64 } }), "per_layer_config.02 ", "given twice"),
        (
            json!({ "2": { "hidden_size": 32 } }),
            "per_layer_config.2.hidden_size",
            "no override but head_dim and",
        ),
        (json!({ "2": { "num_key_value_heads": 4 } }), "2.num_key_value_heads", "2, as in every other layer"),
        (
            json!({ "2": { "head_dim": 64 }, "5": { "head_dim": 64 } }),
            "text_config.global_head_dim is 32",
            "64, as per_layer_config",
        ),
    ] {
        let mut config = small_config();
        set(&mut config, PLACE, Some(overrides));
        let error = read(&config).unwrap_err().to_string();
        assert!(error.contains(field) && error.contains(expected), "{error}");
    }
}

#[test]
fn a_text_only_configuration_is_named_without_its_part() {
    let mut config = text_only_config();
    config["attention_bias"] = json!(true);
    let error = read(&config).unwrap_err().to_string();
    assert!(error.starts_with("config.json: attention_bias is true, expected false"), "{error}");
}

#[test]
fn no_configuration_at_all() {
    for (text, part) in [
        ("", "not valid JSON"),
        ("{\"model_type\":", "not valid JSON"),
        ("{\"model_type\": NaN}", "not valid JSON"),
        ("[]", "the whole file is a list of 0, expected an object"),
        ("{}", "model_type is missing"),
        ("{\"model_type\": \"gemma4\"}", "text_config is missing, expected an object"),
    ] {
        let error = DecoderConfig::from_json(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
    assert!(DecoderConfig::from_json(&[b'['; 100_000]).is_err());
    let large = vec![b' '; MAX_CONFIG_BYTES + 1];
    assert!(matches!(DecoderConfig::from_json(&large), Err(ConfigError::TooLarge { .. })));

    let dir = tempfile::TempDir::new().unwrap();
    write_single(dir.path(), &small_config(), &tensors_of(&small_config(), true));
    let source = LocalSource::open(dir.path()).unwrap();
    assert_eq!(DecoderConfig::read(&source).unwrap(), read(&small_config()).unwrap());
    std::fs::remove_file(dir.path().join("config.json")).unwrap();
    assert!(matches!(DecoderConfig::read(&LocalSource::open(dir.path()).unwrap()), Err(ConfigError::Absent)));
}

#[test]
fn long_values_are_cut_in_messages() {
    let mut config = small_config();
    config["text_config"]["hidden_activation"] = json!("ü".repeat(100_000));
    let error = read(&config).unwrap_err().to_string();
    assert!(error.len() < 400, "{} bytes", error.len());
}

/// Values that a hostile or broken configuration might hold.
fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (0u64..70).prop_map(Value::from),
        (0u32..64).prop_map(|bit| Value::from(1u64 << bit)),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        prop::collection::vec(any::<u32>(), 0..4).prop_map(Value::from),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..Default::default() })]

    /// No value in any field makes the reader panic, and what it accepts keeps the promised bounds.
    #[test]
    fn any_value_in_any_field(
        dense in any::<bool>(),
        changes in prop::collection::vec((any::<usize>(), any_value()), 1..3),
    ) {
        let mut config: Value = serde_json::from_str(if dense { DENSE_12B } else { E4B }).unwrap();
        for (field, value) in changes {
            let text = config["text_config"].as_object_mut().unwrap();
            let name = text.keys().nth(field % text.len()).unwrap().clone();
            text.insert(name, value);
        }
        if let Ok(config) = read(&config) {
            let limit = i32::MAX as usize;
            prop_assert!(config.per_layer.is_none_or(|per_layer| per_layer.total <= limit));
            prop_assert!(config.head_dim <= config.global_head_dim);
            prop_assert_eq!(config.heads % config.kv_heads, 0);
            for layer in &config.layers {
                prop_assert_eq!((config.heads % layer.kv_heads, config.kv_heads % layer.kv_heads), (0, 0));
                for form in CacheForm::ALL {
                    let (pairs, place) = (config.cache_pairs(form), config.cache_place(layer, form));
                    prop_assert!(place.slot < pairs[place.pair].slots);
                }
                prop_assert!(config.query_width(layer) <= limit && layer.intermediate <= limit);
                prop_assert_eq!(config.slot_owners[layer.slot], layer.owner);
                prop_assert_eq!(config.layers[layer.owner].kind, layer.kind);
                prop_assert!(config.layers[layer.owner].owns_slot());
            }
        }
    }
}
