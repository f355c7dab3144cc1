//! Options for how a bundle reads prompts.

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

use anyhow::bail;
use clap::{Args, ValueEnum};
use coreai_bundle::parts::converter::decoder::{Functions, Prefill, Sequence, Variant};
use coreai_bundle::runnable::DEFAULT_CHUNK;

/// Most tokens of a function of fixed width: its activations are for all of them at once.
const WIDEST: u32 = 4096;

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

/// Tokens that `main` takes at a time, as typed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Main {
    /// One, as in the published bundles
    One,
    /// Any number, which guided generation and tools need; stock only
    Dynamic,
}

/// The function that reads prompts, as typed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PrefillChoice {
    /// What the engine of the variant uses by default.
    Auto,
    None,
    Fixed(u32),
}

impl fmt::Display for PrefillChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PrefillChoice::Auto => f.write_str("auto"),
            PrefillChoice::None => f.write_str("none"),
            PrefillChoice::Fixed(tokens) => tokens.fmt(f),
        }
    }
}

impl FromStr for PrefillChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(PrefillChoice::Auto),
            "none" => Ok(PrefillChoice::None),
            number => match number.parse() {
                Ok(tokens @ 2..=WIDEST) => Ok(PrefillChoice::Fixed(tokens)),
                _ => Err(format!("give auto, none, or a number of tokens from 2 to {WIDEST}")),
            },
        }
    }
}

impl Prompts {
    /// The graphs with their functions.
    pub(crate) fn graphs(&self, variants: &[Variant]) -> anyhow::Result<Vec<(Variant, Functions)>> {
        let is_stock = variants.contains(&Variant::Stock);
        if self.main == Main::Dynamic && !is_stock {
            bail!(
                "--main dynamic is for --variant stock: the engines of the other variants feed main one token at a time"
            );
        }
        if let PrefillChoice::Fixed(tokens) = self.prefill
            && !variants.contains(&Variant::Table)
        {
            let instead = if is_stock {
                format!(
                    "the engine of stock needs a function that takes any number; --prefill-chunk {tokens} sets how many it reads at a time"
                )
            } else {
                "the engine of provider feeds one token at a time".to_owned()
            };
            bail!("--prefill {tokens} is for --variant tbl: {instead}");
        }
        Ok(variants.iter().map(|variant| (*variant, self.functions(*variant))).collect())
    }

    fn functions(&self, variant: Variant) -> Functions {
        let main = match self.main {
            Main::One => Sequence::One,
            Main::Dynamic => Sequence::Dynamic,
        };
        let prefill = match (variant, self.prefill) {
            (Variant::Stock, PrefillChoice::Auto) => Some(Prefill::Caches),
            (Variant::Table, PrefillChoice::Fixed(tokens)) => Some(Prefill::Logits(tokens)),
            _ => None,
        };
        Functions { main, prefill }
    }
}
