//! The tokenizer repairs, on the tiny checkpoint's files and on the forms that other checkpoints have.

use std::fs;
use std::path::Path;

use packer::template::{Conversation, Message};
use packer::tokenizer::{
    CHAT_TEMPLATE, CONFIG, GENERATION_CONFIG, PreparedTokenizer, Purpose, Repair, SOURCE_FILES,
    SPECIAL_TOKENS_MAP, TOKENIZER, TokenizerError,
};
use serde_json::{Value, json};

/// Entries of the tiny checkpoint's vocabulary.
const VOCABULARY: u64 = 512;

fn prepare(
    files: Vec<(String, Vec<u8>)>,
    allow_no_template: bool,
) -> Result<PreparedTokenizer, TokenizerError> {
    let purpose = Purpose { vocab_size: VOCABULARY, allow_no_template, render: &Conversation::render };
    packer::tokenizer::prepare(files, &purpose)
}

fn tiny() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/data/tiny-e4b-qat");
    SOURCE_FILES
        .iter()
        .filter_map(|&name| Some((name.to_owned(), fs::read(folder.join(name)).ok()?)))
        .collect()
}

fn with(name: &str, bytes: impl Into<Vec<u8>>) -> Vec<(String, Vec<u8>)> {
    let mut files = without(name);
    files.push((name.to_owned(), bytes.into()));
    files
}

fn without(name: &str) -> Vec<(String, Vec<u8>)> {
    tiny().into_iter().filter(|(found, _)| found != name).collect()
}

fn text<'a>(tokenizer: &'a PreparedTokenizer, name: &str) -> &'a str {
    let (_, bytes) = tokenizer.files.iter().find(|(found, _)| *found == name).expect(name);
    std::str::from_utf8(bytes).unwrap()
}

fn original(name: &str) -> String {
    let (_, bytes) = tiny().into_iter().find(|(found, _)| found == name).unwrap();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn tiny_checkpoint_gets_exactly_the_known_repairs() {
    let prepared = prepare(tiny(), false).unwrap();
    assert_eq!(
        prepared.repairs,
        [
            Repair::EosToken { file: CONFIG, from: Some("<eos>".into()), to: "<turn|>".into() },
            Repair::TemplateInlined { replaced: false },
            Repair::SpecialTokensMapMade,
        ]
    );
    assert_eq!((prepared.end_of_turn.content.as_str(), prepared.end_of_turn.id), ("<turn|>", 5));
    assert_eq!(prepared.eos_token_ids, [1, 5]);
    for name in [TOKENIZER, CHAT_TEMPLATE, GENERATION_CONFIG] {
        assert_eq!(text(&prepared, name), original(name), "{name} is copied byte for byte");
    }
}

#[test]
fn edited_configuration_differs_only_in_the_repaired_keys() {
    let prepared = prepare(tiny(), false).unwrap();
    let template = serde_json::to_string(&original(CHAT_TEMPLATE)).unwrap();
    let expected = original(CONFIG)
        .replace("\"<eos>\"", "\"<turn|>\"")
        .replace("4096\n}", &format!("4096,\n \"chat_template\": {template}\n}}"));
    assert_eq!(text(&prepared, CONFIG), expected);
}

#[test]
fn synthesized_map_holds_the_special_tokens() {
    let prepared = prepare(tiny(), false).unwrap();
    let map: Value = serde_json::from_str(text(&prepared, SPECIAL_TOKENS_MAP)).unwrap();
    assert_eq!(
        map,
        json!({"bos_token": "<bos>", "eos_token": "<turn|>", "pad_token": "<pad>", "unk_token": "<unk>"})
    );
}

#[test]
fn repaired_files_need_no_further_repair() {
    let once = prepare(tiny(), false).unwrap();
    let again = once.files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone())).collect();
    let twice = prepare(again, false).unwrap();
    assert_eq!(twice.repairs, []);
    assert_eq!(twice.files, once.files);
}

#[test]
fn tokens_with_properties_keep_them() {
    let token = json!({"content": "<eos>", "lstrip": false, "special": true});
    let config = json!({"bos_token": "<bos>", "eos_token": token, "big": 1}).to_string();
    let mut files = with(CONFIG, config.replace("\"big\":1", "\"big\":1000000000000000019884624838656"));
    files.push((SPECIAL_TOKENS_MAP.into(), json!({"eos_token": token}).to_string().into_bytes()));
    let prepared = prepare(files, false).unwrap();
    let config = text(&prepared, CONFIG);
    assert!(config.contains(r#"{"content":"<turn|>","lstrip":false,"special":true}"#), "{config}");
    assert!(config.contains("1000000000000000019884624838656"), "{config}");
    assert_eq!(
        text(&prepared, SPECIAL_TOKENS_MAP),
        r#"{"eos_token":{"content":"<turn|>","lstrip":false,"special":true}}"#
    );
}

#[test]
fn template_is_found_in_its_other_places() {
    let template = original(CHAT_TEMPLATE);
    let inline = json!({"eos_token": "<turn|>", "chat_template": template}).to_string();
    let named = json!({"eos_token": "<turn|>", "chat_template": [
        {"name": "tool_use", "template": "other"}, {"name": "default", "template": template}]});
    for config in [inline, named.to_string()] {
        let files = without(CHAT_TEMPLATE).into_iter().filter(|(name, _)| name != CONFIG);
        let files = files.chain([(CONFIG.to_owned(), config.clone().into_bytes())]).collect();
        let prepared = prepare(files, false).unwrap();
        assert!(prepared.repairs.contains(&Repair::TemplateFileWritten { from: CONFIG }));
        assert_eq!(text(&prepared, CHAT_TEMPLATE), template);
        assert_eq!(text(&prepared, CONFIG), config);
    }
    let mut files = without(CHAT_TEMPLATE);
    files.push(("chat_template.json".into(), json!({"chat_template": template}).to_string().into_bytes()));
    let prepared = prepare(files, false).unwrap();
    assert!(prepared.repairs.contains(&Repair::TemplateFileWritten { from: "chat_template.json" }));
    assert!(prepared.repairs.contains(&Repair::TemplateInlined { replaced: false }));
}

#[test]
fn another_inlined_template_yields_to_the_file() {
    let config = json!({"eos_token": "<turn|>", "chat_template": "stale"}).to_string();
    let prepared = prepare(with(CONFIG, config), false).unwrap();
    assert!(prepared.repairs.contains(&Repair::TemplateInlined { replaced: true }));
    let config: Value = serde_json::from_str(text(&prepared, CONFIG)).unwrap();
    assert_eq!(config["chat_template"], original(CHAT_TEMPLATE));
}

#[test]
fn missing_template_is_an_error_unless_waived() {
    let error = prepare(without(CHAT_TEMPLATE), false).unwrap_err();
    assert!(matches!(error, TokenizerError::NoTemplate), "{error}");
    let prepared = prepare(without(CHAT_TEMPLATE), true).unwrap();
    assert!(prepared.repairs.contains(&Repair::TemplateWaived));
    assert_eq!(prepared.end_of_turn.id, 5);
    assert!(!prepared.files.iter().any(|(name, _)| *name == CHAT_TEMPLATE));
}

#[test]
fn end_of_turn_follows_the_template_not_a_fixed_name() {
    let template = "{% for m in messages %}{{ m.content }}<eos>{% endfor %}";
    let prepared = prepare(with(CHAT_TEMPLATE, template), false).unwrap();
    assert_eq!(prepared.end_of_turn.id, 1);
    assert!(!prepared.repairs.iter().any(|repair| matches!(repair, Repair::EosToken { .. })));
}

#[test]
fn stop_ids_come_from_the_generation_config_and_the_template() {
    let cases = [
        (r#"{"eos_token_id": 1}"#, vec![1, 5]),
        (r#"{"eos_token_id": [5, 1]}"#, vec![5, 1]),
        ("{}", vec![5]),
    ];
    for (config, expected) in cases {
        assert_eq!(prepare(with(GENERATION_CONFIG, config), false).unwrap().eos_token_ids, expected);
    }
    let prepared = prepare(without(GENERATION_CONFIG), false).unwrap();
    assert!(prepared.repairs.contains(&Repair::GenerationConfigMissing));
    assert_eq!(prepared.eos_token_ids, [5]);
}

#[test]
fn bad_files_are_named() {
    for name in [TOKENIZER, CONFIG] {
        let error = prepare(without(name), false).unwrap_err();
        assert!(matches!(error, TokenizerError::Missing(missing) if missing == name), "{error}");
    }
    for name in [TOKENIZER, CONFIG, GENERATION_CONFIG, SPECIAL_TOKENS_MAP] {
        for bytes in [&b"{\"a\":"[..], b"[1]", b"\xff\xfe"] {
            let error = prepare(with(name, bytes), false).unwrap_err();
            assert!(error.to_string().starts_with(name), "{error}");
        }
    }
    let error = prepare(with(CHAT_TEMPLATE, "{% for %}"), false).unwrap_err();
    assert!(matches!(error, TokenizerError::Template(_)), "{error}");
}

#[test]
fn tiny_template_renders_the_prompt_of_a_conversation() {
    let messages = [Message { role: "user", content: "Hello" }];
    let text = Conversation::new(&original(CHAT_TEMPLATE), &messages, "<bos>", true).render().unwrap();
    assert_eq!(text, "<bos><|turn>user\nHello<turn|>\n<|turn>model\n");
}

#[test]
fn ids_beyond_the_vocabulary_are_refused() {
    let spoiled = |edit: &dyn Fn(&mut Value)| {
        let mut tokenizer: Value = serde_json::from_str(&original(TOKENIZER)).unwrap();
        edit(&mut tokenizer);
        prepare(with(TOKENIZER, tokenizer.to_string()), false)
    };
    assert!(spoiled(&|t| t["added_tokens"][3]["id"] = json!(VOCABULARY - 1)).is_ok());
    let edits: [&dyn Fn(&mut Value); 2] = [&|t| t["added_tokens"][3]["id"] = json!(VOCABULARY), &|t| {
        t["model"]["vocab"]["new"] = json!(VOCABULARY);
    }];
    for edit in edits {
        let error = spoiled(edit).unwrap_err();
        assert!(
            matches!(error, TokenizerError::Ids { largest: VOCABULARY, vocab_size: VOCABULARY }),
            "{error}"
        );
        assert!(error.to_string().contains("vocab_size is 512"), "{error}");
    }
}

/// Damaged files are prepared or refused, in bounded time.
#[test]
fn damaged_files_cause_no_panic() {
    let mut refused = 0;
    for name in SOURCE_FILES {
        let template = json!({ "chat_template": original(CHAT_TEMPLATE) }).to_string();
        let sound = tiny().into_iter().find(|(found, _)| found == name && name.ends_with(".json"));
        let sound = sound.map_or(template.into_bytes(), |(_, bytes)| bytes);
        for seed in 0..60 {
            if let Err(error) = prepare(with(name, fixtures::mutate::json(&sound, seed)), false) {
                assert!(error.to_string().len() < 10_000, "{name}, seed {seed}");
                refused += 1;
            }
        }
    }
    assert!(refused > 100, "{refused}");
}
