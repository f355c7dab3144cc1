//! `init` and `build`, as a user types them: a release from a recipe, cut off and continued, and made again from its manifest.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use fixtures::{Shape, SyntheticCheckpoint};
use serde_json::Value;

use crate::common::{Dir, text, tree};

/// Two bundles, their tables, and figures on a short text.
const RECIPE: &str = r#"
source = "model"
name = "small"

[[format]]
tensors = "mlp"
weights = "int8"

[[bundle]]
variant = "provider"
max-context = 512

[[bundle]]
variant = "tbl"
max-context = 512

[evaluation]
text-file = "words.txt"
limit = 8

[release]
base-model = "google/gemma-4-small"
license-id = "apache-2.0"
license-file = "LICENSE"

[publish]
repository = "me/small"
"#;

fn scene(recipe: &str) -> Dir {
    let dir = Dir::new();
    SyntheticCheckpoint::new(Shape::small()).write(&dir.path("model")).unwrap();
    fs::write(dir.path("LICENSE"), "do as you like").unwrap();
    fs::write(dir.path("words.txt"), "one two three four five six seven eight nine ten\n".repeat(4)).unwrap();
    fs::write(dir.path("recipe.toml"), recipe).unwrap();
    dir
}

/// Starts a build and kills it as soon as it says that a step begins.
fn killed_at(dir: &Dir, step: &str) {
    let mut child = dir
        .command(&["build", "recipe.toml", "-o", "out"])
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let reached = lines.map_while(Result::ok).any(|line| line.starts_with(step));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(reached, "the build never began {step}");
}

fn states(outcome: &Value) -> Vec<(String, String)> {
    let steps = outcome["build"]["steps"].as_array().unwrap();
    let state = |step: &Value| match &step["state"] {
        Value::String(word) => word.clone(),
        _ => "not run".to_owned(),
    };
    steps.iter().map(|step| (step["name"].as_str().unwrap().to_owned(), state(step))).collect()
}

#[test]
fn a_build_that_is_killed_twice_makes_the_bytes_of_one_that_is_not() {
    let whole = scene(RECIPE);
    whole.ok(&["build", "recipe.toml", "-o", "out"]);
    let expected = tree(&whole.path("out/release"));

    let dir = scene(RECIPE);
    killed_at(&dir, "convert");
    killed_at(&dir, "evaluation");
    let outcome = dir.json(&["build", "recipe.toml", "-o", "out", "--json"]);
    let kept = states(&outcome);
    let convert = ["small_decode_int4lin_mixed", "small_decode_int4lin_mixed_tbl", "small_gather_raw"];
    for name in convert {
        assert!(kept.contains(&(name.to_owned(), "kept".to_owned())), "{name}: {kept:?}");
    }
    assert!(kept.contains(&("publish".to_owned(), "not run".to_owned())), "{kept:?}");
    assert!(tree(&dir.path("out/release")) == expected, "the release differs");

    // The manifest alone says how, except for where the checkpoint is.
    let error = dir.fails(&["build", "out/release/manifest.json", "-o", "again"]);
    assert!(error.contains("give it with --source"), "{error}");
    dir.ok(&["build", "out/release/manifest.json", "-o", "again", "--source", "model"]);
    assert!(tree(&dir.path("again/release")) == expected, "the release made from the manifest differs");
    let manifest = fs::read_to_string(dir.path("out/release/manifest.json")).unwrap();
    let here = dir.path("").to_str().unwrap().to_owned();
    assert!(!manifest.contains(&here) && !manifest.contains("words.txt\"}"), "{manifest}");

    // Nothing is left to do, and a change makes again what depends on it.
    let third = states(&dir.json(&["build", "recipe.toml", "-o", "out", "--json"]));
    assert!(third.iter().all(|(_, state)| state != "made"), "{third:?}");
    fs::write(dir.path("recipe.toml"), RECIPE.replace("limit = 8", "limit = 6")).unwrap();
    let fourth = states(&dir.json(&["build", "recipe.toml", "-o", "out", "--json"]));
    assert!(fourth.contains(&("release".to_owned(), "made".to_owned())), "{fourth:?}");

    // A release's manifest lists what the release holds.
    let error = dir.fails(&["build", "recipe.toml", "-o", "out/release/more"]);
    assert!(error.contains("release is an output of this tool"), "{error}");

    // Another checkpoint of the same shape is not what the manifest is about.
    let shape = Shape { hidden: 128, ..Shape::small() };
    SyntheticCheckpoint::new(shape).write(&dir.path("other")).unwrap();
    let error = dir.fails(&["build", "out/release", "-o", "other-out", "--source", "other"]);
    assert!(error.contains("with fingerprint"), "{error}");
}

#[test]
fn a_checkpoint_in_a_folder_of_another_name_makes_the_same_release() {
    let (evaluation, rest) = (RECIPE.find("[evaluation]").unwrap(), RECIPE.find("[release]").unwrap());
    let recipe = RECIPE.replace("name = \"small\"\n", "").replace(&RECIPE[evaluation..rest], "");
    let dir = scene(&recipe);
    dir.ok(&["build", "recipe.toml", "-o", "out"]);
    fs::rename(dir.path("model"), dir.path("moved")).unwrap();
    dir.ok(&["build", "out/release/manifest.json", "-o", "again", "--source", "moved"]);
    assert!(tree(&dir.path("again/release")) == tree(&dir.path("out/release")));
}

#[test]
fn mistakes_in_recipes_name_the_line_and_the_nearest_key() {
    let cases = [
        (
            RECIPE.replace("weights = ", "wieghts = "),
            "line 7: unknown field `wieghts`",
            "did you mean `weights`?",
        ),
        (
            RECIPE.replace("[evaluation]", "[evalution]"),
            "unknown field `evalution`",
            "did you mean `evaluation`?",
        ),
        (RECIPE.replace("\"int8\"", "\"int9\""), "unknown variant `int9`", "did you mean `int8`?"),
        (
            RECIPE.replace("\"mlp\"", "\"layers.*.nothing\""),
            "layers.*.nothing matches no projection",
            "--dry-run",
        ),
        (RECIPE.replace("\"tbl\"", "\"table\""), "\"table\" is not a variant", "provider, tbl or stock"),
        (RECIPE.replace("\"tbl\"", "\"provider\""), "two bundles are provider", "give one of them a name"),
        (RECIPE.replace("license-id = \"apache-2.0\"", ""), "needs release.license-id", ""),
        (RECIPE.replace("words.txt", "absent.txt"), "absent.txt", "cannot read"),
        (RECIPE.replace("limit = 8", "limit = 0"), "expected a whole number above 0", "line "),
        (RECIPE.replace("max-context = 512", "max-context = 500"), "--max-context 500", "give 256, 512"),
        (
            format!("{RECIPE}\n[ahead-of-time]\narchitectures = [\"h99z\"]"),
            "architecture 'h99z' is not known for iOS",
            "h18p",
        ),
        (RECIPE.replace("me/small", "small"), "\"small\" is not a repository", "owner/name"),
        (RECIPE.replace("\"tbl\"", "\"tbl\"\ncache = \"split\""), "--cache split", ""),
        ("source = 3".to_owned(), "line 1: invalid type: integer", ""),
        ("fingerprint = \"1\"".to_owned(), "fingerprint is a key of manifests", ""),
        ("{}".to_owned(), "recipe.toml is JSON: give a recipe in TOML", "manifest.json"),
    ];
    for (recipe, first, second) in cases {
        let dir = scene(&recipe);
        let error = dir.fails(&["build", "recipe.toml", "-o", "out"]);
        assert!(error.contains(first) && error.contains(second), "{recipe}\n{error}");
        assert_eq!(dir.names("out"), [""; 0], "{recipe}");
    }
}

#[test]
fn everything_that_a_release_needs_is_listed_at_once_and_first() {
    let dir = scene("source = \"model\"");
    let error = dir.fails(&["build", "recipe.toml", "-o", "out"]);
    assert!(
        error.contains("--base-model") && error.contains("--license-id") && error.contains("--license FILE"),
        "{error}"
    );
    assert_eq!(dir.names("out"), [""; 0]);
    let error = dir.fails(&["build", "recipe.toml", "-o", "out", "--publish"]);
    assert!(error.contains("the recipe has no [publish]"), "{error}");
}

#[test]
fn init_writes_a_recipe_that_builds() {
    let dir = scene(RECIPE);
    let said = dir.ok(&["init", "model"]);
    let file = said.lines().next().unwrap().to_owned();
    assert_eq!(said.lines().last().unwrap(), format!("next: coreai-bundle build {file}"));
    let recipe = fs::read_to_string(dir.path(&file)).unwrap();
    let error = dir.fails(&["init", "model"]);
    assert!(error.contains("--force"), "{error}");
    dir.ok(&["init", "model", "--force"]);
    assert_eq!(dir.ok(&["init", "model", "-o", "-"]), recipe);

    // Every key that is shown as a comment is one.
    let all: String = recipe.lines().map(|line| format!("{}\n", uncommented(line))).collect();
    fs::write(dir.path("all.toml"), all.replace("prompts.txt", "words.txt").replace("text.txt", "words.txt"))
        .unwrap();
    let error = dir.fails(&["build", "all.toml", "-o", "out", "--source", "absent"]);
    assert!(error.contains("absent"), "{error}\n{all}");

    let short = recipe
        .replace("[gate]", "")
        .replace("# base-model = \"OWNER/NAME", "base-model = \"google/gemma-4-small")
        .replace("1024", "8");
    let short = short.replace("# license-id", "license-id").replace("# license-file", "license-file");
    fs::write(
        dir.path(&file),
        short.replace("[evaluation]\n", "[evaluation]\ntext-file = \"words.txt\"\n").replace("4096", "512"),
    )
    .unwrap();
    let output = dir.command(&["build", &file]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("warning: the recipe has no [gate]"), "{}", text(&output.stderr));
    let name = Path::new(&file).file_stem().unwrap().to_str().unwrap().to_owned();
    assert!(dir.path(&format!("{name}-coreai/release/README.md")).is_file());
}

/// A line without the sign that makes it a comment, if it is a key or a table.
fn uncommented(line: &str) -> &str {
    let bare = line.strip_prefix("# ").unwrap_or(line);
    let is_setting = bare.starts_with('[') || bare.split(' ').nth(1) == Some("=");
    if is_setting { bare } else { line }
}
