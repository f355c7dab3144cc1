//! Wrong headers: each is refused with a reason, and none makes the reader panic or allocate.

use std::sync::Arc;

use crate::source_support::{raw_file, small_config, tensors_of};
use checkpoint::source::{Header, MAX_HEADER_BYTES, SourceError, header_len, parse_header};
use proptest::prelude::*;

/// Reads a file's header as a source does.
fn read(file: &[u8]) -> Result<Header, SourceError> {
    let name: Arc<str> = Arc::from("model.safetensors");
    let len = file.len() as u64;
    let Some((length_field, rest)) = file.split_first_chunk::<8>() else {
        return Err(SourceError::HeaderLength { file: name.to_string(), stated: 0, possible: 0 });
    };
    let header = header_len(&name, *length_field, len)?;
    parse_header(&name, &rest[..header], len)
}

fn refusal(header: &str, data: usize) -> String {
    read(&raw_file(header.as_bytes(), data)).expect_err(header).to_string()
}

#[test]
fn length_of_the_header() {
    for (stated, file_len, possible) in [
        (u64::MAX, 1 << 40, MAX_HEADER_BYTES),
        (u64::MAX >> 1, 1 << 40, MAX_HEADER_BYTES),
        (MAX_HEADER_BYTES + 1, 1 << 40, MAX_HEADER_BYTES),
        (93, 100, 92),
        (1, 8, 0),
        (1, 3, 0),
    ] {
        let error = header_len("a.safetensors", stated.to_le_bytes(), file_len).unwrap_err().to_string();
        for part in ["a.safetensors", &stated.to_string(), &format!("at most {possible} are possible")] {
            assert!(error.contains(part), "{part} is not in: {error}");
        }
    }
    assert_eq!(header_len("a", 92u64.to_le_bytes(), 100).unwrap(), 92);
}

#[test]
fn wrong_headers() {
    let w = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    let two = |first: &str, second: &str| {
        format!(
            r#"{{"a":{{"dtype":"BF16","shape":[4],"data_offsets":{first}}},
                "b":{{"dtype":"BF16","shape":[4],"data_offsets":{second}}}}}"#
        )
    };
    let cases: Vec<(String, usize, &str)> = vec![
        (String::new(), 0, "EOF"),
        ("[]".into(), 0, "an object of tensors"),
        ("{\"w\":".into(), 0, "EOF"),
        ("{} x".into(), 0, "trailing characters"),
        ("{\"w\":{}}".into(), 0, "tensor w: missing field"),
        ("\u{0}".into(), 0, "expected value"),
        (w("BF16", "[4]", "[8,0]"), 8, "tensor w: ends at 0, before its start 8"),
        (w("BF16", "[4]", "[-8,0]"), 8, "tensor w: invalid value: integer `-8`"),
        (w("BF16", "[-4]", "[0,8]"), 8, "tensor w: invalid value: integer `-4`"),
        (w("BF16", "[4]", "[0,18446744073709551616]"), 8, "tensor w"),
        (w("BF16", "[4]", "[0.5,8]"), 8, "tensor w"),
        (w("BF16", "[5]", "[0,8]"), 8, "tensor w: BF16 of shape [5] needs 80 bits, but has 8 bytes"),
        (w("F4", "[3]", "[0,1]"), 1, "tensor w: F4 of shape [3] needs 12 bits"),
        (w("BF16", "[4294967296,4294967296,4]", "[0,8]"), 8, "larger than any file"),
        (w("U8", "[9223372036854775807]", "[0,9223372036854775807]"), 8, "larger than any file"),
        (w("Q4", "[4]", "[0,8]"), 8, "tensor w: unknown variant `Q4`"),
        (w("BF16", "[4]", "[8,16]"), 16, "invalid offset"),
        (two("[0,8]", "[4,12]"), 12, "invalid offset for tensor `b`"),
        (two("[0,8]", "[0,8]"), 8, "invalid offset for tensor `b`"),
        (two("[0,8]", "[16,24]"), 24, "invalid offset for tensor `b`"),
        (
            r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#
                .into(),
            2,
            "a is listed twice",
        ),
    ];
    for (header, data, part) in cases {
        let error = refusal(&header, data);
        assert!(error.starts_with("model.safetensors: bad safetensors header"), "{error}");
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
    let not_utf8 = read(&raw_file(b"{\"\xff\":1}", 0)).unwrap_err();
    assert!(matches!(not_utf8, SourceError::Header { .. }), "{not_utf8}");
}

#[test]
fn tensors_that_end_before_or_after_the_file() {
    let header = r#"{"w":{"dtype":"BF16","shape":[4],"data_offsets":[0,8]}}"#;
    for (data, part) in [(7, "truncated"), (0, "truncated"), (9, "too long")] {
        let error = refusal(header, data);
        assert!(error.contains(part) && error.contains("describes 71"), "{error}");
    }
}

#[test]
fn what_the_format_allows() {
    let header = r#"{"__metadata__":{"format":"pt"},
        "b":{"dtype":"BF16","shape":[2,2],"data_offsets":[4,12]},
        "empty":{"dtype":"F32","shape":[0,7],"data_offsets":[12,12]},
        "a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}   "#;
    let file = raw_file(header.as_bytes(), 12);
    let read = read(&file).unwrap();
    let start = file.len() as u64 - 12;
    let ranges: Vec<_> =
        read.tensors.iter().map(|entry| (entry.name.as_str(), entry.range.clone())).collect();
    assert_eq!(
        ranges,
        [("a", start..start + 4), ("b", start + 4..start + 12), ("empty", start + 12..start + 12)]
    );
}

#[test]
fn truncation_at_every_byte() {
    let header = r#"{"w":{"dtype":"BF16","shape":[2,4],"data_offsets":[0,16]},"v":{"dtype":"F32","shape":[1],"data_offsets":[16,20]}}"#;
    let file = raw_file(header.as_bytes(), 20);
    assert_eq!(read(&file).unwrap().tensors.len(), 2);
    for len in 0..file.len() {
        assert!(read(&file[..len]).is_err(), "accepted when cut at {len}");
    }
}

fn small_file() -> Vec<u8> {
    let tensors = tensors_of(&small_config(), true);
    let views =
        tensors.iter().take(8).map(|(name, tensor)| (name, tensor.bytes(name), tensor)).collect::<Vec<_>>();
    let views = views.iter().map(|(name, bytes, tensor)| {
        (*name, safetensors::tensor::TensorView::new(tensor.dtype, tensor.shape.clone(), bytes).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..Default::default() })]

    /// Whatever is changed in the length or the header, what is accepted lies inside the file, without overlap.
    #[test]
    fn mutations_never_panic(edits in prop::collection::vec((0usize..1200, any::<u8>()), 1..6)) {
        let mut file = small_file();
        let header = 8 + u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        for (at, byte) in edits {
            file[at % header] = byte;
        }
        check_accepted(&file)?;
    }

    /// Digits and brackets changed for others reach further than random bytes, which mostly break the JSON.
    #[test]
    fn mutated_numbers_never_panic(edits in prop::collection::vec((0usize..1200, "[0-9\\[\\],{}-]"), 1..4)) {
        let mut file = small_file();
        let header = 8 + u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        let places: Vec<usize> = (8..header).filter(|at| b"0123456789[],{}".contains(&file[*at])).collect();
        for (at, text) in edits {
            file[places[at % places.len()]] = text.as_bytes()[0];
        }
        check_accepted(&file)?;
    }
}

fn check_accepted(file: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(header) = read(file) {
        for pair in header.tensors.windows(2) {
            prop_assert_eq!(pair[0].range.end, pair[1].range.start);
        }
        if let Some(last) = header.tensors.last() {
            prop_assert_eq!(last.range.end, file.len() as u64);
        }
    }
    Ok(())
}
