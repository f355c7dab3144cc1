//! The README's commands: they run as shown, and print what is shown.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::{Dir, both, text, tiny};
use fixtures::hub::upload::Uploads;
use fixtures::hub::{Account, Hub};
use fixtures::toolchain::StandInXcode;
use serde_json::Value;

const PREFIX: &str = "$ cargo run --no-default-features -- ";
/// The repository that the README names.
const REPOSITORY: &str = "google/gemma-4-E4B-it-qat-q4_0-unquantized";
const TOKEN: &str = "hf_secretOfMe";

fn readme() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap()
}

/// A folder in which the first command that cargo runs in the README was run, and what that printed and should have printed.
pub(crate) fn first_command_run() -> (Dir, String, String) {
    let dir = Dir::new();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    std::os::unix::fs::symlink(data, dir.path("fixtures")).unwrap();
    let (arguments, expected) = first_command();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = dir.command(&arguments).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    (dir, text(&output.stderr) + &text(&output.stdout), expected)
}

/// The command, and what it prints.
fn first_command() -> (Vec<String>, String) {
    let readme = readme();
    let (_, block) = readme.split_once(PREFIX).unwrap();
    let (command, output) = block.split_once('\n').unwrap();
    let (output, _) = output.split_once("```").unwrap();
    (command.split(' ').map(str::to_owned).collect(), output.to_owned())
}

#[test]
fn the_first_command_prints_what_the_readme_shows() {
    let (_dir, printed, expected) = first_command_run();
    assert_eq!(printed, expected);
}

/// A command of the README's blocks, and the lines that it prints, if they are shown.
struct Shown {
    words: Vec<String>,
    lines: Vec<String>,
}

/// All commands of the installed tool, in order.
fn commands() -> Vec<Shown> {
    let mut commands: Vec<Shown> = Vec::new();
    let readme = readme();
    let blocks = readme.split("```console\n").skip(1).map(|block| block.split_once("```").unwrap().0);
    for block in blocks {
        let mut is_ours = false;
        for line in block.lines().filter(|line| !line.trim_start().starts_with('#')) {
            if let Some(command) = line.strip_prefix("$ ") {
                let words =
                    command.split_once(" #").map_or(command, |(command, _)| command).split_whitespace();
                let words: Vec<String> = words.map(str::to_owned).collect();
                is_ours = words[0] == "coreai-bundle";
                if is_ours {
                    commands.push(Shown { words, lines: Vec::new() });
                }
            } else if is_ours {
                commands.last_mut().unwrap().lines.push(line.to_owned());
            }
        }
    }
    commands
}

/// A Hub with the checkpoint, a Mac's tools, and a folder to work in.
struct Scene {
    dir: Dir,
    hub: Hub,
    xcode: StandInXcode,
}

impl Scene {
    fn new() -> Self {
        let (dir, hub) = (Dir::new(), Hub::start().unwrap());
        hub.add_routes(Uploads::new());
        hub.add_account(TOKEN, Account::new("me"));
        let checkpoint = dir.path("checkpoint");
        fs::create_dir(&checkpoint).unwrap();
        for entry in fs::read_dir(tiny()).unwrap().map(Result::unwrap) {
            if !entry.file_name().to_str().unwrap().starts_with("oracle") {
                fs::copy(entry.path(), checkpoint.join(entry.file_name())).unwrap();
            }
        }
        fs::write(checkpoint.join("README.md"), "---\nlicense: apache-2.0\n---\n# Tiny\n").unwrap();
        hub.add_folder(REPOSITORY, &checkpoint).unwrap();
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
        std::os::unix::fs::symlink(data, dir.path("fixtures")).unwrap();
        let xcode = StandInXcode::install(&dir.path("Xcode")).unwrap();
        fs::write(dir.path("stdin"), "Count up: 1, 2, 3,").unwrap();
        Scene { dir, hub, xcode }
    }

    /// Runs a command as somebody with an account types it; returns its output and what it said besides.
    fn run(&self, words: &[String]) -> String {
        let arguments: Vec<&str> = words[1..].iter().map(String::as_str).collect();
        let path = format!("{}:{}", self.xcode.tools().display(), std::env::var("PATH").unwrap());
        let mut command = self.dir.command(&arguments);
        for name in ["HF_HUB_OFFLINE", "HF_TOKEN_PATH", "HUGGING_FACE_HUB_TOKEN"] {
            command.env_remove(name);
        }
        command.env("HF_ENDPOINT", self.hub.endpoint()).env("HF_HOME", self.dir.path("home"));
        command
            .env("HF_TOKEN", TOKEN)
            .env("PATH", path)
            .stdin(fs::File::open(self.dir.path("stdin")).unwrap());
        let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
        // A comparison ends with 1 if there are differences.
        let expected = i32::from(words[1] == "diff");
        assert_eq!(output.status.code(), Some(expected), "{}\n{}", words.join(" "), both(&output));
        text(&output.stdout)
    }
}

/// A word of a command with what stands for it here.
fn filled_in(word: &str, bundle: &str) -> Vec<String> {
    let other = format!("{bundle}_tbl");
    let filled = match word {
        "CHECKPOINT" => REPOSITORY,
        "RECIPE" => "gemma4_e4b_qat.toml",
        "BUNDLE" | "A" => bundle,
        "B" => &other,
        "BUNDLES.." => return vec![bundle.to_owned(), other],
        "PATH" => "OUT",
        "PATH.aimodel" => return vec![format!("{bundle}/gemma4_e4b_qat_decode_int4lin.aimodel")],
        "TENSOR" => "layers.2.mlp.down_proj.weight",
        "USER/NAME" => "me/other",
        word => word,
    };
    vec![filled.to_owned()]
}

#[test]
fn every_command_of_the_readme_runs() {
    const BUNDLE: &str = "OUT/gemma4_e4b_qat_decode_int4lin";
    let scene = Scene::new();
    let mut used = Vec::new();
    for Shown { mut words, .. } in commands() {
        words = words.iter().flat_map(|word| filled_in(word, BUNDLE)).collect();
        used.push(words[1].clone());
        match words.iter().map(String::as_str).collect::<Vec<_>>()[1..] {
            // The recipe is there already, and the tables.
            ["init", REPOSITORY] if scene.dir.path("gemma4_e4b_qat.toml").exists() => {
                words.push("--force".to_owned());
            }
            ["tables", ..] => words.push("--force".to_owned()),
            ["eval", ..] => {
                words.retain(|word| word != "--limit" && word != "1500");
                words.extend(["--limit", "40"].map(str::to_owned));
            }
            // It prints what it sends, and is tested by itself.
            ["publish", "release", ..] => continue,
            _ => {}
        }
        scene.run(&words);
        if words[1] == "init" {
            // A short evaluation, and where to publish.
            let path = scene.dir.path("gemma4_e4b_qat.toml");
            let recipe = fs::read_to_string(&path).unwrap().replace("limit = 1024", "limit = 20");
            fs::write(&path, recipe + "\n[publish]\nrepository = \"me/from-a-recipe\"\n").unwrap();
        }
    }
    let help = scene.dir.ok(&["--help"]);
    let (_, all) = help.split_once("Commands:\n").unwrap();
    // What a command does may take several lines, which are indented more.
    let all = all.lines().map_while(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with(' '));
    let all = all.filter_map(|line| line.split(' ').next());
    for command in all.filter(|name| !["completions", "man", "help"].contains(name)) {
        assert!(used.iter().any(|known| known == command), "the README does not show {command}");
    }
}

#[test]
fn publishing_prints_what_the_readme_shows() {
    let scene = Scene::new();
    let typed = |line: &str| scene.run(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
    typed(&format!("coreai-bundle convert {REPOSITORY} -o out --variant both --no-report"));
    typed("coreai-bundle release out -o release");
    let is_example = |shown: &Shown| shown.words[1..].starts_with(&["publish", "release"].map(str::to_owned));
    let examples: Vec<Shown> = commands().into_iter().filter(is_example).collect();
    assert_eq!(examples.len(), 2);
    for Shown { words, lines } in examples {
        assert_shown(&scene.run(&words), &lines);
    }
}

/// Checks that lines were printed as shown; `...` stands for any lines.
#[track_caller]
fn assert_shown(printed: &str, lines: &[String]) {
    let mut rest = printed.lines();
    let mut may_skip = false;
    for line in lines {
        if line == "..." {
            may_skip = true;
            continue;
        }
        let found = if may_skip { rest.find(|printed| printed == line) } else { rest.next() };
        assert_eq!(found, Some(line.as_str()), "{printed}");
        may_skip = false;
    }
}

#[test]
fn cargo_run_runs_the_command_and_no_other() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let programs: Vec<&str> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|package| package["default_run"].as_str())
        .collect();
    assert_eq!(programs, ["coreai-bundle"]);
}
