//! The part of a layer that looks at one token at a time.

use tensor::{Act, ActSet, Backend};

use crate::{Mlp, Moe};

/// One gated layer for all tokens, or many of which each token takes a few.
pub enum FeedForward<B: Backend> {
    Dense(Mlp<B>),
    Mixture(Moe<B>),
}

impl<B: Backend> FeedForward<B> {
    pub fn wants(&self) -> ActSet {
        match self {
            Self::Dense(mlp) => mlp.wants(),
            Self::Mixture(moe) => moe.wants(),
        }
    }

    /// Adds the output for `x` to `onto`.
    pub fn forward_add(&self, b: &mut B, x: &Act<B>, onto: &B::Buf) {
        match self {
            Self::Dense(mlp) => mlp.forward_add(b, x, onto),
            Self::Mixture(moe) => moe.forward_add(b, x, onto),
        }
    }
}
