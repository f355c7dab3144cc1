//! Damaged JSON files of a checkpoint: it opens or is refused.

use std::fs;

use crate::source_support::{small_config, tensors_of, write_sharded};
use checkpoint::Checkpoint;
use checkpoint::config::DecoderConfig;
use checkpoint::source::{INDEX_FILE, LocalSource, Source};
use fixtures::mutate;

#[test]
fn configuration_and_index() {
    let dir = tempfile::TempDir::new().unwrap();
    write_sharded(dir.path(), &small_config(), &tensors_of(&small_config(), true), 3);
    let opens = || {
        let source = LocalSource::open(dir.path()).map_err(|error| error.to_string())?;
        let config = DecoderConfig::read(&source).map_err(|error| error.to_string())?;
        Checkpoint::new(&config, source.tensors()).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(opens(), Ok(()));
    let mut refused = 0;
    for name in ["config.json", INDEX_FILE] {
        let path = dir.path().join(name);
        let sound = fs::read(&path).unwrap();
        for seed in 0..150 {
            fs::write(&path, mutate::json(&sound, seed)).unwrap();
            if let Err(message) = opens() {
                // It may quote a whole name; what a terminal shows of it is shortened elsewhere.
                assert!(message.len() < 300_000, "{name}, seed {seed}: {} bytes", message.len());
                refused += 1;
            }
        }
        fs::write(&path, sound).unwrap();
    }
    assert!(refused > 150, "{refused}");
    assert_eq!(opens(), Ok(()));
}
