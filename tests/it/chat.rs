//! `run` as a chat: history, what is fed, limits, draws, stop texts, tools, and the commands on a terminal.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{BufReader, Read, Write};
use std::os::fd::FromRawFd;
use std::process::{Output, Stdio};

use crate::common::{Dir, text, tiny};
use coreai_bundle::chat::{Chat, ChatOptions, TooLong};
use coreai_bundle::parts::interpreter::Rounding;
use coreai_bundle::parts::oracle::generate::End;
use coreai_bundle::parts::oracle::sampling::Sampling;
use coreai_bundle::parts::packer::template::Conversation;
use coreai_bundle::runnable::Runnable;
use serde_json::{Value, json};

const BUNDLE: &str = "out/gemma4_e4b_qat_decode_int4lin";

/// A template with tools, in the form of Gemma 4's.
const TOOLS: &str = "{{ bos_token }}{% if tools %}<|turn>system\n{% for t in tools %}{{ t.function.name }}{% endfor %}<turn|>\n{% endif %}\
    {% for m in messages %}<|turn>{{ m['role'] }}\n{% if m.content is mapping %}{% for k, v in m.content|dictsort %}{{ k }}={{ v }}{% endfor %}\
    {% else %}{{ m['content'] }}{% endif %}{% for c in m.tool_calls or [] %}<call>{{ c.function.name }}{% endfor %}<turn|>\n{% endfor %}\
    {% if add_generation_prompt %}<|turn>model\n{% endif %}";

/// A template in which answers look like what the model continues, as in Gemma 4's: that of the tiny checkpoint calls the roles
/// differently.
const TURNS: &str = "{{ bos_token }}{% for m in messages %}<|turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n\
    {{ m['content'] }}<turn|>\n{% endfor %}{% if add_generation_prompt %}<|turn>model\n{% endif %}";

fn converted() -> Dir {
    let dir = Dir::new();
    dir.ok(&["convert", &tiny(), "-o", "out", "--variant", "stock", "--no-report"]);
    let made = dir.names("out").into_iter().find(|name| name.contains("decode")).unwrap();
    if made != BUNDLE.trim_start_matches("out/") {
        fs::rename(dir.path("out").join(made), dir.path(BUNDLE)).unwrap();
    }
    fs::write(dir.path(BUNDLE).join("tokenizer/chat_template.jinja"), TURNS).unwrap();
    dir
}

fn options(tokens: usize) -> ChatOptions {
    let (sampling, stops) = (Sampling::GREEDY, Vec::new());
    ChatOptions { system: None, tools: None, sampling, tokens, stops, special: true }
}

fn open(dir: &Dir, options: ChatOptions) -> anyhow::Result<Chat<'static>> {
    let bundle = dir.path(BUNDLE);
    let runnable = Runnable { bundle, tables: None, rounding: Rounding::Once, chunk: None };
    Chat::open(&runnable, options, &Conversation::render)
}

fn say(chat: &mut Chat<'_>, user: &str) -> coreai_bundle::chat::Answer {
    chat.say(user, &|| false, &mut |_| {}).unwrap()
}

#[test]
fn only_new_tokens_are_fed_and_the_answers_are_those_of_feeding_all() {
    let dir = converted();
    let mut chat = open(&dir, options(6)).unwrap();
    let first = say(&mut chat, "Count up: 1, 2, 3,");
    assert_eq!(first.generated.prompt_tokens, first.prompt_tokens);
    let second = say(&mut chat, "And the days?");
    assert!(second.generated.prompt_tokens < second.prompt_tokens - first.prompt_tokens + 2);
    assert_eq!(chat.messages().len(), 4);
    assert!(chat.statistics().held > second.prompt_tokens && chat.statistics().context == Some(4096));

    // The same tokens, fed to empty caches.
    let mut other = open(&dir, options(6)).unwrap();
    let before = say(&mut other, "Something else");
    assert!(!before.generated.ids.is_empty());
    other.reset();
    assert_eq!(other.statistics().held, 0);
    assert_eq!(say(&mut other, "Count up: 1, 2, 3,").generated.ids, first.generated.ids);
    assert_eq!(say(&mut other, "And the days?").generated.ids, second.generated.ids);

    other.set_system(Some("Be short.".to_owned()));
    let mut instructed =
        open(&dir, ChatOptions { system: Some("Be short.".to_owned()), ..options(6) }).unwrap();
    assert_eq!(say(&mut other, "Days?").generated.ids, say(&mut instructed, "Days?").generated.ids);
}

/// Templates may change what was said before, as Gemma 4's leaves out what the model thought.
#[test]
fn only_what_a_template_changed_is_fed_again() {
    let dir = converted();
    let forgetful = TURNS
        .replace("{{ m['content'] }}", "{{ m['content'] if loop.last or m['role'] == 'user' else '...' }}");
    fs::write(dir.path(BUNDLE).join("tokenizer/chat_template.jinja"), forgetful).unwrap();
    let mut chat = open(&dir, options(6)).unwrap();
    say(&mut chat, "Count up: 1, 2, 3,");
    let second = say(&mut chat, "And the days?");
    let asked = "<|turn>user\nCount up: 1, 2, 3,<turn|>\n<|turn>model\n";
    let whole = format!("<bos>{asked}...<turn|>\n<|turn>user\nAnd the days?<turn|>\n<|turn>model\n");
    let alone = open(&dir, options(6)).unwrap().complete(&whole, &|| false, &mut |_| {}).unwrap();
    assert_eq!((second.prompt_tokens, &second.generated.ids), (alone.prompt_tokens, &alone.generated.ids));
    let kept =
        open(&dir, options(1)).unwrap().complete(&format!("<bos>{asked}"), &|| false, &mut |_| {}).unwrap();
    assert_eq!(second.generated.prompt_tokens, second.prompt_tokens - kept.prompt_tokens);
}

#[test]
fn an_answer_that_is_interrupted_stays_and_one_that_never_began_does_not() {
    let dir = converted();
    let mut chat = open(&dir, options(20)).unwrap();
    let cut = chat.say("Days?", &|| true, &mut |_| {}).unwrap();
    assert!(cut.was_cut_off_at_once() && chat.messages().is_empty());
    let pieces = Cell::new(0);
    let answer = chat.say("Days?", &|| pieces.get() == 3, &mut |_| pieces.set(pieces.get() + 1)).unwrap();
    assert_eq!(answer.generated.stop_reason, End::Interrupted);
    assert_eq!(chat.messages()[1], json!({"role": "assistant", "content": answer.generated.text}));
    let next = say(&mut chat, "Go on");
    assert!(next.generated.prompt_tokens < next.prompt_tokens, "the answer is not read again");
}

#[test]
fn a_stop_text_ends_an_answer_and_is_not_shown_where_it_spans_tokens() {
    let dir = converted();
    let whole = say(&mut open(&dir, options(24)).unwrap(), "Count up: 1, 2, 3,").generated.text;
    let starts: Vec<usize> = whole.char_indices().map(|(at, _)| at).collect();
    for (from, to) in [(4, 7), (8, 15), (1, 2)] {
        let stop = whole[starts[from]..starts[to]].to_owned();
        let mut chat =
            open(&dir, ChatOptions { stops: vec!["absent".to_owned(), stop.clone()], ..options(24) })
                .unwrap();
        let mut shown = String::new();
        let answer = chat.say("Count up: 1, 2, 3,", &|| false, &mut |piece| shown.push_str(piece)).unwrap();
        assert_eq!(answer.generated.stop_reason, End::StopText, "{stop:?}");
        assert_eq!(shown, whole[..whole.find(&stop).unwrap()]);
        assert_eq!((&shown, &answer.generated.text), (&answer.generated.text, &shown));
        say(&mut chat, "Go on");
    }
}

#[test]
fn the_context_is_a_limit() {
    let dir = converted();
    let path = dir.path(BUNDLE).join("metadata.json");
    let mut metadata: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    metadata["language"]["max_context_length"] = 40.into();
    fs::write(&path, metadata.to_string()).unwrap();
    let mut chat = open(&dir, options(200)).unwrap();
    let error = chat.say(&"long ".repeat(60), &|| false, &mut |_| {}).unwrap_err();
    assert_eq!(error.downcast_ref::<TooLong>().unwrap().context, 40);
    assert_eq!((chat.messages().len(), chat.statistics().held), (0, 0));
    let answer = say(&mut chat, "Count: 1, 2,");
    if answer.generated.stop_reason == End::Context {
        assert_eq!((chat.statistics().held, answer.prompt_tokens + answer.generated.ids.len()), (40, 41));
    } else {
        assert_eq!(answer.generated.stop_reason, End::StopToken);
    }
    let refused = dir.fails(&["run", BUNDLE, "--prompt", &"long ".repeat(60)]);
    assert!(refused.contains("tokens, and the bundle's context is 40"), "{refused}");
}

#[test]
fn tools_are_for_templates_that_have_them() {
    let dir = converted();
    let tools = json!([{"type": "function", "function": {"name": "weather"}}]);
    fs::write(dir.path("tools.json"), tools.to_string()).unwrap();
    fs::write(dir.path("object.json"), "{}").unwrap();
    let run = |file: &str| dir.fails(&["run", BUNDLE, "--prompt", "x", "--tools", file]);
    assert!(run("tools.json").contains("no place for tools"));
    assert!(run("object.json").contains("give a JSON list of tool definitions"));
    fs::write(dir.path(BUNDLE).join("tokenizer/chat_template.jinja"), TOOLS).unwrap();
    let mut chat = open(&dir, ChatOptions { tools: Some(tools), ..options(4) }).unwrap();
    let with = say(&mut chat, "Days?").prompt_tokens;
    assert!(with > say(&mut open(&dir, options(4)).unwrap(), "Days?").prompt_tokens);
    let result = json!({"days": 2});
    let error = chat.give_result("weather", &result, &|| false, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("waits for no result"), "{error}");
    assert_eq!(chat.messages().len(), 2);
}

#[test]
fn scripts_draw_tokens_and_give_prompts_through_pipes() {
    let dir = converted();
    let draw = |seed: &str| {
        let drawn = ["--temperature", "1.5", "--top-k", "40", "--top-p", "0.95", "--seed", seed];
        dir.json(&[&["run", BUNDLE, "--prompt", "Days?", "-n", "12", "--json"], &drawn[..]].concat())
    };
    let (one, again, other) = (draw("1"), draw("1"), draw("2"));
    assert_eq!(one["generated"]["ids"], again["generated"]["ids"]);
    assert_ne!(one["generated"]["ids"], other["generated"]["ids"]);
    assert_eq!(one["seed"], 1);
    assert!(["tokens", "stop_token"].contains(&one["generated"]["stop_reason"].as_str().unwrap()));
    for (wrong, said) in [
        (&["--temperature", "-1"][..], "temperature"),
        (&["--temperature=NaN"], "between 0 and 100"),
        (&["--temperature=1", "--top-p=0"], "at most 1"),
        (&["--temperature=1", "--top-k=0"], "--top-k"),
        (&["--top-k=3"], "--temperature"),
        (&["--stop="], "at least one character"),
    ] {
        let refused = dir.fails(&[&["run", BUNDLE, "--prompt", "x"], wrong].concat());
        assert!(refused.contains(said), "{wrong:?}: {refused}");
    }
    let expected = dir.ok(&["run", BUNDLE, "--prompt", "Days?", "-n", "5"]);
    let piped = fed(&dir, &["run", BUNDLE, "-n", "5"], b"Days?\n");
    assert_eq!(text(&piped.stdout), expected);
    assert!(text(&fed(&dir, &["run", BUNDLE], b"\xff").stderr).contains("not UTF-8"));
}

fn fed(dir: &Dir, arguments: &[&str], input: &[u8]) -> Output {
    let mut command = dir.command(arguments);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

/// A terminal: what is written to the first end is typed at the second.
fn terminal() -> (File, File) {
    let (mut first, mut second) = (0, 0);
    let null = std::ptr::null_mut();
    // SAFETY: both places are valid, and no name, settings or size are asked for; the descriptors belong to the files.
    unsafe {
        assert_eq!(libc::openpty(&raw mut first, &raw mut second, null, null.cast(), null.cast()), 0);
        (File::from_raw_fd(first), File::from_raw_fd(second))
    }
}

#[test]
fn a_conversation_on_a_terminal() {
    let dir = converted();
    let (mut keyboard, stdin) = terminal();
    let typed = "/help\n/nothing\nDays?\n/stats\n/reset\n/stats\n/system Be short.\n/tool x {\n\nCount: 1, 2,\n/quit\n";
    keyboard.write_all(typed.as_bytes()).unwrap();
    let mut command = dir.command(&["run", BUNDLE, "-n", "3"]);
    let output = command.stdin(stdin).output().unwrap();
    let (out, said) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}");
    let mut chat = open(&dir, options(3)).unwrap();
    let mut expected = say(&mut chat, "Days?").generated.text + "\n";
    let held = chat.statistics().held;
    chat.set_system(Some("Be short.".to_owned()));
    expected.push_str(&(say(&mut chat, "Count: 1, 2,").generated.text + "\n"));
    assert_eq!(out, expected);
    for part in [
        "there is no command /nothing; there are:",
        &format!("{held} of 4096 tokens in the context"),
        "0 of 4096 tokens in the context",
        "a new conversation begins, with these instructions",
        "the result of x is not JSON",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }

    let (mut keyboard, stdin) = terminal();
    keyboard.write_all(b"\x04").unwrap();
    assert!(dir.command(&["run", BUNDLE]).stdin(stdin).output().unwrap().status.success(), "Ctrl-D ends it");
    let (_keyboard, stdin) = terminal();
    let refused = dir.command(&["run", BUNDLE, "--raw"]).stdin(stdin).output().unwrap();
    assert!(text(&refused.stderr).contains("--raw and --json answer one prompt"));
}

#[test]
fn results_of_tools_are_typed() {
    let dir = converted();
    let (mut keyboard, stdin) = terminal();
    keyboard.write_all(b"Days?\n/tool calendar {\"days\": 7}\n/quit\n").unwrap();
    let output = dir.command(&["run", BUNDLE, "-n", "3"]).stdin(stdin).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let mut chat = open(&dir, options(3)).unwrap();
    let first = say(&mut chat, "Days?").generated.text;
    let second = chat.give_result("calendar", &json!({"days": 7}), &|| false, &mut |_| {}).unwrap();
    assert_eq!(chat.messages()[2], json!({"role": "tool", "name": "calendar", "content": {"days": 7}}));
    assert_eq!(text(&output.stdout), format!("{first}\n{}\n", second.generated.text));
}

#[test]
fn ctrl_c_ends_an_answer_and_at_the_prompt_the_program() {
    let dir = converted();
    let (mut keyboard, stdin) = terminal();
    let mut command = dir.command(&["run", BUNDLE, "-n", "4000"]);
    let mut child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let id = child.id().cast_signed();
    // SAFETY: the child is not waited for yet, so its number is not another process's.
    let interrupt = || assert_eq!(unsafe { libc::kill(id, libc::SIGINT) }, 0);
    keyboard.write_all(b"Count up: 1, 2, 3,\n").unwrap();
    // The answer has begun.
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    interrupt();
    let mut said = BufReader::new(child.stderr.as_mut().unwrap());
    let mut read_to = |end: &str| {
        let mut seen = Vec::new();
        while !text(&seen).ends_with(end) {
            let mut byte = [0];
            said.read_exact(&mut byte).unwrap_or_else(|_| panic!("no {end:?} in {}", text(&seen)));
            seen.push(byte[0]);
        }
    };
    read_to("(interrupted)\n> ");
    interrupt();
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn lines_are_edited_kept_if_typed_ahead_and_come_back_with_the_arrow_keys() {
    let dir = converted();
    let (mut keyboard, screen) = terminal();
    // The second line is the first one again, and the third loses a character.
    keyboard.write_all(b"/stats\r\x1b[A\r/quitx\x7f\r").unwrap();
    let mut command = dir.command(&["run", BUNDLE]);
    command.env("TERM", "xterm").stdin(screen.try_clone().unwrap()).stdout(screen);
    let output = command.stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches("0 of 4096 tokens in the context").count(), 2, "{said}");
}
