//! The least that an op on a GPU must move and compute: what its time is held against.
//!
//! Activations that a matmul reads are bf16, what it writes and the residual stream are f32, the KV cache is bf16; each is read or
//! written once. A cache that keeps weights between calls can beat the memory's part, so benchmarks rotate through several.

use std::iter::Sum;

/// One call of an op, or several.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// To and from the GPU's memory.
    pub bytes: f64,
    /// Multiplications and additions, at the rate of bf16.
    pub flops: f64,
    /// Those of codes of 8 bits by such codes, at the rate of FP8.
    pub fp8_flops: f64,
}

/// What a GPU reaches at most, measured or by its name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ceilings {
    pub bytes_per_second: f64,
    pub flops_per_second: f64,
    /// That of bf16 on a card without tensor cores for FP8.
    pub fp8_flops_per_second: f64,
}

/// Sequences of a step that are alike: each has `context` tokens, of which the last `new` are computed.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    pub sequences: usize,
    pub context: usize,
    pub new: usize,
}

/// A mixture of experts: each token goes to `top_k` of `num`.
#[derive(Clone, Copy, Debug)]
pub struct Experts {
    pub num: usize,
    pub top_k: usize,
    pub hidden: usize,
    pub ffn: usize,
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
        Self { bytes: n * k * bits / 8.0 + t * (2.0 * k + 4.0 * n), flops: 2.0 * t * n * k, fp8_flops: 0.0 }
    }

    /// The same of gate and up together, `outputs` in sum, whose product is written as bf16.
    pub fn linear_glu(tokens: usize, outputs: usize, inputs: usize, bits: f64) -> Self {
        let [t, n, k] = [tokens, outputs, inputs].map(|size| size as f64);
        Self { bytes: n * k * bits / 8.0 + t * (2.0 * k + n), flops: 2.0 * t * n * k, fp8_flops: 0.0 }
    }

    /// f32 rows to bf16 ones.
    pub fn norm(tokens: usize, cols: usize) -> Self {
        Self { bytes: 6.0 * (tokens * cols) as f64, ..Self::default() }
    }

    /// A token of each row of logits.
    pub fn pick(rows: usize, vocab: usize) -> Self {
        Self { bytes: 4.0 * (rows * vocab) as f64, ..Self::default() }
    }

    /// Route, gate, up and down of a mixture with random routing: experts that no token picks are not read. A weight takes `bits`, what
    /// lies between gate and down bf16; the sum is added to f32.
    pub fn experts(tokens: usize, experts: Experts, bits: f64) -> Self {
        let [t, num, k, hidden, ffn] =
            [tokens, experts.num, experts.top_k, experts.hidden, experts.ffn].map(|size| size as f64);
        let hit = num * (1.0 - (1.0 - k / num).powf(t));
        Self {
            bytes: hit * 3.0 * hidden * ffn * bits / 8.0 + t * (4.0 * num + 10.0 * hidden + 4.0 * k * ffn),
            flops: 6.0 * t * k * hidden * ffn,
            fp8_flops: 0.0,
        }
    }

    /// f32 queries, keys and values to bf16 queries, and to a KV cache whose numbers take `kv_bytes`.
    pub fn rope_write(tokens: usize, heads: Heads, kv_bytes: usize) -> Self {
        let Heads { q, kv, dim } = heads;
        Self { bytes: (tokens * dim * (4 * (q + 2 * kv) + 2 * q + 2 * kv * kv_bytes)) as f64, ..Self::default() }
    }

    /// Read once and written once.
    pub fn copy(bytes: usize) -> Self {
        Self { bytes: 2.0 * bytes as f64, ..Self::default() }
    }

    /// Rotation, KV write and attention of `part`; a number of the KV cache takes `kv_bytes`.
    pub fn attend(part: Part, heads: Heads, kv_bytes: usize) -> Self {
        let Part { sequences, context, new } = part;
        let seen: usize = (context - new + 1..=context).sum();
        let kv = 2 * kv_bytes * (context + new) * heads.kv * heads.dim;
        let rows = new * heads.dim * (4 * (heads.q + 2 * heads.kv) + 2 * heads.q);
        Self {
            bytes: (sequences * (kv + rows)) as f64,
            flops: 4.0 * (sequences * seen) as f64 * (heads.q * heads.dim) as f64,
            fp8_flops: 0.0,
        }
    }

    /// The same, its products being of FP8 codes.
    #[must_use]
    pub fn in_fp8(self) -> Self {
        Self { flops: 0.0, fp8_flops: self.flops + self.fp8_flops, ..self }
    }

    #[must_use]
    pub fn times(self, count: usize) -> Self {
        (0..count).map(|_| self).sum()
    }

    /// The least time on a card of these ceilings.
    pub fn seconds(&self, ceilings: &Ceilings) -> f64 {
        self.memory_seconds(ceilings).max(self.product_seconds(ceilings))
    }

    /// Whether memory is what it waits for there.
    pub fn waits_for_memory(&self, ceilings: &Ceilings) -> bool {
        self.memory_seconds(ceilings) >= self.product_seconds(ceilings)
    }

    fn memory_seconds(&self, ceilings: &Ceilings) -> f64 {
        self.bytes / ceilings.bytes_per_second
    }

    fn product_seconds(&self, ceilings: &Ceilings) -> f64 {
        self.flops / ceilings.flops_per_second + self.fp8_flops / ceilings.fp8_flops_per_second
    }
}

impl Sum for Work {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, work| Self {
            bytes: sum.bytes + work.bytes,
            flops: sum.flops + work.flops,
            fp8_flops: sum.fp8_flops + work.fp8_flops,
        })
    }
}

impl Ceilings {
    /// Of a card whose name holds one of these: copies and dense bf16 products as measured on it, or by its maker's sheet.
    pub fn of(name: &str) -> Option<Self> {
        let ceilings = |terabytes: f64, teraflops: f64, fp8_teraflops: f64| Self {
            bytes_per_second: terabytes * 1e12,
            flops_per_second: teraflops * 1e12,
            fp8_flops_per_second: fp8_teraflops * 1e12,
        };
        // Measured: H200 but for FP8. The others are nine tenths of the sheet's bandwidth, four fifths of its products.
        let known = [
            ("H200", ceilings(4.3, 790.0, 1580.0)),
            ("H100", ceilings(3.0, 790.0, 1580.0)),
            ("A100", ceilings(1.8, 250.0, 250.0)),
            ("L40", ceilings(0.78, 145.0, 290.0)),
            ("RTX 4090", ceilings(0.9, 132.0, 264.0)),
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
        assert_eq!(many.in_fp8().seconds(&h200), many.seconds(&h200) / 2.0);
        assert!(one.waits_for_memory(&h200) && !many.waits_for_memory(&h200));
        assert!(Ceilings::of("Emulated GPU").is_none());
    }

    #[test]
    fn attention_counts_what_each_token_sees() {
        let attend =
            |sequences, context, new, kv_bytes| Work::attend(Part { sequences, context, new }, HEADS, kv_bytes);
        let decode = attend(2, 10, 1, 2);
        assert_eq!(decode.bytes, 2.0 * (4 * 11 * 8 * 128 + 4 * 48 * 128 + 2 * 32 * 128) as f64);
        assert_eq!(decode.bytes - attend(2, 10, 1, 1).bytes, 2.0 * (2 * 11 * 8 * 128) as f64);
        assert_eq!(decode.flops, 2.0 * 4.0 * 10.0 * 32.0 * 128.0);
        assert_eq!(attend(1, 3, 3, 2).flops, 6.0 * attend(1, 1, 1, 2).flops);
        assert_eq!(decode.times(3).flops, 3.0 * decode.flops);
    }

    #[test]
    fn experts_are_read_once_and_only_those_that_are_hit() {
        let experts = Experts { num: 128, top_k: 8, hidden: 2048, ffn: 768 };
        let expert = 3.0 * 2048.0 * 768.0;
        let bytes = |tokens| Work::experts(tokens, experts, 16.0).bytes / (2.0 * expert);
        assert!(
            (bytes(1) - 8.0).abs() < 0.05 && (bytes(2048) / 128.0 - 1.0).abs() < 0.15,
            "{} {}",
            bytes(1),
            bytes(2048)
        );
        assert_eq!(Work::experts(3, experts, 16.0).flops, 3.0 * 8.0 * 2.0 * expert);
    }
}
