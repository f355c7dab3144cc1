//! A whole release from a recipe: conversion, gate, evaluation, ahead-of-time compilation, release tree, publication.
//!
//! Each step makes its outputs whole or not at all, and what is finished is written down beside them. A build that is started again
//! skips the steps whose inputs are the same and whose outputs are there with the right digests.

mod recipe;
mod record;
mod run;
mod starter;
mod warnings;

pub use recipe::{
    AheadOfTimeRecipe, BuildRecipe, BundleRecipe, EvaluationRecipe, FormatsRecipe, GateRecipe, PublishRecipe,
    ReleaseRecipe, TensorFormatRecipe,
};
pub use run::{BuildOutcome, BuildRequest, BuildWatchers, Step, StepState};
pub use starter::starter;
pub use warnings::for_iphone;

/// Folder of the release tree among the outputs of a build.
pub const RELEASE_FOLDER: &str = "release";
