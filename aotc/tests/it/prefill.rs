//! Graphs for iOS are compiled without `prefill`, unless that is asked for.

use std::fs;
use std::path::Path;

use aimodel::bytecode::reader::Bytecode;
use aimodel::view::Function;
use aotc::script::{commands, script};
use aotc::{CompileRequest, Error, Platform, Stage};
use packer::manifest::Manifest;
use packer::metadata::BundleMetadata;

use progress::Silent;

use crate::common::{Scene, listing};

/// Names of the functions that the stand-in compiled: it copies its input into the artifact.
fn compiled_functions(sibling: &Path) -> Vec<String> {
    let asset = &BundleMetadata::read(sibling).unwrap().assets["main"];
    let program = "main-h17g-delegates/MPSGraph/mpsExecutable.mpsgraphpackage/model_0.mpsgraph";
    let module = Bytecode::open(&sibling.join(asset).join(program)).unwrap().module;
    Function::all(&module).map(|function| function.unwrap().name.unwrap().to_owned()).collect()
}

/// A request for an architecture that both platforms have.
fn request(scene: &Scene, platform: Platform, keep_prefill: bool) -> CompileRequest {
    let mut request = scene.request(&["h17g"]);
    request.settings.platform = platform;
    request.keep_prefill = keep_prefill;
    request
}

fn compile(scene: &Scene, platform: Platform, keep_prefill: bool) -> bool {
    let (outcome, reported) = scene.run_reporting(request(scene, platform, keep_prefill));
    assert!(outcome.failure.is_none(), "{outcome:?}");
    reported.iter().any(|step| step.starts_with("compiling for "))
}

#[test]
fn graphs_for_ios_lose_prefill_and_say_so() {
    let scene = Scene::with_prefill();
    assert!(compile(&scene, Platform::Ios, false));
    let sibling = scene.sibling("h17g");
    assert_eq!(compiled_functions(&sibling), ["main"]);
    let metadata = BundleMetadata::read(&sibling).unwrap();
    assert_eq!(metadata.user_data["query_length"], "dynamic");
    assert!(!metadata.user_data.contains_key("prefill_query_length"), "{:?}", metadata.user_data);
    let from = Manifest::read(&sibling).unwrap().compiled_from.unwrap();
    let stage = Stage::open(request(&scene, Platform::Ios, false)).unwrap();
    assert_eq!(from.main_sha256, stage.source().program_sha256, "it is known by the whole graph");
    assert_eq!(from.toolchain["left_out"], serde_json::json!(["prefill"]));
    let names: Vec<_> = fs::read_dir(&sibling).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names.len(), 4, "{names:?}");
}

#[test]
fn prefill_is_compiled_for_macos_and_on_request() {
    let scene = Scene::with_prefill();
    for (platform, keep_prefill) in [(Platform::Macos, false), (Platform::Ios, true)] {
        assert!(compile(&scene, platform, keep_prefill));
        assert_eq!(compiled_functions(&scene.sibling("h17g")), ["main", "prefill"]);
        let metadata = BundleMetadata::read(&scene.sibling("h17g")).unwrap();
        assert_eq!(metadata.user_data["prefill_query_length"], "dynamic");
        assert!(!compile(&scene, platform, keep_prefill), "it is up to date");
    }
    assert!(compile(&scene, Platform::Ios, false), "what is compiled has changed");
    assert!(!compile(&scene, Platform::Ios, false));
}

#[test]
fn others_cannot_leave_prefill_out() {
    let scene = Scene::with_prefill();
    let stage = Stage::open(request(&scene, Platform::Ios, false)).unwrap();
    let refusals = [
        commands(&stage).unwrap_err(),
        script(&stage).unwrap_err(),
        stage.adopt(&scene.path("x.h17g.aimodelc")).unwrap_err(),
    ];
    for refusal in refusals {
        assert!(matches!(refusal, Error::HasPrefill { .. }), "{refusal}");
        assert!(refusal.hint().unwrap().contains("--keep-prefill"));
    }
    let kept = Stage::open(request(&scene, Platform::Ios, true)).unwrap();
    assert!(script(&kept).unwrap().contains("h17g"));
}

#[test]
fn failures_leave_no_reduced_graph_behind() {
    let scene = Scene::with_prefill();
    scene.fault("wrong-hash");
    scene.failure(request(&scene, Platform::Ios, false));
    let scene = Scene::with_prefill();
    let mut toolchain = scene.toolchain();
    let before = listing(scene.bundle.parent().unwrap());
    scene.interrupt.raise();
    let stage = Stage::open(request(&scene, Platform::Ios, false)).unwrap();
    let outcome = stage.run(&mut toolchain, &scene.interrupt, &Silent);
    assert!(matches!(outcome.failure, Some((_, Error::Interrupted))), "{outcome:?}");
    assert_eq!(listing(scene.bundle.parent().unwrap()), before);
}

#[test]
fn a_graph_that_cannot_be_read_is_compiled_only_whole() {
    let scene = Scene::with_prefill();
    let package = Stage::open(request(&scene, Platform::Ios, false)).unwrap().source().package_path();
    let program = fs::read(package.join("main.mlirb")).unwrap();
    // The string section is at the end: its length no longer fits.
    let cut = &program[..program.len() - 100];
    fs::write(package.join("main.mlirb"), cut).unwrap();
    fs::write(package.join("main.hash"), output::Digest::of_bytes(cut).as_bytes()).unwrap();
    let refused = Stage::open(request(&scene, Platform::Ios, false)).unwrap_err();
    assert!(refused.to_string().contains("main.mlirb"), "{refused}");
    Stage::open(request(&scene, Platform::Ios, true)).unwrap();
}
