//! Per-layer inputs: a projection of the embedding plus a row of a table, one slice of it for each layer.

use aimodel::build::{BuildError, Scalar};
use aimodel::{Element, ValueId};

use super::{Decoder, Rows, TO_END, si32, ui32};
use checkpoint::config::{Layer, PerLayer};
use checkpoint::{LayerRole, Role};

impl Decoder<'_> {
    /// The token as a vector of one id, which the row scale is gathered by; variants without a table need none.
    pub(super) fn flat_token(&mut self) -> Result<Option<ValueId>, BuildError> {
        if matches!(self.rows, None | Some((_, Rows::Given(_)))) {
            return Ok(None);
        }
        let shape = self.graph.ui32(&[1]);
        self.graph.reshape(self.input_ids, shape).map(Some)
    }

    /// All layers' inputs: f16 `[1, 1, L, ld]`.
    pub(super) fn per_layer_inputs(
        &mut self,
        per_layer: PerLayer,
        rows: Rows,
        flat_token: Option<ValueId>,
    ) -> Result<ValueId, BuildError> {
        let token = flat_token.unwrap_or(self.input_ids);
        let row = match rows {
            Rows::Given(row) => row,
            Rows::Table { codes, scales } => {
                let codes = self.gather_codes(codes, per_layer.total)?;
                self.dequantize_row(per_layer, codes, scales, token)?
            }
            Rows::Stock => {
                let codes = self.stock_codes(per_layer)?;
                let scales = self.weights.table_scales(&mut self.graph)?;
                self.dequantize_row(per_layer, codes, scales, token)?
            }
        };
        let projected = self.projection(self.stream, Role::PerLayerModelProjection)?;
        let scale = self.graph.scalar(Scalar::F16((self.config.hidden as f64).powf(-0.5)));
        let projected = self.graph.mul(projected, scale)?;
        let projected = self.split_layers(per_layer, projected)?;
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
    fn stock_codes(&mut self, per_layer: PerLayer) -> Result<ValueId, BuildError> {
        let mut parts = Vec::with_capacity(self.config.layers.len());
        for layer in 0..self.config.layers.len() {
            let table = self.weights.table_codes(&mut self.graph, per_layer, layer)?;
            parts.push(self.gather_codes(table, per_layer.width)?);
        }
        let axis = self.graph.scalar(Scalar::Si32(1));
        self.graph.concat(axis, &parts)
    }

    /// `code * (scale * sqrt(ld))` in f32, then f16 `[1, 1, L, ld]`.
    fn dequantize_row(
        &mut self,
        per_layer: PerLayer,
        codes: ValueId,
        scales: ValueId,
        token: ValueId,
    ) -> Result<ValueId, BuildError> {
        let codes = self.graph.cast(codes, Element::F32)?;
        let rows = self.graph.scalar(Scalar::Si32(0));
        let scale = self.graph.gather_along_axis(scales, token, rows)?;
        let factor = self.graph.scalar(Scalar::F32((per_layer.width as f64).sqrt() as f32));
        let scale = self.graph.mul(scale, factor)?;
        let row = self.graph.mul(codes, scale)?;
        let row = self.graph.cast(row, Element::F16)?;
        self.split_layers(per_layer, row)
    }

    fn split_layers(&mut self, per_layer: PerLayer, row: ValueId) -> Result<ValueId, BuildError> {
        let shape = [1, 1, ui32(self.config.layers.len()), ui32(per_layer.width)];
        let shape = self.graph.ui32(&shape);
        self.graph.reshape(row, shape)
    }

    /// One layer's input: f16 `[1, 1, 1, ld]`.
    pub(super) fn per_layer_row(&mut self, inputs: ValueId, layer: &Layer) -> Result<ValueId, BuildError> {
        let at = si32(layer.index);
        let start = self.graph.si32(&[0, 0, at, 0]);
        let end = self.graph.si32(&[TO_END, TO_END, at + 1, TO_END]);
        let stride = self.graph.si32(&[1; 4]);
        self.graph.slice(inputs, start, end, stride)
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
