//! Hostile strings through each door, judged by independent parsers.

#![allow(clippy::unwrap_used)] // helpers of tests are not seen as tests

use proptest::prelude::*;
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use text::{markup, terminal};
use yaml_rust2::{Yaml, YamlLoader};

/// What attackers and accidents produce.
const HOSTILE: [&str; 30] = [
    "",
    " ",
    "a\nlicense: mit",
    "x\n---\n# owned",
    "a: b",
    "- a",
    "[a, b]",
    "{a: b}",
    "# a",
    "*a",
    "&a b",
    "!!python/object:x",
    "yes",
    "0x1f",
    "1e3",
    "'",
    "\"",
    "\\",
    "%",
    "\u{1b}]0;title\u{7}",
    "\u{1b}[2J\u{1b}[31mred",
    "\r\u{8}\u{7f}\u{9b}31m",
    "a\u{202e}b\u{2066}c\u{2028}d\u{feff}",
    "[x](javascript:alert(1))",
    "<script>alert(1)</script>",
    "![x](http://tracker/x.png) https://a.b www.a.b a@b.c",
    "| a | b |",
    "` `` a",
    "1) x **y** __z__ ~~w~~ &lt; \\",
    "\u{e0001}\u{1f600}\u{fffe}\u{85}\u{a0}",
];

fn parsed(yaml: &str) -> Yaml {
    let mut documents = YamlLoader::load_from_str(yaml).unwrap_or_else(|error| panic!("{error}: {yaml}"));
    assert_eq!(documents.len(), 1, "{yaml}");
    documents.remove(0)
}

fn yaml_round_trips(text: &str) {
    let value = parsed(&format!("before: 1\nfield: {}\nafter: 2\n", markup::yaml(text)));
    assert_eq!(value["field"].as_str(), Some(text));
    assert!(value.as_hash().is_some_and(|fields| fields.len() == 3), "{value:?}");
}

/// Text and code of a document with one table; anything else in it is an error.
fn cells(markdown: &str) -> Vec<String> {
    let mut cells = Vec::new();
    let options =
        Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_GFM | Options::ENABLE_MATH;
    for event in Parser::new_ext(markdown, options) {
        match event {
            Event::Start(Tag::TableCell) => cells.push(String::new()),
            Event::Text(text) | Event::Code(text) => match cells.last_mut() {
                Some(cell) => cell.push_str(&text),
                None => panic!("text outside a cell in {markdown:?}"),
            },
            Event::Start(Tag::Table(_) | Tag::TableHead | Tag::TableRow)
            | Event::End(TagEnd::Table | TagEnd::TableHead | TagEnd::TableRow | TagEnd::TableCell) => {}
            other => panic!("{other:?} in {markdown:?}"),
        }
    }
    cells
}

fn markdown_is_text(text: &str) {
    let table = format!("| a | b |\n| - | - |\n| {} | {} |\n", markup::inline(text), markup::code(text));
    let cells = cells(&table);
    let shown = terminal::word(text).to_string();
    assert_eq!(cells[..2], ["a", "b"], "{table}");
    assert_eq!(cells[2].trim(), shown.trim(), "{table}");
    assert_eq!(cells[3].trim(), shown.trim(), "{table}");
    assert_eq!(cells.len(), 4, "{table}");
}

/// Headings and list items are where markup at the start of a line counts.
fn markdown_is_text_at_the_start(text: &str) {
    for (front, is_item) in [("# ", false), ("- ", true)] {
        let mut found = String::new();
        for event in Parser::new_ext(&format!("{front}{}\n", markup::inline(text)), Options::ENABLE_TABLES) {
            match event {
                Event::Text(text) => found.push_str(&text),
                Event::Start(Tag::Heading { .. }) | Event::End(TagEnd::Heading(_)) if !is_item => {}
                Event::Start(Tag::List(None) | Tag::Item)
                | Event::End(TagEnd::List(false) | TagEnd::Item)
                    if is_item => {}
                other => panic!("{other:?} for {text:?}"),
            }
        }
        assert_eq!(found.trim(), terminal::word(text).to_string().trim());
    }
}

fn has_hidden(text: &str) -> bool {
    text.chars().any(terminal::is_hidden)
}

fn terminal_is_clean(text: &str) {
    assert!(!has_hidden(&terminal::word(text).to_string()));
    assert!(!has_hidden(&terminal::lines(text).replace(['\n', '\t'], "")));
    let prose = terminal::prose(text);
    assert!(prose.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\t')));
    assert!(!prose.contains(|c| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')));
}

#[test]
fn hostile_texts_stay_text() {
    for text in HOSTILE {
        yaml_round_trips(text);
        markdown_is_text(text);
        markdown_is_text_at_the_start(text);
        terminal_is_clean(text);
    }
}

#[test]
fn emoji_and_other_scripts_are_prose() {
    let family = "👩\u{200d}👩\u{200d}👧 می\u{200c}خواهم\tx\n";
    assert_eq!(terminal::prose(family), family);
    assert_eq!(terminal::word("👩\u{200d}👧").to_string(), r"👩\u{200d}👧");
}

#[test]
fn json_stays_json() {
    let text = "{\"a\u{7f}\":\"\u{9b}\u{202e}\u{e0001}é\"}";
    assert_eq!(terminal::json(text), r#"{"a\u007f":"\u009b\u202e\udb40\udc01é"}"#);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_stays_text(
        text in prop::collection::vec(
            prop_oneof![any::<char>(), prop::sample::select("\n\t\x1b`*_[]()<>|#-+.!&\\:\"'~ w1/@$".chars().collect::<Vec<_>>())],
            0..40,
        )
    ) {
        let text: String = text.into_iter().collect();
        yaml_round_trips(&text);
        markdown_is_text(&text);
        markdown_is_text_at_the_start(&text);
        terminal_is_clean(&text);
    }
}
