//! The online softmax of one query over one chunk of scores.

use super::super::simd::{LANES, Op, Simd};
use super::partition::{CHUNK, Record, cut};

/// Positions that a query sees.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub from: usize,
    pub to: usize,
}

/// Turns a query's scores of the chunk at `chunk` into cells of weights against the largest score so far, masked ones into 0, and adds
/// them to its record, whose sums and values fade to the same.
pub(super) struct Soften<const BF16: bool> {
    pub chunk: usize,
    pub seen: Seen,
    /// `CHUNK` of them.
    pub scores: *mut f32,
    pub record: Record,
    pub dim: usize,
}

impl<const BF16: bool> Op for Soften<BF16> {
    const PAIRS: bool = BF16;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { chunk, seen, scores, record, dim } = self;
        let from = seen.from.saturating_sub(chunk).min(CHUNK);
        let to = seen.to.saturating_sub(chunk).min(CHUNK);
        // SAFETY: tiles lie within the chunk; lanes outside `from .. to` are selected away before use.
        unsafe {
            if from >= to {
                return std::slice::from_raw_parts_mut(scores, CHUNK).fill(0.0);
            }
            let mut peak = S::splat(f32::NEG_INFINITY);
            for tile in (from / LANES * LANES..to).step_by(LANES) {
                let score = S::load(scores.add(tile));
                peak = S::max(peak, select::<S>(tile, from, to, score, f32::NEG_INFINITY));
            }
            let (old, new) = (record.max(), record.max().max(S::peak(peak)));
            let fade = if old == f32::NEG_INFINITY { 0.0 } else { lane::<S>(S::exp(S::splat(old - new))) };
            record.fade::<S>(dim, fade);
            let mut sums = record.sums::<S>();
            let end = to.next_multiple_of(LANES);
            for tile in (0..end).step_by(LANES) {
                let score = S::load(scores.add(tile));
                let weight = select::<S>(tile, from, to, S::exp(S::sub(score, S::splat(new))), 0.0);
                S::store(scores.add(tile), weight);
                sums = S::add(sums, weight);
            }
            record.set::<S>(new, sums);
            std::slice::from_raw_parts_mut(scores.add(end), CHUNK - end).fill(0.0);
            cut::<S, BF16>(scores, scores.cast(), CHUNK);
        }
    }
}

/// Lanes of the tile at `tile` within `from .. to` from `inside`, the others `outside`.
#[inline(always)]
unsafe fn select<S: Simd>(tile: usize, from: usize, to: usize, inside: S::F, outside: f32) -> S::F {
    if from <= tile && tile + LANES <= to {
        return inside;
    }
    // SAFETY: lanes only.
    unsafe {
        let outside = S::splat(outside);
        let below_end = S::first(to.saturating_sub(tile).min(LANES), inside, outside);
        S::first(from.saturating_sub(tile).min(LANES), outside, below_end)
    }
}

#[inline(always)]
pub(super) unsafe fn lane<S: Simd>(x: S::F) -> f32 {
    let mut lanes = [0.0f32; LANES];
    // SAFETY: sixteen lanes.
    unsafe { S::store(lanes.as_mut_ptr(), x) };
    lanes[0]
}

/// `cap * tanh(x / cap)`, by `tanh(y) = 1 - 2 / (e^(2 y) + 1)` with `y` kept where it is not 1 anyway.
#[inline(always)]
pub(super) unsafe fn capped<S: Simd>(x: S::F, cap: f32) -> S::F {
    // SAFETY: lanes only; `exp` sees at most 40.
    unsafe {
        let (zero, one, bound) = (S::splat(0.0), S::splat(1.0), S::splat(-40.0));
        let y = S::max(bound, S::mul(x, S::splat(2.0 / cap)));
        let y = S::sub(zero, S::max(bound, S::sub(zero, y)));
        let tanh = S::sub(one, S::div(S::splat(2.0), S::add(S::exp(y), one)));
        S::mul(tanh, S::splat(cap))
    }
}
