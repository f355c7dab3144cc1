//! Bundle directories: metadata, tokenizer, manifest, checks, archive.
