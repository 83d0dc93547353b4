//! Qwen3-MoE: Qwen3's attention, and a mixture of experts in each layer that has a router; the others are dense.

use nn::{ExpertNames, FeedForward, Loader, Moe, NnError};
use tensor::{Activation, Backend};
use weights::ModelConfig;

use crate::decoder::{Parts, mlp};

const NAMES: ExpertNames = ExpertNames { gate: "gate_proj", up: "up_proj", down: "down_proj" };

pub(crate) fn parts<B: Backend>() -> Parts<B> {
    Parts { qk_norm: true, feed_forward: experts }
}

fn experts<B: Backend>(
    loader: &mut Loader<'_, B>,
    config: &ModelConfig,
    layer: &str,
) -> Result<FeedForward<B>, NnError> {
    let prefix = format!("{layer}.mlp");
    match config.moe {
        Some(moe) if loader.has(&format!("{prefix}.gate.weight")) => {
            let moe = Moe::load(loader, &prefix, NAMES, config.hidden_size, moe, Activation::Silu)?;
            Ok(FeedForward::Mixture(moe))
        }
        _ => mlp(loader, config, layer),
    }
}
