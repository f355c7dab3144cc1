//! Ctrl-C and termination end a command that waits for the Hub, while the Hub still holds the connection.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use crate::common::{Dir, both};
use fixtures::hub::{Fault, Faults, Hub};

const ID: &str = "google/gemma-4-tiny";

#[test]
fn every_command_that_waits_for_the_hub() {
    let (info, weights) = ("GET /api/models", "GET /repos/");
    let cases = [
        (&["inspect", ID][..], "-INT", Fault::Silent, info),
        (&["inspect", ID], "-TERM", Fault::Trickle, info),
        (&["convert", ID, "-o", "out"], "-INT", Fault::Stall, weights),
        (&["convert", ID, "-o", "out"], "-TERM", Fault::Trickle, weights),
        (&["convert", ID, "-o", "out", "--download"], "-INT", Fault::Silent, weights),
        (&["convert", ID, "-o", "out", "--dry-run"], "-TERM", Fault::Silent, "HEAD /google"),
        (&["tables", ID, "-o", "out"], "-INT", Fault::Silent, weights),
        (&["inspect", ID], "-TERM", Fault::TooMany(250), info),
        (&["doctor", "--xcrun", "/absent/xcrun"], "-INT", Fault::Silent, "HEAD /"),
    ];
    for (arguments, signal, fault, only) in cases {
        let dir = Dir::new();
        let hub = Hub::start().unwrap();
        hub.add_folder(ID, &fixtures::data::tiny_checkpoint()).unwrap();
        hub.set_faults(Some(Faults::new(1, 1, &[fault]).only(only)));
        let mut command = dir.command(arguments);
        command.env("HF_ENDPOINT", hub.endpoint()).env("HF_HOME", dir.path("home"));
        command.env_remove("HF_HUB_OFFLINE").env_remove("HF_HUB_CACHE").env_remove("HF_TOKEN");
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        match fault {
            // It waits as long as the server asked it to.
            Fault::TooMany(_) => {
                while hub.log().is_empty() {
                    std::thread::yield_now();
                }
            }
            _ => hub.wait_held(1),
        }
        Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        let output = child.wait_with_output().unwrap();
        let said = both(&output);
        // A command with nothing to clean up is ended by the signal itself.
        match output.status.signal() {
            Some(number) => assert!([2, 15].contains(&number), "{arguments:?} {fault:?}: {said}"),
            None => {
                assert_eq!(output.status.code(), Some(1), "{arguments:?} {fault:?}: {said}");
                assert!(said.contains("error: interrupted"), "{arguments:?} {fault:?}: {said}");
            }
        }
        assert_eq!(dir.names("out"), [""; 0], "{arguments:?} {fault:?}: something stays");
    }
}
