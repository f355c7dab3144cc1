//! Reports in a browser: Chromium, driven by ChromeDriver. Checks what is rendered, and makes the pictures of `docs/` when
//! UPDATE_SCREENSHOTS is set.
//!
//! `tests/data/report-wide.json` is the report of a conversion that is too large for a test: of six layers as wide as E4B's,
//! `cargo xtask fixture --shape e4b:6 --no-towers FOLDER`, then `coreai-bundle convert FOLDER --variant both`.

use std::fs;
use std::path::Path;

use crate::common::browser::Browser;
use crate::common::{Dir, tiny, tree};
use fixtures::{Shape, SyntheticCheckpoint};
use report::{Report, html};
use serde_json::{Value, json};

const NAME: &str = "gemma4_e4b_qat_decode_int4lin";
/// Widths of a desktop and a phone.
const WIDE: u32 = 1280;
const NARROW: u32 = 420;

/// What must hold for every page, at both widths and in both schemes.
fn assert_sound(browser: &Browser, page: &Path) {
    let mut grounds = Vec::new();
    for scheme in ["light", "dark"] {
        for width in [WIDE, NARROW] {
            browser.show(page, width, scheme);
            let overflow = browser.run("return document.documentElement.scrollWidth - window.innerWidth");
            assert!(overflow.as_i64().unwrap() <= 0, "{}: {overflow} too wide at {width}", page.display());
            assert_eq!(browser.run("return window.innerWidth"), width);
        }
        grounds.push(browser.run("return getComputedStyle(document.body).backgroundColor"));
    }
    assert_ne!(grounds[0], grounds[1], "light and dark differ");
    assert_eq!(browser.complaints(), [""; 0]);
    // The browser's own first page has the scheme chrome.
    let is_here = |url: &String| ["file:", "data:", "chrome:"].iter().any(|scheme| url.starts_with(scheme));
    let foreign: Vec<String> = browser.requests().into_iter().filter(|url| !is_here(url)).collect();
    assert_eq!(foreign, [""; 0], "a page asks the network for nothing");
}

fn report_of(path: &Path) -> Report {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Facts and page agree: cells, slots, verdicts.
fn assert_shows(browser: &Browser, report: &Report) {
    let count = |selector: &str| {
        browser
            .run(&format!("return document.querySelectorAll({}).length", json!(selector)))
            .as_u64()
            .unwrap()
    };
    assert_eq!(browser.run("return document.title"), format!("{}: report", report.name));
    let in_layers = report.tensors.iter().filter(|tensor| tensor.layer().is_some()).count() as u64;
    assert!(in_layers > 0);
    for map in ["#exact td.cell", "#errors td.cell"] {
        assert_eq!(count(map), in_layers, "{map}");
    }
    let writers = report.slots.iter().filter(|slot| slot.writes).count() as u64;
    assert_eq!(count("#slots .writes"), writers);
    assert_eq!(count("#slots .reads"), report.slots.len() as u64 - writers);
    assert_eq!(count(".gate"), report.gates.len() as u64);
    let verdicts: Value =
        browser.run("return [...document.querySelectorAll('.gate strong')].map(e => e.textContent)");
    assert_eq!(verdicts, json!(report.gates.iter().map(|gate| &gate.verdict).collect::<Vec<_>>()));
    // Bars and cells have a size: nothing collapsed.
    let smallest =
        "return Math.min(...[...document.querySelectorAll('#exact .cell, .track')].map(e => e.offsetHeight))";
    assert!(browser.run(smallest).as_f64().unwrap() >= 10.0);
}

#[test]
fn reports_render_in_a_browser() {
    let Some(browser) = Browser::start() else { return };
    let dir = Dir::new();

    // Under its own name, which the pictures show.
    fs::create_dir(dir.path("tiny-e4b-qat")).unwrap();
    for (name, bytes) in tree(Path::new(&tiny())) {
        fs::write(dir.path("tiny-e4b-qat").join(name), bytes).unwrap();
    }
    dir.ok(&["convert", "tiny-e4b-qat", "-o", "out", "--gate"]);
    let page = dir.path(&format!("out/{NAME}.report.html"));
    let report = report_of(&dir.path(&format!("out/{NAME}.report.json")));
    assert_sound(&browser, &page);
    browser.show(&page, WIDE, "light");
    assert_shows(&browser, &report);
    assert_eq!(report.gates.len(), 1);
    assert_eq!(browser.run("return document.querySelector('dl.facts .good').textContent"), "100.00 %");
    assert_eq!(
        browser.run("return document.querySelectorAll('.gate polyline').length"),
        3,
        "cosine and both margins"
    );
    let positions: usize = report.gates[0].sequences.iter().map(|sequence| sequence.positions.len()).sum();
    let drawn = "return document.querySelector('.gate polyline').points.numberOfItems";
    assert_eq!(browser.run(drawn), positions);
    let told = browser.run("return document.querySelector('#exact td.cell').title");
    assert!(
        told.as_str().unwrap().contains("layers.0.self_attn.q_proj.weight [128, 128]: 100.00 %"),
        "{told}"
    );
    browser.picture(&page, WIDE, "docs/report-1280.png");
    browser.picture(&page, NARROW, "docs/report-420.png");

    let inspected = dir.path("theirs.html");
    dir.ok(&["inspect", &format!("out/{NAME}/{NAME}.aimodel"), "--html", "-o", "theirs.html"]);
    assert_sound(&browser, &inspected);
    let text = browser.run("return document.body.textContent").as_str().unwrap().to_owned();
    assert!(
        text.contains("Weights by code.") && text.contains("only a manifest of this tool records it"),
        "{text}"
    );
    assert!(!text.contains("What quantization kept"));

    SyntheticCheckpoint::new(Shape::e2b_like()).write(&dir.path("e2b-qat")).unwrap();
    dir.ok(&["convert", "e2b-qat", "-o", "e2b", "--name", "small", "--no-chat-template", "--rule", "absmax"]);
    let page = dir.path("e2b/small_decode_int4absmax.report.html");
    assert_sound(&browser, &page);
    assert_shows(&browser, &report_of(&dir.path("e2b/small_decode_int4absmax.report.json")));
    let text = browser.run("return document.querySelector('#recovery').textContent");
    assert!(
        text.as_str().unwrap().contains("Not exact"),
        "absmax loses weights, and the page says so: {text}"
    );

    let wide = report_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/report-wide.json"));
    let page = dir.path("wide.html");
    fs::write(&page, html::render(&wide).unwrap()).unwrap();
    assert_sound(&browser, &page);
    assert_shows(&browser, &wide);
}

#[test]
fn reports_stay_out_of_bundles_and_archives() {
    let dir = Dir::new();
    let said = dir.ok(&["convert", &tiny(), "-o", "out"]);
    assert!(said.contains(&format!("{NAME}.report.html  report")), "{said}");
    let manifest = fs::read_to_string(dir.path(&format!("out/{NAME}/manifest.json"))).unwrap();
    assert!(!manifest.contains("report"), "{manifest}");
    let archive = dir.json(&["pack", "out", "-o", "out.zip", "--json"]);
    let skipped = archive["archive"]["skipped"].as_array().unwrap();
    assert_eq!(skipped.len(), 2, "{archive}");
    dir.ok(&["convert", &tiny(), "-o", "silent", "--no-report"]);
    assert!(!dir.path(&format!("silent/{NAME}.report.html")).exists());

    // What a report cannot replace is reported before the work.
    fs::create_dir(dir.path("blocked")).unwrap();
    fs::create_dir(dir.path(&format!("blocked/{NAME}.report.json"))).unwrap();
    let refused = dir.fails(&["convert", &tiny(), "-o", "blocked"]);
    assert!(refused.contains("report.json is a folder"), "{refused}");
    assert_eq!(dir.names("blocked"), [""; 0]);
    dir.ok(&["convert", &tiny(), "-o", "blocked", "--no-report"]);
}
