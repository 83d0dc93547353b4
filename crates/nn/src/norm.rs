//! RMSNorm.

use tensor::{Act, ActSet, Backend, NormSpec};

use crate::{Loader, NnError};

/// `x / sqrt(mean(x^2) + eps) * gain`, per row.
pub struct RmsNorm<B: Backend> {
    spec: NormSpec<B>,
}

impl<B: Backend> RmsNorm<B> {
    /// Loads `prefix.weight`.
    pub fn load(loader: &mut Loader<'_, B>, prefix: &str, size: usize, eps: f32) -> Result<Self, NnError> {
        let gain = loader.vector(&format!("{prefix}.weight"), size)?;
        Ok(Self { spec: NormSpec { gain, eps, size } })
    }

    pub fn forward(&self, b: &mut B, x: &B::Buf, emit: ActSet) -> Act<B> {
        b.norm(x, &self.spec, emit)
    }

    /// The norm as a part of another op.
    pub fn into_spec(self) -> NormSpec<B> {
        self.spec
    }
}
