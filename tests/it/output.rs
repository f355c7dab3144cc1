//! The text of each command at 60 and 100 columns, plain and in color, compared with files in `tests/golden`.

use std::fs;

use crate::common::{Dir, golden, tiny};
use crate::scene::Scene;
use fixtures::hub::upload::Uploads;
use fixtures::hub::{Account, Hub};

const WIDTHS: [usize; 2] = [60, 100];
const BUNDLE: &str = "out/gemma4_e4b_qat_decode_int4lin";

/// What a command prints on a terminal of a width.
struct Seen {
    plain: String,
    colored: String,
}

/// Commands to run in one folder, with what changes from run to run taken out.
struct Stage {
    dir: Dir,
    /// Texts, and their replacements.
    replaced: Vec<(String, &'static str)>,
    /// Variables of all commands.
    variables: Vec<(&'static str, String)>,
}

impl Stage {
    fn new() -> Self {
        let dir = Dir::new();
        let root = dir.path("").canonicalize().unwrap().to_str().unwrap().to_owned();
        let replaced = vec![(format!("{root}/"), ""), (root, "."), (tiny(), "CHECKPOINT")];
        // Nothing answers here: the doctor need not wait for the network.
        Stage { dir, replaced, variables: vec![("HF_ENDPOINT", "http://127.0.0.1:9".to_owned())] }
    }

    /// A stage with both bundles of the tiny checkpoint and their tables.
    fn converted() -> Self {
        let stage = Self::new();
        stage.dir.ok(&["convert", &tiny(), "-o", "out", "--variant", "both"]);
        stage
    }

    fn replace(mut self, text: &str, kept: &'static str) -> Self {
        self.replaced.insert(0, (text.to_owned(), kept));
        self
    }

    fn see(&self, arguments: &[&str], width: usize) -> Seen {
        let run = |variable: &str, value: &str| {
            let output = self
                .dir
                .command(arguments)
                .env("COLUMNS", width.to_string())
                .env_remove("NO_COLOR")
                .env_remove("CLICOLOR_FORCE")
                .envs(self.variables.iter().map(|(name, value)| (name, value)))
                .env(variable, value)
                .output()
                .unwrap();
            let mut text = crate::common::text(&output.stdout);
            let messages = crate::common::text(&output.stderr);
            if !messages.is_empty() {
                text.push_str(&format!("[standard error]\n{messages}"));
            }
            match output.status.code() {
                Some(0) => {}
                status => text.push_str(&format!("[status {}]\n", status.unwrap_or(-1))),
            }
            self.steady(&text)
        };
        Seen { plain: run("NO_COLOR", "1"), colored: run("CLICOLOR_FORCE", "1") }
    }

    fn steady(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (volatile, kept) in &self.replaced {
            text = text.replace(volatile.as_str(), kept);
        }
        text.split_inclusive('\n').map(without_measurements).collect()
    }

    /// All forms of a command's output as one text. Styles show as `{1}`, what they end with as `{0}`.
    fn forms(&self, arguments: &[&str]) -> String {
        let shown: Vec<&str> =
            arguments.iter().map(|word| if *word == tiny() { "CHECKPOINT" } else { word }).collect();
        let [narrow, wide] = WIDTHS.map(|width| self.see(arguments, width));
        let mut text = format!("$ coreai-bundle {}\n", shown.join(" "));
        for seen in [&narrow, &wide] {
            assert_eq!(without_styles(&seen.colored), seen.plain, "{arguments:?}: color changes the text");
            assert!(!seen.plain.contains('\x1b'), "{arguments:?}: styles without color");
        }
        let section = |title: &str, body: &str| format!("==== {title}\n{body}");
        if narrow.plain == wide.plain {
            text.push_str(&section("60 and 100 columns", &wide.plain));
        } else {
            text.push_str(&section("60 columns", &narrow.plain));
            text.push_str(&section("100 columns", &wide.plain));
        }
        if wide.colored != wide.plain {
            text.push_str(&section("100 columns, in color", &visible_styles(&wide.colored)));
        }
        text
    }
}

/// Numbers that follow or precede one of these words are measured in each run.
fn without_measurements(line: &str) -> String {
    if let Some((before, _)) = line.split_once(" are free").and_then(|(before, _)| before.rsplit_once(", ")) {
        return format!("{before}, # are free\n");
    }
    let words: Vec<&str> = line.split(' ').collect();
    let measured = |at: usize| {
        let before = at.checked_sub(1).map(|at| words[at]);
        let after = words.get(at + 1).map(|word| word.trim_end());
        // What it follows is on the line before.
        let is_first = words[..at].iter().all(|word| word.is_empty());
        let is_continued = is_first && at > 0 && words.iter().any(|word| matches!(*word, "least" | "KL"));
        is_continued
            || matches!(before, Some("cosine" | "least" | "KL"))
            || matches!(after, Some("s," | "s" | "tokens/s,"))
    };
    let number = |word: &str| word.trim_end().trim_end_matches(',').parse::<f64>().is_ok();
    let steady = words.iter().enumerate().map(|(at, word)| {
        if measured(at) && number(word) {
            let digits = word.trim_end().trim_end_matches(',');
            word.replace(digits, "#")
        } else {
            (*word).to_owned()
        }
    });
    steady.collect::<Vec<_>>().join(" ")
}

fn without_styles(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |plain, part| plain + part.split_once('m').unwrap().1)
}

fn visible_styles(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |visible, part| {
        let (style, rest) = part.split_once('m').unwrap();
        format!("{visible}{{{style}}}{rest}")
    })
}

/// No line is wider than the terminal, unless a digest or a name in it is longer than half of it.
fn assert_fits(text: &str, width: usize) {
    for line in text.lines().filter(|line| !line.starts_with("Usage: ")) {
        let is_long = line.split_whitespace().any(|word| word.chars().count() > width / 2);
        assert!(line.chars().count() <= width || is_long, "wider than {width}: {line:?}");
    }
}

#[test]
fn help_of_every_command() {
    let stage = Stage::new();
    let listed = stage.dir.ok(&["--help"]);
    let commands = listed.split("Commands:").nth(1).unwrap().split("Options:").next().unwrap();
    let mut names: Vec<&str> = commands
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    names.sort_unstable();
    assert!(names.contains(&"convert"), "{listed}");
    golden::check("help", &stage.forms(&["--help"]));
    for name in names {
        let text = stage.dir.ok(&[name, "--help"]);
        assert!(text.contains("\nExample"), "{name} --help has no example");
        golden::check(&format!("help-{name}"), &stage.forms(&[name, "--help"]));
        for width in WIDTHS {
            let options = stage.see(&[name, "--help"], width).plain;
            // Examples are shown as they are typed.
            assert_fits(options.split("\nExample").next().unwrap(), width);
        }
    }
}

#[test]
fn convert_tables_and_pack() {
    let stage = Stage::new();
    let tiny = tiny();
    golden::check("convert", &stage.forms(&["convert", &tiny, "-o", "out", "--variant", "both", "--force"]));
    golden::check("convert-dry-run", &stage.forms(&["convert", &tiny, "--dry-run"]));
    golden::check("tables", &stage.forms(&["tables", &tiny, "-o", "out", "--force"]));
    golden::check("pack", &stage.forms(&["pack", "out", "-o", "out.zip", "--force"]));
    golden::check("convert-refused", &stage.forms(&["convert", "absent"]));
}

#[test]
fn inspect_explain_and_diff() {
    let stage = Stage::converted();
    let tiny = tiny();
    let tables = "out/gemma4_e4b_qat_gather_raw";
    let block = ["layers.5.mlp.down_proj.weight", "--row", "3", "--block", "2"];
    let package = format!("{BUNDLE}/gemma4_e4b_qat_decode_int4lin.aimodel");
    let fitting: [(&str, Vec<&str>); 6] = [
        ("inspect-checkpoint", vec!["inspect", &tiny]),
        ("inspect-bundle", vec!["inspect", BUNDLE]),
        ("inspect-tables", vec!["inspect", tables]),
        ("inspect-weights", vec!["inspect", &package, "--weights"]),
        ("explain-checkpoint", [&["explain", &tiny], &block[..]].concat()),
        ("explain-bundle", [&["explain", BUNDLE], &block[..]].concat()),
    ];
    for (name, arguments) in fitting {
        golden::check(name, &stage.forms(&arguments));
        for width in WIDTHS {
            assert_fits(&stage.see(&arguments, width).plain, width);
        }
    }
    golden::check("inspect-layer", &stage.forms(&["inspect", &package, "--graph", "--layer", "5"]));
    golden::check("diff", &stage.forms(&["diff", BUNDLE, "out/gemma4_e4b_qat_decode_int4lin_tbl"]));
    stage.dir.ok(&["convert", &tiny, "-o", "other", "--no-tables", "--rule", "q4_0"]);
    let other = "other/gemma4_e4b_qat_decode_int4q4_0";
    golden::check("diff-weights", &stage.forms(&["diff", BUNDLE, other]));
    golden::check("diff-equal", &stage.forms(&["diff", BUNDLE, BUNDLE]));
}

#[test]
fn release_and_publish() {
    let hub = Hub::start().unwrap();
    hub.add_routes(Uploads::new());
    hub.add_account("hf_secret", Account::new("me"));
    let mut stage = Stage::converted().replace(&hub.endpoint(), "HUB");
    stage.variables = vec![("HF_ENDPOINT", hub.endpoint()), ("HF_TOKEN", "hf_secret".to_owned())];
    let license = format!("{}/LICENSE", env!("CARGO_MANIFEST_DIR"));
    let parts = ["release", BUNDLE, "out/gemma4_e4b_qat_gather_raw", "-o", "release", "--force"];
    let terms = ["--base-model", "google/gemma-4-tiny", "--license-id", "apache-2.0", "--license", &license];
    let stage = stage.replace(&license, "LICENSE");
    golden::check("release", &stage.steady(&stage.forms(&[&parts[..], &terms].concat())));
    golden::check("release-refused", &stage.forms(&[&parts[..], &terms[..2]].concat()));
    let publish = ["publish", "release", "--repo-id", "me/tiny"];
    golden::check("publish-dry-run", &stage.forms(&[&publish[..], &["--dry-run"]].concat()));
    // The first run publishes, the second one finds everything there.
    let Seen { plain: first, colored: second } = stage.see(&publish, 80);
    golden::check("publish", &format!("{first}==== again, in color\n{}", visible_styles(&second)));
}

#[test]
fn check_of_a_good_and_of_a_broken_bundle() {
    let stage = Stage::converted();
    golden::check("check", &stage.forms(&["check", BUNDLE]));
    fs::remove_file(stage.dir.path(BUNDLE).join("tokenizer/tokenizer.json")).unwrap();
    golden::check("check-defects", &stage.forms(&["check", BUNDLE]));
}

#[test]
fn oracle_gate_and_run() {
    let stage = Stage::converted();
    let tiny = tiny();
    let prompt = ["--prompt", "Count up: 1, 2, 3,", "-n", "2"];
    let oracle = [&["oracle", &tiny, "-o", "oracle.json", "--force"], &prompt[..]].concat();
    golden::check("oracle", &stage.forms(&oracle));
    let gate = ["gate", BUNDLE, "--oracle", "oracle.json", "--checkpoint", &tiny, "--min-positions", "10"];
    golden::check("gate", &stage.forms(&gate));
    golden::check("run", &stage.forms(&[&["run", BUNDLE, "--raw"], &prompt[..]].concat()));
}

#[test]
fn aotc_and_doctor() {
    let scene = Scene::new();
    let root = scene.path("").canonicalize().unwrap().to_str().unwrap().trim_end_matches('/').to_owned();
    let stage = Stage::new().replace(&root, "SCENE");
    let (bundle, xcrun) = (scene.bundle.to_str().unwrap(), scene.xcode.xcrun());
    let arguments = ["aotc", bundle, "--arch", "h18p", "--dry-run", "--xcrun", xcrun.to_str().unwrap()];
    golden::check("aotc-dry-run", &stage.forms(&arguments).replace(&root, "SCENE"));
    let refused = ["aotc", bundle, "--arch", "h18q"];
    golden::check("aotc-refused", &stage.forms(&refused).replace(&root, "SCENE"));
    let doctor = ["doctor", "--xcrun", "/absent/xcrun", "--python", "/absent/python"];
    // What follows depends on this machine.
    let of_any_machine = |seen: &str| -> String {
        let mut shown = true;
        let lines = seen.split_inclusive('\n').filter(|line| {
            shown = line.starts_with(['$', '=']) || shown && !line.contains(" disk ");
            shown
        });
        lines.collect()
    };
    golden::check("doctor", &of_any_machine(&stage.forms(&doctor)));
    let plain = stage.see(&doctor, 80).plain;
    for subject in ["disk", "memory", "Hub token", "Hub endpoint", "Python judge", "ssh", "rsync"] {
        let line = format!(" {subject:<16} ");
        assert!(plain.contains(&line), "{subject}\n{plain}");
    }
}
