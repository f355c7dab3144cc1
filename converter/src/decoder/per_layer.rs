//! Per-layer inputs: a projection of the embedding plus a row of a table, one slice of it for each layer.

use aimodel::build::{BuildError, Scalar};
use aimodel::{Dim, Element, TensorType, ValueId};

use super::sequence::Count;
use super::{Decoder, Rows, TO_END, si32, ui32};
use checkpoint::config::{Layer, PerLayer};
use checkpoint::{LayerRole, Role};

impl Decoder<'_> {
    /// All layers' inputs: f16 `[1, queries, L, ld]`.
    pub(super) fn per_layer_inputs(
        &mut self,
        per_layer: PerLayer,
        rows: Rows,
    ) -> Result<ValueId, BuildError> {
        let row = match rows {
            Rows::Given(row) => row,
            Rows::Table { codes, scales } => {
                let codes = self.gather_codes(codes, per_layer.total)?;
                self.dequantize_rows(per_layer, codes, scales)?
            }
            Rows::Blocks => self.block_table_rows(per_layer)?,
            Rows::Stock => {
                let codes = self.stock_codes(per_layer)?;
                let scales = self.weights.table_scales(&mut self.graph)?;
                self.dequantize_rows(per_layer, codes, scales)?
            }
        };
        let projected = self.model_projection(per_layer)?;
        let scale = self.graph.scalar(Scalar::F16((self.config.hidden as f64).powf(-0.5)));
        let projected = self.graph.mul(projected, scale)?;
        let projected = self.split_layers(per_layer, projected)?;
        let normed = self.norm(projected, Role::PerLayerProjectionNorm)?;
        let sum = self.graph.add(normed, row)?;
        let half = self.graph.scalar(Scalar::F16(0.5_f64.sqrt()));
        self.graph.mul(sum, half)
    }

    /// The stream, projected to the inputs of the layers that run: f16 `[1, queries, L * ld]`.
    fn model_projection(&mut self, per_layer: PerLayer) -> Result<ValueId, BuildError> {
        let role = Role::PerLayerModelProjection;
        if self.layers.len() == self.config.layers.len() {
            return self.projection(self.stream, role);
        }
        let width = self.layers.len() * per_layer.width;
        if self.weights.has_codes(role) {
            let weight = self.weights.matrix(&mut self.graph, role)?;
            let rows = self.first(weight, &[si32(width), TO_END])?;
            let order = self.graph.ui32(&[1, 0]);
            let weight = self.graph.transpose(rows, order)?;
            return self.product(self.stream, weight);
        }
        // Apple's tools replace a part of a constant by another constant when they save, so the product is cut instead.
        let projected = self.projection(self.stream, role)?;
        self.first_columns(projected, width)
    }

    /// The first columns of rows: `[1, queries, width]`.
    pub(super) fn first_columns(&mut self, rows: ValueId, width: usize) -> Result<ValueId, BuildError> {
        self.first(rows, &[TO_END, TO_END, si32(width)])
    }

    /// The tokens' rows of the layers that run, from a table of codes with scales of blocks: f16 `[1, queries, L, ld]`.
    fn block_table_rows(&mut self, per_layer: PerLayer) -> Result<ValueId, BuildError> {
        let width = self.layers.len() * per_layer.width;
        let rows = self.block_rows(Role::EmbedTokensPerLayer, width, true)?;
        let factor = self.graph.scalar(Scalar::F16((per_layer.width as f64).sqrt()));
        let rows = self.graph.mul(rows, factor)?;
        self.split_layers(per_layer, rows)
    }

    /// The first elements along each axis.
    fn first(&mut self, x: ValueId, extents: &[i32]) -> Result<ValueId, BuildError> {
        let start = self.graph.si32(&vec![0; extents.len()]);
        let stride = self.graph.si32(&vec![1; extents.len()]);
        let end = self.graph.si32(extents);
        self.graph.slice(x, start, end, stride)
    }

    /// The tokens as a vector, which the row scales are gathered by: si32 `[queries]`.
    pub(super) fn flat_tokens(&mut self) -> Result<ValueId, BuildError> {
        let shape = match self.count {
            Count::Fixed(count) => self.graph.ui32(&[count]),
            Count::Given(_) => {
                let flat = self.flattened()?;
                self.graph.get_shape(flat)?
            }
        };
        self.graph.reshape(self.input_ids, shape)
    }

    fn flattened(&mut self) -> Result<ValueId, BuildError> {
        let flat = self.graph.si32(&[-1]);
        self.graph.reshape(self.input_ids, flat)
    }

    /// The tokens as a column: si32 `[queries, 1]`.
    fn token_column(&mut self) -> Result<ValueId, BuildError> {
        if !self.takes_many() {
            return Ok(self.input_ids);
        }
        if let Count::Fixed(count) = self.count {
            let shape = self.graph.ui32(&[count, 1]);
            return self.graph.reshape(self.input_ids, shape);
        }
        let flat = self.flattened()?;
        let count = self.graph.get_shape(flat)?;
        let one = self.graph.ui32(&[1]);
        let shape = self.shape(&[count, one])?;
        // Here the exports lose the fact that a column has one element.
        let open = TensorType::new(vec![Dim::Dynamic, Dim::Dynamic], Element::Si32);
        self.graph.reshape_as(self.input_ids, shape, &open)
    }

    /// The tokens' rows of a code table `[V, width]`: si8 `[queries, width]`.
    fn gather_codes(&mut self, table: ValueId, width: usize) -> Result<ValueId, BuildError> {
        let tokens = self.token_column()?;
        let (size, axis) = (self.graph.ui32(&[ui32(width)]), self.graph.si32(&[1]));
        let indices = self.graph.broadcast_in_dims(tokens, size, axis)?;
        let rows = self.graph.scalar(Scalar::Si32(0));
        self.graph.gather_along_axis(table, indices, rows)
    }

    /// The tokens' rows from the tables in the graph, one per layer: si8 `[queries, L * ld]`.
    fn stock_codes(&mut self, per_layer: PerLayer) -> Result<ValueId, BuildError> {
        let mut parts = Vec::with_capacity(self.layers.len());
        for layer in 0..self.layers.len() {
            let table = self.weights.table_codes(&mut self.graph, per_layer, layer)?;
            parts.push(self.gather_codes(table, per_layer.width)?);
        }
        let axis = self.graph.scalar(Scalar::Si32(1));
        self.graph.concat(axis, &parts)
    }

    /// `code * (scale * sqrt(ld))` in f32, then f16 `[1, queries, L, ld]`.
    fn dequantize_rows(
        &mut self,
        per_layer: PerLayer,
        codes: ValueId,
        scales: ValueId,
    ) -> Result<ValueId, BuildError> {
        let codes = self.graph.cast(codes, Element::F32)?;
        let rows = self.graph.scalar(Scalar::Si32(0));
        let tokens = self.flat_tokens()?;
        let scale = self.graph.gather_along_axis(scales, tokens, rows)?;
        let factor = self.graph.scalar(Scalar::F32((per_layer.width as f64).sqrt() as f32));
        let mut scale = self.graph.mul(scale, factor)?;
        if self.takes_many() {
            let last = self.graph.si32(&[-1]);
            scale = self.graph.expand_dims(scale, last)?;
        }
        let row = self.graph.mul(codes, scale)?;
        let row = self.graph.cast(row, Element::F16)?;
        self.split_layers(per_layer, row)
    }

    fn split_layers(&mut self, per_layer: PerLayer, row: ValueId) -> Result<ValueId, BuildError> {
        let shape = self.rows_shape(&[self.layers.len(), per_layer.width])?;
        self.graph.reshape(row, shape)
    }

    /// One layer's input: f16 `[1, 1, 1, ld]`, or `[1, queries, ld]`.
    pub(super) fn per_layer_row(&mut self, inputs: ValueId, layer: &Layer) -> Result<ValueId, BuildError> {
        let at = si32(layer.index);
        let start = self.graph.si32(&[0, 0, at, 0]);
        let end = self.graph.si32(&[TO_END, TO_END, at + 1, TO_END]);
        let stride = self.graph.si32(&[1; 4]);
        let row = self.graph.slice(inputs, start, end, stride)?;
        if !self.takes_many() {
            return Ok(row);
        }
        let layers = self.graph.si32(&[2]);
        self.graph.shrink_dims(row, layers)
    }

    /// Adds `norm(projection(gelu(gate x) * row))` to the stream.
    pub(super) fn per_layer_gate(&mut self, layer: &Layer, inputs: ValueId) -> Result<(), BuildError> {
        let role = |role| Role::Layer(layer.index, role);
        let gate = self.projection(self.stream, role(LayerRole::PerLayerInputGate))?;
        let gate = self.graph.gelu_tanh(gate)?;
        let row = self.per_layer_row(inputs, layer)?;
        let gated = self.graph.mul(gate, row)?;
        let mut projected = self.projection(gated, role(LayerRole::PerLayerProjection))?;
        if !self.takes_many() {
            projected = self.as_stream(projected)?;
        }
        let normed = self.norm(projected, role(LayerRole::PostPerLayerInputNorm))?;
        self.stream = self.graph.add(self.stream, normed)?;
        Ok(())
    }

    /// Reshapes to `[1, queries, H]`.
    pub(super) fn as_stream(&mut self, x: ValueId) -> Result<ValueId, BuildError> {
        let shape = self.rows_shape(&[self.config.hidden])?;
        self.graph.reshape(x, shape)
    }
}
