//! The format of the head.
//!
//! The head is the embedding table again. An int4 head that lies off the lattice undoes what the rest preserves, so with int4
//! weights its format is decided from a fixed sample of blocks, before the plan.

use quantizer::lattice::recover;
use serde::Serialize;

use crate::error::ConvertError;
use crate::ordered::for_each_in_order;
use crate::recipe::Treatment;
use checkpoint::config::DecoderConfig;
use checkpoint::source::{Source, TensorEntry};
use checkpoint::{BLOCK, Checkpoint, Role};

/// Blocks read at each place of a sample: 4 KiB.
const RUN: usize = 64;
/// Places in the head.
const HEAD_RUNS: usize = 64;
/// Places in each kind of projection, over all layers.
const BODY_RUNS: usize = 16;
/// Share of blocks that must lie on a lattice for weights to count as trained on it.
const ON_LATTICE: f64 = 0.99;

/// Blocks that were sampled, how many lie on a lattice, and how many of those have a scale that f16 holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Sample {
    /// Blocks read.
    pub blocks: u64,
    /// Blocks on a lattice, whatever its scale.
    pub on_lattice: u64,
    /// Blocks that an f16 scale reproduces byte for byte. Trained scales may be f32 numbers, so this says nothing about training.
    pub exact: u64,
}

impl Sample {
    /// Share of blocks on a lattice; 1 for an empty sample.
    pub fn share(&self) -> f64 {
        if self.blocks == 0 { 1.0 } else { self.on_lattice as f64 / self.blocks as f64 }
    }

    /// Adds the counts of other blocks.
    fn add(&mut self, other: Sample) {
        self.blocks += other.blocks;
        self.on_lattice += other.on_lattice;
        self.exact += other.exact;
    }
}

/// The head's format and why.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct HeadDecision {
    /// How it is stored.
    #[serde(rename = "format", serialize_with = "format_name")]
    pub treatment: Treatment,
    /// One sentence.
    pub reason: String,
    /// Whether the checkpoint was not trained on a 4-bit lattice, so that int4 loses accuracy.
    pub off_lattice: bool,
    /// Blocks of the head, where a sample was taken.
    pub head: Option<Sample>,
    /// Blocks of all projections, where a sample was taken.
    pub body: Option<Sample>,
}

fn format_name<S: serde::Serializer>(treatment: &Treatment, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(treatment.format())
}

impl HeadDecision {
    /// Takes what was asked for, or else decides by the format of the projections. Weights are read only if those become int4.
    ///
    /// # Errors
    /// If the checkpoint cannot be read.
    pub fn new(
        source: &dyn Source,
        config: &DecoderConfig,
        checkpoint: &Checkpoint,
        projections: Treatment,
        asked: Option<Treatment>,
    ) -> Result<Self, ConvertError> {
        let without_sample = |treatment, reason: &str| HeadDecision {
            treatment,
            reason: reason.to_owned(),
            off_lattice: false,
            head: None,
            body: None,
        };
        match (asked, projections) {
            (Some(treatment), _) => Ok(without_sample(treatment, "asked for")),
            (None, Treatment::Int4(_)) => {
                let head = sample(source, &[checkpoint.require(Role::Head)?], HEAD_RUNS)?;
                let body = sample_body(source, config, checkpoint)?;
                Ok(decide(projections, head, body))
            }
            (None, other) => Ok(without_sample(other, "the format of the other weights")),
        }
    }
}

/// Decides between the projections' int4 and int8.
fn decide(int4: Treatment, head: Sample, body: Sample) -> HeadDecision {
    let percent = |sample: Sample| format!("{:.2} %", 100.0 * sample.share());
    let (head_share, body_share) = (percent(head), percent(body));
    let off_lattice = body.share() < ON_LATTICE;
    let (treatment, reason) = if head.share() >= ON_LATTICE {
        (int4, format!("{head_share} of its sampled blocks lie on a 4-bit lattice"))
    } else if off_lattice {
        let reason = format!(
            "only {body_share} of the sampled blocks of the projections lie on a 4-bit lattice: this is not a QAT checkpoint"
        );
        (int4, reason)
    } else {
        let reason = format!(
            "only {head_share} of its sampled blocks lie on a 4-bit lattice, of the projections {body_share}"
        );
        (Treatment::Int8, reason)
    };
    HeadDecision { treatment, reason, off_lattice, head: Some(head), body: Some(body) }
}

/// A sample of every kind of projection, the head left out.
fn sample_body(
    source: &dyn Source,
    config: &DecoderConfig,
    checkpoint: &Checkpoint,
) -> Result<Sample, ConvertError> {
    let mut kinds: Vec<(Option<checkpoint::LayerRole>, Vec<&TensorEntry>)> = Vec::new();
    for role in Role::needed(config).filter(|role| role.is_projection() && *role != Role::Head) {
        let kind = if let Role::Layer(_, kind) = role { Some(kind) } else { None };
        let tensor = checkpoint.require(role)?;
        match kinds.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, tensors)) => tensors.push(tensor),
            None => kinds.push((kind, vec![tensor])),
        }
    }
    let mut total = Sample::default();
    for (_, tensors) in kinds {
        total.add(sample(source, &tensors, BODY_RUNS)?);
    }
    Ok(total)
}

/// Samples `runs` runs of blocks, spread evenly over some tensors laid end to end.
pub(crate) fn sample(
    source: &dyn Source,
    tensors: &[&TensorEntry],
    runs: usize,
) -> Result<Sample, ConvertError> {
    let block = BLOCK as u64;
    let blocks_of = |tensor: &TensorEntry| tensor.weights() / block;
    let total: u64 = tensors.iter().map(|tensor| blocks_of(tensor)).sum();
    let mut stretches = Vec::with_capacity(runs);
    let mut last_end = (usize::MAX, 0);
    for run in 0..runs as u64 {
        let mut at = (u128::from(total) * u128::from(run) / runs as u128) as u64;
        let mut which = 0;
        while which < tensors.len() && at >= blocks_of(tensors[which]) {
            at -= blocks_of(tensors[which]);
            which += 1;
        }
        let Some(tensor) = tensors.get(which) else { break };
        if last_end.0 == which {
            at = at.max(last_end.1);
        }
        let count = (blocks_of(tensor) - at.min(blocks_of(tensor))).min(RUN as u64);
        last_end = (which, at + count);
        stretches.push((*tensor, at * block, count as usize * BLOCK));
    }
    count_blocks(source, &stretches)
}

/// Reads ranges of tensors, as many at a time as the source supports, and examines their blocks.
fn count_blocks(
    source: &dyn Source,
    stretches: &[(&TensorEntry, u64, usize)],
) -> Result<Sample, ConvertError> {
    let read = |which: usize| {
        let (tensor, start, count) = stretches[which];
        let mut weights = bytemuck::zeroed_vec(count);
        source.read_weights(tensor, start, &mut weights)?;
        Ok::<_, ConvertError>(weights)
    };
    let mut sample = Sample::default();
    for_each_in_order(stretches.len(), source.readers(), source.readers(), read, |_, weights| {
        for block in weights.as_chunks::<BLOCK>().0 {
            let found = recover(block);
            let is_exact = found.is_some_and(|found| found.is_exact);
            sample.add(Sample { blocks: 1, on_lattice: found.is_some().into(), exact: is_exact.into() });
        }
        Ok(())
    })?;
    Ok(sample)
}

#[cfg(test)]
mod tests {
    use super::{Sample, decide};
    use crate::recipe::Treatment;
    use quantizer::Int4Rule;

    fn sample(on_lattice: u64) -> Sample {
        // The decision does not depend on how many scales are f16 numbers.
        Sample { blocks: 1000, on_lattice, exact: 0 }
    }

    #[test]
    fn the_head_follows_its_own_sample_unless_nothing_is_on_a_lattice() {
        let int4 = Treatment::Int4(Int4Rule::Q4_0);
        for (head, body, treatment, off_lattice) in [
            (1000, 1000, int4, false),
            (990, 1000, int4, false),
            (989, 1000, Treatment::Int8, false),
            (0, 990, Treatment::Int8, false),
            (0, 12, int4, true),
            (1000, 12, int4, true),
        ] {
            let decision = decide(int4, sample(head), sample(body));
            assert_eq!((decision.treatment, decision.off_lattice), (treatment, off_lattice), "{head} {body}");
        }
    }
}
