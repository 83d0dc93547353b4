//! Splits qkv, normalizes and rotates q and k, and writes k and v to their slots.

use std::mem::MaybeUninit;

use tensor::GroupInputs;

use super::cache::LayerView;
use super::isa::Isa;
use super::norm::inverse_rms;
use super::pool::Pool;
use super::simd::{LANES, Op, Simd};

/// Tokens in a job: as many as share the cache lines of a tile of keys, so that no two threads write to one.
const CHUNK: usize = LANES;
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
    const PAIRS: bool = true;

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
            let mut key = [const { MaybeUninit::<f32>::uninit() }; MAX_HEAD_DIM];
            let key = key.as_mut_ptr().cast::<f32>();
            for head in 0..kv_heads {
                self.rotate::<S>(token, qkv.add((heads + head) * dim), self.k_norm, key);
                self.cache.put_key::<S>(block, head, offset, key);
                self.cache.put_value::<S>(block, head, offset, qkv.add((heads + kv_heads + head) * dim));
            }
        }
    }

    /// One head: pairs (i, i + rotary_dim / 2) turn by the position's angles; dimensions beyond are copied.
    #[inline(always)]
    unsafe fn rotate<S: Simd>(&self, token: usize, x: *const f32, norm: Option<(*const f32, f32)>, out: *mut f32) {
        let (dim, half) = (self.cache.head_dim, self.rotary_dim / 2);
        let angles = self.positions[token] as usize * half;
        // SAFETY: `x`, `out` and the gain hold a head; the tables reach the position, as the op checked.
        unsafe {
            let (cos, sin) = (self.cos.add(angles), self.sin.add(angles));
            let mut normed = [const { MaybeUninit::<f32>::uninit() }; MAX_HEAD_DIM];
            let x = match norm {
                Some((gain, eps)) => {
                    let scale = S::splat(inverse_rms::<S>(x, dim, eps));
                    let normed = normed.as_mut_ptr().cast::<f32>();
                    for col in (0..dim).step_by(LANES) {
                        S::store(normed.add(col), S::mul(S::mul(S::load(x.add(col)), scale), S::load(gain.add(col))));
                    }
                    normed.cast_const()
                }
                None => x,
            };
            let whole = half / LANES * LANES;
            for idx in (0..whole).step_by(LANES) {
                let (a, b) = (S::load(x.add(idx)), S::load(x.add(idx + half)));
                let (cos, sin) = (S::load(cos.add(idx)), S::load(sin.add(idx)));
                S::store(out.add(idx), S::sub(S::mul(a, cos), S::mul(b, sin)));
                S::store(out.add(idx + half), S::add(S::mul(b, cos), S::mul(a, sin)));
            }
            for idx in whole..half {
                let (a, b) = (*x.add(idx), *x.add(idx + half));
                *out.add(idx) = a * *cos.add(idx) - b * *sin.add(idx);
                *out.add(idx + half) = b * *cos.add(idx) + a * *sin.add(idx);
            }
            let rotated = 2 * half;
            std::ptr::copy_nonoverlapping(x.add(rotated), out.add(rotated), dim - rotated);
        }
    }
}
