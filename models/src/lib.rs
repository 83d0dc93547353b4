//! One file per architecture family. To add one: write the file, and name it in [`load`].
//!
//! A family composes layers of `nn`; it names no quantization format and no device.

mod decoder;
mod llama;
mod mixtral;
mod qwen3;
mod qwen3_moe;

use nn::{Loader, NnError};
use tensor::Backend;
use thiserror::Error;
use weights::Checkpoint;

use decoder::Decoder;

/// A loaded decoder.
pub trait CausalLm<B: Backend> {
    /// Enqueues one forward over the step's inputs: logits `[R, V]` of `StepInputs::logit_tokens`. `caches` has one
    /// entry per KV group, in the order of [`CausalLm::kv_groups`].
    fn forward(&self, b: &mut B, caches: &mut [B::Cache]) -> B::Buf;

    /// What the layers read of the past.
    fn kv_groups(&self) -> &[KvGroup];

    fn vocab_size(&self) -> usize;
}

/// Layers that share one block table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvGroup {
    pub layers: usize,
    pub num_kv_heads: usize,
    pub head_dim: usize,
    /// Tokens visible to every layer of the group; all when `None`.
    pub window: Option<usize>,
}

/// A checkpoint that is no model of ours.
#[derive(Debug, Error)]
pub enum ModelError {
    #[error("the architecture {name:?} is not supported; these are: {}", SUPPORTED.join(", "))]
    Architecture { name: String },
    #[error(transparent)]
    Layer(#[from] NnError),
}

/// Names as the checkpoint's config gives them, lower case and without `ForCausalLM`.
pub const SUPPORTED: &[&str] = &["llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe"];

/// Loads the family that the checkpoint's config names. Positions up to `max_model_len` get rotary tables.
pub fn load<B: Backend>(
    checkpoint: &Checkpoint,
    backend: &mut B,
    max_model_len: usize,
) -> Result<Box<dyn CausalLm<B>>, ModelError> {
    let config = checkpoint.config();
    let parts = match config.architecture.as_str() {
        "llama" | "mistral" | "qwen2" => llama::parts(),
        "mixtral" => mixtral::parts(),
        "qwen3" => qwen3::parts(),
        "qwen3_moe" => qwen3_moe::parts(),
        other => return Err(ModelError::Architecture { name: other.to_owned() }),
    };
    let loader = &mut Loader { checkpoint, backend };
    Ok(Box::new(Decoder::load(loader, config, max_model_len, &parts)?))
}
