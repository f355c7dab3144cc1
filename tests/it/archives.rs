//! Folders of outputs and packed archives in place of bundles: the same results, read in place.

use std::fs;

use crate::common::{Dir, golden, text, tiny};
use serde_json::{Value, json};

const NAME: &str = "gemma4_e4b_qat_decode_int4lin";

/// A folder `out` with one bundle and its tables, and `out.zip`.
fn packed() -> Dir {
    let dir = Dir::new();
    dir.ok(&["convert", &tiny(), "-o", "out", "--no-report"]);
    dir.ok(&["pack", "out", "-o", "out.zip"]);
    dir
}

/// What a command prints as JSON, with every mention of the archive as that of the folder, and fixes without its being unpacked.
fn of_folder(dir: &Dir, arguments: &[&str]) -> Value {
    let output = dir.command(arguments).output().unwrap();
    let here = format!("{}/", dir.path("").canonicalize().unwrap().display());
    let unpack = format!("unpack {here}out.zip into {here}out, then ");
    let shown = text(&output.stdout).replace(&unpack, "").replace("out.zip", "out");
    assert!(output.status.code().is_some_and(|code| code < 2), "{arguments:?}\n{}", text(&output.stderr));
    serde_json::from_str(shown.lines().last().unwrap_or_default())
        .unwrap_or_else(|error| panic!("{arguments:?}: {error}\n{}", text(&output.stderr)))
}

#[test]
fn commands_do_with_archives_what_they_do_with_folders() {
    let dir = packed();
    let oracle = fixtures::data::tiny_oracle().display().to_string();
    let run = ["--prompt", "Count up: 1, 2, 3,", "-n", "4", "--raw", "--json"];
    let block = ["layers.2.mlp.down_proj.weight", "--row", "1", "--json"];
    let commands: [(&str, &[&str]); 7] = [
        ("inspect", &["--json"]),
        ("inspect", &["--weights", "--json"]),
        ("check", &["--json"]),
        ("gate", &["--oracle", &oracle, "--json"]),
        ("explain", &block),
        ("eval", &["--checkpoint", &tiny(), "--limit", "40", "--json"]),
        ("run", &run),
    ];
    for (command, more) in commands {
        let [folder, archive] = ["out", "out.zip"].map(|place| {
            let path = format!("{place}/{NAME}");
            let mut found = of_folder(&dir, &[&[command, &path], more].concat());
            // Times differ from run to run.
            ["generated", "tokens_per_second"].iter().for_each(|key| {
                found.as_object_mut().map(|fields| fields.remove(*key));
            });
            found
        });
        assert_eq!(archive, folder, "{command} {more:?}");
    }
    assert_eq!(dir.json(&["diff", "out", "out.zip", "--json"])["equal"], true);
    assert_eq!(dir.json(&["diff", "out.zip", "out", "--quick", "--json"])["equal"], true);
    let tables = "out.zip/gemma4_e4b_qat_gather_raw";
    let bundle = format!("out/{NAME}");
    let with_tables = [&["run", &bundle, "--tables", tables][..], &run].concat();
    assert_eq!(dir.json(&with_tables)["text"], dir.json(&[&["run", "out.zip"][..], &run].concat())["text"]);
    assert_eq!(dir.names("."), ["out", "out.zip"], "nothing was unpacked");
}

#[test]
fn a_folder_with_one_bundle_stands_for_it() {
    let dir = packed();
    let oracle = fixtures::data::tiny_oracle().display().to_string();
    for place in ["out", "out.zip", "out/", "./out.zip"] {
        dir.ok(&["gate", place, "--oracle", &oracle]);
        let inspected = dir.json(&["inspect", place, "--json"]);
        assert_eq!((&inspected["kind"], &inspected["holds"]), (&json!("folder"), &json!("outputs")));
        let members: Vec<&str> = inspected["members"]
            .as_array()
            .unwrap()
            .iter()
            .map(|member| member["kind"].as_str().unwrap())
            .collect();
        assert_eq!(members, ["bundle", "tables"]);
        let checked = dir.json(&["check", place, "--json"]);
        assert_eq!(
            (&checked["target"], checked["members"].as_array().unwrap().len()),
            (&json!("outputs"), 2)
        );
    }
    // A defect of a member is one of the folder.
    fs::write(dir.path(&format!("out/{NAME}/tokenizer/tokenizer_config.json")), "{}").unwrap();
    assert!(!dir.command(&["check", "out"]).output().unwrap().status.success());
    let paths = of_folder(&dir, &["check", "out", "--json"]);
    let paths = paths["findings"].as_array().unwrap().iter().map(|finding| finding["path"].as_str().unwrap());
    assert!(
        paths.clone().any(|path| path == format!("{NAME}/tokenizer/tokenizer_config.json")),
        "{:?}",
        paths.collect::<Vec<_>>()
    );
}

#[test]
fn where_one_bundle_is_needed_several_are_listed() {
    let dir = Dir::new();
    dir.ok(&["convert", &tiny(), "-o", "out", "--variant", "both", "--no-report"]);
    dir.ok(&["pack", "out", "-o", "out.zip"]);
    dir.ok(&["tables", &tiny(), "-o", "tables"]);
    let oracle = fixtures::data::tiny_oracle().display().to_string();
    let mut all = String::new();
    for arguments in [
        &["run", "out", "--prompt", "x"][..],
        &["run", "out.zip", "--prompt", "x"],
        &["run", "tables", "--prompt", "x"],
        &["run", "out.zip/nothing", "--prompt", "x"],
        &["gate", "out.zip", "--oracle", &oracle],
        &["eval", "out.zip", "--checkpoint", &tiny(), "--limit", "20", "--record"],
    ] {
        let shown: Vec<&str> = arguments.iter().filter(|word| !word.starts_with('/')).copied().collect();
        let output = dir.command(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        all += &format!("$ coreai-bundle {}\n{}", shown.join(" "), text(&output.stderr));
    }
    golden::check("several-bundles", &all);
    // Any number can be measured.
    let figures = dir.json(&["eval", "out.zip", "--checkpoint", &tiny(), "--limit", "20", "--json"]);
    assert_eq!(figures["bundles"].as_array().unwrap().len(), 2);
}

#[test]
fn a_release_is_made_of_an_output_folder_or_its_archive() {
    let dir = packed();
    let license =
        ["--base-model", "google/gemma-4-tiny", "--license-id", "apache-2.0", "--license", "LICENSE"];
    fs::write(dir.path("LICENSE"), "terms").unwrap();
    let parts = [format!("out/{NAME}"), "out/gemma4_e4b_qat_gather_raw".to_owned()];
    let sources: [Vec<&str>; 3] = [vec![&parts[0], &parts[1]], vec!["out"], vec!["out.zip"]];
    let mut releases = sources.iter().enumerate().map(|(at, folders)| {
        let name = format!("{at}/release");
        fs::create_dir(dir.path(&at.to_string())).unwrap();
        dir.ok(&[&["release"], &folders[..], &["-o", &name], &license].concat());
        crate::common::tree(&dir.path(&name))
    });
    let first = releases.next().unwrap();
    assert!(releases.all(|release| release == first));
    dir.ok(&["pack", "1/release", "-o", "release.zip"]);
    let checked = dir.ok(&["check", "release.zip"]);
    assert!(checked.contains("release.zip: 0 defects"), "{checked}");
    // No command writes into an archive.
    let here = format!("{}/", dir.path("").canonicalize().unwrap().display());
    let checked = checked.replace(&here, "");
    let fix = "unpack release.zip into release, then coreai-bundle aotc BUNDLE --arch h18p on a bundle that the release was made of, \
         then coreai-bundle release BUNDLES.. TABLES.. -o release --force";
    assert!(checked.contains(fix), "{checked}");
    assert_eq!(dir.json(&["inspect", "release.zip", "--json"])["holds"], "release");
    let run = ["--prompt", "Count up: 1, 2, 3,", "-n", "2", "--raw"];
    let named = format!("release.zip/gpu-pipelined/{NAME}");
    assert_eq!(
        dir.ok(&[&["run", &named][..], &run].concat()),
        dir.ok(&[&["run", "1/release"][..], &run].concat())
    );
}

#[test]
fn a_changed_byte_of_an_archive_is_a_defect() {
    let dir = packed();
    let mut bytes = fs::read(dir.path("out.zip")).unwrap();
    let tokenizer = fs::read(dir.path(&format!("out/{NAME}/tokenizer/tokenizer.json"))).unwrap();
    let at = bytes.windows(256).position(|window| *window == tokenizer[..256]).unwrap();
    bytes[at + 5] ^= 1;
    fs::write(dir.path("out.zip"), bytes).unwrap();
    let output = dir.command(&["check", "out.zip", "--json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["id"] == "manifest.digest").unwrap();
    let fix = found["fix"].as_str().unwrap();
    let here = format!("{}/", dir.path("").canonicalize().unwrap().display());
    let begin = format!("unpack {here}out.zip into {here}out, then ");
    assert!(fix.starts_with(&begin), "{fix}");
}

#[test]
fn archives_of_other_tools_are_named() {
    let dir = packed();
    let whole = fs::read(dir.path("out.zip")).unwrap();
    fs::write(dir.path("cut.zip"), &whole[..whole.len() / 2]).unwrap();
    for command in [&["inspect", "cut.zip"][..], &["check", "cut.zip"], &["run", "cut.zip", "--prompt", "x"]]
    {
        let message = dir.fails(command);
        assert!(message.contains("cut.zip does not end as an archive"), "{command:?}: {message}");
    }
}
