//! The gated feed-forward layer.

use tensor::{Act, ActSet, Activation, Backend, Role};

use crate::{Linear, Loader, NnError};

/// `down(f(gate(x)) * up(x))`.
pub struct Mlp<B: Backend> {
    gate_up: Linear<B>,
    down: Linear<B>,
    activation: Activation,
}

impl<B: Backend> Mlp<B> {
    /// Loads `prefix.{gate_proj, up_proj, down_proj}`.
    pub fn load(
        loader: &mut Loader<'_, B>,
        prefix: &str,
        hidden_size: usize,
        intermediate_size: usize,
        activation: Activation,
    ) -> Result<Self, NnError> {
        let parts = [("gate_proj", intermediate_size), ("up_proj", intermediate_size)];
        Ok(Self {
            gate_up: Linear::load(loader, prefix, &parts, hidden_size, Role::Glu)?,
            down: Linear::load(loader, prefix, &[("down_proj", hidden_size)], intermediate_size, Role::Row)?,
            activation,
        })
    }

    pub fn wants(&self) -> ActSet {
        self.gate_up.wants()
    }

    pub fn forward_add(&self, b: &mut B, x: &Act<B>, onto: &B::Buf) {
        let gated = self.gate_up.forward_glu(b, x, self.activation, self.down.wants());
        self.down.forward_add(b, &gated, onto);
    }
}
