//! `eval`, as a user types it, on the tiny checkpoint.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Dir, text, tiny};
use serde_json::Value;

const BUNDLE: &str = "out/gemma4_e4b_qat_decode_int4lin";

/// A folder with a bundle of the tiny checkpoint by that rule, in the place of [`BUNDLE`], and its tables.
fn converted(rule: &str, variant: &str) -> Dir {
    let dir = Dir::new();
    dir.ok(&["convert", &tiny(), "-o", "out", "--variant", variant, "--head", "int4", "--rule", rule]);
    if rule == "absmax" {
        std::fs::rename(dir.path(&BUNDLE.replace("int4lin", "int4absmax")), dir.path(BUNDLE)).unwrap();
    }
    dir
}

/// Arguments, and more of them.
fn with<'a>(run: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [run, more].concat()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

#[test]
fn rules_are_compared_in_one_table() {
    let dir = Dir::new();
    let arguments = ["eval", "--checkpoint", &tiny(), "--limit", "200", "--window", "128"];
    let rules = ["--rule", "lattice,absmax,q4_0", "--rule", "int8,f16"];
    let mut command = dir.command(&with(&with(&arguments, &rules), &["--json"]));
    let temporary = dir.path("temporary");
    fs::create_dir(&temporary).unwrap();
    let output = command.env("TMPDIR", &temporary).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(fs::read_dir(temporary).unwrap().count(), 0, "conversions and logits are removed");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&found["text"], &found["passed"]), (&"the default text".into(), &true.into()));
    let reference = &found["reference"];
    assert_eq!((&reference["positions"], &reference["window"]), (&200.into(), &128.into()));
    let bundles = found["bundles"].as_array().unwrap();
    let names: Vec<&str> = bundles.iter().map(|bundle| bundle["bundle"].as_str().unwrap()).collect();
    assert_eq!(names, ["lattice", "absmax", "q4_0", "int8", "f16"]);
    let figure = |at: usize, name: &str| number(&bundles[at][name]);
    for (at, name) in names.iter().enumerate() {
        let agreement = &bundles[at]["agreement"];
        assert!(number(&agreement["low"]) <= number(&agreement["share"]), "{name}");
        assert!(number(&agreement["share"]) <= number(&agreement["high"]), "{name}");
        assert_eq!((&agreement["of"], &bundles[at]["not_finite"]), (&200.into(), &0.into()), "{name}");
        assert!(0.0 < figure(at, "mean_kl") && figure(at, "mean_kl") < figure(at, "max_kl"), "{name}");
        assert!((figure(at, "perplexity") - figure(at, "mean_nll").exp()).abs() < 1e-9, "{name}");
        let curve = bundles[at]["curve"].as_array().unwrap();
        let positions: u64 = curve.iter().map(|part| part["positions"].as_u64().unwrap()).sum();
        assert_eq!((positions, curve.len()), (200, 4), "{name}");
    }
    // What is off the lattice is far away; int8 lies between.
    let [lattice, absmax, q4_0, int8, half] = [0, 1, 2, 3, 4].map(|at| figure(at, "mean_kl"));
    assert!(
        absmax > 50.0 * lattice && int8 < absmax && half < int8,
        "{lattice} {absmax} {q4_0} {int8} {half}"
    );
    assert_eq!(bundles[0]["sure"]["agreed"], bundles[0]["sure"]["of"]);
    assert!((figure(0, "perplexity") / number(&reference["perplexity"]) - 1.0).abs() < 1e-2);
}

#[test]
fn the_output_fits_a_narrow_terminal() {
    let dir = converted("lattice", "both");
    let (other, source) = (format!("{BUNDLE}_tbl"), tiny());
    let arguments =
        ["eval", BUNDLE, &other, "--checkpoint", &source, "--limit", "60", "--window", "16", "--stride", "8"];
    for (columns, head) in [("60", true), ("120", false)] {
        let output = dir.command(&arguments).env("COLUMNS", columns).output().unwrap();
        let out = text(&output.stdout);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let longest = out.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(longest <= columns.parse().unwrap(), "{longest} columns\n{out}");
        assert!(
            out.starts_with(
                "the default text: 60 tokens in windows of 16, one every 8\nfp32 reference: perplexity "
            ),
            "{out}"
        );
        assert_eq!(out.contains("perplexity\n"), !head, "{out}");
        assert!(out.contains("mean KL  agreement") && out.contains("tokens before"), "{out}");
        // The provider and the tbl graph compute the same.
        let figures: Vec<&str> = out.lines().filter(|line| line.contains("same winner at")).collect();
        assert!(figures.len() == 2 && figures[0] == figures[1], "{out}");
    }
}

#[test]
fn saved_logits_replace_the_checkpoint_and_no_other_one() {
    let dir = converted("absmax", "provider");
    let source = tiny();
    let run = ["eval", BUNDLE, "--limit", "100", "--window", "50", "--json"];
    let computed = dir.ok(&with(&run, &["--checkpoint", &source]));
    assert_eq!(dir.ok(&with(&run, &["--checkpoint", &source, "--save-logits", "kept"])), computed);
    // Run again, the file is used.
    let again =
        dir.command(&with(&run, &["--checkpoint", &source, "--save-logits", "kept"])).output().unwrap();
    assert_eq!((text(&again.stdout), again.status.success()), (computed.clone(), true));
    assert_eq!(dir.ok(&["eval", BUNDLE, "--logits", "kept", "--json"]), computed);
    assert_eq!(dir.ok(&with(&run, &["--logits", "kept"])), computed);
    assert_eq!(dir.ok(&with(&run, &["--logits", "kept", "--checkpoint", &source])), computed);
    assert_eq!(dir.names("."), ["kept", "out"]);

    let refused = dir.fails(&["eval", BUNDLE, "--logits", "kept", "--window", "25"]);
    assert!(refused.contains("give --window 50 --stride 50"), "{refused}");
    fs::write(dir.path("other.txt"), "Another text, which is long enough to be cut. ".repeat(9)).unwrap();
    let refused = dir.fails(&with(&run, &["--logits", "kept", "--text", "other.txt"]));
    assert!(refused.contains("kept is of another text"), "{refused}");
    let dense = fixtures::data::tiny_dense_checkpoint();
    let refused = dir.fails(&with(&run, &["--logits", "kept", "--checkpoint", dense.to_str().unwrap()]));
    assert!(refused.contains("kept is of another checkpoint"), "{refused}");
    let refused = dir.fails(&with(&run, &["--logits", "out"]));
    assert!(refused.contains("not a regular file"), "{refused}");
    fs::write(dir.path("mine"), "my notes").unwrap();
    let refused = dir.fails(&with(&run, &["--checkpoint", &source, "--save-logits", "mine"]));
    assert!(refused.contains("mine is not a logits file"), "{refused}");
    assert_eq!(fs::read(dir.path("mine")).unwrap(), b"my notes");
    let mut damaged = fs::read(dir.path("kept")).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 4;
    fs::write(dir.path("damaged"), damaged).unwrap();
    let refused = dir.fails(&with(&run, &["--logits", "damaged"]));
    assert!(refused.contains("was changed; make it again"), "{refused}");
}

#[test]
fn limits_fail_bundles() {
    let dir = converted("absmax", "provider");
    let source = tiny();
    let run = [
        "eval",
        BUNDLE,
        "--checkpoint",
        &source,
        "--limit",
        "100",
        "--window",
        "50",
        "--save-logits",
        "kept",
    ];
    dir.ok(&with(&run, &["--max-kl", "1", "--min-agreement", "0.1"]));
    let output = dir.command(&with(&run, &["--max-kl", "1e-9", "--min-agreement", "1"])).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let out = text(&output.stdout);
    assert!(out.contains("failed: the mean KL divergence is ") && out.contains(", above 1.00e-9"), "{out}");
    assert!(out.contains("failed: the agreement is 0."), "{out}");
    let output = dir.command(&with(&run, &["--max-kl", "1e-9", "--json"])).output().unwrap();
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &found["passed"]), (Some(1), &false.into()));
    assert!(
        dir.fails(&["eval", BUNDLE, "--checkpoint", &source, "--min-agreement", "98"])
            .contains("from 0 to 1")
    );
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let dir = converted("lattice", "provider");
    let source = tiny();
    for (arguments, expected) in [
        (&["eval", BUNDLE][..], "--checkpoint"),
        (&["eval", "--checkpoint", &source], "BUNDLES"),
        (&["eval", BUNDLE, "--checkpoint", &source, "--window", "4", "--stride", "5"], "would be left out"),
        (&["eval", BUNDLE, "--checkpoint", &source, "--window", "5000"], "context is 4096 positions"),
        (&["eval", BUNDLE, "--checkpoint", &source, "--text", "absent"], "cannot read absent"),
        (&["eval", "absent", "--checkpoint", &source], "absent"),
    ] {
        let refused = dir.fails(arguments);
        assert!(refused.contains(expected), "{arguments:?}: {refused}");
    }
    fs::write(dir.path("empty"), "").unwrap();
    let refused = dir.fails(&["eval", BUNDLE, "--checkpoint", &source, "--text", "empty"]);
    assert!(refused.contains("at least two are needed"), "{refused}");
    let tokenizer = dir.path(BUNDLE).join("tokenizer/tokenizer.json");
    let changed = fs::read_to_string(&tokenizer).unwrap() + "\n";
    fs::write(&tokenizer, changed).unwrap();
    let refused = dir.fails(&["eval", BUNDLE, "--checkpoint", &source, "--limit", "9"]);
    assert!(refused.contains("its tokenizer.json is not the checkpoint's"), "{refused}");
}

/// Waits until something is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_interrupted_run_continues_and_says_the_same() {
    let dir = converted("lattice", "both");
    let (other, source) = (format!("{BUNDLE}_tbl"), tiny());
    let run = ["eval", BUNDLE, &other, "--checkpoint", &source, "--limit", "400", "--window", "8", "--json"];
    let whole = dir.ok(&run);
    let resumed = with(&run, &["--resume", "state"]);
    let lines = || fs::read_to_string(dir.path("state")).map_or(0, |state| state.lines().count());
    // Once while the first bundle is measured, once while the second one is, where the run is still that far from its end.
    for enough in [2, 51] {
        let child = dir.command(&resumed).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        until("results are kept", || lines() > enough);
        let begun = Instant::now();
        Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
        assert!(text(&output.stderr).contains("interrupted"), "{}", text(&output.stderr));
        assert_eq!(dir.names("."), ["out", "state", "state.logits"]);
    }
    // Cut off within a line.
    let mut state = fs::read(dir.path("state")).unwrap();
    state.truncate(state.len() - 7);
    fs::write(dir.path("state"), &state).unwrap();
    let refused = dir.fails(&with(&resumed[..6], &["100", "--window", "8", "--resume", "state"]));
    assert!(refused.contains("state"), "{refused}");
    assert_eq!(dir.ok(&resumed), whole);
    assert_eq!(dir.names("."), ["out"]);

    for (state, expected) in [("my notes\n", "not the state of"), ("my notes", "not the state of")] {
        fs::write(dir.path("state"), state).unwrap();
        let refused = dir.fails(&with(&resumed[..6], &["20", "--window", "8", "--resume", "state"]));
        assert!(refused.contains(expected), "{refused}");
        assert_eq!(fs::read_to_string(dir.path("state")).unwrap(), state);
        assert_eq!(dir.names("."), ["out", "state"], "nothing was computed");
    }
}

#[test]
fn recorded_figures_reach_the_card_and_the_page() {
    let dir = converted("lattice", "provider");
    let source = tiny();
    dir.ok(&[
        "eval",
        BUNDLE,
        "--checkpoint",
        &source,
        "--limit",
        "50",
        "--record",
        "--html",
        "page.html",
        "--json",
    ]);
    let manifest: Value =
        serde_json::from_slice(&fs::read(dir.path(BUNDLE).join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["evaluation"]["reference"]["positions"], 50);
    assert!(dir.ok(&["check", BUNDLE]).contains("0 defects"), "the manifest is still right");
    let page = fs::read_to_string(dir.path("page.html")).unwrap();
    dir.ok(&["inspect", BUNDLE, "--html", "-o", "bundle.html"]);
    let of_bundle = fs::read_to_string(dir.path("bundle.html")).unwrap();
    for page in [page, of_bundle] {
        assert!(page.contains("Evaluation of gemma4_e4b_qat_decode_int4lin"), "{page}");
        assert!(page.contains("50 tokens of the default text, in windows of 512"), "{page}");
    }
    fs::write(dir.path("LICENSE"), "terms").unwrap();
    let terms = ["--license", "LICENSE", "--license-id", "apache-2.0", "--base-model", "google/gemma-4-tiny"];
    dir.ok(
        &[["release", BUNDLE, "out/gemma4_e4b_qat_gather_raw", "-o", "release"].as_slice(), &terms].concat()
    );
    let card = fs::read_to_string(dir.path("release/README.md")).unwrap();
    let line = "on the default text, 50 tokens in windows of 512: KL divergence from fp32 ";
    assert!(card.contains(line) && card.contains("the same winner at "), "{card}");
    // Recorded again, it is replaced.
    dir.ok(&["eval", BUNDLE, "--checkpoint", &source, "--limit", "20", "--record"]);
    let manifest = fs::read_to_string(dir.path(BUNDLE).join("manifest.json")).unwrap();
    assert_eq!(manifest.matches("\"evaluation\"").count(), 1);
    assert!(manifest.contains("\"positions\": 20"));
}
