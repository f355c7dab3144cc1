//! One block of one tensor, and why its codes are what they are.

mod packed;
mod source;

use std::path::Path;

use anyhow::bail;
use packer::contents::kind_of;

pub use packed::{ExplainedCodes, PackedBlock};
pub use source::{ExplainedFit, ExplainedLattice, ScaleInterval, SourceBlock};

/// Names that an error lists.
const LISTED: usize = 8;

/// Which block of which tensor.
#[derive(Clone, Copy, Debug)]
pub struct BlockPlace<'a> {
    /// Name of the tensor, or the end of it.
    pub tensor: &'a str,
    /// Row: all axes but the last, as one.
    pub row: u64,
    /// Block of 32 weights within the row.
    pub block: u64,
}

/// Whether this is a package or a bundle, or a folder or archive of them, and not a checkpoint.
pub fn is_bundle(path: &Path) -> bool {
    let is_checkpoint = paths::exists(&path.join(::checkpoint::config::CONFIG_FILE));
    !is_checkpoint && kind_of(path).is_some()
}

/// The name that is meant: one that is equal, or the only one that ends this way.
fn find(names: &[&str], wanted: &str, place: &str) -> anyhow::Result<usize> {
    if let Some(at) = names.iter().position(|name| *name == wanted) {
        return Ok(at);
    }
    let end = format!(".{wanted}");
    let found: Vec<usize> = (0..names.len()).filter(|at| names[*at].ends_with(&end)).collect();
    if let [only] = found[..] {
        return Ok(only);
    }
    let like: Vec<&str> = names.iter().copied().filter(|name| name.contains(wanted)).take(LISTED).collect();
    let hint = if like.is_empty() {
        ": `coreai-bundle inspect --weights` lists those of a bundle, `convert --dry-run` those of a checkpoint".to_owned()
    } else {
        format!("; names with it: {}", text::bounds::list(&like))
    };
    let problem = if found.is_empty() { "there is no tensor" } else { "more than one tensor ends with" };
    bail!("{place}: {problem} {wanted:?}{hint}");
}

impl BlockPlace<'_> {
    /// Refuses a row or a block that the tensor does not have.
    fn check(&self, name: &str, rows: u64, blocks: u64) -> anyhow::Result<()> {
        if self.row >= rows || self.block >= blocks {
            bail!(
                "{name} has rows 0 to {} and blocks 0 to {} in each; row {}, block {} does not exist",
                rows.saturating_sub(1),
                blocks.saturating_sub(1),
                self.row,
                self.block
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_name_is_enough_if_only_one_ends_with_it() {
        let names = ["model.a.weight", "model.b.weight", "weight.a"];
        let path = "x";
        assert_eq!(find(&names, "b.weight", path).unwrap(), 1);
        assert_eq!(find(&names, "weight.a", path).unwrap(), 2);
        let many = find(&names, "weight", path).unwrap_err().to_string();
        assert!(many.contains("more than one") && many.contains("model.a.weight"), "{many}");
        assert!(find(&names, "c", path).unwrap_err().to_string().contains("no tensor \"c\""));
    }
}
