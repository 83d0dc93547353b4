//! How large the check is: an 8B model on a card, or shapes that the emulator computes in seconds.

use std::fmt::{Display, Formatter};

use benches::{Experts, Heads, Part, Shape, Work};

/// Shapes, batches and lengths.
pub struct Scale {
    pub is_tiny: bool,
    pub layers: usize,
    pub hidden: usize,
    pub ffn: usize,
    pub vocab: usize,
    pub heads: Heads,
    /// Of a mixture, which is measured op by op alone.
    pub experts: Experts,
    /// Rows of a matmul.
    pub tokens: &'static [usize],
    /// Steps whose attention is measured.
    pub attention: &'static [&'static [Part]],
    /// Rows of logits.
    pub sampled: &'static [usize],
    /// Blocks that are copied at once, in every layer.
    pub copied: usize,
    /// Few rows a step, which own kernels multiply in any case.
    pub few_rows: &'static [Batch],
    /// Many: where cublasLt is in use, it multiplies them.
    pub many_rows: &'static [Batch],
    /// The default model's, which is made for shorter prompts.
    pub default_model: &'static [Batch],
    /// The load of the throughput goal, behind a batch that warms up.
    pub throughput: [Batch; 2],
    /// What the engines of the runs above are told.
    pub engine: &'static [&'static str],
    /// Which of the kernels' tests run.
    pub tests: &'static [&'static str],
}

/// Requests that are sent at once; as `bench latency --shapes` writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    pub size: usize,
    pub input: usize,
    pub output: usize,
    /// Tokens of a prompt that comes while the others' answers are written.
    pub beside: usize,
}

/// What one step of a batch is, or all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measured {
    /// A token of each sequence.
    Decode,
    /// A whole prompt.
    Prefill,
    /// A whole prompt, and a token of each other sequence.
    Mixed,
}

/// What a model's layers are held in; its head is bf16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    Bf16,
    Fp8,
    Int4,
}

pub const FULL: Scale = Scale {
    is_tiny: false,
    layers: 32,
    hidden: 4096,
    ffn: 14336,
    vocab: 128_256,
    heads: Heads { q: 32, kv: 8, dim: 128 },
    experts: Experts { num: 128, top_k: 8, hidden: 2048, ffn: 768 },
    tokens: &[1, 8, 64, 256, 2048, 8192],
    attention: &[
        &[decodes(1, 512)],
        &[decodes(1, 4096)],
        &[decodes(1, 8192)],
        &[decodes(8, 4096)],
        &[decodes(64, 512)],
        &[decodes(64, 4096)],
        &[decodes(64, 8192)],
        &[decodes(256, 512)],
        &[decodes(256, 4096)],
        &[prompt(512, 512)],
        &[prompt(4096, 4096)],
        &[prompt(8192, 8192)],
        &[prompt(8192, 512)],
        &[decodes(64, 2048), prompt(4096, 2048)],
    ],
    sampled: &[1, 64, 256],
    copied: 64,
    few_rows: &[batch(1, 8, 128), batch(8, 8, 128), batch(64, 8, 128)],
    many_rows: &[batch(256, 8, 128), Batch { beside: 2048, ..batch(64, 512, 32) }, batch(1, 512, 1), batch(1, 8192, 1)],
    default_model: &[
        batch(1, 8, 128),
        batch(8, 8, 128),
        batch(64, 8, 128),
        batch(256, 8, 128),
        batch(1, 512, 1),
        batch(1, 4096, 1),
    ],
    throughput: [batch(8, 8, 8), batch(512, 1000, 1000)],
    engine: &["--max-num-seqs", "512", "--max-num-batched-tokens", "8192"],
    tests: &["cuda::"],
};

pub const TINY: Scale = Scale {
    is_tiny: true,
    layers: 2,
    hidden: 64,
    ffn: 128,
    vocab: 512,
    heads: Heads { q: 4, kv: 2, dim: 16 },
    experts: Experts { num: 4, top_k: 2, hidden: 128, ffn: 128 },
    tokens: &[1, 17],
    attention: &[&[decodes(2, 40)], &[prompt(20, 20)], &[decodes(2, 40), prompt(20, 10)]],
    sampled: &[2],
    copied: 2,
    few_rows: &[batch(1, 8, 6)],
    many_rows: &[batch(2, 8, 6), Batch { beside: 16, ..batch(2, 8, 12) }, batch(1, 16, 1)],
    default_model: &[batch(1, 8, 6), batch(2, 8, 6), batch(1, 8, 1)],
    throughput: [batch(2, 2, 2), batch(4, 8, 4)],
    engine: &["--max-num-seqs", "4", "--max-num-batched-tokens", "64", "--kv-cache-memory", "4MiB"],
    tests: &["cuda::tests::wrappers"],
};

/// Each launches what the emulator's check has watched for races too: a kernel of each source.
const WATCHED_TESTS: &str = include_str!("../../../../kernels/src/cuda/tests/watched.txt");

const fn decodes(sequences: usize, context: usize) -> Part {
    Part { sequences, context, new: 1 }
}

/// The last `new` tokens of a prompt.
const fn prompt(context: usize, new: usize) -> Part {
    Part { sequences: 1, context, new }
}

const fn batch(size: usize, input: usize, output: usize) -> Batch {
    Batch { size, input, output, beside: 0 }
}

impl Batch {
    pub fn measured(&self) -> Measured {
        match self {
            Self { beside: 1.., .. } => Measured::Mixed,
            Self { output: 1, .. } => Measured::Prefill,
            _ => Measured::Decode,
        }
    }

    /// The step that is measured; of decodes the one in their midst.
    pub fn step(&self) -> Vec<Part> {
        let &Self { size, input, output, beside } = self;
        match self.measured() {
            Measured::Decode => vec![decodes(size, input + output / 2)],
            Measured::Prefill => vec![Part { sequences: size, context: input, new: input }],
            Measured::Mixed => vec![decodes(size, input + 1), prompt(beside, beside)],
        }
    }
}

impl Display for Batch {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let Self { size, input, output, beside } = self;
        write!(f, "{size}x{input}+{output}")?;
        if *beside > 0 { write!(f, "/{beside}") } else { Ok(()) }
    }
}

impl Weights {
    /// Of a weight, its share of scales included.
    fn bits(self) -> f64 {
        match self {
            Self::Bf16 => 16.0,
            Self::Fp8 => 8.0 + 32.0 / 4096.0,
            Self::Int4 => 4.25,
        }
    }
}

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

    /// Batches of made-up weights, in the order in which they run.
    pub fn batches(&self) -> Vec<Batch> {
        [self.few_rows, self.many_rows].concat()
    }

    /// What the sanitizers watch.
    pub fn watched_tests(&self) -> Vec<&'static str> {
        if self.is_tiny { self.tests.to_vec() } else { WATCHED_TESTS.lines().collect() }
    }

    /// The least that a step of all `parts` must move and compute: every matrix once, and attention; a number of the KV cache takes
    /// `kv_bytes`.
    pub fn step(&self, weights: Weights, parts: &[Part], kv_bytes: usize) -> Work {
        let [layers, head] = self.weights();
        let sum = |of: &dyn Fn(&Part) -> usize| parts.iter().map(of).sum::<usize>() as f64;
        let (tokens, sequences) = (sum(&|part| part.sequences * part.new), sum(&|part| part.sequences));
        let products = Work { bytes: layers * weights.bits() / 8.0, flops: 2.0 * layers * tokens, ..Work::default() };
        let products = if weights == Weights::Fp8 { products.in_fp8() } else { products };
        let head = Work { bytes: head * 2.0, flops: 2.0 * head * sequences, ..Work::default() };
        let attention = parts.iter().map(|part| Work::attend(*part, self.heads, kv_bytes).times(self.layers));
        attention.chain([products, head]).sum()
    }

    /// The same of a whole batch from its first prompt to its last token, prompts apart from answers.
    pub fn whole(&self, batch: Batch, weights: Weights, kv_bytes: usize) -> Vec<Work> {
        let Batch { size, input, output, .. } = batch;
        let prompts = self.step(weights, &[Part { sequences: size, context: input, new: input }], kv_bytes);
        let midst = self.step(weights, &[decodes(size, input + output / 2)], kv_bytes);
        vec![prompts, midst.times(output - 1)]
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
        let decode = FULL.step(Weights::Bf16, &batch(1, 8, 2).step(), 2);
        assert!((decode.bytes / (2.0 * (layers + head)) - 1.0).abs() < 0.001, "{decode:?}");
        let attention = 4.0 * 32.0 * 4096.0 * (8192 * 8193 / 2) as f64;
        let prefill = FULL.step(Weights::Fp8, &batch(1, 8192, 1).step(), 1);
        assert_eq!((prefill.fp8_flops, prefill.flops), (2.0 * layers * 8192.0, 2.0 * head + attention));
    }

    #[test]
    fn a_batch_is_written_as_it_is_asked_for() {
        let mixed = Batch { beside: 2048, ..batch(64, 512, 32) };
        for (batch, text, measured, tokens) in [
            (batch(1, 512, 1), "1x512+1", Measured::Prefill, 512),
            (batch(8, 8, 128), "8x8+128", Measured::Decode, 8),
            (mixed, "64x512+32/2048", Measured::Mixed, 64 + 2048),
        ] {
            assert_eq!((batch.to_string().as_str(), batch.measured()), (text, measured));
            assert_eq!(batch.step().iter().map(|part| part.sequences * part.new).sum::<usize>(), tokens, "{text}");
        }
    }

    #[test]
    fn watched_tests_are_names() {
        assert!(FULL.watched_tests().iter().all(|name| name.starts_with("cuda::tests::")));
    }
}
