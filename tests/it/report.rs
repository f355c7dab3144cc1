//! Reports in a browser: Chromium, driven by ChromeDriver. Checks what is rendered, and makes the pictures of `docs/` when
//! UPDATE_SCREENSHOTS is set.
//!
//! `tests/data/report-wide.json` is the report of a conversion that is too large for a test: of six layers as wide as E4B's,
//! `cargo xtask fixture --shape e4b:6 --no-towers FOLDER`, then `coreai-bundle convert FOLDER --variant both`.

use std::fs;
use std::path::Path;

use crate::common::browser::Browser;
use crate::common::{Dir, text, tiny, tree};
use crate::readme::first_command_run;
use fixtures::{Shape, SyntheticCheckpoint};
use report::{Recovery, Report, Tensor, html};
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
    assert_eq!(count("#exact td.cell"), in_layers);
    let is_exact = |tensor: &Tensor| tensor.recovery.as_ref().is_none_or(Recovery::is_exact);
    let all_exact = report.tensors.iter().filter(|tensor| tensor.layer().is_some()).all(is_exact);
    assert_eq!(count("#errors td.cell"), if all_exact { 0 } else { in_layers });
    let writers = report.slots.iter().filter(|slot| slot.writes).count() as u64;
    assert_eq!(count("#slots .writes"), writers);
    assert_eq!(count("#slots .reads"), report.slots.len() as u64 - writers);
    // The bundles of these runs have the same figures.
    let verdicts: Value =
        browser.run("return [...document.querySelectorAll('.gate strong')].map(e => e.textContent)");
    let expected: Vec<&String> = report.gates.iter().take(1).map(|gate| &gate.verdict).collect();
    assert_eq!(verdicts, json!(expected));
    let heading =
        browser.run("return [...document.querySelectorAll('.gate h2')].map(e => e.textContent).join()");
    for gate in &report.gates {
        assert!(heading.as_str().unwrap().contains(&gate.bundle), "{heading}");
    }
    // Bars and cells have a size: nothing collapsed.
    let smallest =
        "return Math.min(...[...document.querySelectorAll('#exact .cell, .track')].map(e => e.offsetHeight))";
    assert!(browser.run(smallest).as_f64().unwrap() >= 10.0);
}

/// The sentences of the headline, with plain spaces.
fn story(browser: &Browser) -> Vec<String> {
    let told = browser.run("return [...document.querySelectorAll('#story li')].map(e => e.textContent)");
    let told = told.as_array().unwrap().iter();
    told.map(|sentence| sentence.as_str().unwrap().replace('\u{a0}', " ")).collect()
}

/// The tiny checkpoint under its own name, which pages show.
fn tiny_in(dir: &Dir, folder: &str) {
    let folder = dir.path(folder).join("tiny-e4b-qat");
    fs::create_dir_all(&folder).unwrap();
    for (name, bytes) in tree(Path::new(&tiny())) {
        fs::write(folder.join(name), bytes).unwrap();
    }
}

/// What the README's first command makes; its page is in the README too.
#[test]
fn a_perfect_conversion_renders_in_a_browser() {
    let Some(browser) = Browser::start() else { return };
    let (dir, ..) = first_command_run();
    let page = dir.path(&format!("target/tiny/{NAME}.report.html"));
    let report = report_of(&dir.path(&format!("target/tiny/{NAME}.report.json")));
    assert_sound(&browser, &page);
    browser.show(&page, WIDE, "light");
    assert_shows(&browser, &report);
    assert_eq!(report.gates.len(), 2);
    assert_eq!(browser.run("return document.querySelector('dl.facts .good').textContent"), "100.00 %");
    let told = story(&browser);
    for (sentence, begin) in told.iter().zip([
        "Both bundles passed the gate: fp32's token at all of 223 positions where fp32 is sure. KL divergence from fp32: 2.",
        "The whole model as shipped keeps 92.83 % of its 2 253 164 trained weights bit for bit, and all of those of its projections. Not \
         exact: per-layer table (17.83 % exact).",
        "In a sample of 52 224 weights, lattice kept all bit for bit. It would have been 37.76 % by q4_0 and 12.21 % by absmax.",
        "Not measured: how far from fp32 the other 4-bit rules would be. coreai-bundle eval --rule lattice,q4_0,absmax --checkpoint \
         CHECKPOINT measures it.",
        "The checkpoint has 4.38 MB of weights, of which 4.36 MB are converted.",
        "provider and tbl: a device downloads 1.85 MB: 1.36 MB of graph, 463.21 kB of tables and",
    ]) {
        assert!(sentence.starts_with(begin), "{begin}\n{told:#?}");
    }
    assert_eq!(told.len(), 6, "{told:#?}");
    assert_eq!(
        browser.run("return document.querySelectorAll('.gate polyline').length"),
        3,
        "cosine and both margins"
    );
    let positions: usize = report.gates[0].sequences.iter().map(|sequence| sequence.positions.len()).sum();
    let drawn = "return document.querySelector('.gate polyline').points.numberOfItems";
    assert_eq!(browser.run(drawn), positions);
    let cell =
        browser.run("const c = document.querySelector('#exact td.cell'); return [c.textContent, c.title]");
    assert_eq!(cell, json!(["exact", "layers.0.self_attn.q_proj.weight [128, 128]: every weight exact"]));
    let footer = browser.run("return document.querySelector('footer').textContent");
    for digest in &report.digests {
        assert!(footer.as_str().unwrap().contains(&digest.sha256), "{footer}");
    }
    assert_eq!(report.digests.len(), 3, "two programs and their tables");
    browser.picture(&page, WIDE, "light", "docs/report-1280.png");
    browser.picture(&page, NARROW, "light", "docs/report-420.png");

    let inspected = dir.path("theirs.html");
    dir.ok(&["inspect", &format!("target/tiny/{NAME}/{NAME}.aimodel"), "--html", "-o", "theirs.html"]);
    assert_sound(&browser, &inspected);
    assert_eq!(story(&browser), ["The graph has 1.36 MB, weights included."]);
    let text = browser.run("return document.body.textContent").as_str().unwrap().to_owned();
    assert!(
        text.contains("Weights by code.") && text.contains("only a manifest of this tool records it"),
        "{text}"
    );
    assert!(!text.contains("What quantization kept"));
}

#[test]
fn a_failed_conversion_renders_in_a_browser_with_the_tokens_that_differ() {
    let Some(browser) = Browser::start() else { return };
    let dir = Dir::new();
    tiny_in(&dir, ".");
    let arguments = ["convert", "tiny-e4b-qat", "-o", "out", "--rule", "absmax", "--gate"];
    assert_eq!(dir.command(&arguments).output().unwrap().status.code(), Some(1));
    let name = NAME.replace("int4lin", "int4absmax");
    let page = dir.path(&format!("out/{name}.report.html"));
    let report = report_of(&dir.path(&format!("out/{name}.report.json")));
    assert_sound(&browser, &page);
    browser.show(&page, WIDE, "dark");
    assert_shows(&browser, &report);
    let told = story(&browser);
    let verdict =
        "The bundle FAILED the gate: another token than fp32's at 66 of 223 positions where fp32 is sure.";
    assert!(told[0].starts_with(verdict), "{told:#?}");
    assert!(
        told[2].contains("absmax kept 12.21 % bit for bit. It would have been all by lattice"),
        "{told:#?}"
    );
    let flips = &report.gates[0].flips;
    assert_eq!(flips.iter().filter(|flip| flip.qualified).count(), 66);
    assert!(flips.iter().all(|flip| flip.expected.text.is_some() && flip.found.text.is_some()), "{flips:?}");
    let surest = flips.iter().max_by(|a, b| a.margin.unwrap().total_cmp(&b.margin.unwrap())).unwrap();
    let row = browser.run("return document.querySelectorAll('.flips tr')[1].textContent");
    let row = row.as_str().unwrap();
    for part in [
        format!("({})", surest.expected.id),
        format!("({})", surest.found.id),
        format!("margin {:.2}", surest.margin.unwrap()),
        format!("lead {:.2}", surest.lead.unwrap()),
    ] {
        assert!(row.contains(&part), "{part}: {row}");
    }
    browser.picture(&page, WIDE, "dark", "docs/report-failed.png");

    // The manifest of the bundle tells the same.
    dir.ok(&["inspect", &format!("out/{name}"), "--html", "-o", "inspected.html"]);
    assert_sound(&browser, &dir.path("inspected.html"));
    assert!(story(&browser)[0].starts_with(verdict));
    assert_eq!(browser.run("return document.querySelectorAll('.flips tr')[1].textContent"), row);
}

#[test]
fn reports_of_other_models_render_in_a_browser() {
    let Some(browser) = Browser::start() else { return };
    let dir = Dir::new();
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
    assert!(story(&browser)[0].starts_with("Not measured: whether the outputs agree with the checkpoint"));

    let wide = report_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/report-wide.json"));
    let page = dir.path("wide.html");
    fs::write(&page, html::render(&wide).unwrap()).unwrap();
    assert_sound(&browser, &page);
    assert_shows(&browser, &wide);
}

/// Neither where the checkpoint lies, nor its tables, nor the outputs.
#[test]
fn no_local_path_is_in_a_report() {
    let dir = Dir::new();
    tiny_in(&dir, "telling-folder");
    let place = fs::canonicalize(dir.path("telling-folder")).unwrap();
    let place = place.to_str().unwrap();
    let checkpoint = format!("{place}/tiny-e4b-qat");
    dir.ok(&["convert", &checkpoint, "-o", &format!("{place}/out")]);
    let tables = format!("{place}/out/gemma4_e4b_qat_gather_raw");
    dir.ok(&[
        "convert",
        &checkpoint,
        "-o",
        &format!("{place}/more"),
        "--tables",
        &tables,
        "--variant",
        "tbl",
    ]);
    dir.ok(&["inspect", &format!("{place}/out/{NAME}"), "--html", "-o", "bundle.html"]);
    let with_tables = dir.path(&format!("telling-folder/more/{NAME}_tbl.report.json"));
    for page in [
        dir.path(&format!("telling-folder/out/{NAME}.report.json")),
        dir.path(&format!("telling-folder/out/{NAME}.report.html")),
        with_tables.with_extension("html"),
        with_tables.clone(),
        dir.path("bundle.html"),
    ] {
        let content = text(&fs::read(&page).unwrap());
        for hidden in ["telling-folder", place, dir.path("").to_str().unwrap()] {
            assert!(!content.contains(hidden), "{hidden} is in {}", page.display());
        }
    }
    let report = report_of(&with_tables);
    assert_eq!(report.origin.unwrap().name, "tiny-e4b-qat");
    assert!(
        report.options.contains(&"--tables gemma4_e4b_qat_gather_raw".to_owned()),
        "{:?}",
        report.options
    );
    assert_eq!(report.downloads[0].tables_bytes, 463_213, "tables of an earlier run are needed as well");
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
