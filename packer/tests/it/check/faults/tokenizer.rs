//! Faults of the `tokenizer/` folder.

use serde_json::json;

use super::faults;
use crate::check::fixture::{Folder, PROVIDER, Release};

const CONFIG: &str = "tokenizer/tokenizer_config.json";
const TEMPLATE: &str = "tokenizer/chat_template.jinja";

/// Sets the template in both of its places.
fn set_template(bundle: &Folder, template: &str) {
    bundle.write(TEMPLATE, template);
    bundle.json(CONFIG, |config| config["chat_template"] = json!(template));
}

faults! {
    |release: &Release| release.bundle(PROVIDER);

    no_folder: |b| b.remove("tokenizer") => ["tokenizer.missing"];
    no_vocabulary: |b| b.remove("tokenizer/tokenizer.json") => ["tokenizer.file-missing"];
    no_configuration: |b| b.remove(CONFIG) => ["tokenizer.file-missing"];
    cut_off_vocabulary: |b| {
        let text = b.read("tokenizer/tokenizer.json");
        b.write("tokenizer/tokenizer.json", &text[..text.len() / 2]);
    } => ["tokenizer.not-json"];
    configuration_that_is_no_json: |b| b.write(CONFIG, "eos_token: <turn|>") => ["tokenizer.not-json"];
    no_special_tokens_map: |b| b.remove("tokenizer/special_tokens_map.json") => ["tokenizer.incomplete"];
    no_generation_config: |b| b.remove("tokenizer/generation_config.json") => ["tokenizer.incomplete"];
    token_beyond_the_vocabulary: |b| b.json("tokenizer/tokenizer.json", |t| {
        t["added_tokens"][3]["id"] = json!(512);
    }) => ["tokenizer.ids"];
    vocabulary_beyond_the_graph: |b| b.json("tokenizer/tokenizer.json", |t| {
        t["model"]["vocab"]["new"] = json!(600);
    }) => ["tokenizer.ids"];

    eos_left_at_the_end_of_text: |b| b.replace(CONFIG, "\"eos_token\": \"<turn|>\"", "\"eos_token\": \"<eos>\"") =>
        ["tokenizer.eos-token"];
    no_eos: |b| b.json(CONFIG, |config| { config.as_object_mut().unwrap().remove("eos_token"); }) =>
        ["tokenizer.eos-token"];
    eos_of_the_map: |b| b.replace("tokenizer/special_tokens_map.json", "<turn|>", "<eos>") =>
        ["tokenizer.eos-token-map"];
    generation_that_does_not_stop: |b| b.json("tokenizer/generation_config.json", |g| {
        g["eos_token_id"] = json!(1);
    }) => ["tokenizer.generation-stops"];

    no_template_at_all: |b| {
        b.remove(TEMPLATE);
        b.json(CONFIG, |config| { config.as_object_mut().unwrap().remove("chat_template"); });
    } => ["tokenizer.chat-template"];
    no_template_and_eos_left: |b| {
        b.remove(TEMPLATE);
        b.write(CONFIG, r#"{"bos_token": "<bos>", "eos_token": "<eos>"}"#);
    } => ["tokenizer.chat-template", "tokenizer.eos-token"];
    template_not_inlined: |b| b.json(CONFIG, |config| {
        config.as_object_mut().unwrap().remove("chat_template");
    }) => ["tokenizer.template-not-inlined"];
    template_inlined_only: |b| b.remove(TEMPLATE) => ["tokenizer.incomplete"];
    other_template_inlined: |b| b.json(CONFIG, |config| config["chat_template"] = json!("{{ messages }}")) =>
        ["tokenizer.template-differs"];
    template_with_a_syntax_error: |b| set_template(b, "{% for m in messages %}") =>
        ["tokenizer.template-broken"];
    template_without_an_end_token: |b| set_template(b, "{% for m in messages %}{{ m.content }}\n{% endfor %}") =>
        ["tokenizer.template-broken"];
    template_that_ends_turns_otherwise: |b| {
        set_template(b, "{% for m in messages %}{{ m.content }}<eos>{% endfor %}");
    } => ["tokenizer.eos-token", "tokenizer.eos-token-map"];
}
