//! How large the check is: an 8B model on a card, or shapes that the emulator computes in seconds.

use benches::{Heads, Shape};

/// Shapes, batches and lengths.
pub struct Scale {
    pub is_tiny: bool,
    pub hidden: usize,
    pub ffn: usize,
    pub vocab: usize,
    pub heads: Heads,
    /// Rows of a matmul.
    pub tokens: &'static [usize],
    /// Sequences, tokens of each, and how many of them are new.
    pub attention: &'static [(usize, usize, usize)],
    /// Sequences that are decoded at once.
    pub batches: &'static str,
    /// Lengths of a prompt.
    pub prompts: &'static str,
    pub output_len: u32,
    /// Tokens that a sequence of the runs above may have.
    pub max_model_len: u32,
    /// Which of the kernels' tests run; and, where several at a time would take long, under a sanitizer.
    pub tests: &'static [&'static str],
    pub watched_tests: &'static [&'static str],
}

pub const FULL: Scale = Scale {
    is_tiny: false,
    hidden: 4096,
    ffn: 14336,
    vocab: 128_256,
    heads: Heads { q: 32, kv: 8, dim: 128 },
    tokens: &[1, 8, 64, 256, 2048],
    attention: &[(1, 2048, 1), (8, 2048, 1), (64, 2048, 1), (256, 1024, 1), (1, 512, 512), (1, 8192, 8192)],
    batches: "1,8,64,256",
    prompts: "512,8192",
    output_len: 64,
    max_model_len: 8448,
    tests: &["cuda::"],
    watched_tests: &["cuda::tests::dense", "cuda::tests::attention::mixed_steps_agree"],
};

pub const TINY: Scale = Scale {
    is_tiny: true,
    hidden: 64,
    ffn: 128,
    vocab: 128,
    heads: Heads { q: 4, kv: 2, dim: 16 },
    tokens: &[1, 17],
    attention: &[(2, 40, 1), (1, 20, 20)],
    batches: "1,2",
    prompts: "8,16",
    output_len: 3,
    max_model_len: 64,
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
}
