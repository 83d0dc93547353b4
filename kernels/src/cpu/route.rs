//! Which experts each token goes to, and the pairs of a token and one of its experts in the order of the experts.
//!
//! A routing is words of the arena, for each pair (token, slot): its weight, its expert, the row where it stands among the
//! sorted ones; and for each row the pair that stands there. Then where each expert's rows end, and the tiles of rows
//! that a matmul takes at once, each of one expert.

use tensor::RouteSpec;

use super::arena::Shared;
use super::matmul::{CHUNK, Tile};
use super::pool::Pool;

/// Tokens in a job.
const TOKENS: usize = 16;

/// Where the parts of a routing lie.
#[derive(Clone, Copy)]
pub(super) struct Routes {
    spec: RouteSpec,
    pairs: usize,
    weights: Shared<f32>,
    experts: Shared<u32>,
    rows: Shared<u32>,
    order: Shared<u32>,
    ends: Shared<u32>,
    num_tiles: Shared<u32>,
    tiles: Shared<Tile>,
}

/// Tiles at most: whole ones, and for each expert one that is not.
fn max_tiles(pairs: usize, spec: RouteSpec) -> usize {
    pairs / CHUNK + spec.num_experts.min(pairs)
}

/// Bytes of a routing.
pub(super) fn bytes(tokens: usize, spec: RouteSpec) -> usize {
    let pairs = tokens * spec.top_k;
    (4 * pairs + spec.num_experts + 1) * 4 + max_tiles(pairs, spec) * size_of::<Tile>()
}

impl Routes {
    /// # Safety
    /// `base` holds `bytes(tokens, spec)`, for as long as the routes are used.
    pub unsafe fn at(base: *mut f32, tokens: usize, spec: RouteSpec) -> Self {
        let (pairs, words) = (tokens * spec.top_k, base.cast::<u32>());
        // SAFETY: all parts lie within those bytes, one after the other.
        unsafe {
            let ends = words.add(4 * pairs);
            Self {
                spec,
                pairs,
                weights: Shared(base),
                experts: Shared(words.add(pairs)),
                rows: Shared(words.add(2 * pairs)),
                order: Shared(words.add(3 * pairs)),
                ends: Shared(ends),
                num_tiles: Shared(ends.add(spec.num_experts)),
                tiles: Shared(ends.add(spec.num_experts + 1).cast()),
            }
        }
    }

    /// Routes every token by its row of `logits [T, num_experts]`.
    ///
    /// # Safety
    /// The logits are there, and nobody else uses the routing.
    pub unsafe fn fill(self, pool: &Pool, logits: *const f32) {
        let (top_k, num_experts, logits) = (self.spec.top_k, self.spec.num_experts, Shared(logits.cast_mut()));
        let tokens = self.pairs / top_k;
        pool.run(tokens.div_ceil(TOKENS), &|job| {
            for token in (job * TOKENS..tokens).take(TOKENS) {
                // SAFETY: a token has its own logits, experts and weights.
                unsafe {
                    let logits = std::slice::from_raw_parts(logits.get().add(token * num_experts), num_experts);
                    let experts = std::slice::from_raw_parts_mut(self.experts.get().add(token * top_k), top_k);
                    let weights = std::slice::from_raw_parts_mut(self.weights.get().add(token * top_k), top_k);
                    pick(logits, self.spec.renormalize, experts, weights);
                }
            }
        });
        // SAFETY: the jobs are done, and every expert is below their number.
        unsafe { self.sort() };
    }

    /// Sorts the pairs by expert; those of one stay in order.
    unsafe fn sort(self) {
        // SAFETY: the parts hold as many words.
        unsafe {
            let part = |part: Shared<u32>, len: usize| std::slice::from_raw_parts_mut(part.get(), len);
            let (experts, ends) = (part(self.experts, self.pairs), part(self.ends, self.spec.num_experts));
            let (rows, order) = (part(self.rows, self.pairs), part(self.order, self.pairs));
            ends.fill(0);
            experts.iter().for_each(|&expert| ends[expert as usize] += 1);
            let mut first = 0;
            for end in ends.iter_mut() {
                (first, *end) = (first + *end, first);
            }
            for (pair, &expert) in experts.iter().enumerate() {
                let end = &mut ends[expert as usize];
                (rows[pair], order[*end as usize]) = (*end, pair as u32);
                *end += 1;
            }
            let tiles = std::slice::from_raw_parts_mut(self.tiles.get(), max_tiles(self.pairs, self.spec));
            *self.num_tiles.get() = cut(ends, tiles) as u32;
        }
    }

    /// A weight a pair.
    ///
    /// # Safety
    /// Of this and the other parts: the routing was filled.
    pub unsafe fn weights(&self) -> &[f32] {
        // SAFETY: as the caller vouches.
        unsafe { std::slice::from_raw_parts(self.weights.get(), self.pairs) }
    }

    /// The row of each pair.
    pub unsafe fn rows(&self) -> &[u32] {
        // SAFETY: as the caller vouches.
        unsafe { std::slice::from_raw_parts(self.rows.get(), self.pairs) }
    }

    /// The pair of each row.
    pub unsafe fn order(&self) -> &[u32] {
        // SAFETY: as the caller vouches.
        unsafe { std::slice::from_raw_parts(self.order.get(), self.pairs) }
    }

    pub unsafe fn tiles(&self) -> &[Tile] {
        // SAFETY: as the caller vouches.
        unsafe { std::slice::from_raw_parts(self.tiles.get(), *self.num_tiles.get() as usize) }
    }
}

/// Cuts each expert's rows, which end where `ends` says, to tiles; returns how many.
fn cut(ends: &[u32], tiles: &mut [Tile]) -> usize {
    let (mut first, mut num) = (0, 0);
    for (expert, &end) in ends.iter().enumerate() {
        for first in (first..end).step_by(CHUNK) {
            tiles[num] = Tile { expert: expert as u32, first, end: end.min(first + CHUNK as u32) };
            num += 1;
        }
        first = end;
    }
    num
}

/// The experts of the largest logits, of equal ones the first, and their shares. A NaN among the logits is in every weight.
fn pick(logits: &[f32], renormalize: bool, experts: &mut [u32], weights: &mut [f32]) {
    let mut picked = 0;
    for (expert, &logit) in logits.iter().enumerate() {
        let logit = if logit.is_nan() { f32::NEG_INFINITY } else { logit };
        let slot = weights[..picked].partition_point(|&other| other >= logit);
        if slot < experts.len() {
            picked = (picked + 1).min(experts.len());
            experts[slot..picked].rotate_right(1);
            weights[slot..picked].rotate_right(1);
            (experts[slot], weights[slot]) = (expert as u32, logit);
        }
    }
    // No logit is above a NaN, so that it stays.
    let max = logits
        .iter()
        .copied()
        .fold(f32::NEG_INFINITY, |max, logit| if logit > max || logit.is_nan() { logit } else { max });
    weights.iter_mut().for_each(|weight| *weight = (*weight - max).exp());
    let shares = |logits: &[f32]| logits.iter().map(|logit| (logit - max).exp()).sum::<f32>();
    let total = if renormalize { weights.iter().sum() } else { shares(logits) };
    weights.iter_mut().for_each(|weight| *weight /= total);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picked(logits: &[f32], top_k: usize, renormalize: bool) -> (Vec<u32>, Vec<f32>) {
        let (mut experts, mut weights) = (vec![u32::MAX; top_k], vec![f32::NAN; top_k]);
        pick(logits, renormalize, &mut experts, &mut weights);
        (experts, weights)
    }

    #[test]
    fn the_largest_logits_win_and_of_equal_ones_the_first() {
        let (experts, weights) = picked(&[1.0, 3.0, 2.0, 3.0], 3, true);
        assert_eq!(experts, [1, 3, 2]);
        assert!((weights.iter().sum::<f32>() - 1.0).abs() < 1e-6 && weights[0] == weights[1]);
        let (experts, weights) = picked(&[0.0; 4], 2, false);
        assert_eq!((experts, weights), (vec![0, 1], vec![0.25, 0.25]));
        assert_eq!(picked(&[2.0, -f32::INFINITY], 2, false), (vec![0, 1], vec![1.0, 0.0]));
    }

    #[test]
    fn a_nan_reaches_every_weight_and_no_expert_twice() {
        for logits in [[f32::NAN; 3], [1.0, f32::NAN, 0.0]] {
            for renormalize in [true, false] {
                let (mut experts, weights) = picked(&logits, 2, renormalize);
                experts.sort_unstable();
                experts.dedup();
                assert!(experts.len() == 2 && experts[1] < 3 && weights.iter().all(|weight| weight.is_nan()));
            }
        }
    }

    #[test]
    fn tiles_cover_each_experts_rows() {
        let chunk = CHUNK as u32;
        let mut tiles = [Tile::default(); 8];
        let num = cut(&[1, 1, 1 + chunk, 2 + 3 * chunk], &mut tiles);
        let cuts: Vec<_> = tiles[..num].iter().map(|tile| (tile.expert, tile.first, tile.end - tile.first)).collect();
        assert_eq!(
            cuts,
            [(0, 0, 1), (2, 1, chunk), (3, 1 + chunk, chunk), (3, 1 + 2 * chunk, chunk), (3, 1 + 3 * chunk, 1)]
        );
    }
}
