//! How much memory weights take at least, before any of them is read.

use quant::{Format, Scheme};

use crate::ModelConfig;

/// Devices bring what is stored in more to bf16.
const MOST_BYTES: f64 = 2.0;

/// Elements of the matrices.
struct Elements {
    /// Of those that are quantized.
    linear: f64,
    /// Embedding, head and routers.
    other: f64,
}

impl Elements {
    fn of(config: &ModelConfig) -> Self {
        let [hidden, dim, layers] = [config.hidden_size, config.head_dim, config.num_layers].map(|n| n as f64);
        let heads = (2 * config.num_heads + 2 * config.num_kv_heads) as f64;
        let (mlp, router) = match config.moe {
            Some(moe) => ((moe.num_experts * moe.intermediate_size) as f64, moe.num_experts as f64),
            None => (config.intermediate_size as f64, 0.0),
        };
        let tables = if config.tie_word_embeddings { 1.0 } else { 2.0 };
        Self {
            linear: layers * hidden * (heads * dim + 3.0 * mlp),
            other: hidden * (tables * config.vocab_size as f64 + layers * router),
        }
    }
}

/// At least so many bytes: scales, norms and biases are left out, and `stored`, the bytes of all tensors, is never exceeded.
pub(crate) fn least_bytes(config: &ModelConfig, stored: Option<u64>, scheme: Option<Scheme>) -> u64 {
    let Elements { linear, other } = Elements::of(config);
    let stored = stored.map_or(f64::INFINITY, |bytes| bytes as f64);
    let each = (stored / (linear + other)).min(MOST_BYTES);
    let linear = linear * scheme.map_or(each, |scheme| of_format(scheme.format()).min(each));
    (linear + other * each).min(stored) as u64
}

/// Bytes of one element.
fn of_format(format: Format) -> f64 {
    format.block_bytes() as f64 / format.block_len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hf::read_config;

    #[test]
    fn an_8b_model() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../benches/configs/llama-3.1-8b");
        let config = read_config(std::path::Path::new(folder)).unwrap();
        let gib = |stored, scheme| (least_bytes(&config, stored, scheme) as f64 / f64::from(1 << 30) * 100.0).round();
        // 8.03 billion parameters, 1.05 of them in embedding and head.
        assert_eq!(gib(None, None), 1496.0);
        assert_eq!((gib(None, Some(Scheme::Fp8)), gib(None, Some(Scheme::Int4))), (846.0, 521.0));
        assert_eq!((gib(Some(32 << 30), None), gib(Some(4 << 30), None)), (1496.0, 400.0), "f32; a GGUF of 4 bits");
        assert_eq!(gib(Some(4 << 30), Some(Scheme::Fp8)), 400.0, "what is smaller stays");
    }
}
