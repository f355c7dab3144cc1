//! Reading checkpoints from folders: what comes out is what was written, single or sharded, and every fault of a
//! folder has its own error.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::source_support::{
    Tensors, raw_file, shard_name, small_config, tensors_of, write_file, write_index, write_sharded,
    write_single,
};
use checkpoint::source::{INDEX_FILE, Identity, LocalSource, MAX_INDEX_BYTES, Source, SourceError};
use serde_json::{Value, json};
use tempfile::TempDir;

fn single() -> (TempDir, Tensors) {
    let dir = TempDir::new().unwrap();
    let tensors = tensors_of(&small_config(), true);
    write_single(dir.path(), &small_config(), &tensors);
    (dir, tensors)
}

fn sharded() -> (TempDir, Tensors, Value) {
    let dir = TempDir::new().unwrap();
    let tensors = tensors_of(&small_config(), true);
    let index = write_sharded(dir.path(), &small_config(), &tensors, 3);
    (dir, tensors, index)
}

fn open_error(dir: &Path) -> SourceError {
    LocalSource::open(dir).expect_err("the folder is broken")
}

/// The error, which must contain all of `parts`.
fn assert_says(error: &SourceError, parts: &[&str]) {
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

fn assert_reads_back(source: &dyn Source, tensors: &Tensors) {
    assert_eq!(source.tensors().len(), tensors.len());
    for (entry, (name, tensor)) in source.tensors().iter().zip(tensors) {
        assert_eq!((&entry.name, entry.dtype, &entry.shape), (name, tensor.dtype, &tensor.shape));
        assert_eq!(entry.byte_len(), tensor.byte_len() as u64);
        let mut bytes = vec![0; tensor.byte_len()];
        let (front, back) = bytes.split_at_mut(tensor.byte_len() / 3);
        source.will_read(entry);
        source.read_at(entry, front.len() as u64, back).unwrap();
        source.read_at(entry, 0, front).unwrap();
        source.done_reading(entry, 0..entry.byte_len());
        assert_eq!(bytes, tensor.bytes(name), "{name}");
    }
}

#[test]
fn single_and_sharded_give_the_same_bytes() {
    let (dir, tensors) = single();
    assert_reads_back(&LocalSource::open(dir.path()).unwrap(), &tensors);
    let (dir, tensors, _) = sharded();
    let source = LocalSource::open(dir.path()).unwrap();
    assert_reads_back(&source, &tensors);
    source.verify_unchanged().unwrap();
}

#[test]
fn threads_read_at_once() {
    let (dir, tensors, _) = sharded();
    let source = LocalSource::open(dir.path()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_reads_back(&source, &tensors));
        }
    });
}

#[test]
fn an_index_may_list_the_single_file() {
    let (dir, tensors) = single();
    let weight_map: Value = tensors.keys().map(|name| (name.clone(), json!("model.safetensors"))).collect();
    write_index(dir.path(), &json!({ "weight_map": weight_map }));
    assert_reads_back(&LocalSource::open(dir.path()).unwrap(), &tensors);
}

#[test]
fn reads_stay_inside_a_tensor_of_this_source() {
    let (dir, _) = single();
    let source = LocalSource::open(dir.path()).unwrap();
    let entry = source.tensor("model.language_model.norm.weight").unwrap();
    let mut out = [0; 8];
    source.read_at(entry, 120, &mut out).unwrap();
    source.read_at(entry, 128, &mut []).unwrap();
    for offset in [121, 128, 129, u64::MAX] {
        let error = source.read_at(entry, offset, &mut out).unwrap_err();
        assert_says(&error, &["norm.weight has 128 bytes", &offset.to_string()]);
    }
    let mut foreign = entry.clone();
    foreign.range.end += 1_000_000;
    let error = source.read_at(&foreign, 0, &mut out).unwrap_err();
    assert!(matches!(error, SourceError::ForeignTensor { .. }), "{error}");
    assert!(source.tensor("model.language_model.norm").is_none());
}

#[test]
fn side_files() {
    let (dir, _) = single();
    fs::write(dir.path().join("tokenizer.json"), b"{}").unwrap();
    fs::create_dir(dir.path().join("folder.json")).unwrap();
    let source = LocalSource::open(dir.path()).unwrap();
    assert_eq!(source.file_names(), ["config.json", "model.safetensors", "tokenizer.json"]);
    assert_eq!(source.read_file("tokenizer.json").unwrap().as_deref(), Some(b"{}".as_slice()));
    assert_eq!(source.read_file("chat_template.jinja").unwrap(), None);
    let error = source.read_file("folder.json").unwrap_err();
    assert_says(&error, &["folder.json", "not a regular file"]);
    for name in ["", ".", "..", "../config.json", "/etc/passwd", "a/b", "a\\b", "a\0b"] {
        let error = source.read_file(name).unwrap_err();
        assert!(matches!(error, SourceError::FileName { .. }), "{name:?}: {error}");
    }
}

#[test]
fn side_files_have_a_limit() {
    let (dir, _) = single();
    let huge = fs::File::create(dir.path().join("tokenizer.json")).unwrap();
    huge.set_len(checkpoint::source::MAX_SIDE_FILE_BYTES + 1).unwrap();
    let source = LocalSource::open(dir.path()).unwrap();
    assert_says(
        &source.read_file("tokenizer.json").unwrap_err(),
        &["tokenizer.json has 268435457 bytes", "limit"],
    );

    fs::File::create(dir.path().join(INDEX_FILE)).unwrap().set_len(MAX_INDEX_BYTES + 1).unwrap();
    assert!(matches!(open_error(dir.path()), SourceError::TooLarge { .. }));
}

#[test]
fn no_checkpoint() {
    let dir = TempDir::new().unwrap();
    assert_says(&open_error(dir.path()), &["is empty", "hf download"]);
    fs::write(dir.path().join("notes"), "").unwrap();
    assert_says(&open_error(dir.path()), &["neither model.safetensors nor", "is it a checkpoint folder?"]);
    assert_says(&open_error(&dir.path().join("absent")), &["cannot list", "absent"]);
    fs::create_dir(dir.path().join("model.safetensors")).unwrap();
    assert!(matches!(open_error(dir.path()), SourceError::NoWeights { .. }));
}

#[test]
fn single_file_beside_a_foreign_index() {
    let (dir, tensors, _) = sharded();
    write_file(&dir.path().join("model.safetensors"), &tensors);
    assert_says(&open_error(dir.path()), &["which does not list it", "remove the one"]);
}

#[test]
fn truncated_and_too_long_shards() {
    let (dir, _, _) = sharded();
    let name = shard_name(1, 3);
    let path = dir.path().join(&name);
    let whole = fs::read(&path).unwrap();
    let len = whole.len();
    fs::write(&path, &whole[..len - 1]).unwrap();
    let expected =
        [name.as_str(), &format!("has {} bytes", len - 1), &format!("describes {len}"), "truncated"];
    assert_says(&open_error(dir.path()), &expected);
    fs::write(&path, [&whole[..], &[0]].concat()).unwrap();
    assert_says(&open_error(dir.path()), &[&name, "too long"]);
    fs::write(&path, &whole[..5]).unwrap();
    assert_says(&open_error(dir.path()), &[&name, "only 5 bytes"]);
    fs::write(&path, &whole[..20]).unwrap();
    assert_says(&open_error(dir.path()), &[&name, "at most 12 are possible"]);
}

#[test]
fn missing_shard() {
    let (dir, _, _) = sharded();
    fs::remove_file(dir.path().join(shard_name(2, 3))).unwrap();
    let parts = [INDEX_FILE, "1 of 3", &shard_name(2, 3)];
    assert_says(&open_error(dir.path()), &parts);
    fs::remove_file(dir.path().join(shard_name(0, 3))).unwrap();
    fs::write(dir.path().join("model-00001-of-00003.safetensors.incomplete"), "").unwrap();
    assert_says(&open_error(dir.path()), &["2 of 3", &shard_name(0, 3), "was not finished"]);
}

#[test]
fn a_repository_of_the_cache_leads_to_its_snapshot() {
    let cache = TempDir::new().unwrap();
    let (dir, tensors) = single();
    let repository = cache.path().join("models--me--mine");
    let snapshot = |commit: &str| repository.join("snapshots").join(commit.repeat(40));
    assert_says(
        &{
            fs::create_dir_all(repository.join("snapshots")).unwrap();
            open_error(&repository)
        },
        &["holds no snapshot"],
    );
    fs::rename(dir.path(), snapshot("a")).unwrap();
    let source = LocalSource::open(&repository).unwrap();
    assert_reads_back(&source, &tensors);
    assert_eq!(source.identity().repository.as_deref(), Some("me/mine"));
    fs::create_dir(snapshot("b")).unwrap();
    assert_says(&open_error(&repository), &["none of its 2 snapshots", &"a".repeat(40)]);
    fs::create_dir(repository.join("refs")).unwrap();
    fs::write(repository.join("refs/main"), "../../elsewhere").unwrap();
    assert_says(&open_error(&repository), &["none of its 2 snapshots"]);
    fs::write(repository.join("refs/main"), "a".repeat(40)).unwrap();
    assert_reads_back(&LocalSource::open(&repository).unwrap(), &tensors);
}

#[test]
fn index_names_absent_tensors() {
    let (dir, _, mut index) = sharded();
    index["weight_map"]["model.a"] = json!(shard_name(0, 3));
    index["weight_map"]["model.b"] = json!(shard_name(1, 3));
    write_index(dir.path(), &index);
    let shard = shard_name(0, 3);
    assert_says(&open_error(dir.path()), &["puts model.a into", &shard, "does not hold it (and 1 more"]);
}

#[test]
fn tensor_in_two_shards() {
    let (dir, tensors, _) = sharded();
    let (first, _) = tensors.iter().next().unwrap();
    write_file(&dir.path().join(shard_name(1, 3)), tensors.iter().take(2));
    let shards = [shard_name(0, 3), shard_name(1, 3)];
    assert_says(&open_error(dir.path()), &[first, "in two shards", &shards[0], &shards[1]]);
}

#[test]
fn tensor_in_another_shard_than_indexed() {
    let (dir, tensors, mut index) = sharded();
    let (first, _) = tensors.iter().next().unwrap();
    index["weight_map"][first] = json!(shard_name(2, 3));
    write_index(dir.path(), &index);
    let (indexed, found) = (shard_name(2, 3), shard_name(0, 3));
    assert_says(&open_error(dir.path()), &[first, &format!("into {indexed}, but it lies in {found}")]);
}

#[test]
fn tensor_that_the_index_does_not_list() {
    let (dir, tensors, mut index) = sharded();
    let (first, _) = tensors.iter().next().unwrap();
    index["weight_map"].as_object_mut().unwrap().remove(first);
    write_index(dir.path(), &index);
    assert_says(&open_error(dir.path()), &[first, &shard_name(0, 3), "index does not list"]);
}

#[test]
fn broken_indexes() {
    let (dir, _, _) = sharded();
    for (text, part) in [
        ("", "not an index of shards"),
        ("{\"weight_map\": {\"a\":", "not an index of shards"),
        ("[]", "not an index of shards"),
        ("{}", "weight_map"),
        ("{\"weight_map\": {\"a\": 1}}", "not an index of shards"),
        ("{\"weight_map\": {}}", "lists no tensor"),
        ("{\"weight_map\": {\"a\": \"../model.safetensors\"}}", "plain file name"),
        ("{\"weight_map\": {\"a\": \"/etc/passwd\"}}", "plain file name"),
    ] {
        fs::write(dir.path().join(INDEX_FILE), text).unwrap();
        assert_says(&open_error(dir.path()), &[part]);
    }
}

#[test]
fn shards_that_are_not_files() {
    let (dir, _, mut index) = sharded();
    fs::create_dir(dir.path().join("folder")).unwrap();
    index["weight_map"]["model.a"] = json!("folder");
    write_index(dir.path(), &index);
    assert_says(&open_error(dir.path()), &["folder is not a regular file"]);
}

#[test]
fn replaced_and_edited_files_are_detected() {
    type Edit = fn(&Path);
    let edits: [(&str, Edit); 6] = [
        ("same bytes and time, another file", |path| {
            let copy = path.with_extension("copy");
            fs::copy(path, &copy).unwrap();
            let modified = fs::metadata(path).unwrap().modified().unwrap();
            fs::File::options().write(true).open(&copy).unwrap().set_modified(modified).unwrap();
            fs::rename(&copy, path).unwrap();
        }),
        ("longer", |path| {
            let bytes = fs::read(path).unwrap();
            let modified = fs::metadata(path).unwrap().modified().unwrap();
            fs::write(path, [&bytes[..], b"x"].concat()).unwrap();
            fs::File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
        }),
        ("touched", |path| {
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_modified(SystemTime::now() + Duration::from_secs(5)).unwrap();
        }),
        ("deleted", |path| fs::remove_file(path).unwrap()),
        ("truncated", |path| fs::write(path, b"").unwrap()),
        ("a folder", |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }),
    ];
    for file in ["config.json", INDEX_FILE, &shard_name(1, 3)] {
        for (what, edit) in edits {
            let (dir, _, _) = sharded();
            let source = LocalSource::open(dir.path()).unwrap();
            source.read_file("config.json").unwrap();
            source.verify_unchanged().unwrap();
            edit(&dir.path().join(file));
            let error = source.verify_unchanged().expect_err(what);
            assert!(matches!(error, SourceError::Changed { .. }), "{file} {what}: {error}");
            assert_says(&error, &[file, "changed while it was being read"]);
        }
    }
}

#[test]
fn a_side_file_that_changes_between_reads() {
    let (dir, _) = single();
    let source = LocalSource::open(dir.path()).unwrap();
    source.read_file("config.json").unwrap();
    fs::write(dir.path().join("config.json"), b"{}").unwrap();
    assert!(matches!(source.read_file("config.json"), Err(SourceError::Changed { .. })));
}

#[test]
fn a_shard_that_is_truncated_while_open() {
    let (dir, _) = single();
    let source = LocalSource::open(dir.path()).unwrap();
    let entry = source.tensor("model.vision_tower.patch_embedder.input_proj.weight").unwrap();
    let path = dir.path().join("model.safetensors");
    fs::File::options().write(true).open(&path).unwrap().set_len(entry.range.start + 1).unwrap();
    let error = source.read_at(entry, 0, &mut [0; 16]).unwrap_err();
    assert!(matches!(error, SourceError::Changed { .. }), "{error}");
}

#[test]
fn identity_comes_from_the_cache_layout_and_never_from_a_path() {
    let (dir, tensors) = single();
    assert_eq!(*LocalSource::open(dir.path()).unwrap().identity(), Identity::default());

    // The cache keeps files under digests and links to them from the snapshot.
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let snapshot = dir.path().join("models--google--gemma-4-E4B-it/snapshots").join(commit);
    fs::create_dir_all(&snapshot).unwrap();
    for name in ["config.json", "model.safetensors"] {
        symlink(dir.path().join(name), snapshot.join(name)).unwrap();
    }
    let source = LocalSource::open(&snapshot).unwrap();
    assert_eq!(source.identity().repository.as_deref(), Some("google/gemma-4-E4B-it"));
    assert_eq!(source.identity().revision.as_deref(), Some(commit));
    assert_reads_back(&source, &tensors);
    source.verify_unchanged().unwrap();

    let elsewhere = dir.path().join("models--odd/snapshots/main");
    fs::create_dir_all(&elsewhere).unwrap();
    symlink(dir.path().join("model.safetensors"), elsewhere.join("model.safetensors")).unwrap();
    assert_eq!(*LocalSource::open(&elsewhere).unwrap().identity(), Identity::default());
}

#[test]
fn fingerprint_covers_headers_and_configuration_but_not_weights() {
    let fingerprint = |dir: &Path| LocalSource::open(dir).unwrap().fingerprint().unwrap().to_string();
    let (dir, tensors) = single();
    let (again, _) = single();
    let base = fingerprint(dir.path());
    assert_eq!(base.len(), 64);
    assert_eq!(base, fingerprint(again.path()), "the folder's own name does not count");

    let path = again.path().join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 0xff;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(base, fingerprint(again.path()), "weights do not count");

    let mut fewer = tensors.clone();
    fewer.pop_last();
    write_file(&path, &fewer);
    assert_ne!(base, fingerprint(again.path()), "headers count");

    fs::write(dir.path().join("config.json"), b"{}").unwrap();
    assert_ne!(base, fingerprint(dir.path()), "the configuration counts");
    let (shards, _, _) = sharded();
    assert_ne!(base, fingerprint(shards.path()), "the form counts");
}

#[test]
fn a_sparse_file_of_any_size_opens() {
    let dir = TempDir::new().unwrap();
    let header =
        json!({ "w": { "dtype": "BF16", "shape": [1u64 << 30, 8], "data_offsets": [0, 1u64 << 34] } });
    let bytes = raw_file(header.to_string().as_bytes(), 0);
    let path = dir.path().join("model.safetensors");
    fs::write(&path, &bytes).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(bytes.len() as u64 + (1 << 34)).unwrap();
    let source = LocalSource::open(dir.path()).unwrap();
    let mut last = [1; 2];
    source.read_at(&source.tensors()[0], (1 << 34) - 2, &mut last).unwrap();
    assert_eq!(last, [0, 0]);
}
