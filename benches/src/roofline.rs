//! The least that an op on a GPU must move and compute: what its time is held against.
//!
//! Activations that a matmul reads are bf16, what it writes and the residual stream are f32, the KV cache is bf16; each is read or
//! written once. A cache that keeps weights between calls can beat the memory's part, so benchmarks rotate through several.

/// One call of an op.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// To and from the GPU's memory.
    pub bytes: f64,
    /// Multiplications and additions.
    pub flops: f64,
}

/// What a GPU reaches at most, measured or by its name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ceilings {
    pub bytes_per_second: f64,
    pub flops_per_second: f64,
}

/// Heads of one attention layer.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    pub q: usize,
    pub kv: usize,
    pub dim: usize,
}

impl Work {
    /// `tokens` rows times a matrix `[outputs, inputs]` whose elements take `bits`.
    pub fn linear(tokens: usize, outputs: usize, inputs: usize, bits: f64) -> Self {
        let [t, n, k] = [tokens, outputs, inputs].map(|size| size as f64);
        Self { bytes: n * k * bits / 8.0 + t * (2.0 * k + 4.0 * n), flops: 2.0 * t * n * k }
    }

    /// The same of gate and up together, `outputs` in sum, whose product is written as bf16.
    pub fn linear_glu(tokens: usize, outputs: usize, inputs: usize, bits: f64) -> Self {
        let [t, n, k] = [tokens, outputs, inputs].map(|size| size as f64);
        Self { bytes: n * k * bits / 8.0 + t * (2.0 * k + n), flops: 2.0 * t * n * k }
    }

    /// f32 rows to bf16 ones.
    pub fn norm(tokens: usize, cols: usize) -> Self {
        Self { bytes: 6.0 * (tokens * cols) as f64, flops: 3.0 * (tokens * cols) as f64 }
    }

    /// A token of each row of logits.
    pub fn pick(rows: usize, vocab: usize) -> Self {
        Self { bytes: 4.0 * (rows * vocab) as f64, flops: 0.0 }
    }

    /// Sequences that each have `context` tokens, of which the last `new` are rotated, written and ask; a number of the KV cache
    /// takes `kv_bytes`.
    pub fn attend(sequences: usize, context: usize, new: usize, heads: Heads, kv_bytes: usize) -> Self {
        let seen: usize = (context - new + 1..=context).sum();
        let kv = 2 * kv_bytes * (context + new) * heads.kv * heads.dim;
        let rows = new * heads.dim * (4 * (heads.q + 2 * heads.kv) + 2 * heads.q);
        Self {
            bytes: (sequences * (kv + rows)) as f64,
            flops: 4.0 * (sequences * seen) as f64 * (heads.q * heads.dim) as f64,
        }
    }

    /// The least time on a card of these ceilings.
    pub fn seconds(&self, ceilings: &Ceilings) -> f64 {
        (self.bytes / ceilings.bytes_per_second).max(self.flops / ceilings.flops_per_second)
    }
}

impl Ceilings {
    /// Of a card whose name holds one of these: copies and dense bf16 products as measured on it, or by its maker's sheet.
    pub fn of(name: &str) -> Option<Self> {
        let ceilings = |terabytes: f64, teraflops: f64| Self {
            bytes_per_second: terabytes * 1e12,
            flops_per_second: teraflops * 1e12,
        };
        // Measured: H200. The others are nine tenths of the sheet's bandwidth, four fifths of its products.
        let known = [
            ("H200", ceilings(4.3, 790.0)),
            ("H100", ceilings(3.0, 790.0)),
            ("A100", ceilings(1.8, 250.0)),
            ("L40", ceilings(0.78, 145.0)),
            ("RTX 4090", ceilings(0.9, 132.0)),
        ];
        known.into_iter().find(|(part, _)| name.contains(part)).map(|(_, ceilings)| ceilings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADS: Heads = Heads { q: 32, kv: 8, dim: 128 };

    #[test]
    fn one_token_waits_for_memory_and_many_for_products() {
        let h200 = Ceilings::of("NVIDIA H200").expect("it is known");
        let one = Work::linear(1, 4096, 4096, 16.0);
        assert!((one.bytes / (2.0 * 4096.0 * 4096.0) - 1.0).abs() < 0.01);
        assert_eq!(one.seconds(&h200), one.bytes / 4.3e12);
        let many = Work::linear(4096, 4096, 4096, 16.0);
        assert_eq!(many.seconds(&h200), 2.0 * 4096f64.powi(3) / 790e12);
        assert!(Ceilings::of("Emulated GPU").is_none());
    }

    #[test]
    fn attention_counts_what_each_token_sees() {
        let decode = Work::attend(2, 10, 1, HEADS, 2);
        assert_eq!(decode.bytes, 2.0 * (4 * 11 * 8 * 128 + 4 * 48 * 128 + 2 * 32 * 128) as f64);
        assert_eq!(decode.bytes - Work::attend(2, 10, 1, HEADS, 1).bytes, 2.0 * (2 * 11 * 8 * 128) as f64);
        assert_eq!(decode.flops, 2.0 * 4.0 * 10.0 * 32.0 * 128.0);
        assert_eq!(Work::attend(1, 3, 3, HEADS, 2).flops, 6.0 * Work::attend(1, 1, 1, HEADS, 2).flops);
    }
}
