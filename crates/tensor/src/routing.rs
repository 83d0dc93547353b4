//! Which experts a token goes to.

use crate::Backend;

/// How a router's logits become experts and their weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteSpec {
    pub num_experts: usize,
    /// Experts of each token: those of the largest logits, of equal ones the first. Their slots are in that order.
    pub top_k: usize,
    /// Whether a token's weights, its experts' shares of the softmax over all experts, are scaled to sum to 1.
    pub renormalize: bool,
}

/// The experts of each of `tokens` tokens, where the backend keeps them: they never reach the host's control flow.
pub struct Routing<B: Backend> {
    pub spec: RouteSpec,
    pub tokens: usize,
    pub buf: B::Buf,
}

impl<B: Backend> Routing<B> {
    /// Pairs of a token and one of its experts.
    pub fn pairs(&self) -> usize {
        self.tokens * self.spec.top_k
    }
}
