//! Damaged tokenizer files are either refused or read, and encoding and decoding never panics.

use std::fs;

use fixtures::{data, mutate};
use oracle::text::Text;

#[test]
fn damaged_tokenizer_files_cause_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"];
    for name in names {
        fs::copy(data::tiny_checkpoint().join(name), dir.path().join(name)).unwrap();
    }
    let mut refused = 0;
    for name in &names[..3] {
        let path = dir.path().join(name);
        let sound = fs::read(&path).unwrap();
        for seed in 0..50 {
            fs::write(&path, mutate::json(&sound, seed)).unwrap();
            match Text::open(dir.path()) {
                Ok(text) => {
                    let ids = text.encode("Count up: 1, 2, 3,").unwrap_or_default();
                    let _ = text.decode(&ids);
                }
                Err(error) => {
                    assert!(error.to_string().len() < 10_000, "{name}, seed {seed}");
                    refused += 1;
                }
            }
        }
        fs::write(&path, sound).unwrap();
    }
    assert!(refused > 40, "{refused}");
}
