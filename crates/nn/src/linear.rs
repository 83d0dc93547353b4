//! A matrix and its bias; several matrices that read the same input are fused to one.

use tensor::{Act, ActSet, Activation, Backend, Role};

use crate::{Loader, NnError};

/// `y = x W^T + b`, W `[out, in]`.
pub struct Linear<B: Backend> {
    weight: B::Weight,
    bias: Option<B::Buf>,
}

impl<B: Backend> Linear<B> {
    /// Loads `prefix.part.weight` (and `.bias`) of each part (name, output size) and stacks them.
    pub fn load(
        loader: &mut Loader<'_, B>,
        prefix: &str,
        parts: &[(&str, usize)],
        in_size: usize,
        role: Role,
    ) -> Result<Self, NnError> {
        let named = |kind: &str| -> Vec<(String, usize)> {
            parts.iter().map(|(part, out_size)| (format!("{prefix}.{part}.{kind}"), *out_size)).collect()
        };
        Ok(Self { weight: loader.weight(&named("weight"), in_size, role)?, bias: loader.biases(&named("bias"))? })
    }

    /// The encodings of `x` that this layer reads.
    pub fn wants(&self) -> ActSet {
        B::wants(&self.weight)
    }

    /// `[rows, out]`.
    pub fn forward(&self, b: &mut B, x: &Act<B>) -> B::Buf {
        b.linear(x, &self.weight, self.bias.as_ref())
    }

    /// Adds its output to `onto [rows, out]`.
    pub fn forward_add(&self, b: &mut B, x: &Act<B>, onto: &B::Buf) {
        b.linear_add(x, &self.weight, self.bias.as_ref(), onto);
    }

    /// For a gate and an up part loaded with [`Role::Glu`]: `f(gate(x)) * up(x)`, `[rows, out / 2]`.
    pub fn forward_glu(&self, b: &mut B, x: &Act<B>, f: Activation, emit: ActSet) -> Act<B> {
        assert!(self.bias.is_none(), "a gated unit has no bias");
        b.linear_glu(x, &self.weight, f, emit)
    }
}
