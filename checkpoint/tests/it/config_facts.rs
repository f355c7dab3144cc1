//! Configurations that are accepted, and the facts read from them.

use crate::source_support::{
    DENSE_12B, DENSE_31B, E2B, E4B, parse, small_config, small_dense_config, text_only_config,
};
use checkpoint::config::{CacheForm, CachePlace, DecoderConfig, LayerKind};
use fixtures::data::{self, DenseRelease};
use serde_json::{Value, json};

fn full_layers(config: &DecoderConfig) -> Vec<usize> {
    config.layers.iter().filter(|layer| layer.kind == LayerKind::Full).map(|layer| layer.index).collect()
}

#[test]
fn e4b() {
    let config = DecoderConfig::from_json(E4B.as_bytes()).unwrap();
    assert_eq!((config.layers.len(), config.hidden, config.vocab), (42, 2560, 262_144));
    assert_eq!((config.heads, config.kv_heads), (8, 2));
    assert_eq!((config.head_dim, config.global_head_dim), (256, 512));
    assert_eq!((config.per_layer.unwrap().width, config.per_layer.unwrap().total), (256, 10_752));
    assert_eq!((config.softcap, config.sliding_window, config.rms_eps), (30.0, 512, 1e-6));
    assert_eq!((config.max_positions, config.tied_head), (131_072, true));
    assert_eq!(
        (config.eos_ids.as_slice(), config.bos_id, config.pad_id),
        ([1, 106].as_slice(), Some(2), Some(0))
    );
    assert_eq!(full_layers(&config), [5, 11, 17, 23, 29, 35, 41]);
    assert!(config.layers.iter().all(|layer| layer.intermediate == 10_240));

    let owners: Vec<usize> = (0..24).filter(|layer| layer % 6 != 5).chain([5, 11, 17, 23]).collect();
    assert_eq!((config.slots(), &config.slot_owners), (24, &owners));
    assert_eq!(config.slot_of_layer(0), Some(0));
    assert_eq!(config.slot_of_layer(22), Some(19));
    assert_eq!(config.slot_of_layer(5), Some(20));
    assert_eq!(config.slot_of_layer(42), None);
    for layer in &config.layers[24..] {
        let owner = if layer.kind == LayerKind::Full { 23 } else { 22 };
        assert_eq!((layer.owner, layer.owns_slot()), (owner, false), "layer {}", layer.index);
        assert_eq!(owners[layer.slot], owner);
    }
    assert_eq!(config.query_width(&config.layers[5]), 4096);
    assert_eq!(config.kv_width(&config.layers[4]), 512);
}

#[test]
fn e2b() {
    let config = DecoderConfig::from_json(E2B.as_bytes()).unwrap();
    assert_eq!((config.layers.len(), config.hidden, config.kv_heads), (35, 1536, 1));
    assert_eq!((config.slots(), config.per_layer.unwrap().total), (15, 8960));
    assert_eq!(full_layers(&config), [4, 9, 14, 19, 24, 29, 34]);
    assert_eq!(config.slot_owners[12..], [4, 9, 14]);
    for layer in &config.layers {
        assert_eq!(layer.owns_slot(), layer.index < 15);
        assert_eq!(layer.intermediate, if layer.owns_slot() { 6144 } else { 12_288 });
        assert_eq!(layer.head_dim, if layer.kind == LayerKind::Full { 512 } else { 256 });
    }
}

#[test]
fn dense_models() {
    for (text, kind, (layers, hidden, mlp), (heads, kv, full_kv)) in [
        (DENSE_12B, "gemma4_unified", (48, 3840, 15_360), (16, 8, 1)),
        (DENSE_31B, "gemma4", (60, 5376, 21_504), (32, 16, 4)),
    ] {
        let config = DecoderConfig::from_json(text.as_bytes()).unwrap();
        assert_eq!(config.outer_model_type.as_deref(), Some(kind));
        assert_eq!(config.text_model_type, format!("{kind}_text"));
        assert_eq!((config.layers.len(), config.hidden, config.per_layer), (layers, hidden, None));
        assert_eq!(
            (config.heads, config.kv_heads, config.head_dim, config.global_head_dim),
            (heads, kv, 256, 512)
        );
        assert_eq!((config.sliding_window, config.max_positions, config.slots()), (1024, 262_144, layers));
        assert_eq!(config.tensor_prefix(), "model.language_model.");
        assert_eq!(full_layers(&config), (0..layers).filter(|layer| layer % 6 == 5).collect::<Vec<_>>());
        for layer in &config.layers {
            let is_full = layer.kind == LayerKind::Full;
            assert_eq!((layer.slot, layer.owner, layer.intermediate), (layer.index, layer.index, mlp));
            assert_eq!(
                (layer.kv_heads, layer.values_from_keys),
                (if is_full { full_kv } else { kv }, is_full)
            );
        }
    }
}

/// Both ways to spell one model, with layers padded with zeros and without.
#[test]
fn dense_models_saved_again_by_transformers() {
    let read =
        |path: &std::path::Path| -> Value { serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap() };
    let mut pairs: Vec<(Value, Value)> =
        DenseRelease::ALL.map(|release| (read(&release.config()), read(&release.config_by_layer()))).to_vec();
    let tiny = data::tiny_dense_checkpoint();
    let (released, mut saved) = (read(&tiny.join("config.json")), read(&tiny.join("config.json")));
    saved["text_config"] = read(&tiny.join("text_config.per_layer.json"));
    pairs.push((released, saved));
    for (released, saved) in pairs {
        let expected = parse(&released);
        assert_eq!(parse(&saved), expected);
        let padded = saved["text_config"]["per_layer_config"].as_object().unwrap();
        let plain =
            padded.iter().map(|(key, value)| (key.parse::<usize>().unwrap().to_string(), value.clone()));
        let mut unpadded = saved.clone();
        unpadded["text_config"]["per_layer_config"] = Value::Object(plain.collect());
        assert_eq!(parse(&unpadded), expected);
        // transformers gives models of this family a full layer in six.
        for mut config in [released, unpadded] {
            for absent in [Some(Value::Null), None] {
                match absent {
                    Some(null) => config["text_config"]["layer_types"] = null,
                    None => drop(config["text_config"].as_object_mut().unwrap().remove("layer_types")),
                }
                assert_eq!(parse(&config), expected);
            }
        }
    }
    // The last layer is full, whatever its number.
    let mut config = small_dense_config();
    config["text_config"].as_object_mut().unwrap().remove("layer_types");
    config["text_config"]["num_hidden_layers"] = json!(8);
    assert_eq!(full_layers(&parse(&config)), [5, 7]);
}

/// transformers looks at it only where keys are values.
#[test]
fn kv_heads_of_full_layers_count_only_without_value_projections() {
    let mut config = small_config();
    config["text_config"]["num_global_key_value_heads"] = json!(1);
    assert_eq!(parse(&config), parse(&small_config()));
    let mut config = small_dense_config();
    config["text_config"]["attention_k_eq_v"] = json!(false);
    assert!(parse(&config).layers.iter().all(|layer| layer.kv_heads == 2 && !layer.values_from_keys));
    let mut config = small_dense_config();
    config["text_config"]["num_global_key_value_heads"] = Value::Null;
    assert!(parse(&config).layers.iter().all(|layer| layer.kv_heads == 2));
}

#[test]
fn caches() {
    for (text, padded, split) in
        [(DENSE_12B, 786_432, 344_064), (DENSE_31B, 1_966_080, 901_120), (E4B, 98_304, 57_344)]
    {
        let config = DecoderConfig::from_json(text.as_bytes()).unwrap();
        assert_eq!(config.cache_position_bytes(CacheForm::Padded), padded);
        assert_eq!(config.cache_position_bytes(CacheForm::Split), split);
        for layer in &config.layers {
            let place = config.cache_place(layer, CacheForm::Padded);
            assert_eq!(place, CachePlace { pair: 0, slot: layer.slot });
        }
    }
    let config = DecoderConfig::from_json(DENSE_31B.as_bytes()).unwrap();
    let pairs = config.cache_pairs(CacheForm::Split);
    let sizes: Vec<_> =
        pairs.iter().map(|pair| (pair.names[0], pair.slots, pair.kv_heads, pair.head_dim)).collect();
    assert_eq!(sizes, [("keyCache", 50, 16, 256), ("keyCacheFull", 10, 4, 512)]);
    let place = |layer: usize| config.cache_place(&config.layers[layer], CacheForm::Split);
    assert_eq!((place(4), place(5)), (CachePlace { pair: 0, slot: 4 }, CachePlace { pair: 1, slot: 0 }));
    assert_eq!((place(6), place(59)), (CachePlace { pair: 0, slot: 5 }, CachePlace { pair: 1, slot: 9 }));
    // A layer that shares a slot finds its owner's.
    let config = DecoderConfig::from_json(E4B.as_bytes()).unwrap();
    let place = |layer: usize| config.cache_place(&config.layers[layer], CacheForm::Split);
    assert_eq!((place(40), place(41)), (place(22), place(23)));
}

#[test]
fn rotary_embedding() {
    let config = DecoderConfig::from_json(E4B.as_bytes()).unwrap();
    let sliding = config.rope(LayerKind::Sliding);
    assert_eq!((sliding.theta, sliding.rotary_pairs, sliding.partial_rotary_factor), (1e4, 128, 1.0));
    let full = config.rope(LayerKind::Full);
    assert_eq!((full.theta, full.rotary_pairs, full.partial_rotary_factor), (1e6, 64, 0.25));

    // int(0.45 * 30 // 2) in Python
    let mut odd = small_config();
    odd["text_config"]["global_head_dim"] = json!(30);
    odd["text_config"]["rope_parameters"]["full_attention"]["partial_rotary_factor"] = json!(0.45);
    assert_eq!(parse(&odd).full_rope.rotary_pairs, 6);
}

#[test]
fn text_only() {
    let text = parse(&text_only_config());
    let nested = parse(&small_config());
    assert_eq!((text.tensor_prefix(), nested.tensor_prefix()), ("model.", "model.language_model."));
    assert_eq!((text.outer_model_type.as_deref(), text.text_model_type.as_str()), (None, "gemma4_text"));
    assert_eq!(nested.outer_model_type.as_deref(), Some("gemma4"));
    assert_eq!(text.architecture.as_deref(), Some("Gemma4ForCausalLM"));
    assert_eq!(nested.architecture.as_deref(), Some("Gemma4ForConditionalGeneration"));
    assert_eq!((text.layers.clone(), text.eos_ids.clone()), (nested.layers.clone(), vec![1]));
    assert_eq!(nested.eos_ids, [1, 5]);
}

#[test]
fn no_shared_layers() {
    for value in [json!(0), Value::Null] {
        let mut config = small_config();
        config["text_config"]["num_kv_shared_layers"] = value;
        let config = parse(&config);
        assert_eq!(config.slot_owners, [0, 1, 3, 4, 2, 5]);
        assert!(config.layers.iter().all(|layer| layer.owns_slot() && layer.intermediate == 96));
    }
}

/// transformers 5.23 reads `global_head_dim` but saves `per_layer_config`.
#[test]
fn saved_again_by_transformers() {
    let released = small_config();
    let mut saved = released.clone();
    saved["text_config"].as_object_mut().unwrap().remove("global_head_dim");
    saved["text_config"]["per_layer_config"] = json!({ "2": { "head_dim": 32 }, "05": { "head_dim": 32 } });
    assert_eq!(parse(&saved), parse(&released));
    saved["text_config"]["global_head_dim"] = json!(32);
    saved["text_config"]["per_layer_config"]["2"]["num_key_value_heads"] = json!(2);
    assert_eq!(parse(&saved), parse(&released));
}

#[test]
fn optional_fields() {
    let mut config = small_config();
    config.as_object_mut().unwrap().retain(|name, _| ["model_type", "text_config"].contains(&name.as_str()));
    let text = config["text_config"].as_object_mut().unwrap();
    for name in [
        "attention_bias",
        "attention_k_eq_v",
        "enable_moe_block",
        "use_bidirectional_attention",
        "bos_token_id",
        "pad_token_id",
        "eos_token_id",
        "tie_word_embeddings",
        "use_double_wide_mlp",
        "num_global_key_value_heads",
    ] {
        text.remove(name);
    }
    let config = parse(&config);
    assert_eq!((config.eos_ids.len(), config.bos_id, config.pad_id, config.tied_head), (0, None, None, true));
    assert_eq!((config.architecture.clone(), config.layers[5].intermediate), (None, 96));
}

#[test]
fn the_whole_models_fields_win() {
    let mut config = small_config();
    config["tie_word_embeddings"] = json!(false);
    config["bos_token_id"] = json!(7);
    let config = parse(&config);
    assert_eq!((config.tied_head, config.bos_id, config.pad_id), (false, Some(7), Some(0)));
}
