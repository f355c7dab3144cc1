//! The results of the pass over a matrix's codes, other than the codes.

use std::io::{self, Read, Seek, Write};
use std::path::Path;

use quantizer::Statistics;
use tempfile::SpooledTempFile;

use super::workers::Product;

/// Bytes of scales that are kept in memory: those of the largest head. Those of a per-layer table are kept in a temporary file.
const IN_MEMORY: usize = 48 << 20;

/// What belongs to a matrix besides its codes: its scales, which follow them, and what quantization did.
#[derive(Default)]
pub(super) struct Matrix {
    scales: Option<SpooledTempFile>,
    pub(super) statistics: Option<Statistics>,
}

impl Matrix {
    /// A matrix whose scales are what is left in a file.
    pub(super) fn of_rest(
        file: &mut impl Read,
        folder: &Path,
        statistics: Option<Statistics>,
    ) -> io::Result<Self> {
        let mut scales = tempfile::spooled_tempfile_in(IN_MEMORY, folder);
        io::copy(file, &mut scales)?;
        Ok(Matrix { scales: Some(scales), statistics })
    }

    /// Adds the results for a piece. A temporary file would be made in this folder.
    pub(super) fn append(&mut self, product: &Product, folder: &Path) -> io::Result<()> {
        if !product.scales.is_empty() {
            let scales = self.scales.get_or_insert_with(|| tempfile::spooled_tempfile_in(IN_MEMORY, folder));
            scales.write_all(bytemuck::cast_slice(&product.scales))?;
        }
        let Some(statistics) = &product.statistics else { return Ok(()) };
        match &mut self.statistics {
            Some(sum) => sum.merge(statistics),
            None => self.statistics = Some(statistics.clone()),
        }
        Ok(())
    }

    /// Whether its scales wait for their turn.
    pub(super) fn has_scales(&self) -> bool {
        self.scales.is_some()
    }

    /// Its scales from the first one on, as bytes.
    pub(super) fn take_scales(&mut self) -> io::Result<SpooledTempFile> {
        let mut scales = self.scales.take().unwrap_or_else(|| tempfile::spooled_tempfile(0));
        scales.rewind()?;
        Ok(scales)
    }
}
