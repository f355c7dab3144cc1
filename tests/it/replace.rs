//! What outputs may replace, and where they may go: nothing that this tool did not write is lost, whatever `--force` says.

use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::common::{Dir, tiny, tree};

const BUNDLE: &str = "out/gemma4_e4b_qat_decode_int4lin";
const TBL: &str = "out/gemma4_e4b_qat_decode_int4lin_tbl";
const TABLES: &str = "out/gemma4_e4b_qat_gather_raw";

/// Both bundles of the tiny checkpoint and their tables in `out`, with a file of somebody else's beside them, and the checkpoint in
/// `tiny-e4b-qat`.
fn converted() -> Dir {
    let dir = Dir::new();
    copy(tiny(), &dir.path("tiny-e4b-qat"));
    dir.ok(&["convert", "tiny-e4b-qat", "-o", "out", "--variant", "both"]);
    fs::write(dir.path("out/notes.txt"), "a diary").unwrap();
    dir
}

fn copy(from: impl AsRef<Path>, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

impl Dir {
    /// Runs commands that must be refused with a message, and change nothing.
    fn refuses(&self, command: &[&str], words: &str) {
        let before = tree(&self.path(""));
        let message = self.fails(command);
        assert!(message.contains(words), "{command:?}\n{message}");
        assert!(!message.contains("--force"), "--force would not help\n{command:?}\n{message}");
        assert!(before == tree(&self.path("")), "{command:?} changed something\n{message}");
    }
}

#[test]
fn files_of_others_are_never_lost() {
    let dir = converted();
    releases(&dir);
    archives(&dir);
    conversions(&dir);
    single_files(&dir);
}

fn releases(dir: &Dir) {
    let parts = ["release", BUNDLE, TABLES, "--base-model", "google/gemma-4-tiny"];
    let license = ["--license", "tiny-e4b-qat/config.json", "--license-id", "other"];
    let release = [&parts[..], &license].concat();
    let to = |place: &'static str| [&release[..], &["--force", "-o", place]].concat();

    for place in ["out", "out/", "out/.", "./nowhere/../out"] {
        dir.refuses(&to(place), "holds the input");
    }
    dir.refuses(&to(BUNDLE), "is an input of this command");
    dir.refuses(&to("tiny-e4b-qat/config.json"), "is an input of this command");
    dir.refuses(&to("out/gemma4_e4b_qat_gather_raw/new/release"), "is inside the input");
    dir.refuses(&to(TBL), "is a bundle, but the output is a release");
    dir.refuses(&to("tiny-e4b-qat"), "holds the input");
    dir.refuses(&to("out/notes.txt"), "is a file, but the output is a folder");

    fs::create_dir(dir.path("mine")).unwrap();
    fs::write(dir.path("mine/photo.jpg"), "").unwrap();
    dir.refuses(&to("mine"), "it has no manifest.json of this tool");
    fs::write(dir.path("mine/manifest.json"), r#"{"name": "an extension of a browser"}"#).unwrap();
    dir.refuses(&to("mine"), "it has no manifest.json of this tool");

    // Without --force nothing is replaced; --force is suggested where it helps.
    fs::create_dir(dir.path("r")).unwrap();
    assert!(dir.fails(&[&release[..], &["-o", "r"]].concat()).contains("pass --force"));
    dir.ok(&to("r"));
    assert!(dir.fails(&[&release[..], &["-o", "r"]].concat()).contains("pass --force"));

    symlink("r", dir.path("link")).unwrap();
    dir.refuses(&to("link"), "is a symbolic link, but the output is a folder");
    dir.refuses(&to("link/"), "is a symbolic link, but the output is a folder");
    dir.refuses(&to("link/gpu-pipelined"), "it has no manifest.json of this tool");
    fs::remove_file(dir.path("link")).unwrap();

    for foreign in ["notes.txt", ".git/HEAD", "gpu-pipelined/x\u{1b}[31m"] {
        let path = dir.path("r").join(foreign);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "a diary").unwrap();
        dir.refuses(&to("r"), &format!("it holds {foreign:?}, which is not in its manifest.json"));
        fs::remove_file(&path).unwrap();
    }
    symlink("../tiny-e4b-qat", dir.path("r/checkpoint")).unwrap();
    dir.refuses(&to("r"), "it holds \"checkpoint\"");
    fs::remove_file(dir.path("r/checkpoint")).unwrap();
    fs::write(dir.path("r/.DS_Store"), "").unwrap();
    dir.ok(&to("r"));
    assert!(!dir.path("r/.DS_Store").exists());
}

fn archives(dir: &Dir) {
    let pack = |place: &'static str| ["pack", "r", "-o", place, "--force"];
    assert!(Command::new("mkfifo").arg(dir.path("pipe")).status().unwrap().success());
    symlink("/dev/null", dir.path("null")).unwrap();
    for (place, words) in [
        ("pipe", "is a named pipe"),
        ("null", "is a symbolic link"),
        ("out", "is a folder, but the output is a file"),
        ("r", "is an input of this command"),
        ("r/new/r.zip", "is inside the input"),
        ("r.zip/", "cannot be an output"),
        ("out/notes.txt", "it is not an archive of this tool"),
    ] {
        // Reading the pipe as a file of the tree would wait.
        assert!(dir.fails(&pack(place)).contains(words), "{place}");
    }
    assert!(fs::symlink_metadata(dir.path("pipe")).unwrap().file_type().is_fifo());
    assert!(fs::symlink_metadata(dir.path("null")).unwrap().is_symlink());
    fs::remove_file(dir.path("pipe")).unwrap();
    fs::remove_file(dir.path("null")).unwrap();

    fs::write(dir.path("r.zip"), [b"PK\x03\x04\x14\0\0\0\x08\0".as_slice(), &[7; 90]].concat()).unwrap();
    dir.refuses(&pack("r.zip"), "it is not an archive of this tool");
    fs::write(dir.path("r.zip"), "").unwrap();
    dir.ok(&pack("r.zip"));
    let packed = fs::read(dir.path("r.zip")).unwrap();
    dir.ok(&pack("r.zip"));
    assert!(packed == fs::read(dir.path("r.zip")).unwrap());
}

fn conversions(dir: &Dir) {
    for place in ["tiny-e4b-qat", "tiny-e4b-qat/out", "tiny-e4b-qat/new/../out", "m"] {
        if place == "m" {
            symlink("tiny-e4b-qat", dir.path("m")).unwrap();
        }
        dir.refuses(&["convert", "tiny-e4b-qat", "-o", place, "--force"], "give another folder with -o");
        dir.refuses(&["tables", "tiny-e4b-qat", "-o", place], "give another folder with -o");
        dir.refuses(
            &["tables", "tiny-e4b-qat", "-o", place, "--ple", "safetensors"],
            "give another folder with -o",
        );
    }
    fs::remove_file(dir.path("m")).unwrap();

    for (command, folder) in [("convert", BUNDLE), ("convert", TABLES), ("tables", TABLES)] {
        let foreign = dir.path(folder).join("notes.txt");
        fs::write(&foreign, "a diary").unwrap();
        dir.refuses(&[command, "tiny-e4b-qat", "-o", "out", "--force"], "it holds \"notes.txt\"");
        fs::remove_file(foreign).unwrap();
    }
    // What is in the way of the report is reported before the work.
    fs::create_dir(dir.path("new")).unwrap();
    fs::write(dir.path("new/gemma4_e4b_qat_decode_int4lin.report.html"), "<html>").unwrap();
    dir.refuses(&["convert", "tiny-e4b-qat", "-o", "new"], "it is not a report of this tool");
}

fn single_files(dir: &Dir) {
    let mine = "out/notes.txt";
    fs::write(dir.path("prompts"), "Count up: 1, 2, 3,").unwrap();
    let oracle = ["oracle", "tiny-e4b-qat", "--prompts", "prompts", "-n", "1", "--force", "-o"];
    let aotc = ["aotc", BUNDLE, "--arch", "h18p", "--force"];
    let inspect = ["inspect", BUNDLE, "--html", "-o"];
    let gate = ["gate", BUNDLE, "--oracle", "o.json", "--min-positions", "1", "--probe"];
    let script = [&aotc[..], &["--script"]].concat();
    let report = [&aotc[..], &["--report"]].concat();
    let inside = "out/gemma4_e4b_qat_decode_int4lin/metadata.json";

    dir.refuses(&[&oracle[..], &[mine]].concat(), "it is not an oracle of this tool");
    dir.refuses(&[&oracle[..], &["tiny-e4b-qat/config.json"]].concat(), "is inside the input");
    dir.refuses(&[&oracle[..], &["prompts"]].concat(), "is an input of this command");
    for command in [&inspect[..], &script, &report, &gate] {
        dir.refuses(&[command, &[mine]].concat(), "of this tool");
        dir.refuses(&[command, &[inside]].concat(), "is inside the input");
    }
    let workflow = [&aotc[..], &["--repo-id", "owner/name", "--github-workflow"]].concat();
    dir.refuses(&[&workflow[..], &[mine]].concat(), "it is not a script of this tool");
    // A second run of each replaces what the first one wrote.
    for _ in 0..2 {
        dir.ok(&["tables", "tiny-e4b-qat", "--ple", "safetensors", "-o", "table", "--force"]);
        dir.ok(&[&workflow[..], &["compile.yml"]].concat());
        dir.ok(&[&oracle[..], &["o.json"]].concat());
        dir.ok(&[&inspect[..], &["page.html"]].concat());
        dir.ok(&[&script[..], &["compile.sh"]].concat());
        dir.ok(&[&gate[..], &["probe.json"]].concat());
    }
}
