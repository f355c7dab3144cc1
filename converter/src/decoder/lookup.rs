//! Rows of tables that are stored as codes with a scale for each block of 32: of the embedding, through the head's own codes, and of the
//! per-layer table.

use aimodel::build::BuildError;
use aimodel::{Element, ValueId};
use half::f16;

use super::{Decoder, fixed};
use crate::recipe::{EmbeddingForm, Treatment};
use checkpoint::{BLOCK, Role};

impl Decoder<'_> {
    /// The tokens as indices of rows: si32 `[1, queries, 1]`.
    pub(super) fn row_indices(&mut self) -> Result<ValueId, BuildError> {
        if self.takes_many() {
            let last = self.graph.si32(&[2]);
            return self.graph.expand_dims(self.input_ids, last);
        }
        let shape = self.graph.ui32(&[1, 1, 1]);
        self.graph.reshape(self.input_ids, shape)
    }

    /// The tokens' rows of the embedding: f16 `[1, queries, H]`.
    pub(super) fn embedding_rows(&mut self) -> Result<ValueId, BuildError> {
        let tokens = self.row_indices()?;
        let table = match self.embedding {
            EmbeddingForm::F16 => self.weights.whole(&mut self.graph, Role::EmbedTokens)?,
            EmbeddingForm::Dequantized => self.weights.matrix(&mut self.graph, Role::Head)?,
            EmbeddingForm::Shared => return self.block_rows(Role::Head, self.config.hidden, true),
            EmbeddingForm::Si4 => return self.block_rows(Role::Head, self.config.hidden, false),
        };
        self.graph.gather_nd(table, tokens)
    }

    /// The first `width` elements of the tokens' rows of a matrix of codes, each code times its block's scale: f16
    /// `[1, queries, width]`. Codes of 4 bits are gathered as they are, or, if `by_bytes`, as pairs.
    pub(super) fn block_rows(
        &mut self,
        role: Role,
        width: usize,
        by_bytes: bool,
    ) -> Result<ValueId, BuildError> {
        let is_int4 = matches!(self.weights.treatment(role), Treatment::Int4(_));
        let codes = if is_int4 && by_bytes {
            self.unpacked_rows(role, width)?
        } else {
            let table = self.weights.codes(&mut self.graph, role)?;
            let codes = self.table_rows(table, width)?;
            self.graph.cast(codes, Element::F16)?
        };
        let blocks = width / BLOCK;
        let shape = self.rows_shape(&[blocks, BLOCK])?;
        let codes = self.graph.reshape(codes, shape)?;
        let scales = self.weights.scales(&mut self.graph, role)?;
        let scales = self.table_rows(scales, blocks)?;
        let shape = self.rows_shape(&[blocks, 1])?;
        let scales = self.graph.reshape(scales, shape)?;
        let rows = self.graph.mul(codes, scales)?;
        let shape = self.rows_shape(&[width])?;
        self.graph.reshape(rows, shape)
    }

    /// The first elements of the tokens' rows of a table.
    fn table_rows(&mut self, table: ValueId, width: usize) -> Result<ValueId, BuildError> {
        let tokens = self.row_indices()?;
        let rows = self.graph.gather_nd(table, tokens)?;
        let whole = self.graph.tensor(rows).and_then(|ty| ty.shape.last()?.fixed());
        if whole == Some(width as u64) { Ok(rows) } else { self.first_columns(rows, width) }
    }

    /// Rows of 4-bit codes that are gathered in pairs, as the bytes that hold them: f16 `[1, queries, width / 2, 2]`. Gathering bytes
    /// and looking codes up has run on Apple's GPUs; no other way to unpack codes is known to.
    fn unpacked_rows(&mut self, role: Role, width: usize) -> Result<ValueId, BuildError> {
        let bytes = self.weights.code_bytes(&mut self.graph, role)?;
        let bytes = self.table_rows(bytes, width / 2)?;
        let bytes = self.graph.cast(bytes, Element::Si32)?;
        let last = self.graph.si32(&[3]);
        let indices = self.graph.expand_dims(bytes, last)?;
        let pairs = self.graph.elements(&fixed(&[256, 2], Element::F16), code_pairs())?;
        self.graph.gather_nd(pairs, indices)
    }
}

/// The two codes in each byte, the low half first, as half-precision numbers.
fn code_pairs() -> Vec<u8> {
    let code = |half: u8| f16::from_f32(f32::from((half << 4) as i8 >> 4));
    (0..=u8::MAX).flat_map(|byte| [code(byte & 15), code(byte >> 4)]).flat_map(f16::to_le_bytes).collect()
}

#[cfg(test)]
mod tests {
    use half::f16;

    #[test]
    fn a_byte_is_two_codes() {
        let pairs = super::code_pairs();
        let of = |byte: usize| {
            [0, 2].map(|at| f16::from_le_bytes([pairs[4 * byte + at], pairs[4 * byte + at + 1]]).to_f32())
        };
        assert_eq!(pairs.len(), 256 * 2 * 2);
        assert_eq!([of(0x00), of(0x8F), of(0x71)], [[0.0, 0.0], [-1.0, -8.0], [1.0, 7.0]]);
    }
}
