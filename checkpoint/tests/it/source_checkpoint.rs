//! From a source and a configuration to the decoder's checked tensors, and the rule for pruned keys and values.

use std::fs;
use std::path::Path;

use crate::source_support::{
    E2B, E4B, PREFIX, Tensor, Tensors, parse, small_config, small_dense_config, tensors_of, text_only_config,
    write_sharded, write_single,
};
use checkpoint::config::DecoderConfig;
use checkpoint::source::{LocalSource, Source, TensorEntry};
use checkpoint::{BLOCK, Checkpoint, CheckpointError, LayerRole, Role};
use fixtures::data::DenseRelease;
use safetensors::Dtype;
use serde_json::{Value, json};
use tempfile::TempDir;

fn open(dir: &Path) -> Result<(DecoderConfig, LocalSource, Checkpoint), CheckpointError> {
    let source = LocalSource::open(dir).unwrap();
    let config = DecoderConfig::read(&source).unwrap();
    let checkpoint = Checkpoint::new(&config, source.tensors())?;
    Ok((config, source, checkpoint))
}

fn build(config: &Value, tensors: &Tensors) -> Result<Checkpoint, CheckpointError> {
    let dir = TempDir::new().unwrap();
    write_single(dir.path(), config, tensors);
    open(dir.path()).map(|(_, _, checkpoint)| checkpoint)
}

fn refusal(tensors: &Tensors) -> String {
    build(&small_config(), tensors).expect_err("the checkpoint is broken").to_string()
}

/// Role, name, shape and bytes of everything the decoder uses.
type Contents = Vec<(Role, String, Vec<usize>, Vec<u8>)>;

fn contents(source: &dyn Source, checkpoint: &Checkpoint) -> Contents {
    let read = |(role, entry): (Role, &checkpoint::source::TensorEntry)| {
        let mut bytes = vec![0; entry.byte_len() as usize];
        source.read_at(entry, 0, &mut bytes).unwrap();
        (role, entry.name.clone(), entry.shape.clone(), bytes)
    };
    checkpoint.iter().map(read).collect()
}

fn renamed(tensors: &Tensors, from: &str, to: &str) -> Tensors {
    tensors.iter().map(|(name, tensor)| (name.replacen(from, to, 1), tensor.clone())).collect()
}

#[test]
fn single_sharded_pruned_and_unpruned_are_the_same() {
    let (config, mut all) = (small_config(), Vec::new());
    for pruned in [true, false] {
        let tensors = tensors_of(&config, pruned);
        for shards in [0, 1, 3] {
            let dir = TempDir::new().unwrap();
            match shards {
                0 => write_single(dir.path(), &config, &tensors),
                _ => drop(write_sharded(dir.path(), &config, &tensors, shards)),
            }
            let (_, source, checkpoint) = open(dir.path()).unwrap();
            assert_eq!(checkpoint.ignored_kv().len(), if pruned { 0 } else { 9 });
            assert_eq!(checkpoint.skipped().len(), 2);
            all.push(contents(&source, &checkpoint));
        }
    }
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
    // 4 tables, 6 layers of 17 each, minus three in each of the 3 shared ones, final norm, head
    assert_eq!(all[0].len(), 4 + 6 * 17 - 9 + 2);
}

#[test]
fn every_role_finds_its_tensor() {
    let config = small_config();
    let tensors = tensors_of(&config, true);
    let checkpoint = build(&config, &tensors).unwrap();
    let config = parse(&config);
    for (role, entry) in checkpoint.iter() {
        let name = if role == Role::Head { "embed_tokens.weight".into() } else { role.short_name() };
        assert_eq!(entry.name, format!("{PREFIX}{name}"));
        assert_eq!(entry.shape, tensors[&entry.name].shape);
        assert_eq!(entry.shape, role.shape(&config));
    }
    let used: std::collections::BTreeSet<_> =
        checkpoint.iter().map(|(_, entry)| entry.name.as_str()).collect();
    let expected: std::collections::BTreeSet<_> =
        tensors.keys().map(String::as_str).filter(|name| name.starts_with(PREFIX)).collect();
    assert_eq!(used, expected);
    assert_eq!(Role::Layer(5, LayerRole::DownProj).short_name(), "layers.5.mlp.down_proj.weight");
}

#[test]
fn roles_without_a_tensor() {
    let checkpoint = build(&small_config(), &tensors_of(&small_config(), false)).unwrap();
    assert!(checkpoint.require(Role::Layer(2, LayerRole::KProj)).is_ok());
    for role in
        [Role::Layer(3, LayerRole::KProj), Role::Layer(5, LayerRole::KNorm), Role::Layer(6, LayerRole::QProj)]
    {
        assert!(checkpoint.get(role).is_none());
        let error = checkpoint.require(role).unwrap_err().to_string();
        assert!(error.contains(&role.short_name()), "{error}");
    }
}

#[test]
fn a_separate_head_wins_over_the_tie() {
    let mut tensors = tensors_of(&small_config(), true);
    let tied = build(&small_config(), &tensors).unwrap();
    assert!(tied.head_is_tied());
    assert_eq!(tied.require(Role::Head).unwrap(), tied.require(Role::EmbedTokens).unwrap());

    let mut untied_config = small_config();
    untied_config["tie_word_embeddings"] = json!(false);
    let error = build(&untied_config, &tensors).unwrap_err().to_string();
    assert!(error.contains("lacks a tensor that config.json calls for: lm_head.weight"), "{error}");

    tensors.insert("lm_head.weight".into(), Tensor { dtype: Dtype::BF16, shape: vec![48, 64] });
    for config in [small_config(), untied_config] {
        let own = build(&config, &tensors).unwrap();
        assert!(!own.head_is_tied());
        assert_eq!(own.require(Role::Head).unwrap().name, "lm_head.weight");
    }
    tensors.insert("lm_head.weight".into(), Tensor { dtype: Dtype::BF16, shape: vec![47, 64] });
    assert!(
        refusal(&tensors)
            .contains("lm_head.weight in model.safetensors has the shape [47, 64], expected [48, 64]")
    );
}

/// Each needed tensor that is removed is reported by name; nothing but unused keys and values may be missing.
#[test]
fn exactly_the_unused_keys_and_values_may_be_missing() {
    let tensors = tensors_of(&small_config(), false);
    let config = parse(&small_config());
    let entries = {
        let dir = TempDir::new().unwrap();
        write_single(dir.path(), &small_config(), &tensors);
        LocalSource::open(dir.path()).unwrap().tensors().to_vec()
    };
    for (at, entry) in entries.iter().enumerate() {
        let mut rest = entries.clone();
        rest.remove(at);
        let shared = ["layers.3.", "layers.4.", "layers.5."].iter().any(|layer| entry.name.contains(layer));
        let kv = ["k_proj", "v_proj", "k_norm"].iter().any(|module| entry.name.contains(module));
        let optional = !entry.name.starts_with(PREFIX) || shared && kv;
        match Checkpoint::new(&config, &rest) {
            Ok(_) => assert!(optional, "{} was not missed", entry.name),
            Err(CheckpointError::Missing { names }) => {
                assert!(!optional, "{} may be missing", entry.name);
                assert_eq!(names, std::slice::from_ref(&entry.name));
            }
            Err(error) => panic!("{}: {error}", entry.name),
        }
    }
}

#[test]
fn all_missing_tensors_are_listed_in_one_error() {
    let mut tensors = tensors_of(&small_config(), true);
    tensors.retain(|name, _| !name.contains("layers.1.mlp") && !name.ends_with("l.norm.weight"));
    let error = refusal(&tensors);
    for part in
        ["lacks 4 tensors", "layers.1.mlp.gate_proj", "layers.1.mlp.up_proj", "layers.1.mlp.down_proj"]
    {
        assert!(error.contains(part), "{part} is not in: {error}");
    }
    assert!(error.contains("model.language_model.norm.weight"), "{error}");
}

#[test]
fn wrong_shape() {
    let name = format!("{PREFIX}layers.2.self_attn.k_proj.weight");
    for shape in [vec![64, 63], vec![64], vec![64, 64, 1], vec![]] {
        let mut tensors = tensors_of(&small_config(), true);
        tensors.insert(name.clone(), Tensor { dtype: Dtype::BF16, shape: shape.clone() });
        let error = refusal(&tensors);
        let part = format!("{name} in model.safetensors has the shape {shape:?}, expected [64, 64]");
        assert!(error.contains(&part), "{error}");
    }
}

#[test]
fn wrong_type() {
    let name = format!("{PREFIX}layers.0.layer_scalar");
    for (dtype, text) in [(Dtype::F16, "F16"), (Dtype::F32, "F32"), (Dtype::U8, "U8"), (Dtype::I64, "I64")] {
        let mut tensors = tensors_of(&small_config(), true);
        tensors.insert(name.clone(), Tensor { dtype, shape: vec![1] });
        let error = refusal(&tensors);
        assert!(error.contains(&format!("{name} in model.safetensors is {text}, expected BF16")), "{error}");
    }
}

#[test]
fn unused_tensors_may_have_any_shape_and_type() {
    let mut tensors = tensors_of(&small_config(), false);
    let odd = Tensor { dtype: Dtype::F32, shape: vec![3, 5] };
    for name in ["model.language_model.layers.4.self_attn.v_proj.weight", "model.audio_tower.input_max"] {
        tensors.insert(name.into(), odd.clone());
    }
    assert!(build(&small_config(), &tensors).is_ok());
}

#[test]
fn tensors_that_no_such_model_has() {
    let scalar = Tensor { dtype: Dtype::BF16, shape: vec![1] };
    for name in [
        "layers.0.self_attn.q_proj.bias",
        "layers.0.self_attn.q_proj.weight_scale",
        "layers.0.mlp.up_proj.lora_A.weight",
        "layers.0.self_attn.v_norm.weight",
        "layers.6.layer_scalar",
        "layers.03.self_attn.k_proj.weight",
    ] {
        let mut tensors = tensors_of(&small_config(), true);
        tensors.insert(format!("{PREFIX}{name}"), scalar.clone());
        let error = refusal(&tensors);
        assert!(error.contains("a tensor in the text decoder that this Gemma 4 model"), "{error}");
        assert!(error.contains(&format!("{PREFIX}{name};")), "{error}");
    }
}

#[test]
fn text_only_models_have_a_shorter_prefix() {
    let mut tensors = renamed(&tensors_of(&small_config(), true), PREFIX, "model.");
    tensors.retain(|name, _| !name.contains("vision"));
    let checkpoint = build(&text_only_config(), &tensors).unwrap();
    assert_eq!(checkpoint.require(Role::FinalNorm).unwrap().name, "model.norm.weight");
    assert!(refusal(&tensors).contains("model.language_model."));
}

#[test]
fn blocks_along_the_last_axis() {
    let config = parse(&small_config());
    let checkpoint = build(&small_config(), &tensors_of(&small_config(), true)).unwrap();
    let projections: Vec<Role> = Role::needed(&config).filter(|role| role.is_projection()).collect();
    // model projection, head, and 9 in each layer, minus two in the shared ones
    assert_eq!(projections.len(), 2 + 6 * 9 - 3 * 2);
    for role in projections {
        checkpoint.check_blocks(role).unwrap();
    }
    assert!(checkpoint.check_blocks(Role::Layer(5, LayerRole::VProj)).is_err());

    let mut odd = small_config();
    odd["text_config"]["intermediate_size"] = json!(3 * BLOCK + 16);
    odd["text_config"]["use_double_wide_mlp"] = json!(true);
    let checkpoint = build(&odd, &tensors_of(&odd, true)).unwrap();
    let error = checkpoint.check_blocks(Role::Layer(0, LayerRole::DownProj)).unwrap_err().to_string();
    assert!(error.contains("layers.0.mlp.down_proj.weight has the shape [64, 112]"), "{error}");
    assert!(error.contains("not a multiple of 32"), "{error}");
    checkpoint.check_blocks(Role::Layer(0, LayerRole::UpProj)).unwrap();
    checkpoint.check_blocks(Role::Layer(3, LayerRole::DownProj)).unwrap();
}

/// Without per-layer embeddings; full layers without value projections.
#[test]
fn dense_models() {
    let config = small_dense_config();
    let tensors = tensors_of(&config, true);
    let checkpoint = build(&config, &tensors).unwrap();
    // Embedding, norm, tied head; 13 tensors and a scalar in each layer, 2 of which have no value projection.
    assert_eq!(checkpoint.iter().count(), 3 + 6 * 14 - 2);
    assert!(checkpoint.get(Role::Layer(2, LayerRole::VProj)).is_none());
    assert!(checkpoint.require(Role::EmbedTokensPerLayer).is_err());
    assert_eq!(checkpoint.require(Role::Layer(2, LayerRole::KProj)).unwrap().shape, [32, 64]);
    assert_eq!(checkpoint.require(Role::Layer(3, LayerRole::VProj)).unwrap().shape, [32, 64]);

    let values = |layer: usize| format!("{PREFIX}layers.{layer}.self_attn.v_proj.weight");
    let mut extra = tensors.clone();
    extra.insert(values(5), Tensor { dtype: Dtype::BF16, shape: vec![32, 64] });
    let error = build(&config, &extra).unwrap_err().to_string();
    assert!(error.contains("attention_k_eq_v") && error.contains(&values(5)), "{error}");
    let mut fewer = tensors.clone();
    fewer.remove(&values(3));
    let error = build(&config, &fewer).unwrap_err().to_string();
    assert!(
        error.contains("lacks a tensor that config.json calls for") && error.contains(&values(3)),
        "{error}"
    );
    // Per-layer embeddings that the configuration does not have.
    let mut tables = tensors;
    tables.insert(
        format!("{PREFIX}embed_tokens_per_layer.weight"),
        Tensor { dtype: Dtype::BF16, shape: vec![48, 192] },
    );
    let error = build(&config, &tables).unwrap_err().to_string();
    assert!(error.contains("that this Gemma 4 model does not have"), "{error}");
}

/// The released models, by their lists of tensors.
#[test]
fn dense_releases() {
    for (release, text, others, decoder_bytes) in [
        (DenseRelease::Gemma12b, 666, 11, DENSE_12B_BYTES),
        (DenseRelease::Gemma31b, 832, 356, DENSE_31B_BYTES),
    ] {
        let mut start = 0;
        let mut entries: Vec<TensorEntry> = Vec::new();
        for (name, shape) in release.tensors() {
            let end = start + 2 * shape.iter().product::<u64>();
            let shape = shape.iter().map(|extent| *extent as usize).collect();
            entries.push(TensorEntry {
                name,
                dtype: checkpoint::source::Dtype::BF16,
                shape,
                file: "model.safetensors".into(),
                range: start..end,
            });
            start = end;
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        for config in [release.config(), release.config_by_layer()] {
            let config = DecoderConfig::from_json(&fs::read(config).unwrap()).unwrap();
            let checkpoint = Checkpoint::new(&config, &entries).unwrap();
            assert_eq!(checkpoint.iter().filter(|(role, _)| *role != Role::Head).count(), text);
            assert_eq!((checkpoint.skipped().len(), checkpoint.ignored_kv().len()), (others, 0));
            let used = checkpoint.iter().filter(|(role, _)| *role != Role::Head);
            assert_eq!(used.map(|(_, entry)| entry.byte_len()).sum::<u64>(), decoder_bytes);
        }
    }
}

/// A checkpoint of a release's real size: a real header, no bytes on the disk.
#[test]
fn real_sizes() {
    for (text, slots, decoder_bytes) in [(E4B, 24, E4B_BYTES), (E2B, 15, E2B_BYTES)] {
        let config: Value = serde_json::from_str(text).unwrap();
        let tensors = tensors_of(&config, true);
        let mut header = serde_json::Map::new();
        let mut end = 0;
        for (name, tensor) in &tensors {
            let start = end;
            end += tensor.byte_len();
            header.insert(
                name.clone(),
                json!({ "dtype": "BF16", "shape": tensor.shape, "data_offsets": [start, end] }),
            );
        }
        let dir = TempDir::new().unwrap();
        let bytes = crate::source_support::raw_file(Value::from(header).to_string().as_bytes(), 0);
        let path = dir.path().join("model.safetensors");
        fs::write(&path, &bytes).unwrap();
        let len = bytes.len() as u64 + end as u64;
        fs::File::options().write(true).open(&path).unwrap().set_len(len).unwrap();
        fs::write(dir.path().join("config.json"), text).unwrap();

        let (config, source, checkpoint) = open(dir.path()).unwrap();
        assert_eq!(config.slots(), slots);
        let keys = checkpoint.iter().filter(|(role, _)| matches!(role, Role::Layer(_, LayerRole::KProj)));
        assert_eq!(keys.count(), slots);
        let bytes: u64 = checkpoint
            .iter()
            .filter(|(role, _)| *role != Role::Head)
            .map(|(_, entry)| entry.byte_len())
            .sum();
        assert_eq!(bytes, decoder_bytes);
        let table = checkpoint.require(Role::EmbedTokensPerLayer).unwrap();
        let mut last = [1; 4];
        source.read_at(table, table.byte_len() - 4, &mut last).unwrap();
        assert_eq!(last, [0; 4]);
    }
}

/// Bytes of the decoder's bf16 tensors, from the table of sizes by hand.
const E4B_BYTES: u64 = 14_926_026_836;
/// As above.
const E2B_BYTES: u64 = 9_257_138_758;
/// As above.
const DENSE_12B_BYTES: u64 = 23_814_700_640;
/// As above.
const DENSE_31B_BYTES: u64 = 61_394_690_680;
