//! The exit status: 0 on success, 1 for what the user can fix, 2 if the machine fails.

use std::fs::{File, OpenOptions};
use std::process::Stdio;

use crate::common::{Dir, both, tiny};

#[test]
fn arguments_and_inputs() {
    let dir = Dir::new();
    File::create(dir.path("file")).unwrap();
    let tiny = tiny();
    for (arguments, status) in [
        (&["--help"][..], 0),
        (&["--version"], 0),
        (&["help", "convert"], 0),
        (&["convert", "--help"], 0),
        (&["completions", "bash"], 0),
        // Usage.
        (&[], 1),
        (&["no-such-command"], 1),
        (&["convert"], 1),
        (&["convert", &tiny, "--no-such-option"], 1),
        (&["convert", &tiny, "-o", "out", "--weights", "int3"], 1),
        (&["completions", "no-such-shell"], 1),
        (&["aotc", "bundle", "--print", "--script", "x"], 1),
        // Inputs and outputs.
        (&["convert", "./absent", "-o", "out"], 1),
        (&["check", "absent"], 1),
        (&["man", "file/below"], 1),
        (&["man", "file"], 1),
        (&["aotc", "absent", "--arch", "h18p"], 1),
    ] {
        let output = dir.command(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {}", both(&output));
        // Help that was asked for is data; an error is not.
        assert_eq!(output.stdout.is_empty(), status != 0, "{arguments:?}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_a_fault_of_the_machine() {
    let dir = Dir::new();
    let full = || Stdio::from(OpenOptions::new().write(true).open("/dev/full").unwrap());
    for arguments in [&["completions", "bash"][..], &["inspect", &tiny()], &["inspect", &tiny(), "--json"]] {
        let output = dir.command(arguments).stdout(full()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", both(&output));
    }
    // A file that can be opened but is empty.
    let output = dir.command(&["completions", "bash"]).stdout(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", both(&output));
}
