//! Options for how a bundle reads prompts.

use std::num::NonZeroUsize;

use clap::Args;
use coreai_bundle::options::{Main, PrefillChoice};
use coreai_bundle::runnable::DEFAULT_CHUNK;

/// How a bundle reads prompts.
#[derive(Debug, Args)]
pub(crate) struct Prompts {
    /// Tokens that main takes at a time
    #[arg(long, value_enum, default_value_t = Main::One)]
    pub(crate) main: Main,
    /// Function that reads prompts: auto (stock has one), none, or for tbl the number of tokens that it takes
    #[arg(long, value_name = "auto|none|N", default_value_t = PrefillChoice::Auto)]
    pub(crate) prefill: PrefillChoice,
    /// Tokens of a prompt that the engine should read at a time, where a function takes any number
    #[arg(long = "prefill-chunk", value_name = "N", default_value_t = DEFAULT_CHUNK)]
    pub(crate) chunk: NonZeroUsize,
}
