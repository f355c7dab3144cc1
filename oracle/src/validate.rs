//! Checks that the contents of an oracle file can be compared with a bundle.

use crate::contexts::Contexts;
use crate::file::{Case, Oracle};
use crate::score::QUALIFYING_MARGIN;

/// The error names the field that cannot be used, and says why.
pub(crate) fn check(oracle: &Oracle) -> Result<(), String> {
    if oracle.cases.is_empty() {
        return Err("\"cases\" is empty, so there is nothing to compare with".to_owned());
    }
    for (at, case) in oracle.cases.iter().enumerate() {
        check_case(case).map_err(|reason| format!("cases[{at}]{reason}"))?;
    }
    check_contradictions(oracle)
}

/// The lists must have a valid entry for each token.
fn check_case(case: &Case) -> Result<(), String> {
    if case.is_empty() {
        return Err(" has no tokens".to_owned());
    }
    let lists = [
        ("teacher_forced_argmax", case.teacher_forced_argmax.len()),
        ("teacher_forced_margins", case.teacher_forced_margins.len()),
        ("logit_norms", case.logit_norms.len()),
    ];
    if let Some((name, found)) = lists.into_iter().find(|(_, found)| *found != case.len()) {
        return Err(format!(".{name} has {found} entries for {} tokens", case.len()));
    }
    let usable = |margin: &f32| margin.is_finite() && *margin >= 0.0;
    if let Some((at, margin)) = first_not(&case.teacher_forced_margins, usable) {
        return Err(format!(".teacher_forced_margins[{at}] is {margin}, but must be finite and at least 0"));
    }
    let usable = |norm: &f32| norm.is_finite() && *norm > 0.0;
    if let Some((at, norm)) = first_not(&case.logit_norms, usable) {
        return Err(format!(".logit_norms[{at}] is {norm}, but must be finite and above 0"));
    }
    Ok(())
}

fn first_not(values: &[f32], usable: impl Fn(&f32) -> bool) -> Option<(usize, f32)> {
    values.iter().copied().enumerate().find(|(_, value)| !usable(value))
}

/// Only the first position of each context is compared, so the others must have the same winner.
fn check_contradictions(oracle: &Oracle) -> Result<(), String> {
    let mut contexts = Contexts::default();
    let mut known: Vec<(u32, f32)> = Vec::new();
    for (at, case) in oracle.cases.iter().enumerate() {
        let winners =
            case.teacher_forced_argmax.iter().copied().zip(case.teacher_forced_margins.iter().copied());
        for (position, (context, (winner, margin))) in
            contexts.add(case.ids()).into_iter().zip(winners).enumerate()
        {
            match known.get(context) {
                // The winner of a near-tie may change when sums are computed in another order.
                Some((before, lead)) if *before != winner && lead.max(margin) >= QUALIFYING_MARGIN => {
                    return Err(format!(
                        "cases[{at}].teacher_forced_argmax[{position}] is {winner}, but an earlier case with the same tokens \
                         has {before}"
                    ));
                }
                Some(_) => {}
                None => known.push((winner, margin)),
            }
        }
    }
    Ok(())
}
