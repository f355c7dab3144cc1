//! The MLP: `down(gelu(gate f) * up f)` between two norms.

use aimodel::build::BuildError;

use super::Decoder;
use checkpoint::config::Layer;
use checkpoint::{LayerRole, Role};

impl Decoder<'_> {
    /// Adds the MLP's result to the stream.
    pub(super) fn feedforward(&mut self, layer: &Layer) -> Result<(), BuildError> {
        let role = |role| Role::Layer(layer.index, role);
        let normed = self.norm(self.stream, role(LayerRole::PreFeedforwardNorm))?;
        let gate = self.projection(normed, role(LayerRole::GateProj))?;
        let gate = self.graph.gelu_tanh(gate)?;
        let up = self.projection(normed, role(LayerRole::UpProj))?;
        let gated = self.graph.mul(gate, up)?;
        let down = self.projection(gated, role(LayerRole::DownProj))?;
        let normed = self.norm(down, role(LayerRole::PostFeedforwardNorm))?;
        self.stream = self.graph.add(self.stream, normed)?;
        Ok(())
    }
}
