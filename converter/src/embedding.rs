//! How a graph stores the embedding and the per-layer table.
//!
//! Both are exact as 4-bit codes if they lie on a lattice. A table is sampled before the plan, which the run then follows; the run counts
//! every block, so a table that is off the lattice somewhere shows in the statistics.

use quantizer::Int4Rule;
use serde::Serialize;

use crate::error::{ConvertError, PlanError};
use crate::head::{HeadDecision, Sample, sample};
use crate::recipe::{EmbeddingForm, PerLayerForm, Treatment};
use checkpoint::config::DecoderConfig;
use checkpoint::source::Source;
use checkpoint::{BLOCK, Checkpoint, Role};

/// Places in a table that are sampled.
const RUNS: usize = 64;
/// One minus the probability that a table with more blocks off the lattice than stated passes, if blocks are sampled independently.
const CONFIDENCE: f64 = 0.999;

/// What was asked for; nothing where a sample decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TableForms {
    /// The form of the embedding.
    pub embedding: Option<EmbeddingForm>,
    /// The form of the per-layer table.
    pub per_layer: Option<PerLayerForm>,
}

impl TableForms {
    /// Those that samples of the tables decide.
    pub const AUTO: Self = TableForms { embedding: None, per_layer: None };
    /// Those of the published bundles.
    pub const PUBLISHED: Self =
        TableForms { embedding: Some(EmbeddingForm::F16), per_layer: Some(PerLayerForm::Int8) };
}

/// A form, and why.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Chosen<F> {
    /// The form.
    pub form: F,
    /// One sentence.
    pub reason: String,
    /// Blocks of the table, where a sample was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<Sample>,
}

impl<F> Chosen<F> {
    fn without_sample(form: F, reason: &str) -> Self {
        Chosen { form, reason: reason.to_owned(), sample: None }
    }
}

/// The forms of both tables.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct TableDecision {
    /// Of the embedding.
    pub embedding: Chosen<EmbeddingForm>,
    /// Of the per-layer table, in graphs that hold it.
    pub per_layer: Option<Chosen<PerLayerForm>>,
}

/// What the decision depends on.
pub(crate) struct TableFacts<'a> {
    pub(crate) source: &'a dyn Source,
    pub(crate) config: &'a DecoderConfig,
    pub(crate) checkpoint: &'a Checkpoint,
    pub(crate) head: &'a HeadDecision,
    /// Rule for 4-bit codes of the per-layer table.
    pub(crate) rule: Int4Rule,
    /// Whether a graph holds the per-layer table.
    pub(crate) holds_table: bool,
}

impl TableFacts<'_> {
    /// Takes what was asked for, or else decides.
    ///
    /// # Errors
    /// If the checkpoint cannot be read, or does not have what was asked for.
    pub(crate) fn decide(&self, asked: TableForms) -> Result<TableDecision, ConvertError> {
        let per_layer = match (self.holds_table, self.config.per_layer) {
            (true, Some(per_layer)) => Some(self.per_layer(asked.per_layer, per_layer.width)?),
            _ => None,
        };
        Ok(TableDecision { embedding: self.embedding(asked.embedding)?, per_layer })
    }

    fn embedding(&self, asked: Option<EmbeddingForm>) -> Result<Chosen<EmbeddingForm>, ConvertError> {
        let is_tied = self.checkpoint.head_is_tied();
        if let Some(form) = asked {
            if form != EmbeddingForm::F16 && !(is_tied && self.head.treatment.has_codes()) {
                let reason = if is_tied {
                    "the head is stored in half precision"
                } else {
                    "the head is a tensor of its own"
                };
                return Err(PlanError::NoSharedHead { form: form.name(), reason }.into());
            }
            return Ok(Chosen::without_sample(form, "asked for"));
        }
        if !is_tied {
            return Ok(Chosen::without_sample(EmbeddingForm::F16, "the head is a tensor of its own"));
        }
        match self.head.treatment {
            Treatment::F16 => Ok(Chosen::without_sample(EmbeddingForm::F16, "the format of the head")),
            Treatment::Int4(_) | Treatment::Int8 => {
                let found = self.head.head.map_or_else(|| self.sample(Role::EmbedTokens), Ok)?;
                Ok(choose(found, EmbeddingForm::Shared, EmbeddingForm::F16))
            }
        }
    }

    fn per_layer(
        &self,
        asked: Option<PerLayerForm>,
        width: usize,
    ) -> Result<Chosen<PerLayerForm>, ConvertError> {
        let is_in_blocks = width.is_multiple_of(BLOCK);
        match asked {
            Some(PerLayerForm::Int4(_)) if !is_in_blocks => Err(PlanError::NotInBlocks { width }.into()),
            Some(form) => Ok(Chosen::without_sample(form, "asked for")),
            None if !is_in_blocks => {
                Ok(Chosen::without_sample(PerLayerForm::Int8, "a layer's columns do not divide into blocks"))
            }
            None => {
                let found = self.sample(Role::EmbedTokensPerLayer)?;
                Ok(choose(found, PerLayerForm::Int4(self.rule), PerLayerForm::Int8))
            }
        }
    }

    fn sample(&self, role: Role) -> Result<Sample, ConvertError> {
        sample(self.source, &[self.checkpoint.require(role)?], RUNS)
    }
}

/// A table is exact as codes only if all of it lies on a lattice.
fn choose<F>(found: Sample, exact: F, otherwise: F) -> Chosen<F> {
    let Sample { blocks, on_lattice, .. } = found;
    let (form, reason) = if on_lattice == blocks && blocks > 0 {
        let bound = 100.0 * (1.0 - CONFIDENCE).powf(1.0 / blocks as f64);
        let reason = format!(
            "all {blocks} sampled blocks of its table lie on a 4-bit lattice, so at least {bound:.2} % of them all probably do"
        );
        (exact, reason)
    } else {
        (
            otherwise,
            format!("only {on_lattice} of {blocks} sampled blocks of its table lie on a 4-bit lattice"),
        )
    };
    Chosen { form, reason, sample: Some(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_block_off_the_lattice_is_one_too_many() {
        let sample = |on_lattice| Sample { blocks: 4096, on_lattice, exact: 0 };
        let of = |on_lattice| choose(sample(on_lattice), EmbeddingForm::Shared, EmbeddingForm::F16);
        assert_eq!(of(4096).form, EmbeddingForm::Shared);
        assert!(of(4096).reason.contains("at least 99.83 %"), "{}", of(4096).reason);
        assert_eq!(of(4095).form, EmbeddingForm::F16);
        assert!(of(4095).reason.contains("only 4095 of 4096"));
        assert_eq!(
            choose(Sample::default(), EmbeddingForm::Shared, EmbeddingForm::F16).form,
            EmbeddingForm::F16
        );
    }
}
