//! Checkpoints made on the fly: names and shapes are written down here from the model's description, not taken
//! from the converter.
#![allow(unreachable_pub)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use checkpoint::config::DecoderConfig;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, serialize};
use serde_json::{Value, json};

pub const E4B: &str = include_str!("../../../../fixtures/data/configs/gemma-4-e4b.json");
pub const E2B: &str = include_str!("../../../../fixtures/data/configs/gemma-4-e2b.json");
pub const DENSE_12B: &str = include_str!("../../../../fixtures/data/configs/gemma-4-12b.json");
pub const DENSE_31B: &str = include_str!("../../../../fixtures/data/configs/gemma-4-31b.json");
pub const PREFIX: &str = "model.language_model.";

/// Six layers, the last three of which share keys and values and have a double-wide MLP.
pub fn small_config() -> Value {
    let (sliding, full) = ("sliding_attention", "full_attention");
    let mut config: Value = serde_json::from_str(E2B).unwrap();
    let sizes = json!({
        "vocab_size": 48, "vocab_size_per_layer_input": 48, "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "global_head_dim": 32, "hidden_size_per_layer_input": 32, "num_kv_shared_layers": 3,
        "layer_types": [sliding, sliding, full, sliding, sliding, full],
    });
    for (name, value) in sizes.as_object().unwrap() {
        config["text_config"][name] = value.clone();
    }
    config["eos_token_id"] = json!([1, 5]);
    config
}

/// Six layers without per-layer embeddings, two of them full: one KV head instead of two, no value projection.
pub fn small_dense_config() -> Value {
    let mut config: Value = serde_json::from_str(DENSE_31B).unwrap();
    let sizes = json!({
        "vocab_size": 48, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 6,
        "num_attention_heads": 4, "num_key_value_heads": 2, "num_global_key_value_heads": 1, "head_dim": 16,
        "global_head_dim": 32, "layer_types": small_config()["text_config"]["layer_types"],
    });
    for (name, value) in sizes.as_object().unwrap() {
        config["text_config"][name] = value.clone();
    }
    config["eos_token_id"] = json!([1, 5]);
    config
}

/// The same model without vision and audio around it, as transformers saves it.
pub fn text_only_config() -> Value {
    let mut text = small_config()["text_config"].clone();
    text["architectures"] = json!(["Gemma4ForCausalLM"]);
    text
}

pub fn parse(config: &Value) -> DecoderConfig {
    DecoderConfig::from_json(config.to_string().as_bytes()).unwrap()
}

#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
}

pub type Tensors = BTreeMap<String, Tensor>;

fn bf16(shape: &[usize]) -> Tensor {
    Tensor { dtype: Dtype::BF16, shape: shape.to_vec() }
}

impl Tensor {
    pub fn byte_len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }

    /// Bytes that differ from tensor to tensor and along each.
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        let seed = name.bytes().fold(7u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
        (0..self.byte_len()).map(|at| seed.wrapping_add((at % 251) as u8)).collect()
    }
}

/// The tensors of the checkpoint that `config` (nested) describes; `pruned` leaves out the unused keys and values.
pub fn tensors_of(config: &Value, pruned: bool) -> Tensors {
    let text = &config["text_config"];
    let size = |name: &str| text[name].as_u64().unwrap() as usize;
    let (vocab, hidden, layers) = (size("vocab_size"), size("hidden_size"), size("num_hidden_layers"));
    let heads = size("num_attention_heads");
    let keys_are_values = text["attention_k_eq_v"] == json!(true);
    let ld = size("hidden_size_per_layer_input");
    let first_shared = layers - size("num_kv_shared_layers");

    let mut tensors = Tensors::new();
    let mut add = |name: String, shape: &[usize]| {
        tensors.insert(name, bf16(shape));
    };
    add("model.vision_tower.patch_embedder.input_proj.weight".into(), &[4, 12]);
    add("model.embed_vision.embedding_projection.weight".into(), &[hidden, 4]);
    add(format!("{PREFIX}embed_tokens.weight"), &[vocab, hidden]);
    if ld > 0 {
        add(format!("{PREFIX}embed_tokens_per_layer.weight"), &[vocab, layers * ld]);
        add(format!("{PREFIX}per_layer_model_projection.weight"), &[layers * ld, hidden]);
        add(format!("{PREFIX}per_layer_projection_norm.weight"), &[ld]);
    }
    add(format!("{PREFIX}norm.weight"), &[hidden]);
    for layer in 0..layers {
        let full = text["layer_types"][layer] == "full_attention";
        let head_dim = size(if full { "global_head_dim" } else { "head_dim" });
        let no_values = full && keys_are_values;
        let kv_heads = size(if no_values { "num_global_key_value_heads" } else { "num_key_value_heads" });
        let shared = layer >= first_shared;
        let double = shared && text["use_double_wide_mlp"] == json!(true);
        let width = size("intermediate_size") * if double { 2 } else { 1 };
        let mut add = |name: &str, shape: &[usize]| add(format!("{PREFIX}layers.{layer}.{name}"), shape);
        for norm in ["input", "post_attention", "pre_feedforward", "post_feedforward"] {
            add(&format!("{norm}_layernorm.weight"), &[hidden]);
        }
        add("layer_scalar", &[1]);
        add("self_attn.q_proj.weight", &[heads * head_dim, hidden]);
        add("self_attn.q_norm.weight", &[head_dim]);
        add("self_attn.o_proj.weight", &[hidden, heads * head_dim]);
        if !(shared && pruned) {
            add("self_attn.k_proj.weight", &[kv_heads * head_dim, hidden]);
            if !no_values {
                add("self_attn.v_proj.weight", &[kv_heads * head_dim, hidden]);
            }
            add("self_attn.k_norm.weight", &[head_dim]);
        }
        add("mlp.gate_proj.weight", &[width, hidden]);
        add("mlp.up_proj.weight", &[width, hidden]);
        add("mlp.down_proj.weight", &[hidden, width]);
        if ld > 0 {
            add("per_layer_input_gate.weight", &[ld, hidden]);
            add("per_layer_projection.weight", &[hidden, ld]);
            add("post_per_layer_input_norm.weight", &[hidden]);
        }
    }
    tensors
}

/// Writes tensors into one safetensors file.
pub fn write_file<'a>(path: &Path, tensors: impl IntoIterator<Item = (&'a String, &'a Tensor)>) {
    let data: Vec<_> = tensors.into_iter().map(|(name, tensor)| (name, tensor, tensor.bytes(name))).collect();
    let views = data.iter().map(|(name, tensor, bytes)| {
        (*name, TensorView::new(tensor.dtype, tensor.shape.clone(), bytes).unwrap())
    });
    fs::write(path, serialize(views, None).unwrap()).unwrap();
}

/// Writes a checkpoint of one file, with its configuration.
pub fn write_single(dir: &Path, config: &Value, tensors: &Tensors) {
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    write_file(&dir.join("model.safetensors"), tensors);
}

pub fn shard_name(shard: usize, shards: usize) -> String {
    format!("model-{:05}-of-{shards:05}.safetensors", shard + 1)
}

/// Writes a checkpoint of several files; tensors are dealt to the shards like cards. Returns the index.
pub fn write_sharded(dir: &Path, config: &Value, tensors: &Tensors, shards: usize) -> Value {
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let mut weight_map = serde_json::Map::new();
    for shard in 0..shards {
        let dealt = tensors.iter().skip(shard).step_by(shards);
        let file = shard_name(shard, shards);
        write_file(&dir.join(&file), dealt.clone());
        weight_map.extend(dealt.map(|(name, _)| (name.clone(), json!(file))));
    }
    let index = json!({ "metadata": { "total_size": 0 }, "weight_map": weight_map });
    write_index(dir, &index);
    index
}

pub fn write_index(dir: &Path, index: &Value) {
    fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

/// A safetensors file with this header and `data` zero bytes after it.
pub fn raw_file(header: &[u8], data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header);
    bytes.resize(bytes.len() + data, 0);
    bytes
}
