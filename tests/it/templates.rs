//! Chat templates that ask for more stack, memory or time than there is: they are findings and errors, and never end the command.

use std::fs;
use std::mem::MaybeUninit;

use crate::common::{Dir, text};
use fixtures::data;
use serde_json::Value;

/// Most bytes that any process of a test may take.
const MEMORY: u64 = 1 << 30;

/// Sizes of a class of templates. The last is more than templates may have.
const SIZES: [usize; 4] = [10, 1_000, 30_000, 300_000];

/// Checks a bundle that has this template; returns what is found about it.
fn finding(dir: &Dir, template: &str) -> Option<String> {
    fs::write(dir.path("bundle/tokenizer/chat_template.jinja"), template).unwrap();
    let output = dir.command(&["check", "bundle", "--quick", "--json"]).output().unwrap();
    let shown: String = template.chars().take(60).collect();
    assert!(
        matches!(output.status.code(), Some(0 | 1)),
        "{shown}: {:?} {}",
        output.status,
        text(&output.stderr)
    );
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["id"] == "tokenizer.template-broken")?;
    let what = found["what"].as_str().unwrap().to_owned();
    assert!(what.len() < 5_000, "{shown}: {} bytes", what.len());
    Some(what)
}

fn bundle() -> Dir {
    let dir = Dir::new();
    fs::create_dir_all(dir.path("bundle/tokenizer")).unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        fs::copy(data::tiny_checkpoint().join(name), dir.path("bundle/tokenizer").join(name)).unwrap();
    }
    dir
}

/// The largest memory of any process that this one has waited for, in bytes.
fn largest_process() -> u64 {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the call fills a structure that is all integers.
    let usage = unsafe {
        assert_eq!(libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()), 0);
        usage.assume_init()
    };
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    usage.ru_maxrss as u64 * unit
}

/// Checks templates of a class in every given size; none may end the command or take too many resources.
fn survive(classes: &[(&str, &dyn Fn(usize) -> String)], sizes: &[usize]) {
    let dir = bundle();
    for (class, make) in classes {
        for size in sizes {
            let template = make(*size);
            let found = finding(&dir, &template);
            // None of them renders a conversation. A file of more than a megabyte is not read in the first place.
            assert!(found.is_some() || template.len() > 1 << 20, "{class} of {size}");
            if let Some(found) = found.filter(|_| template.len() > 256 << 10) {
                assert!(found.contains("exceeds the limit of 262144 bytes"), "{class} of {size}: {found}");
            }
        }
    }
    assert!(largest_process() < MEMORY, "{} bytes", largest_process());
}

#[test]
fn expressions_that_nest() {
    survive(
        &[
            ("not", &|n| format!("{{{{ {}a }}}}", "not ".repeat(n))),
            ("filters", &|n| format!("{{{{ a{} }}}}", "|upper".repeat(n))),
            ("attributes", &|n| format!("{{{{ messages{} }}}}", ".b".repeat(n))),
            ("sums", &|n| format!("{{{{ 1{} }}}}", "+1".repeat(n))),
            ("minus", &|n| format!("{{{{ {}1 }}}}", "-".repeat(n))),
            ("items", &|n| format!("{{{{ messages{} }}}}", "[0]".repeat(n))),
            ("calls", &|n| format!("{{{{ messages{} }}}}", "()".repeat(n))),
            ("parentheses", &|n| format!("{{{{ {}1{} }}}}", "(".repeat(n), ")".repeat(n))),
            ("lists", &|n| format!("{{{{ {}{} }}}}", "[".repeat(n), "]".repeat(n))),
            ("maps", &|n| format!("{{{{ {}1{} }}}}", "{1:".repeat(n), "}".repeat(n))),
            ("else", &|n| format!("{{{{ {}1 }}}}", "1 if 0 else ".repeat(n))),
            ("powers", &|n| format!("{{{{ 1{} }}}}", "**1".repeat(n))),
            ("tests", &|n| format!("{{{{ 1{} }}}}", " is not none".repeat(n))),
            ("unclosed", &|n| "{{ (".repeat(n)),
        ],
        &SIZES,
    );
}

#[test]
fn statements_that_nest() {
    survive(
        &[
            ("if", &|n| "{% if 1 %}".repeat(n) + &"{% endif %}".repeat(n)),
            ("elif", &|n| format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(n))),
            ("for", &|n| "{% for i in [1] %}".repeat(n) + &"{% endfor %}".repeat(n)),
            ("targets", &|n| format!("{{% for {}a{} in [] %}}{{% endfor %}}", "(".repeat(n), ")".repeat(n))),
            ("set", &|n| format!("{{% set a{} = 1 %}}", ".b".repeat(n))),
            ("filter", &|n| format!("{{% filter upper{} %}}{{% endfilter %}}", "|upper".repeat(n))),
            ("macros", &|n| "{% macro a() %}".repeat(n) + &"{% endmacro %}".repeat(n)),
            ("recursive macro", &|n| {
                format!("{{% macro a() %}}{}{{% endmacro %}}{{{{ a() }}}}", "{{ a() }}".repeat(n))
            }),
            ("recursive loop", &|n| {
                format!("{{% for i in [1] recursive %}}{}{{% endfor %}}", "{{ loop([1]) }}".repeat(n))
            }),
        ],
        &SIZES,
    );
}

#[test]
fn values_that_grow() {
    survive(
        &[
            ("join", &|n| format!("{{{{ range(100000)|join('x'*{n}) }}}}")),
            ("join method", &|n| format!("{{{{ ('x'*{n}).join(range(100000)) }}}}")),
            ("replace", &|n| format!("{{{{ ('x'*{n})|replace('x', 'y'*{n}) }}}}")),
            ("replace method", &|n| format!("{{{{ ('x'*{n}).replace('x', 'y'*{n}) }}}}")),
            ("split", &|n| format!("{{{{ ('x'*{n}*100).split('x')|length }}}}")),
            ("indented JSON", &|n| format!("{{{{ [[[1]]]|tojson(indent={n}000000) }}}}")),
            ("indent", &|n| format!("{{{{ 'a\nb'|indent({n}000000) }}}}")),
            ("format", &|n| format!("{{{{ '{{:>{n}0000000}}'.format(1) }}}}")),
            ("percent", &|n| format!("{{{{ '%{n}0000000d'|format(1) }}}}")),
            ("repeated", &|n| format!("{{{{ 'x'*{n}00000000 }}}}")),
            ("batch", &|n| format!("{{{{ range(10)|batch({n}00000000, 1)|list }}}}")),
            ("slice", &|n| format!("{{{{ range(10)|slice({n}00000000)|list }}}}")),
            ("strings", &|n| {
                format!(
                    "{{% set n=namespace(s='x') %}}{{% for i in range({n}) %}}{{% set n.s=n.s~n.s %}}{{% endfor %}}"
                )
            }),
            ("lists", &|n| {
                format!(
                    "{{% set n=namespace(s=[1]) %}}{{% for i in range({n}) %}}{{% set n.s=n.s+n.s %}}{{% endfor %}}"
                )
            }),
        ],
        &[50, 100_000],
    );
}

/// Values that hold each other: printing or comparing them takes a level of stack each.
#[test]
fn values_that_nest() {
    let nested = |n: usize, last: &str| {
        format!(
            "{{% set n=namespace(a=[1], b=[1]) %}}{{% for i in range({n}) %}}\
             {{% set n.a=[[[[n.a]]]] %}}{{% set n.b=[[[[n.b]]]] %}}{{% endfor %}}{{{{ {last} }}}}"
        )
    };
    let last = ["n.a", "n.a|tojson", "n.a==n.b", "[n.a, n.b]|sort", "1"];
    let dir = bundle();
    for last in last {
        for size in [1_000, 20_000] {
            assert!(finding(&dir, &nested(size, last)).is_some(), "{last}");
        }
    }
    let (open, close) = ("[".repeat(40), "]".repeat(40));
    let deepest = format!(
        "{{% set n=namespace(a=[1]) %}}{{% for i in range(300) %}}{{% for j in range(100) %}}\
         {{% set n.a={open}n.a{close} %}}{{% endfor %}}{{% endfor %}}{{{{ n.a }}}}"
    );
    let found = finding(&dir, &deepest).unwrap();
    assert!(found.contains("exceeds the limit of 256 MiB of stack: it nests too deeply"), "{found}");
    assert!(largest_process() < MEMORY, "{} bytes", largest_process());
}

/// Only a limit on time ends this: 64 lists, each of which holds the one before twice, are few values with 2^64 paths through them.
#[test]
fn endless_work() {
    let dir = bundle();
    for last in ["n.a|tojson", "n.a==n.b", "n.a~''"] {
        let template = format!(
            "{{% set n=namespace(a=[], b=[]) %}}{{% for i in range(64) %}}\
             {{% set n.a=[n.a, n.a] %}}{{% set n.b=[n.b, n.b] %}}{{% endfor %}}{{{{ {last} }}}}"
        );
        let found = finding(&dir, &template).unwrap();
        assert!(found.contains("the chat template exceeds the limit of "), "{last}: {found}");
    }
    assert!(largest_process() < MEMORY, "{} bytes", largest_process());
}

/// The two templates that took down earlier versions, in every command that renders.
#[test]
fn commands_that_render() {
    let dir = bundle();
    for name in ["doubling.jinja", "join.jinja"] {
        let template = fs::read_to_string(data::folder().join("templates").join(name)).unwrap();
        let found = finding(&dir, &template).unwrap();
        assert!(found.contains("the chat template exceeds the limit of "), "{name}: {found}");
    }
    let checkpoint = dir.path("checkpoint");
    fs::create_dir(&checkpoint).unwrap();
    for entry in fs::read_dir(data::tiny_checkpoint()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), checkpoint.join(entry.file_name())).unwrap();
    }
    fs::write(checkpoint.join("chat_template.jinja"), "{{ ('x'*100000).join(range(100000)) }}").unwrap();
    for arguments in [&["convert", "checkpoint", "-o", "out"][..], &["oracle", "checkpoint", "--chat", "Hi"]]
    {
        let error = dir.fails(arguments);
        assert!(error.contains("the chat template exceeds the limit of 128 MiB of memory"), "{error}");
    }
    assert!(!dir.path("out").exists() && !dir.path("oracle.json").exists());
    assert!(largest_process() < MEMORY, "{} bytes", largest_process());
}

/// What is rendered in the separate process is returned byte for byte.
#[test]
fn valid_templates_pass() {
    let dir = bundle();
    let template = fs::read_to_string(data::tiny_checkpoint().join("chat_template.jinja")).unwrap();
    assert_eq!(finding(&dir, &template), None);
    let odd = "{% for m in messages %}{{ '\\u0000\\u001b\\n\\\"\\\\' }}é\u{2028}{{ m.content }} <turn|>{% endfor %}";
    assert_eq!(finding(&dir, odd), None);
}
