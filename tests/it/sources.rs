//! Sources as people paste them: addresses of the Hub, and every wrong thing with a message of its own.

use std::fs;
use std::path::Path;

use crate::common::{Dir, golden, text, tiny};
use fixtures::hub::Hub;
use fixtures::{Shape, SyntheticCheckpoint, damage};
use serde_json::{Value, json};

const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 123456789\n";

/// A copy of the tiny checkpoint.
fn copy(dir: &Dir, name: &str) {
    fs::create_dir_all(dir.path(name)).unwrap();
    for entry in fs::read_dir(tiny()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, dir.path(name).join(path.file_name().unwrap())).unwrap();
    }
}

/// A checkpoint of three shards.
fn sharded(dir: &Dir, name: &str) {
    let checkpoint = SyntheticCheckpoint { shards: 3, ..SyntheticCheckpoint::new(Shape::small()) };
    checkpoint.write(&dir.path(name)).unwrap();
}

fn write(dir: &Dir, name: &str, text: &str) {
    let path = dir.path(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn config(dir: &Dir, name: &str, key: &str, value: Value) {
    copy(dir, name);
    damage::edit_config(&dir.path(name), |config| config[key] = value).unwrap();
}

/// Makes every wrong thing, and says what to call it.
fn wrong_things(dir: &Dir) -> Vec<String> {
    copy(dir, "good");
    write(dir, "files/it.gguf", "GGUF");
    write(dir, "files/it.zip", "PK");
    write(dir, "files/pytorch_model.bin", "");
    write(dir, "files/it.tar.gz", "");
    write(dir, "files/notes.txt", "");
    for name in ["model.safetensors", "tokenizer.json", "config.json"] {
        let folder = format!("pointer-{}", name.split_once('.').unwrap().0);
        copy(dir, &folder);
        write(dir, &format!("{folder}/{name}"), POINTER);
    }
    write(dir, "adapter/adapter_config.json", r#"{"base_model_name_or_path": "google/gemma-4-E4B-it"}"#);
    write(dir, "adapter/adapter_model.safetensors", "");
    config(dir, "mlx", "quantization", json!({"group_size": 64, "bits": 4}));
    for method in ["bitsandbytes", "gptq", "awq", "compressed-tensors"] {
        config(dir, method, "quantization_config", json!({"quant_method": method}));
    }
    sharded(dir, "no-index");
    fs::remove_file(dir.path("no-index/model.safetensors.index.json")).unwrap();
    sharded(dir, "few-shards");
    fs::remove_file(dir.path("few-shards/model-00002-of-00003.safetensors")).unwrap();
    sharded(dir, "half-shards");
    fs::remove_file(dir.path("half-shards/model-00003-of-00003.safetensors")).unwrap();
    write(dir, "half-shards/.cache/huggingface/download/model-00003-of-00003.safetensors.incomplete", "");
    write(dir, "half/config.json", "{}");
    write(dir, "half/model.safetensors.incomplete", "");
    copy(dir, "above/first");
    copy(dir, "above/second");
    write(dir, "other-name/weights.safetensors", "");
    write(dir, "only-gguf/it-Q4_0.gguf", "");
    write(dir, "only-bin/pytorch_model.bin", "");
    for commit in ["a", "b"] {
        fs::create_dir_all(dir.path(&format!("models--me--two/snapshots/{}", commit.repeat(40)))).unwrap();
    }
    fs::create_dir_all(dir.path("models--me--none/snapshots")).unwrap();
    config(dir, "qwen", "model_type", json!("qwen3"));
    config(dir, "gemma3", "model_type", json!("gemma3"));
    fs::create_dir(dir.path("empty")).unwrap();
    write(dir, "unknown/notes.txt", "");
    copy(dir, "long-tokenizer");
    let tokenizer = dir.path("long-tokenizer/tokenizer.json");
    let mut vocabulary: Value = serde_json::from_slice(&fs::read(&tokenizer).unwrap()).unwrap();
    vocabulary["added_tokens"][0]["id"] = json!(1_000_000);
    fs::write(&tokenizer, vocabulary.to_string()).unwrap();
    let made = dir.json(&["convert", "good", "-o", "made", "--name", "m", "--json"]);
    assert_eq!(made["event"], "done");

    let files = [
        "good/model.safetensors",
        "good/config.json",
        "made/m_decode_int4lin/m_decode_int4lin.aimodel/main.mlirb",
    ];
    let files = files.into_iter().chain(["it.gguf", "it.zip", "pytorch_model.bin", "it.tar.gz", "notes.txt"]);
    let files = files.map(|name| if name.contains('/') { name.to_owned() } else { format!("files/{name}") });
    let folders = [
        "pointer-model",
        "pointer-tokenizer",
        "pointer-config",
        "adapter",
        "mlx",
        "bitsandbytes",
        "gptq",
        "awq",
        "compressed-tensors",
        "no-index",
        "few-shards",
        "half-shards",
        "half",
        "above",
        "other-name",
        "only-gguf",
        "only-bin",
        "models--me--two",
        "models--me--none",
        "qwen",
        "gemma3",
        "empty",
        "unknown",
        "long-tokenizer",
        "made",
        "made/m_decode_int4lin",
        "made/m_decode_int4lin/m_decode_int4lin.aimodel",
        "made/m_gather_raw",
        "nowhere",
        "nowhere/at/all",
        "~/it",
        "",
    ];
    let addresses = [
        "https://github.com/me/it",
        "https://huggingface.co/datasets/me/it",
        "hf://spaces/me/it",
        "https://huggingface.co/me",
        "https://huggingface.co/me/it/blob/main/it-Q4_0.gguf",
        "https://huggingface.co/me/it/tree/main/original",
        "hf://me/it@v1/tree/v2",
        "s3://bucket/it",
        "me/it/it/..",
    ];
    files.chain(folders.map(str::to_owned)).chain(addresses.map(str::to_owned)).collect()
}

#[test]
fn every_wrong_source_has_its_own_message() {
    let dir = Dir::new();
    let sources = wrong_things(&dir);
    let mut all = String::new();
    let fails = |arguments: &[&str]| {
        let output = dir.command(arguments).env("HF_ENDPOINT", "http://127.0.0.1:9").output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}\n{}", crate::common::both(&output));
        assert_eq!(text(&output.stdout), "", "{arguments:?}");
        assert!(!dir.path("out").exists(), "{arguments:?}: something was written");
        text(&output.stderr)
    };
    for source in &sources {
        all += &format!(
            "$ coreai-bundle convert {source:?} -o out\n{}",
            fails(&["convert", source, "-o", "out"])
        );
    }
    for arguments in [
        &["convert", "hf://me/it@v1", "--revision", "v2", "-o", "out"][..],
        &["convert", "good", "--revision", "v2", "-o", "out"],
        &["convert", "good", "--download", "-o", "out"],
        &["convert", "good", "-o", "good"],
        &["convert", "good", "-o", "good/out"],
        &["tables", "good", "-o", "good"],
        &["tables", "good", "-o", "good/out", "--ple", "safetensors"],
    ] {
        all += &format!("$ coreai-bundle {}\n{}", arguments.join(" "), fails(arguments));
    }
    assert_eq!(fs::read_dir(dir.path("good")).unwrap().count(), fs::read_dir(tiny()).unwrap().count());
    golden::check("wrong-sources", &all);
}

#[test]
fn every_command_recognizes_wrong_sources() {
    let dir = Dir::new();
    write(&dir, "adapter/adapter_config.json", "{}");
    dir.ok(&["convert", &tiny(), "-o", "out"]);
    let bundle = "out/gemma4_e4b_qat_decode_int4lin";
    let oracle = fixtures::data::tiny_oracle().display().to_string();
    for arguments in [
        &["convert", "adapter"][..],
        &["convert", "adapter", "--dry-run"],
        &["tables", "adapter"],
        &["oracle", "adapter"],
        &["inspect", "adapter"],
        &["explain", "adapter", "norm"],
        &["gate", bundle, "--oracle", &oracle, "--checkpoint", "adapter"],
        &["eval", bundle, "--checkpoint", "adapter"],
        &["release", bundle, "-o", "release", "--base-model", "me/it", "--source", "adapter"],
    ] {
        let message = dir.fails(arguments);
        assert!(message.contains("holds a LoRA adapter"), "{arguments:?}: {message}");
    }
}

#[test]
fn addresses_of_the_hub_are_read_by_every_command() {
    let (hub, dir) = (Hub::start().unwrap(), Dir::new());
    let id = "google/gemma-4-tiny";
    let commit = hub.add_folder(id, Path::new(&tiny())).unwrap();
    let endpoint = hub.endpoint();
    let run = |arguments: &[&str]| {
        let mut command = dir.command(arguments);
        let output = command.env("HF_ENDPOINT", &endpoint).env("HF_HOME", dir.path("home")).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", crate::common::both(&output));
        text(&output.stdout)
    };
    let plain = run(&["inspect", id, "--json"]);
    for address in [
        format!("{endpoint}/{id}"),
        format!("{endpoint}/{id}/tree/main/"),
        format!("{endpoint}/{id}/blob/{commit}/config.json?download=true"),
        format!("hf://{id}@{commit}"),
        format!(" https://huggingface.co/{id}/\n"),
        format!("hf.co/{id}#readme"),
        format!("{id}/"),
    ] {
        assert_eq!(run(&["inspect", &address, "--json"]), plain, "{address:?}");
    }
    run(&["convert", &format!("{endpoint}/{id}/tree/{commit}"), "--no-tables"]);
    let manifest =
        fs::read_to_string(dir.path("gemma4_l12h128-coreai/gemma4_l12h128_decode_int4lin/manifest.json"));
    let manifest: Value =
        serde_json::from_str(&manifest.unwrap_or_else(|error| panic!("{error}: {:?}", dir.names("."))))
            .unwrap();
    assert_eq!(
        (&manifest["source"]["repository"], &manifest["source"]["revision"]),
        (&json!(id), &json!(commit))
    );
}

#[test]
fn wrong_repositories_are_recognized_by_their_files() {
    let (hub, dir) = (Hub::start().unwrap(), Dir::new());
    for (id, file, words) in [
        ("me/it-GGUF", "it-Q4_0.gguf", "me/it-GGUF is GGUF"),
        ("me/it-lora", "adapter_config.json", "me/it-lora holds a LoRA adapter"),
        ("me/it-old", "pytorch_model.bin", "me/it-old holds weights as pickled"),
        ("me/it-none", "notes.txt", "me/it-none holds neither model.safetensors nor"),
    ] {
        write(&dir, &format!("{id}/{file}"), "{}");
        write(&dir, &format!("{id}/config.json"), "{}");
        hub.add_folder(id, &dir.path(id)).unwrap();
        fs::remove_dir_all(dir.path(id)).unwrap();
        let mut command = dir.command(&["convert", id]);
        let output =
            command.env("HF_ENDPOINT", hub.endpoint()).env("HF_HOME", dir.path("home")).output().unwrap();
        assert!(text(&output.stderr).contains(words), "{id}: {}", text(&output.stderr));
    }
}

#[test]
fn outputs_are_named_after_the_checkpoint_and_its_rule() {
    let dir = Dir::new();
    copy(&dir, "Support-Bot");
    for rule in ["lattice", "q4_0", "absmax"] {
        dir.ok(&["convert", "Support-Bot", "--no-tables", "--no-report", "--rule", rule, "--head", "int4"]);
    }
    assert_eq!(dir.names("."), ["Support-Bot", "Support-Bot-coreai"]);
    assert_eq!(
        dir.names("Support-Bot-coreai"),
        ["Support-Bot_decode_int4absmax", "Support-Bot_decode_int4lin", "Support-Bot_decode_int4q4_0"]
    );
    let report = dir.ok(&["check", "Support-Bot-coreai/Support-Bot_decode_int4q4_0"]);
    assert!(report.contains(": 0 defects"), "{report}");
    // A checkpoint that is the current folder, by default and by name.
    let mut command = dir.command(&["convert", "."]);
    let output = command.current_dir(dir.path("Support-Bot")).output().unwrap();
    let message = text(&output.stderr);
    assert!(
        message.contains("not written into the checkpoint's folder") && message.contains("-o"),
        "{message}"
    );
    assert!(!dir.path("Support-Bot/Support-Bot-coreai").exists());
}
