//! Splits qkv, normalizes and rotates q and k, and writes k and v to their slots.

use tensor::GroupInputs;

use super::cache::LayerView;
use super::isa::{Isa, Op};
use super::norm::inverse_rms;
use super::pool::Pool;
use super::simd::{LANES, Simd};

/// Tokens in a job.
const CHUNK: usize = 8;
/// Widest head.
pub(super) const MAX_HEAD_DIM: usize = 256;

/// One layer's rotation and KV write for all tokens of the step.
pub(super) struct RopeWrite<'a> {
    /// [T, (Hq + 2 Hkv) * D]
    pub qkv: *const f32,
    /// [T, Hq * D]
    pub q: *mut f32,
    pub num_heads: usize,
    /// Gain and epsilon of the per-head norms.
    pub q_norm: Option<(*const f32, f32)>,
    pub k_norm: Option<(*const f32, f32)>,
    /// [max_len, rotary_dim / 2] each.
    pub cos: *const f32,
    pub sin: *const f32,
    pub rotary_dim: usize,
    pub positions: &'a [u32],
    pub slots: &'a [u32],
    pub cache: LayerView,
}

// SAFETY: jobs write the rows and slots of their own tokens.
unsafe impl Sync for RopeWrite<'_> {}

impl RopeWrite<'_> {
    pub fn run(&self, pool: &Pool, isa: Isa) {
        let tokens = self.positions.len();
        pool.run(tokens.div_ceil(CHUNK), &|job| {
            let first = job * CHUNK;
            // SAFETY: `isa` is available; tokens stay below T.
            unsafe { isa.run(Job { rope: self, first, end: tokens.min(first + CHUNK) }) };
        });
    }
}

struct Job<'a> {
    rope: &'a RopeWrite<'a>,
    first: usize,
    end: usize,
}

impl Op for Job<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for token in self.first..self.end {
            // SAFETY: the token exists.
            unsafe { self.rope.token::<S>(token) };
        }
    }
}

impl RopeWrite<'_> {
    #[inline(always)]
    unsafe fn token<S: Simd>(&self, token: usize) {
        let (heads, kv_heads, dim) = (self.num_heads, self.cache.num_kv_heads, self.cache.head_dim);
        // SAFETY: heads and dimensions stay within the token's row.
        unsafe {
            let qkv = self.qkv.add(token * (heads + 2 * kv_heads) * dim);
            for head in 0..heads {
                let q = self.q.add((token * heads + head) * dim);
                self.rotate::<S>(token, qkv.add(head * dim), self.q_norm, q);
            }
            let slot = self.slots[token];
            if slot == GroupInputs::SKIP {
                return;
            }
            let (block, offset) = (slot as usize / self.cache.block_size, slot as usize % self.cache.block_size);
            let mut key = [0.0f32; MAX_HEAD_DIM];
            for head in 0..kv_heads {
                self.rotate::<S>(token, qkv.add((heads + head) * dim), self.k_norm, key.as_mut_ptr());
                let (k, v) = (self.cache.key_tile(block, head, offset), self.cache.value(block, head, offset));
                let value = qkv.add((heads + kv_heads + head) * dim);
                for (idx, &turned) in key[..dim].iter().enumerate() {
                    self.cache.put(k + idx * LANES + offset % LANES, turned);
                    self.cache.put(v + idx, *value.add(idx));
                }
            }
        }
    }

    /// One head: pairs (i, i + rotary_dim / 2) turn by the position's angles; dimensions beyond are copied.
    #[inline(always)]
    unsafe fn rotate<S: Simd>(&self, token: usize, x: *const f32, norm: Option<(*const f32, f32)>, out: *mut f32) {
        let (dim, half) = (self.cache.head_dim, self.rotary_dim / 2);
        let angles = self.positions[token] as usize * half;
        // SAFETY: `x` and `out` hold a head; the tables reach the position, which the runner keeps below max_model_len.
        unsafe {
            let scale = norm.map_or(1.0, |(_, eps)| inverse_rms::<S>(x, dim, eps));
            let at = |idx: usize| *x.add(idx) * norm.map_or(1.0, |(gain, _)| scale * *gain.add(idx));
            for idx in 0..half {
                let (a, b) = (at(idx), at(idx + half));
                let (cos, sin) = (*self.cos.add(angles + idx), *self.sin.add(angles + idx));
                *out.add(idx) = a * cos - b * sin;
                *out.add(idx + half) = b * cos + a * sin;
            }
            for idx in self.rotary_dim..dim {
                *out.add(idx) = at(idx);
            }
        }
    }
}
