//! Per-layer inputs: a projection of the embedding plus a row of a table, one slice of it for each layer.

use aimodel::build::{BuildError, Scalar};
use aimodel::{Element, ValueId};

use super::{Decoder, Rows, TO_END, si32, ui32};
use checkpoint::config::Layer;
use checkpoint::{LayerRole, Role};

impl Decoder<'_> {
    /// The token as a vector of one id, which the row scale is gathered by; variants without a table need none.
    pub(super) fn flat_token(&mut self) -> Result<Option<ValueId>, BuildError> {
        if matches!(self.rows, Rows::Given(_)) {
            return Ok(None);
        }
        let shape = self.graph.ui32(&[1]);
        self.graph.reshape(self.input_ids, shape).map(Some)
    }

    /// All layers' inputs: f16 `[1, 1, L, ld]`.
    pub(super) fn per_layer_inputs(&mut self, flat_token: Option<ValueId>) -> Result<ValueId, BuildError> {
        let row = match (&self.rows, flat_token) {
            (Rows::Given(row), _) => *row,
            (Rows::Table { codes, scales }, Some(token)) => {
                let (codes, scales) = (*codes, *scales);
                let codes = self.gather_codes(codes, self.config.ple_total())?;
                self.dequantize_row(codes, scales, token)?
            }
            (_, token) => {
                let codes = self.stock_codes()?;
                let scales = self.weights.per_layer_scales(&mut self.graph, self.config)?;
                self.dequantize_row(codes, scales, token.unwrap_or(self.input_ids))?
            }
        };
        let projected = self.projection(self.stream, Role::PerLayerModelProjection)?;
        let scale = self.graph.scalar(Scalar::F16((self.config.hidden as f64).powf(-0.5)));
        let projected = self.graph.mul(projected, scale)?;
        let projected = self.split_layers(projected)?;
        let normed = self.norm(projected, Role::PerLayerProjectionNorm)?;
        let sum = self.graph.add(normed, row)?;
        let half = self.graph.scalar(Scalar::F16(0.5_f64.sqrt()));
        self.graph.mul(sum, half)
    }

    /// The token's row of a code table `[V, width]`: si8 `[1, width]`.
    fn gather_codes(&mut self, table: ValueId, width: usize) -> Result<ValueId, BuildError> {
        let (size, axis) = (self.graph.ui32(&[ui32(width)]), self.graph.si32(&[1]));
        let indices = self.graph.broadcast_in_dims(self.input_ids, size, axis)?;
        let rows = self.graph.scalar(Scalar::Si32(0));
        self.graph.gather_along_axis(table, indices, rows)
    }

    /// The token's row from the tables in the graph, one a layer: si8 `[1, L * ld]`.
    fn stock_codes(&mut self) -> Result<ValueId, BuildError> {
        let mut parts = Vec::with_capacity(self.config.layers.len());
        for layer in 0..self.config.layers.len() {
            let table = self.weights.per_layer_codes(&mut self.graph, self.config, layer)?;
            parts.push(self.gather_codes(table, self.config.ple_width)?);
        }
        let axis = self.graph.scalar(Scalar::Si32(1));
        self.graph.concat(axis, &parts)
    }

    /// `code * (scale * sqrt(ld))` in f32, then f16 `[1, 1, L, ld]`.
    fn dequantize_row(
        &mut self,
        codes: ValueId,
        scales: ValueId,
        token: ValueId,
    ) -> Result<ValueId, BuildError> {
        let codes = self.graph.cast(codes, Element::F32)?;
        let rows = self.graph.scalar(Scalar::Si32(0));
        let scale = self.graph.gather_along_axis(scales, token, rows)?;
        let factor = self.graph.scalar(Scalar::F32((self.config.ple_width as f64).sqrt() as f32));
        let scale = self.graph.mul(scale, factor)?;
        let row = self.graph.mul(codes, scale)?;
        let row = self.graph.cast(row, Element::F16)?;
        self.split_layers(row)
    }

    fn split_layers(&mut self, row: ValueId) -> Result<ValueId, BuildError> {
        let shape = [1, 1, ui32(self.config.layers.len()), ui32(self.config.ple_width)];
        let shape = self.graph.ui32(&shape);
        self.graph.reshape(row, shape)
    }

    /// One layer's input: f16 `[1, 1, 1, ld]`.
    pub(super) fn per_layer_row(&mut self, layer: &Layer) -> Result<ValueId, BuildError> {
        let at = si32(layer.index);
        let start = self.graph.si32(&[0, 0, at, 0]);
        let end = self.graph.si32(&[TO_END, TO_END, at + 1, TO_END]);
        let stride = self.graph.si32(&[1; 4]);
        self.graph.slice(self.per_layer, start, end, stride)
    }

    /// Adds `norm(projection(gelu(gate x) * row))` to the stream.
    pub(super) fn per_layer_gate(&mut self, layer: &Layer, row: ValueId) -> Result<(), BuildError> {
        let role = |role| Role::Layer(layer.index, role);
        let gate = self.projection(self.stream, role(LayerRole::PerLayerInputGate))?;
        let gate = self.graph.gelu_tanh(gate)?;
        let gated = self.graph.mul(gate, row)?;
        let projected = self.projection(gated, role(LayerRole::PerLayerProjection))?;
        let projected = self.as_stream(projected)?;
        let normed = self.norm(projected, role(LayerRole::PostPerLayerInputNorm))?;
        self.stream = self.graph.add(self.stream, normed)?;
        Ok(())
    }

    /// Reshapes to `[1, 1, H]`.
    pub(super) fn as_stream(&mut self, x: ValueId) -> Result<ValueId, BuildError> {
        let shape = self.graph.ui32(&[1, 1, ui32(self.config.hidden)]);
        self.graph.reshape(x, shape)
    }
}
