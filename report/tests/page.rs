//! The page for a report of a whole E4B, and for malicious names.

#![allow(clippy::unwrap_used)] // helpers of tests are not seen as tests

use report::{
    CacheMemory, Codes, Conversion, Download, Exactness, FunctionWork, Gate, Group, Memory, Origin, Position,
    Recovery, Report, Sequence, Size, Slot, Stretch, Tensor, Timing, Worst, html,
};

const PROJECTIONS: [(&str, u64); 9] = [
    ("self_attn.q_proj", 4),
    ("self_attn.k_proj", 1),
    ("self_attn.v_proj", 1),
    ("self_attn.o_proj", 4),
    ("mlp.gate_proj", 16),
    ("mlp.up_proj", 16),
    ("mlp.down_proj", 16),
    ("per_layer_input_gate", 1),
    ("per_layer_projection", 1),
];

fn tensor(name: String, blocks: u64, seed: u64) -> Tensor {
    let mut codes = [0; 16];
    (codes[0], codes[1], codes[15]) = (blocks / 2, blocks / 4, blocks / 4);
    let mut scale_exponents = [0; 32];
    scale_exponents[6 + seed as usize % 5] = blocks;
    Tensor {
        source: Some(format!("model.language_model.{name}")),
        name,
        format: "int4".to_owned(),
        shape: vec![2048, 32 * blocks / 2048],
        bytes: 18 * blocks,
        recovery: Some(Recovery {
            blocks,
            blocks_on_lattice: blocks - seed % 2,
            blocks_exact: blocks - seed % 3,
            weights: 32 * blocks,
            weights_exact: 32 * blocks - seed % 3,
            relative_error: 1.6e-3 * (1.0 + seed as f64 / 100.0),
            worst: Some(Worst { row: seed, block: seed % 80, relative_error: 3e-3 + seed as f32 * 1e-6 }),
        }),
        codes: Some(Codes::OfExtrema(codes)),
        scale_exponents,
    }
}

fn position(at: usize) -> Position {
    Position {
        expected_margin: (at * 37 % 101) as f32 / 7.0,
        margin: (at * 37 % 103) as f32 / 7.0,
        cosine: Some(1.0 - 1e-6 * (at * 13 % 29 + 1) as f64),
        qualified: at.is_multiple_of(2),
        agrees: !at.is_multiple_of(100),
    }
}

/// 42 layers, two bundles, a thousand positions each.
fn e4b() -> Report {
    let mut report = Report {
        name: "gemma4_e4b_qat_decode_int4lin".to_owned(),
        tool: "coreai-bundle".to_owned(),
        origin: Some(Origin {
            name: "google/gemma-4-E4B-it".to_owned(),
            revision: Some("0123abcd".repeat(5)),
        }),
        conversion: Some(Conversion {
            variants: vec!["provider".to_owned(), "tbl".to_owned()],
            rule: "lattice".to_owned(),
            weights: "int4".to_owned(),
            head: "int4".to_owned(),
            head_reason: "it lies on a lattice".to_owned(),
            resumed: true,
        }),
        timings: vec![Timing { stage: "writing".to_owned(), seconds: 14.8, bytes: Some(26_440_000_000) }],
        functions: vec![
            FunctionWork {
                name: "main".to_owned(),
                tokens: 1,
                multiply_adds: 4_001_234_567,
                weight_bytes: 2_250_000_000,
            },
            FunctionWork {
                name: "prefill".to_owned(),
                tokens: 512,
                multiply_adds: 2_012_345_678,
                weight_bytes: 2_260_000,
            },
        ],
        ..Report::default()
    };
    for layer in 0..42 {
        for (at, (name, size)) in PROJECTIONS.into_iter().enumerate() {
            let name = format!("layers.{layer}.{name}.weight");
            report.sizes.push(Size {
                group: Group::of(&name),
                layer: Some(layer),
                bytes: 18 * 81_920 * size,
            });
            report.tensors.push(tensor(name, 81_920 * size, (layer * 9 + at) as u64));
        }
        let (slot, writes, full) = (layer.min(23), layer < 24, layer % 6 == 5);
        report.slots.push(Slot { layer, slot, writes, full, head_dim: if full { 512 } else { 256 } });
        report.stretches.push(Stretch { name: format!("layer {layer}"), seconds: 0.3, bytes: 100_000_000 });
    }
    report.downloads.push(Download {
        variant: "provider".to_owned(),
        graph_bytes: 3_960_000_000,
        tables_bytes: 4_000_000_000,
        checkpoint_bytes: 15_000_000_000,
    });
    report.sizes.push(Size { group: Group::Tables, layer: None, bytes: 4_000_000_000 });
    for bundle in ["provider", "tbl"] {
        report.gates.push(Gate {
            bundle: bundle.to_owned(),
            passed: false,
            verdict: "gate FAILED: 480 of 500 qualified positions agree".to_owned(),
            reference: "fp32".to_owned(),
            causes: vec!["layer 3 has the weights of layer 4".to_owned()],
            exactness: vec![Exactness { part: "head".to_owned(), weights: 4, weights_exact: 3 }],
            sequences: (0..8)
                .map(|at| Sequence {
                    prompt: format!("prompt {at}"),
                    positions: (0..125).map(position).collect(),
                })
                .collect(),
        });
    }
    report
}

#[test]
fn a_whole_e4b_fits_a_megabyte_and_loads_nothing() {
    let report = e4b();
    let page = html::render(&report).unwrap();
    assert!(page.len() <= 1_000_000, "{} bytes", page.len());
    for scheme in ["http:", "https:", "src=", "@import", "url("] {
        assert!(!page.contains(scheme), "{scheme}");
    }
    assert_eq!(page.matches("<td class=\"cell").count(), 2 * 42 * 9);
    assert_eq!(page.matches("class=\"writes\"").count(), 24);
    assert_eq!(page.matches("class=\"reads\"").count(), 18);
    assert_eq!(
        page.matches("class=\"flip\"").count(),
        2 * 2 * 8 * 2,
        "positions 0 and 100, in both plots of both"
    );
    for cell in [
        "<td>provider</td>",
        ">7.96 GB<",
        ">15.00 GB<",
        "<td>head</td>",
        ">75.00 %<",
        "<code>prefill</code>",
        ">512<",
        ">2 012 345 678<",
        ">2.26 MB<",
    ] {
        assert!(page.contains(cell), "{cell}");
    }
    assert!(page.contains("An earlier run had done part of it."));
    assert!(page.contains("layer 23, also read by 24, 25"), "slots say who reads them");
    let explained = "layers.41.per_layer_projection.weight --row 377 --block 57";
    assert!(page.contains(explained), "the worst block comes with its command");
    assert_eq!(html::render(&report).unwrap(), page, "same facts, same page");
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
}

#[test]
fn names_from_files_are_text_and_nothing_else() {
    let mut report = e4b();
    let hostile = "<script>alert(\"1\")</script>' onload='x";
    report.name = hostile.to_owned();
    report.origin = Some(Origin { name: hostile.to_owned(), revision: Some(hostile.to_owned()) });
    report.tensors[0].name = format!("layers.0.{hostile}");
    report.gates[0].verdict = hostile.to_owned();
    report.gates[0].sequences[0].prompt = hostile.to_owned();
    report.stretches[0].name = hostile.to_owned();
    report.unknown = vec![hostile.to_owned()];
    let page = html::render(&report).unwrap();
    assert!(!page.contains("<script"), "escaped in text");
    assert!(!page.contains("' onload") && !page.contains("\"1\""), "escaped in attributes");
    assert!(page.matches("&lt;script&gt;").count() >= 8);
}

#[test]
fn a_report_of_nothing_says_so() {
    let report = Report {
        name: "x.aimodel".to_owned(),
        unknown: vec!["Everything: it is empty.".to_owned()],
        ..Report::default()
    };
    let page = html::render(&report).unwrap();
    assert!(page.contains("Everything: it is empty."));
    for section in ["recovery", "histograms", "worst", "slots", "timings"] {
        assert!(!page.contains(&format!("id=\"{section}\"")), "{section}");
    }
}

#[test]
fn less_than_all_is_never_shown_as_all() {
    let mut report = e4b();
    report.tensors.truncate(1);
    let recovery = report.tensors[0].recovery.as_mut().unwrap();
    recovery.weights_exact = recovery.weights - 1;
    recovery.blocks_on_lattice = recovery.blocks - 1;
    let page = html::render(&report).unwrap();
    assert!(page.contains(">99<") && page.contains("99.99 %"), "one weight of ten million is missing");
    assert!(page.contains(">99.99 %</dd><dt>of 4-bit blocks on the lattice"));
    assert!(!page.contains("<dd class=\"good\">100.00 %"));
}

/// 31B in int4: beside the graph, 32 GB hold one form of the caches and not the other.
#[test]
fn memory_of_either_form_of_the_caches() {
    let form =
        |form: &str, position_bytes, is_used| CacheMemory { form: form.to_owned(), position_bytes, is_used };
    let caches = vec![form("padded", 1_966_080, true), form("split", 901_120, false)];
    let memory = Some(Memory { graph_bytes: 20_090_000_000, max_context: 4096, caches });
    let page = html::render(&Report { memory, ..Report::default() }).unwrap();
    let row = |title: &str| {
        let start = format!("<tr><td>{title}</td>");
        let line = page.lines().find(|line| line.starts_with(&start)).unwrap_or_default();
        let cells = line.split("<td class=\"number\">").skip(1).filter_map(|cell| cell.split('<').next());
        cells.map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(page.contains("padded, as converted") && !page.contains("split, as converted"));
    assert_eq!(row("1,000 positions"), ["1.97 GB", "901.12 MB"]);
    assert_eq!(row("graph and caches"), ["28.14 GB", "23.78 GB"]);
    assert_eq!(row("24 GB"), ["too small", "too small"]);
    assert_eq!(row("32 GB"), ["too small", "fits"]);
    assert_eq!(row("64 GB"), ["fits", "fits"]);
}
