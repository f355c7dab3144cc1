//! What a user can choose about a conversion: formats of weights, and graphs.
//!
//! The command line and recipes for `build` say the same things by the same names; this is where they mean something.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

use anyhow::{Context, bail};
use checkpoint::config::{CacheForm, DecoderConfig};
use converter::Request;
use converter::decoder::{Functions, Prefill, Sequence, Variant};
use converter::embedding::TableForms;
use converter::pattern::TensorPattern;
use converter::recipe::{EmbeddingForm, Override, PerLayerForm, Treatment};
use quantizer::Int4Rule;
use serde::{Deserialize, Serialize};

use crate::runnable::DEFAULT_CHUNK;

/// Most tokens of a function of fixed width: its activations are for all of them at once.
const WIDEST: u32 = 4096;

/// Positions that caches may grow to by default.
pub const DEFAULT_CONTEXT: u64 = 4096;

/// Format of weights.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Weights {
    /// 4-bit codes, a scale for each block of 32
    #[default]
    Int4,
    /// 8-bit codes, a scale for each block of 32
    Int8,
    /// Half precision
    F16,
}

impl Weights {
    /// What it means for a tensor, with the rule for 4-bit codes.
    pub fn treatment(self, rule: Int4Rule) -> Treatment {
        match self {
            Weights::Int4 => Treatment::Int4(rule),
            Weights::Int8 => Treatment::Int8,
            Weights::F16 => Treatment::F16,
        }
    }
}

/// Format of the head.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Head {
    /// int4 if it lies on the lattice, int8 if only the rest does
    #[default]
    Auto,
    /// 4-bit codes
    Int4,
    /// 8-bit codes
    Int8,
    /// Half precision
    F16,
}

impl Head {
    /// The format that was asked for, if one was.
    fn weights(self) -> Option<Weights> {
        match self {
            Head::Auto => None,
            Head::Int4 => Some(Weights::Int4),
            Head::Int8 => Some(Weights::Int8),
            Head::F16 => Some(Weights::F16),
        }
    }
}

/// How tokens are looked up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Embedding {
    /// shared if a sample of the table lies on the lattice and the head has codes, else f16
    Auto,
    /// In the head's codes, through a table of bytes: exact, and nothing is stored twice
    Shared,
    /// In the head, dequantized as a whole
    Dequantized,
    /// In the head's codes, as numbers of 4 bits
    Si4,
    /// In a table of half-precision numbers, as in the published bundles
    F16,
}

impl Embedding {
    /// The form that was asked for, if one was.
    fn form(self) -> Option<EmbeddingForm> {
        match self {
            Embedding::Auto => None,
            Embedding::Shared => Some(EmbeddingForm::Shared),
            Embedding::Dequantized => Some(EmbeddingForm::Dequantized),
            Embedding::Si4 => Some(EmbeddingForm::Si4),
            Embedding::F16 => Some(EmbeddingForm::F16),
        }
    }

    fn name(self) -> &'static str {
        self.form().map_or("auto", EmbeddingForm::name)
    }
}

/// Format of the per-layer table of a stock graph.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum PerLayer {
    /// int4 if a sample of the table lies on the lattice, else int8
    #[default]
    Auto,
    /// 4-bit codes with a scale for each block of 32: exact on the lattice
    Int4,
    /// 8-bit codes with a scale for each row
    Int8,
}

impl PerLayer {
    fn name(self) -> &'static str {
        match self {
            PerLayer::Auto => "auto",
            PerLayer::Int4 => "int4",
            PerLayer::Int8 => "int8",
        }
    }
}

/// Tokens that `main` takes at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Main {
    /// One, as in the published bundles
    #[default]
    One,
    /// Any number, which guided generation and tools need; stock only
    Dynamic,
}

/// The function that reads prompts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum PrefillChoice {
    /// What the engine of the variant uses by default.
    #[default]
    Auto,
    /// None.
    None,
    /// One that takes this many tokens.
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

impl TryFrom<String> for PrefillChoice {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<PrefillChoice> for String {
    fn from(choice: PrefillChoice) -> Self {
        choice.to_string()
    }
}

/// A format for some of the projections: `layers.*.mlp.down_proj=int8`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorFormat {
    /// Which ones.
    pub tensors: TensorPattern,
    /// Their format.
    pub weights: Weights,
    /// Their rule for 4-bit codes, if it is not that of the others.
    pub rule: Option<Int4Rule>,
}

impl fmt::Display for TensorFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = self.weights.treatment(Int4Rule::default()).format();
        write!(f, "{}={format}", self.tensors)?;
        self.rule.map_or(Ok(()), |rule| write!(f, ":{}", rule.name()))
    }
}

impl FromStr for TensorFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (tensors, format) =
            text.split_once('=').ok_or_else(|| "give PATTERN=FORMAT, such as head=int8".to_owned())?;
        let (format, rule) =
            format.split_once(':').map_or((format, None), |(format, rule)| (format, Some(rule)));
        let weights = match format {
            "int4" => Weights::Int4,
            "int8" => Weights::Int8,
            "f16" => Weights::F16,
            _ => return Err(format!("{format:?} is not a format: give int4, int8 or f16")),
        };
        let rule = match rule {
            Some(_) if weights != Weights::Int4 => return Err("only int4 has rules".to_owned()),
            Some(name) => {
                let found = Int4Rule::ALL.into_iter().find(|rule| rule.name() == name);
                Some(found.ok_or_else(|| format!("{name:?} is not a rule: give lattice, q4_0 or absmax"))?)
            }
            None => None,
        };
        Ok(TensorFormat { tensors: tensors.parse().map_err(|error| format!("{error}"))?, weights, rule })
    }
}

/// How the weights are stored.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Formats {
    /// Of projections.
    pub weights: Weights,
    /// Of 4-bit codes.
    pub rule: Int4Rule,
    /// Of the head.
    pub head: Head,
    /// How tokens are looked up; decided by the variant if absent.
    pub embedding: Option<Embedding>,
    /// Of the per-layer table of stock graphs; decided by a sample if absent.
    pub per_layer: Option<PerLayer>,
    /// Of some of the projections, instead; the first that matches counts.
    pub overrides: Vec<TensorFormat>,
}

/// What the graphs of one conversion are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GraphChoice {
    /// Variants that are made from the same weights; the model's default if there are none.
    pub variants: Vec<Variant>,
    /// Caches of keys and values.
    pub caches: CacheForm,
    /// Tokens that `main` takes at a time.
    pub main: Main,
    /// Function that reads prompts.
    pub prefill: PrefillChoice,
    /// Tokens of a prompt that the engine should read at a time, where a function takes any number.
    pub chunk: NonZeroUsize,
    /// Positions that the caches may grow to.
    pub max_context: u64,
}

impl Default for GraphChoice {
    fn default() -> Self {
        GraphChoice {
            variants: Vec::new(),
            caches: CacheForm::default(),
            main: Main::default(),
            prefill: PrefillChoice::default(),
            chunk: DEFAULT_CHUNK,
            max_context: DEFAULT_CONTEXT,
        }
    }
}

impl GraphChoice {
    /// The variants, or the default one of a model.
    pub fn variants(&self, config: &DecoderConfig) -> Vec<Variant> {
        match (&self.variants[..], config.per_layer.is_some()) {
            ([], true) => vec![Variant::Provider],
            ([], false) => vec![Variant::Stock],
            (chosen, _) => chosen.to_vec(),
        }
    }

    /// Their names, for records of what was done: `provider+tbl`.
    pub fn variant_names(&self, config: &DecoderConfig) -> String {
        let names: Vec<&str> = self.variants(config).into_iter().map(Variant::name).collect();
        names.join("+")
    }

    /// The graphs with their functions.
    fn graphs(&self, variants: &[Variant]) -> anyhow::Result<Vec<(Variant, Functions)>> {
        let is_stock = variants.contains(&Variant::Stock);
        if is_stock && variants.len() > 1 {
            bail!("a stock graph is converted alone: its weights are not stored as those of the others");
        }
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

impl Formats {
    /// What to convert into. `makes_tables` says whether graphs that want tables get new ones.
    ///
    /// # Errors
    /// If the choices contradict each other, or the model.
    pub fn request(
        &self,
        graphs: &GraphChoice,
        config: &DecoderConfig,
        makes_tables: bool,
    ) -> anyhow::Result<Request> {
        let variants = graphs.variants(config);
        let is_stock = variants.contains(&Variant::Stock);
        if self.per_layer.is_some() && (!is_stock || config.per_layer.is_none()) {
            bail!(
                "--per-layer is for --variant stock of models with per-layer rows: no other graph holds their table"
            );
        }
        Ok(Request {
            graphs: graphs.graphs(&variants)?,
            caches: graphs.caches,
            tables: !is_stock && makes_tables,
            projections: self.weights.treatment(self.rule),
            overrides: self.overrides(),
            head: self.head.weights().map(|head| head.treatment(self.rule)),
            table_forms: self.table_forms(is_stock),
        })
    }

    fn overrides(&self) -> Vec<Override> {
        let of = |given: &TensorFormat| Override {
            tensors: given.tensors.clone(),
            treatment: given.weights.treatment(given.rule.unwrap_or(self.rule)),
        };
        self.overrides.iter().map(of).collect()
    }

    /// Published bundles are the default where there are some.
    fn table_forms(&self, is_stock: bool) -> TableForms {
        let default = if is_stock { Embedding::Auto } else { Embedding::F16 };
        let per_layer = match self.per_layer.unwrap_or_default() {
            PerLayer::Auto => None,
            PerLayer::Int4 => Some(PerLayerForm::Int4(self.rule)),
            PerLayer::Int8 => Some(PerLayerForm::Int8),
        };
        TableForms { embedding: self.embedding.unwrap_or(default).form(), per_layer }
    }
}

/// The choices as options of `convert`, for journals and reports: an interrupted run is continued with the same ones. Those that
/// were added to the tool later are listed only if they were given.
pub fn as_options(formats: &Formats, graphs: &GraphChoice, variant: &str) -> BTreeMap<String, String> {
    let head = formats.head.weights().map_or("auto", |head| head.treatment(formats.rule).format());
    let main = match graphs.main {
        Main::One => "one",
        Main::Dynamic => "dynamic",
    };
    let always = [
        ("--variant", variant.to_owned()),
        ("--weights", formats.weights.treatment(formats.rule).format().to_owned()),
        ("--head", head.to_owned()),
        ("--rule", formats.rule.name().to_owned()),
        ("--max-context", graphs.max_context.to_string()),
        ("--main", main.to_owned()),
        ("--prefill", graphs.prefill.to_string()),
        ("--prefill-chunk", graphs.chunk.to_string()),
    ];
    let caches = (graphs.caches != CacheForm::Padded).then(|| ("--cache", graphs.caches.name().to_owned()));
    let embedding = formats.embedding.map(|form| ("--embedding", form.name().to_owned()));
    let per_layer = formats.per_layer.map(|form| ("--per-layer", form.name().to_owned()));
    let overrides: Vec<String> = formats.overrides.iter().map(ToString::to_string).collect();
    let overrides = (!overrides.is_empty()).then(|| ("--format", overrides.join(" ")));
    let options = always.into_iter().chain(caches).chain(embedding).chain(per_layer).chain(overrides);
    options.map(|(name, value)| (name.to_owned(), value)).collect()
}

/// A variant by its name on the command line.
///
/// # Errors
/// If there is none of that name.
pub fn variant_named(name: &str) -> anyhow::Result<Variant> {
    [Variant::Provider, Variant::Table, Variant::Stock]
        .into_iter()
        .find(|variant| variant.name() == name)
        .with_context(|| format!("{name:?} is not a variant: give provider, tbl or stock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_of_tensors_are_read_as_they_are_written() {
        for text in ["head=int8", "layers.*.mlp.down_proj=int4:q4_0", "*=f16"] {
            assert_eq!(text.parse::<TensorFormat>().unwrap().to_string(), text);
        }
        for (text, reason) in [
            ("head", "PATTERN=FORMAT"),
            ("head=int2", "give int4, int8 or f16"),
            ("head=int8:absmax", "only int4 has rules"),
            ("head=int4:best", "lattice, q4_0 or absmax"),
            ("a b=int4", "is not a pattern"),
        ] {
            let error = text.parse::<TensorFormat>().unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
