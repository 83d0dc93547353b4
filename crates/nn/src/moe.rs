//! The mixture of experts: a router, and gated feed-forward layers of which each token takes a few.

use tensor::{Act, ActSet, Activation, Backend, Role, RouteSpec};
use weights::MoeConfig;

use crate::{Linear, Loader, NnError};

/// `sum of weight(e) * down_e(f(gate_e(x)) * up_e(x))` over a token's experts `e`.
pub struct Moe<B: Backend> {
    router: Linear<B>,
    gate_up: B::Weight,
    down: B::Weight,
    spec: RouteSpec,
    activation: Activation,
}

/// What a family calls an expert's matrices.
#[derive(Clone, Copy, Debug)]
pub struct ExpertNames {
    pub gate: &'static str,
    pub up: &'static str,
    pub down: &'static str,
}

impl<B: Backend> Moe<B> {
    /// Loads `prefix.gate`, the router, and each expert's matrices from `prefix.experts.N`.
    pub fn load(
        loader: &mut Loader<'_, B>,
        prefix: &str,
        names: ExpertNames,
        hidden_size: usize,
        config: MoeConfig,
        activation: Activation,
    ) -> Result<Self, NnError> {
        let MoeConfig { num_experts, experts_per_token, intermediate_size, renormalize } = config;
        let stack = |parts: &[&str], rows: usize| -> Vec<(String, usize)> {
            let of = |expert| parts.iter().map(move |part| (format!("{prefix}.experts.{expert}.{part}.weight"), rows));
            (0..num_experts).flat_map(of).collect()
        };
        let (gate_up, down) = (stack(&[names.gate, names.up], intermediate_size), stack(&[names.down], hidden_size));
        Ok(Self {
            router: Linear::load(loader, prefix, &[("gate", num_experts)], hidden_size, Role::Column)?,
            gate_up: loader.weight(&gate_up, hidden_size, Role::ExpertsGlu)?,
            down: loader.weight(&down, intermediate_size, Role::Experts)?,
            spec: RouteSpec { num_experts, top_k: experts_per_token, renormalize },
            activation,
        })
    }

    pub fn wants(&self) -> ActSet {
        self.router.wants().union(B::wants(&self.gate_up))
    }

    /// Adds the output for `x` to `onto`.
    pub fn forward_add(&self, b: &mut B, x: &Act<B>, onto: &B::Buf) {
        let logits = self.router.forward(b, x);
        let routing = b.route(&logits, &self.spec);
        let gated = b.experts_glu(x, &self.gate_up, &routing, self.activation, B::wants(&self.down));
        b.experts_add(&gated, &self.down, &routing, onto);
    }
}
