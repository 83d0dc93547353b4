//! Mixtral: Mistral's layers with a mixture of experts in each.

use nn::{ExpertNames, FeedForward, Loader, Moe, NnError};
use tensor::{Activation, Backend};
use weights::{ModelConfig, MoeConfig};

use crate::decoder::{Parts, mlp};

const NAMES: ExpertNames = ExpertNames { gate: "w1", up: "w3", down: "w2" };

pub(crate) fn parts<B: Backend>() -> Parts<B> {
    Parts { qk_norm: false, feed_forward: experts }
}

fn experts<B: Backend>(
    loader: &mut Loader<'_, B>,
    config: &ModelConfig,
    layer: &str,
) -> Result<FeedForward<B>, NnError> {
    let Some(moe) = config.moe else { return mlp(loader, config, layer) };
    // A setting that the family's configs do not have.
    let moe = MoeConfig { renormalize: true, ..moe };
    let prefix = format!("{layer}.block_sparse_moe");
    let moe = Moe::load(loader, &prefix, NAMES, config.hidden_size, moe, Activation::Silu)?;
    Ok(FeedForward::Mixture(moe))
}
