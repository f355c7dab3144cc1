//! The examples, run one after the other on a small checkpoint.

#[path = "../../examples/check.rs"]
mod check;
#[path = "../../examples/convert.rs"]
mod convert;
#[path = "../../examples/gate.rs"]
mod gate;
#[path = "../../examples/inspect.rs"]
mod inspect;

use fixtures::{Shape, SyntheticCheckpoint};

#[test]
fn they_do_what_they_say() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    SyntheticCheckpoint::new(Shape::small()).write(&dir.path().join("model")).unwrap();
    let made = convert::run(&path("model"), &path("out")).unwrap();
    assert_eq!(made.len(), 4, "{made:?}");
    for folder in &made {
        assert_eq!(check::run(folder).unwrap(), [""; 0], "{}", folder.display());
    }
    std::fs::write(made[0].join("metadata.json"), "{}").unwrap();
    assert!(!check::run(&made[0]).unwrap().is_empty());
    let summary = inspect::run(&made[1]).unwrap();
    assert!(summary.is_object(), "{summary}");
    let report = gate::run(&made[1], &path("model")).unwrap();
    assert!(!report.cases.is_empty(), "{report:?}");
}
