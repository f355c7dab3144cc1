//! A folder of outputs, a release or an archive for people.

use coreai_bundle::contents::noun;
use coreai_bundle::inspect::OutputsSummary;
use coreai_bundle::parts::text::terminal::word;

use super::{Lines, tree};
use crate::digits;

pub(super) fn add(facts: &OutputsSummary, lines: &mut Lines) {
    lines.title(format_args!("{} {}", noun(facts.holds), facts.path.display()));
    for member in &facts.members {
        let gate = member.gate_passed.map(|passed| if passed { "gate passed" } else { "gate FAILED" });
        let known = [member.variant.as_deref(), member.weights.as_deref(), gate];
        let known: Vec<String> =
            known.into_iter().flatten().map(|fact| format!("{}, ", word(fact))).collect();
        let size = digits::bytes(member.bytes);
        lines.field(noun(member.kind), format!("{}, {}{size}", word(&member.path), known.concat()));
    }
    tree::add(&facts.files, lines);
}
