//! `oracle`, `gate`, `run` and `convert --gate`, as a user types them, on the tiny checkpoint.

use std::fs;
use std::path::PathBuf;

use crate::common::{Dir, text, tiny, tree};
use serde_json::Value;

const BUNDLE: &str = "out/gemma4_e4b_qat_decode_int4lin";

/// A folder with a bundle of the tiny checkpoint by that rule, in the place of [`BUNDLE`], and its tables.
fn converted(rule: &str) -> Dir {
    let dir = Dir::new();
    dir.ok(&["convert", &tiny(), "-o", "out", "--variant", "both", "--head", "int4", "--rule", rule]);
    if rule == "absmax" {
        for variant in ["", "_tbl"] {
            let made = format!("{}{variant}", BUNDLE.replace("int4lin", "int4absmax"));
            fs::rename(dir.path(&made), dir.path(&format!("{BUNDLE}{variant}"))).unwrap();
        }
    }
    dir
}

fn stored_oracle(name: &str) -> String {
    fixtures::data::tiny_checkpoint().join(name).to_str().unwrap().to_owned()
}

fn read_json(path: PathBuf) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn an_oracle_holds_typed_prompts_and_warns_about_ties() {
    let dir = Dir::new();
    fs::write(dir.path("prompts.txt"), "The alphabet: A B C D E F G\n\nDays: Monday, Tuesday,\n").unwrap();
    let arguments = [
        "oracle",
        &tiny(),
        "--prompt",
        "Count up: 1, 2,",
        "--chat",
        "Days?",
        "--prompts",
        "prompts.txt",
        "-n",
        "3",
    ];
    let output = dir.command(&arguments).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("have a margin under 0.1 and do not count for the gate"));
    let made = read_json(dir.path("oracle.json"));
    let cases = made["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 4);
    assert!(cases[1]["prompt"].as_str().unwrap().contains("<|turn>user\nDays?"));
    assert!(cases.iter().all(|case| case["generated_ids"].as_array().unwrap().len() == 3));
    assert_eq!(made["checkpoint"]["fingerprint"].as_str().unwrap().len(), 64);
    assert!(dir.fails(&arguments).contains("--force"), "an oracle is not overwritten unasked");
    fs::write(dir.path("empty.txt"), "\n").unwrap();
    assert!(dir.fails(&["oracle", &tiny(), "--prompts", "empty.txt", "-o", "b.json"]).contains("no prompt"));
    assert_eq!(dir.names("."), ["empty.txt", "oracle.json", "prompts.txt"]);
}

/// The same file, whoever makes it: transformers' own sequences are reproduced.
#[test]
fn the_oracle_says_what_transformers_said() {
    let dir = Dir::new();
    let stored = read_json(stored_oracle("oracle.json").into());
    let cases = stored["cases"].as_array().unwrap();
    let prompts: Vec<&str> = cases.iter().map(|case| case["prompt"].as_str().unwrap()).collect();
    let tokens = cases[0]["generated_ids"].as_array().unwrap().len().to_string();
    let source = tiny();
    let mut arguments = vec!["oracle", &source, "-n", &tokens];
    prompts.iter().for_each(|prompt| arguments.extend(["--prompt", prompt]));
    dir.ok(&arguments);
    let made = read_json(dir.path("oracle.json"));
    for (made, stored) in made["cases"].as_array().unwrap().iter().zip(cases) {
        for list in ["prompt_ids", "generated_ids", "teacher_forced_argmax", "text"] {
            assert_eq!(made[list], stored[list], "{list} of {}", stored["prompt"]);
        }
    }
}

#[test]
fn both_variants_pass_with_the_tables_found_beside_them() {
    let dir = converted("lattice");
    for bundle in [BUNDLE.to_owned(), format!("{BUNDLE}_tbl")] {
        let out = dir.ok(&["gate", &bundle, "--oracle", &stored_oracle("oracle.json")]);
        assert!(out.contains("gate passed: 182 of 182 qualified positions agree"), "{out}");
    }
    let arguments =
        ["--oracle", &stored_oracle("oracle.json"), "--checkpoint", &tiny(), "--layers", "--json"];
    let report = dir.json(&[["gate", BUNDLE].as_slice(), &arguments, &["--probe", "probe.json"]].concat());
    assert_eq!(report["passed"], true);
    assert_eq!(report["causes"], Value::Array(Vec::new()));
    assert_eq!(report["layers"]["layers"].as_array().unwrap().len(), 12);
    assert_eq!(report["layers"]["first_departing"], Value::Null);
    let exact: Vec<(&str, bool)> = report["exactness"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| (part["part"].as_str().unwrap(), part["weights"] == part["weights_exact"]))
        .collect();
    let expected = [
        ("embedding", true),
        ("per-layer table", false),
        ("per-layer inputs", true),
        ("norms and factors", true),
        ("attention", true),
        ("MLP", true),
        ("head", true),
    ];
    assert_eq!(exact, expected);
    let probe = read_json(dir.path("probe.json"));
    assert_eq!(probe["generated_ids"].as_array().unwrap().len(), 24);
    let stored = read_json(stored_oracle("oracle.json").into());
    assert_eq!(probe["prompt_ids"], stored["cases"][0]["prompt_ids"]);
    let continued = stored["cases"][0]["generated_ids"].as_array().unwrap();
    assert_eq!(probe["generated_ids"].as_array().unwrap()[..continued.len()], continued[..]);
}

/// Over the 493 positions of the longer sequence the lattice is at least ten times nearer to the checkpoint than the rule that
/// ignores it; the numbers are in `docs/oracle.md`.
/// A `prefill` of fixed width has logits at all positions; what does not fill a call goes through `main`.
#[test]
fn a_bundle_with_a_prefill_of_fixed_width_says_the_same() {
    let dir = Dir::new();
    dir.ok(&["convert", &tiny(), "-o", "out", "--variant", "tbl", "--head", "int4", "--prefill", "8"]);
    let (bundle, oracle) = (format!("{BUNDLE}_tbl"), stored_oracle("oracle.json"));
    let printed = dir.ok(&["gate", &bundle, "--oracle", &oracle, "--both", "--json"]);
    let report: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((&report["passed"], &report["feeding"]), (&true.into(), &serde_json::json!({"fixed": 8})));
    assert_eq!(report["feedings"]["passed"], true, "{}", report["feedings"]);
    assert_eq!(report["feedings"]["min_cosine"], 1.0);
    assert!(report["feedings"]["positions"].as_u64().unwrap() > 150);
    let refused = dir.fails(&["gate", &bundle, "--oracle", &oracle, "--chunk", "16"]);
    assert!(refused.contains("takes 8 tokens at a time"), "{refused}");
}

#[test]
fn the_lattice_diverges_ten_times_less_and_what_ignores_it_fails() {
    let mut oracle = read_json(stored_oracle("oracle-long.json").into());
    oracle["cases"].as_array_mut().unwrap().remove(0);
    let mean = |rule: &str, code: i32| {
        let dir = converted(rule);
        fs::write(dir.path("longer.json"), oracle.to_string()).unwrap();
        let arguments = ["gate", BUNDLE, "--oracle", "longer.json", "--checkpoint", &tiny(), "--json"];
        let output = dir.command(&arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["cases"][0]["positions"], 493);
        report["distances"]["mean_kl"].as_f64().unwrap()
    };
    let (lattice, absmax) = (mean("lattice", 0), mean("absmax", 1));
    assert!(lattice * 10.0 < absmax, "{lattice} against {absmax}");
}

/// Every way to pass without a comparison ends with status 1 and says why.
#[test]
fn too_little_to_compare_fails_and_bounds_can_be_typed() {
    let dir = converted("lattice");
    let mut oracle = read_json(stored_oracle("oracle.json").into());
    let cases = oracle["cases"].as_array().unwrap().clone();
    oracle["cases"] = Value::Array(vec![cases[0].clone(), cases[0].clone(), cases[0].clone()]);
    fs::write(dir.path("repeated.json"), oracle.to_string()).unwrap();
    oracle["cases"] = Value::Array(Vec::new());
    fs::write(dir.path("none.json"), oracle.to_string()).unwrap();
    assert!(dir.fails(&["gate", BUNDLE, "--oracle", "none.json"]).contains("\"cases\" is empty"));

    let gate = ["gate", BUNDLE, "--oracle", "repeated.json"];
    let output = dir.command(&gate).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stdout);
    assert!(said.contains("failed: 33 distinct qualified positions, at least 64 are needed"), "{said}");
    assert!(said.contains("repeats an earlier sequence") && said.contains("gate FAILED: 33 of 33"), "{said}");
    let enough = [&gate[..], &["--min-positions", "33"]].concat();
    assert!(dir.ok(&enough).contains("gate passed: 33 of 33"));

    let source = tiny();
    let strict =
        [&enough[..], &["--checkpoint", &source, "--max-kl", "1e-9", "--min-cosine", "1", "--json"]].concat();
    let output = dir.command(&strict).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let failures: Vec<&str> =
        report["failures"].as_array().unwrap().iter().map(|failure| failure.as_str().unwrap()).collect();
    assert_eq!(failures.len(), 2, "{failures:?}");
    assert!(failures[0].contains("minimum cosine") && failures[1].contains("mean KL"), "{failures:?}");
    assert_eq!(report["bounds"]["max_mean_kl"], 1e-9);
    for (option, value) in
        [("--max-kl", "NaN"), ("--max-kl", "-1"), ("--min-cosine", "1.5"), ("--min-positions", "-1")]
    {
        let typed = format!("{option}={value}");
        let output =
            dir.command(&[&enough[..], &["--checkpoint", &source, &typed]].concat()).output().unwrap();
        assert!(!output.status.success() && text(&output.stderr).contains(option), "{typed}");
    }
    assert!(
        dir.fails(&["oracle", &source, "-n", "4294967295", "-o", "long.json"]).contains("context of 4096")
    );
}

#[test]
fn foreign_tables_and_oracles_are_named() {
    let dir = converted("lattice");
    let oracle = stored_oracle("oracle.json");
    let other = fixtures::SyntheticCheckpoint::new(fixtures::Shape::e2b_like());
    other.write(&dir.path("other")).unwrap();
    dir.ok(&["tables", "other", "-o", "foreign"]);
    let tables = format!("foreign/{}", dir.names("foreign")[0]);
    assert!(
        dir.fails(&["gate", BUNDLE, "--oracle", &oracle, "--tables", &tables])
            .contains("of another checkpoint")
    );
    dir.ok(&["oracle", "other", "--prompt", "1 2 3", "-n", "1", "-o", "other.json"]);
    let said = dir.fails(&["gate", BUNDLE, "--oracle", "other.json", "--checkpoint", &tiny()]);
    assert!(said.contains("the oracle is of another checkpoint"), "{said}");
    fs::rename(dir.path("out/gemma4_e4b_qat_gather_raw"), dir.path("elsewhere")).unwrap();
    assert!(dir.fails(&["gate", BUNDLE, "--oracle", &oracle]).contains("gather_raw"));
    dir.ok(&["gate", BUNDLE, "--oracle", &oracle, "--tables", "elsewhere"]);
}

#[test]
fn a_bundle_continues_and_chats() {
    let dir = converted("lattice");
    let stored = read_json(stored_oracle("oracle.json").into());
    let case = &stored["cases"][0];
    let (prompt, whole) = (case["prompt"].as_str().unwrap(), case["text"].as_str().unwrap());
    let tokens = case["generated_ids"].as_array().unwrap().len().to_string();
    for sums in ["wide", "apple"] {
        let out = dir.ok(&["run", BUNDLE, "--raw", "--prompt", prompt, "-n", &tokens, "--sums", sums]);
        assert_eq!(format!("{prompt}{out}"), format!("{whole}\n"));
    }
    let answer =
        dir.json(&["run", BUNDLE, "--prompt", "Days?", "--system", "Be short.", "-n", "4", "--json"]);
    assert!(answer["generated"]["prompt_tokens"].as_u64().unwrap() > 10, "{answer}");
    assert!(answer["tokens_per_second"].as_f64().unwrap() > 0.0);
    let package = format!("{BUNDLE}/gemma4_e4b_qat_decode_int4lin.aimodel");
    assert!(dir.fails(&["run", &package, "--prompt", "x"]).contains("give the bundle"));
}

#[test]
fn a_bundle_that_fails_its_gate_says_so_and_replaces_nothing() {
    let dir = Dir::new();
    let failing = ["convert", &tiny(), "-o", "out", "--gate", "--rule", "absmax"];
    let output = dir.command(&failing).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "a bundle that fails its gate is kept and not passed over");
    assert!(text(&output.stdout).contains("gate FAILED"));
    let bundle = &BUNDLE.replace("int4lin", "int4absmax");
    assert_eq!(read_json(dir.path(bundle).join("manifest.json"))["gate"]["passed"], false);
    assert!(text(&dir.command(&["check", bundle]).output().unwrap().stdout).contains("gate"));

    // The report is about the outputs beside it, so it stays with them.
    let page = || fs::read(dir.path(&format!("{bundle}.report.html"))).unwrap();
    let (before, shown) = (tree(&dir.path("out")), page());
    let message = dir.fails(&[&failing[..], &["--force"]].concat());
    assert!(message.contains("nothing was replaced") && message.contains("gate FAILED"), "{message}");
    assert!(message.contains("another folder with -o"), "{message}");
    assert!(before == tree(&dir.path("out")) && shown == page(), "what was there is still there");
}
