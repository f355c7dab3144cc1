//! What a build would not complain about, and its users later would.

use checkpoint::config::DecoderConfig;

use super::BuildRecipe;
use super::recipe::BundleGroup;

/// Positions from which on a graph must not be compiled on an iPhone.
const MISCOMPILED_CONTEXT: u64 = 2048;

/// What is missing from a recipe that somebody will miss.
pub(super) fn of_recipe(recipe: &BuildRecipe, groups: &[BundleGroup], config: &DecoderConfig) -> Vec<String> {
    let mut warnings = Vec::new();
    let longest = groups.iter().map(|group| group.graphs.max_context).max().unwrap_or(0);
    if recipe.ahead_of_time.is_none() {
        warnings.extend(for_iphone(longest, config));
    }
    if recipe.gate.is_none() {
        warnings.push(
            "the recipe has no [gate], so it stays unknown whether the bundles agree with the checkpoint"
                .to_owned(),
        );
    }
    warnings
}

/// What happens on an iPhone to a bundle of this context, if anything does. Models without per-layer embeddings are for Macs.
pub fn for_iphone(max_context: u64, config: &DecoderConfig) -> Option<String> {
    let is_affected = max_context >= MISCOMPILED_CONTEXT && config.per_layer.is_some();
    is_affected.then(|| {
        format!(
            "an iPhone that compiles a graph of {max_context} positions itself compiles it wrongly, from {MISCOMPILED_CONTEXT} on: \
             compile it ahead of time"
        )
    })
}
