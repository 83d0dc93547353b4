//! The online softmax of one query over one chunk of scores.

use super::super::simd::{LANES, Simd};
use super::partition::CHUNK;

/// Positions that a query sees.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub from: usize,
    pub to: usize,
}

/// Turns scores of a chunk into weights against the running maximum `max`: masked ones become 0. Returns the factor by
/// which what was summed before fades.
#[inline(always)]
pub(super) unsafe fn soften<S: Simd>(
    seen: Seen,
    max: &mut f32,
    chunk: usize,
    scores: &mut [f32; CHUNK],
    sum: &mut S::F,
) -> f32 {
    let from = seen.from.saturating_sub(chunk).min(CHUNK);
    let to = seen.to.saturating_sub(chunk).min(CHUNK);
    if from >= to {
        scores.fill(0.0);
        return 1.0;
    }
    // SAFETY: tiles lie within the chunk; lanes outside `from .. to` are selected away before use.
    unsafe {
        let mut peak = S::splat(f32::NEG_INFINITY);
        for tile in (from / LANES * LANES..to).step_by(LANES) {
            let score = S::load(scores.as_ptr().add(tile));
            peak = S::max(peak, select::<S>(tile, from, to, score, f32::NEG_INFINITY));
        }
        let new = max.max(S::peak(peak));
        let fade = if *max == f32::NEG_INFINITY { 0.0 } else { lane::<S>(S::exp(S::splat(*max - new))) };
        *max = new;
        *sum = S::mul(*sum, S::splat(fade));
        let end = to.next_multiple_of(LANES);
        for tile in (0..end).step_by(LANES) {
            let score = S::load(scores.as_ptr().add(tile));
            let weight = select::<S>(tile, from, to, S::exp(S::sub(score, S::splat(new))), 0.0);
            S::store(scores.as_mut_ptr().add(tile), weight);
            *sum = S::add(*sum, weight);
        }
        scores[end..].fill(0.0);
        fade
    }
}

/// Lanes of the tile at `tile` within `from .. to` from `inside`, the others `outside`.
#[inline(always)]
unsafe fn select<S: Simd>(tile: usize, from: usize, to: usize, inside: S::F, outside: f32) -> S::F {
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
