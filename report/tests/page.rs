//! The page for a report of a whole E4B, and for malicious names.

#![allow(clippy::unwrap_used)] // helpers of tests are not seen as tests

use report::{
    Agreement, CacheMemory, Codes, Conversion, Digest, Distances, Download, Evaluation, Exactness, Flip,
    FunctionWork, Gate, Group, Memory, Origin, Position, Recovery, Report, RuleOutcome, Sequence, Size, Slot,
    Stretch, Tensor, Timing, Token, Worst, html,
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

fn flip(at: u32) -> Flip {
    let token = |id: u32, text: &str| Token { id, text: Some(text.to_owned()) };
    Flip {
        prompt: "prompt 0".to_owned(),
        position: 1000 + u64::from(at),
        expected: token(7, "\u{2581}cat"),
        found: token(9, "\u{202e}dog"),
        margin: Some(0.25),
        lead: (at > 0).then_some(1.5),
        qualified: at != 1,
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
            weight_bytes: Some(15_990_000_000),
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
        other_bytes: 33_000_000,
        checkpoint_bytes: 15_000_000_000,
    });
    report.sizes.push(Size { group: Group::Tables, layer: None, bytes: 4_000_000_000 });
    for bundle in ["provider", "tbl"] {
        report.gates.push(Gate {
            bundle: bundle.to_owned(),
            passed: false,
            verdict: "gate FAILED: 480 of 500 qualified positions agree".to_owned(),
            reference: "fp32".to_owned(),
            qualified: 500,
            agreed: 480,
            distances: Some(Distances { mean_kl: 2.1e-2, max_kl: 0.5 }),
            causes: vec!["layer 3 has the weights of layer 4".to_owned()],
            flips: (0..20).map(flip).collect(),
            exactness: vec![
                Exactness { part: "head".to_owned(), weights: 4, weights_exact: 3 },
                Exactness { part: "attention".to_owned(), weights: 12, weights_exact: 12 },
            ],
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
    assert_eq!(page.matches("class=\"flip\"").count(), 2 * 8 * 2, "positions 0 and 100, in both plots");
    for cell in [
        "<th class=\"number\">provider</th>",
        ">33.00 MB<",
        ">7.99 GB<",
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
    report.origin =
        Some(Origin { name: hostile.to_owned(), revision: Some(hostile.to_owned()), weight_bytes: None });
    report.tensors[0].name = format!("layers.0.{hostile}");
    report.gates[0].verdict = hostile.to_owned();
    report.gates[0].bundle = hostile.to_owned();
    report.gates[0].causes = vec![hostile.to_owned()];
    report.gates[0].sequences[0].prompt = hostile.to_owned();
    report.gates[0].flips[0].prompt = hostile.to_owned();
    report.gates[0].flips[0].expected.text = Some(hostile.to_owned());
    report.gates[0].flips[2].found.text = Some(format!("{hostile}\u{1b}[31m"));
    report.gates[0].exactness[0].part = hostile.to_owned();
    report.rules = rules([16, 4, 2]);
    report.rules[1].rule = hostile.to_owned();
    report.options = vec![hostile.to_owned()];
    report.digests = vec![Digest { of: hostile.to_owned(), sha256: hostile.to_owned() }];
    report.made_by = Some(hostile.to_owned());
    report.evaluations = vec![evaluation(hostile)];
    report.stretches[0].name = hostile.to_owned();
    report.unknown = vec![hostile.to_owned()];
    let page = html::render(&report).unwrap();
    assert!(!page.contains("<script"), "escaped in text");
    assert!(!page.contains("' onload") && !page.contains("\"1\""), "escaped in attributes");
    assert!(!page.contains('\u{1b}') && !page.contains('\u{202e}'), "hidden characters are shown escaped");
    assert!(page.matches("&lt;script&gt;").count() >= 24, "{}", page.matches("&lt;script&gt;").count());
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
    assert_eq!(row("1 000 positions"), ["1.97 GB", "901.12 MB"]);
    assert_eq!(row("graph and caches"), ["28.14 GB", "23.78 GB"]);
    assert_eq!(row("24 GB"), ["too small", "too small"]);
    assert_eq!(row("32 GB"), ["too small", "fits"]);
    assert_eq!(row("64 GB"), ["fits", "fits"]);
}

fn rules(exact: [u64; 3]) -> Vec<RuleOutcome> {
    let outcome = |(rule, weights_exact): (&str, u64)| RuleOutcome {
        rule: rule.to_owned(),
        weights: 16,
        weights_exact,
        relative_error: 0.05,
    };
    ["lattice", "q4_0", "absmax"].into_iter().zip(exact).map(outcome).collect()
}

fn evaluation(bundle: &str) -> Evaluation {
    let share = Agreement { agreed: 988, of: 1000, low: 0.97, high: 0.99 };
    Evaluation {
        bundle: bundle.to_owned(),
        text: "the default text".to_owned(),
        positions: 1000,
        window: 512,
        perplexity: 12.5,
        reference_perplexity: 12.25,
        mean_kl: 2.1e-5,
        max_kl: 1e-3,
        agreement: share,
        sure: share,
        curve: Vec::new(),
    }
}

/// A report in which nothing was lost.
fn perfect() -> Report {
    let mut report = e4b();
    for recovery in report.tensors.iter_mut().filter_map(|tensor| tensor.recovery.as_mut()) {
        recovery.blocks_on_lattice = recovery.blocks;
        recovery.weights_exact = recovery.weights;
    }
    for gate in &mut report.gates {
        (gate.passed, gate.agreed) = (true, 500);
        gate.causes.clear();
        gate.flips.clear();
        gate.distances = Some(Distances { mean_kl: 2.1e-5, max_kl: 1e-3 });
        gate.exactness.iter_mut().for_each(|found| found.weights_exact = found.weights);
        gate.sequences.iter_mut().flat_map(|sequence| &mut sequence.positions).for_each(|position| {
            position.agrees = true;
        });
    }
    report.rules = rules([16, 9, 2]);
    report
}

/// The text of the elements with a tag in one section, without the marks inside.
fn texts(page: &str, begin: &str, tag: &str) -> Vec<String> {
    let section = page.split_once(begin).unwrap().1.split("</section>").next().unwrap();
    let section = section.split("</ul>").next().unwrap().split("</table>").next().unwrap();
    let plain = |element: &str| {
        let mut text = String::new();
        let inner = element.split_once('>').unwrap().1.split(&format!("</{tag}>")).next().unwrap();
        for part in inner.split('<') {
            text.push_str(if text.is_empty() && !inner.starts_with('<') {
                part
            } else {
                part.split_once('>').map_or("", |(_, after)| after)
            });
        }
        text.replace("&#x27;", "'").replace("&#x2f;", "/").replace("&quot;", "\"").replace('\u{a0}', " ")
    };
    section.split(&format!("<{tag}")).skip(1).map(plain).collect()
}

fn story(report: &Report) -> Vec<String> {
    texts(&html::render(report).unwrap(), "id=\"story\"", "li")
}

const COMMAND: &str = "Not measured: how far from fp32 the other 4-bit rules would be. coreai-bundle eval --rule lattice,q4_0,absmax \
     --checkpoint google/gemma-4-E4B-it measures it.";

#[test]
fn a_perfect_conversion_is_told_in_sentences_of_its_own_numbers() {
    let report = perfect();
    assert_eq!(
        story(&report),
        [
            "Both bundles passed the gate: fp32's token at all of 500 positions where fp32 is sure. KL divergence from fp32: 2.10e-5 \
             nats on average, 1.00e-3 at most.",
            "The whole model as shipped is exact: 16 trained weights, each the checkpoint's bit for bit.",
            "In a sample of 16 weights, lattice kept all bit for bit. It would have been 56.25 % by q4_0 and 12.50 % by absmax.",
            COMMAND,
            "The checkpoint has 15.99 GB of weights, of which 15.00 GB are converted.",
            "provider: a device downloads 7.99 GB: 3.96 GB of graph, 4.00 GB of tables and 33.00 MB of tokenizer and metadata.",
        ]
    );
    let page = html::render(&report).unwrap();
    assert_eq!(
        page.matches(">exact</td>").count(),
        42 * 9 + 3 + 2,
        "cells, parts with their sum, the rule's row"
    );
    assert!(!page.contains("id=\"errors\""), "without errors there is no map of them");
    assert!(!page.contains("id=\"worst\"") && !page.contains("Not exact") && !page.contains("-2.8"));
}

#[test]
fn a_failed_conversion_names_what_failed_and_which_tokens() {
    let mut report = e4b();
    let told = story(&report);
    assert_eq!(
        told[0],
        "Both bundles FAILED the gate: another token than fp32's at 20 of 500 positions where fp32 is sure. KL divergence from fp32: \
         2.10e-2 nats on average, 0.500 at most."
    );
    assert_eq!(
        told[1],
        "The whole model as shipped keeps 93.75 % of its 16 trained weights bit for bit, and all of those of its projections. Not exact: \
         head (75.00 % exact)."
    );
    let page = html::render(&report).unwrap();
    let cells = texts(&page, "class=\"list flips\"", "td");
    assert_eq!(cells.len(), 3 * 12);
    let first = ["prompt 0position 1 000", "\u{201c}\u{2581}cat\u{201d} (7)margin 0.25"];
    assert_eq!(cells[..2], first);
    assert!(cells[2].ends_with("dog\u{201d} (9)lead not finite"), "{}", cells[2]);
    assert!(!page.contains('\u{202e}'), "what reorders text is shown escaped");
    assert!(cells[5].ends_with("lead 1.50"), "{}", cells[5]);
    assert!(cells.iter().all(|cell| !cell.contains("near-tie")), "near-ties come after those that count");
    assert!(page.contains("And 8 more; the file"));
    // Lines of the plots find their tokens by the margin.
    report.gates[0].flips[5].margin = Some(position(100).expected_margin);
    let page = html::render(&report).unwrap();
    assert!(page.contains("<title>prompt 0: position 1 005, \u{201c}"));
}

#[test]
fn a_lossy_conversion_says_what_another_rule_would_have_kept() {
    let mut report = e4b();
    report.gates.clear();
    report.conversion.as_mut().unwrap().rule = "absmax".to_owned();
    report.rules = rules([16, 9, 2]);
    let told = story(&report);
    assert_eq!(
        told[0],
        "Not measured: whether the outputs agree with the checkpoint, and how much of the whole model is exact. coreai-bundle convert --gate \
         measures both."
    );
    assert!(
        told[1].starts_with("The quantized matrices keep 99.99 % of their 6 606 028 800 weights"),
        "{}",
        told[1]
    );
    assert_eq!(
        told[2],
        "In a sample of 16 weights, absmax kept 12.50 % bit for bit. It would have been all by lattice and 56.25 % by q4_0."
    );
    // Rules that were evaluated need no command.
    report.evaluations = ["lattice", "absmax"].map(evaluation).to_vec();
    report.evaluations[1].mean_kl = 2.0e-2;
    let told = story(&report);
    assert_eq!(
        told[1..3],
        ["lattice: 2.10e-5", "absmax: 2.00e-2"].map(|begin| format!(
            "{begin} nats from fp32 on average (KL divergence), the same token at 98.80 % of 1 000 positions of the default text, \
             perplexity 12.500 where fp32 has 12.250."
        ))
    );
    assert!(!told.contains(&COMMAND.to_owned()));
    // Other weights than int4 are not compared with rules.
    report.conversion.as_mut().unwrap().weights = "int8".to_owned();
    assert!(story(&report).iter().all(|sentence| !sentence.contains("In a sample")));
}

#[test]
fn bundles_with_equal_figures_share_a_gate_and_others_do_not() {
    let mut report = e4b();
    report.evaluations = ["provider", "tbl"].map(evaluation).to_vec();
    let page = html::render(&report).unwrap();
    assert_eq!(page.matches("<section class=\"gate\">").count(), 1);
    assert!(page.contains("<h2>Gate of provider and tbl</h2>"));
    assert!(page.contains("<h2>Evaluation of provider and tbl</h2>"));
    report.gates[1].agreed = 479;
    report.evaluations[1].max_kl = 1.0;
    let page = html::render(&report).unwrap();
    assert_eq!(page.matches("<section class=\"gate\">").count(), 2);
    assert!(page.contains("<h2>Gate of provider</h2>") && page.contains("<h2>Evaluation of tbl</h2>"));
    assert!(
        story(&report)[1]
            .starts_with("tbl FAILED the gate: another token than fp32's at 21 of 500 positions")
    );
}

#[test]
fn a_footer_says_what_made_it_and_what_was_not_run() {
    let mut report = e4b();
    report.options = vec!["--variant both".to_owned()];
    report.digests = vec![Digest { of: "program of provider".to_owned(), sha256: "ab".repeat(32) }];
    report.made_by = Some("coreai-bundle 0.0.9".to_owned());
    let page = html::render(&report).unwrap();
    let footer = page.split_once("<footer>").unwrap().1;
    for part in [
        "<code>google&#x2f;gemma-4-E4B-it</code>",
        &"0123abcd".repeat(5),
        "<code>--variant both</code>",
        "program of provider<br>",
        &"ab".repeat(32),
        "made by coreai-bundle 0.0.9, read by coreai-bundle",
        "No Mac, iPhone or Apple GPU took part",
    ] {
        assert!(footer.contains(part), "{part}: {footer}");
    }
}
