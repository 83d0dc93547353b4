//! How large the check is: an 8B model on a card, or shapes that the emulator computes in seconds.

use benches::{Heads, Shape};

/// Shapes, batches and lengths.
pub struct Scale {
    pub is_tiny: bool,
    pub layers: usize,
    pub hidden: usize,
    pub ffn: usize,
    pub vocab: usize,
    pub heads: Heads,
    /// Rows of a matmul.
    pub tokens: &'static [usize],
    /// Sequences, tokens of each, and how many of them are new.
    pub attention: &'static [(usize, usize, usize)],
    /// Rows of logits.
    pub sampled: &'static [usize],
    /// Batches of short prompts whose answers are timed, and prompts whose first token is; as `bench latency --shapes` has them.
    pub decode: &'static str,
    pub prefill: &'static str,
    /// The default model's, which is made for shorter prompts.
    pub default_prefill: &'static str,
    /// The load of the throughput goal, behind a batch that warms up.
    pub throughput: &'static str,
    /// What the engines of the runs above are told.
    pub engine: &'static [&'static str],
    /// Which of the kernels' tests run; and, where several at a time would take long, under a sanitizer.
    pub tests: &'static [&'static str],
    pub watched_tests: &'static [&'static str],
}

pub const FULL: Scale = Scale {
    is_tiny: false,
    layers: 32,
    hidden: 4096,
    ffn: 14336,
    vocab: 128_256,
    heads: Heads { q: 32, kv: 8, dim: 128 },
    tokens: &[1, 8, 64, 256, 2048],
    attention: &[
        (1, 512, 1),
        (1, 4096, 1),
        (1, 8192, 1),
        (8, 4096, 1),
        (64, 512, 1),
        (64, 4096, 1),
        (64, 8192, 1),
        (256, 512, 1),
        (256, 4096, 1),
        (1, 512, 512),
        (1, 4096, 4096),
        (1, 8192, 8192),
        (1, 8192, 512),
    ],
    sampled: &[1, 64, 256],
    decode: "1x8+128,8x8+128,64x8+128,256x8+128",
    prefill: "1x512+1,1x8192+1",
    default_prefill: "1x512+1,1x4096+1",
    throughput: "8x8+8,512x1000+1000",
    engine: &["--max-num-seqs", "512", "--max-num-batched-tokens", "8192"],
    tests: &["cuda::"],
    watched_tests: &[
        "cuda::tests::dense::sums_agree",
        "cuda::tests::attention::mixed_steps_agree",
        "cuda::tests::sample::rows_beyond_the_kernels_are_sampled_by_the_host",
    ],
};

pub const TINY: Scale = Scale {
    is_tiny: true,
    layers: 2,
    hidden: 64,
    ffn: 128,
    vocab: 512,
    heads: Heads { q: 4, kv: 2, dim: 16 },
    tokens: &[1, 17],
    attention: &[(2, 40, 1), (1, 20, 20)],
    sampled: &[2],
    decode: "1x8+6,2x8+6",
    prefill: "1x8+1,1x16+1",
    default_prefill: "1x8+1",
    throughput: "2x2+2,4x8+4",
    engine: &["--max-num-seqs", "4", "--max-num-batched-tokens", "64", "--kv-cache-memory", "4MiB"],
    tests: &["cuda::tests::wrappers"],
    watched_tests: &["cuda::tests::wrappers"],
};

impl Scale {
    /// A layer's matrices and the head; and whether one holds gate and up.
    pub fn matrices(&self) -> [(&'static str, Shape, bool); 5] {
        let Heads { q, kv, dim } = self.heads;
        let shape = |rows, cols| Shape { rows, cols };
        [
            ("qkv", shape((q + 2 * kv) * dim, self.hidden), false),
            ("o", shape(self.hidden, q * dim), false),
            ("gate_up", shape(2 * self.ffn, self.hidden), true),
            ("down", shape(self.hidden, self.ffn), false),
            ("head", shape(self.vocab, self.hidden), false),
        ]
    }

    /// Bytes of all matrices that a decoded token reads; a weight of a layer takes `bits`, one of the head 16.
    pub fn weight_bytes(&self, bits: f64) -> f64 {
        let [layers, head] = self.weights();
        layers * bits / 8.0 + head * 2.0
    }

    /// Multiplications and additions of a prompt of `tokens`, of which the last one's logits are wanted.
    pub fn prefill_flops(&self, tokens: f64) -> f64 {
        let [layers, head] = self.weights();
        let attention = (self.layers * self.heads.q * self.heads.dim) as f64 * tokens * tokens;
        2.0 * layers * tokens + 2.0 * head + 2.0 * attention
    }

    /// Of all layers' matrices, and of the head's.
    fn weights(&self) -> [f64; 2] {
        let matrices = self.matrices().map(|(_, shape, _)| (shape.rows * shape.cols) as f64);
        [self.layers as f64 * matrices[..4].iter().sum::<f64>(), matrices[4]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_8b_model_has_8b_weights() {
        let [layers, head] = FULL.weights();
        assert_eq!((layers, head), (6_979_321_856.0, 525_336_576.0));
        assert_eq!(FULL.weight_bytes(16.0), 2.0 * (layers + head));
        let attention = FULL.prefill_flops(8192.0) - 2.0 * layers * 8192.0 - 2.0 * head;
        assert_eq!(attention, 2.0 * 32.0 * 4096.0 * 8192.0 * 8192.0);
    }
}
