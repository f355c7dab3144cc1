//! What a build would not complain about, and its users later would.

use super::BuildRecipe;
use super::recipe::BundleGroup;

/// Positions from which on a graph must not be compiled on an iPhone.
pub const MISCOMPILED_CONTEXT: u64 = 2048;

/// What is missing from a recipe that somebody will miss.
pub(super) fn of_recipe(recipe: &BuildRecipe, groups: &[BundleGroup]) -> Vec<String> {
    let mut warnings = Vec::new();
    let longest = groups.iter().map(|group| group.graphs.max_context).max().unwrap_or(0);
    if longest >= MISCOMPILED_CONTEXT && recipe.ahead_of_time.is_none() {
        warnings.push(for_iphone(longest));
    }
    if recipe.gate.is_none() {
        warnings.push(
            "the recipe has no [gate], so it stays unknown whether the bundles agree with the checkpoint"
                .to_owned(),
        );
    }
    warnings
}

/// What happens on an iPhone to a bundle of this context.
pub fn for_iphone(max_context: u64) -> String {
    format!(
        "an iPhone that compiles a graph of {max_context} positions itself compiles it wrongly, from {MISCOMPILED_CONTEXT} on: compile \
         it ahead of time"
    )
}
