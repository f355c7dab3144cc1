//! What `doctor` and reports say about the stand-in toolchain.

use std::path::Path;

use crate::common::Scene;
use aotc::doctor::{Check, remote_tools, toolchain};
use aotc::report::CompileReport;
use aotc::{Stage, ToolchainOptions};
use progress::Silent;

fn checks(scene: &Scene, options: ToolchainOptions) -> Vec<Check> {
    let mut checks = toolchain(&options, &scene.interrupt).unwrap();
    checks.extend(remote_tools(&scene.interrupt).unwrap());
    checks
}

fn find<'a>(checks: &'a [Check], subject: &str) -> &'a Check {
    checks.iter().find(|check| check.subject == subject).unwrap()
}

#[test]
fn everything_is_reported_with_a_remedy_for_what_is_missing() {
    let scene = Scene::new();
    let with = checks(&scene, scene.options());
    let subjects: Vec<_> = with.iter().map(|check| check.subject).collect();
    assert_eq!(subjects, ["toolchain", "version", "Metal toolchain", "ssh", "rsync"]);
    assert!(find(&with, "toolchain").ok);
    assert_eq!(find(&with, "version").detail, "coreai-build 3600.79.1");
    assert_eq!(find(&with, "Metal toolchain").detail, "27A5228f");

    scene.xcode.set("XCODEBUILD_METAL", "uninstalled").unwrap();
    let uninstalled = checks(&scene, scene.options());
    let component = find(&uninstalled, "Metal toolchain");
    assert!(!component.ok && component.detail == "uninstalled", "{component}");
    assert!(component.remedy.as_deref().unwrap().contains("-downloadComponent MetalToolchain"));

    let nothing = ToolchainOptions { xcrun: Some(scene.path("no-xcrun")), developer_dir: None };
    let without = checks(&scene, nothing);
    for check in without.iter().chain(&with) {
        assert_eq!(check.ok, check.remedy.is_none(), "{check}");
    }
    assert!(!find(&without, "toolchain").ok && !find(&without, "version").ok);
}

#[test]
fn report_is_one_json_file_without_home_folder_names() {
    let scene = Scene::new();
    let request = scene.request(&["h18p", "h17p"]);
    let stage = Stage::open(request).unwrap();
    let mut compiler = scene.toolchain();
    let outcome = stage.run(&mut compiler, &scene.interrupt, &Silent);
    let mut report = CompileReport::new(checks(&scene, scene.options()), &scene.interrupt).unwrap();
    report.add_toolchain(&compiler, &scene.interrupt).unwrap();
    report.add_outcome(&stage, &outcome);
    let home = scene.path("");
    let text = report.to_json(Some(Path::new(home.to_str().unwrap().trim_end_matches('/')))).unwrap();
    assert!(!text.contains(home.to_str().unwrap()), "{text}");
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["toolchain"]["version"], "coreai-build 3600.79.1");
    assert!(value["toolchain"]["help"].as_str().unwrap().contains("USAGE: coreai-build compile"));
    assert_eq!(value["artifacts"].as_array().unwrap().len(), 2);
    assert_eq!(value["artifacts"][0]["files"].as_array().unwrap().len(), 6);
    assert!(value["artifacts"][0]["seconds"].as_f64().unwrap() > 0.0);
    assert!(value["error"].is_null());

    scene.fault("silent-nothing");
    let mut again = scene.request(&["h18p"]);
    again.force = true;
    let stage = Stage::open(again).unwrap();
    let outcome = stage.run(&mut compiler, &scene.interrupt, &Silent);
    crate::common::forget_log(&outcome.failure.as_ref().unwrap().1);
    report.add_outcome(&stage, &outcome);
    let value: serde_json::Value = serde_json::from_str(&report.to_json(None).unwrap()).unwrap();
    assert!(value["error"].as_str().unwrap().contains("exited 0 but wrote no"));
}
