//! One partition of the past for a block of queries: scores, softmax, weighted values; and how two partitions become one.
//!
//! Within a partition, chunks of 128 absolute positions go through an online softmax. A score sums over dimensions
//! ascending, a value over positions ascending, in one chain each: how many are computed side by side changes no bits.
//! Queries and weights are cut into cells as the cache's elements are: over bf16 they become bf16, and two are multiplied at once.

use super::super::cache::{Element, LayerView};
use super::super::rope::MAX_HEAD_DIM;
use super::super::simd::{LANES, Op, Simd};
use super::softmax::{Seen, Soften, capped, lane};
use super::{Attention, PARTITION, Work, first_seen};

/// Positions between two rescalings; a multiple of 16 that divides a partition.
pub(super) const CHUNK: usize = 128;

/// One query's reduction of some positions, in memory: the largest score in a vector of its own, sixteen sums of weights,
/// and the weighted values `[D]`.
#[derive(Clone, Copy)]
pub(super) struct Record(pub *mut f32);

impl Record {
    /// Floats of a record.
    pub const fn len(dim: usize) -> usize {
        2 * LANES + dim
    }

    /// Of nothing, with `dim` values.
    #[inline(always)]
    pub unsafe fn clear(self, dim: usize) {
        // SAFETY: the record's floats.
        unsafe {
            std::slice::from_raw_parts_mut(self.0, Self::len(dim)).fill(0.0);
            *self.0 = f32::NEG_INFINITY;
        }
    }

    /// Multiplies its `dim` values and its sums by `fade`.
    #[inline(always)]
    pub unsafe fn fade<S: Simd>(self, dim: usize, fade: f32) {
        for at in (LANES..Self::len(dim)).step_by(LANES) {
            // SAFETY: the record's vectors.
            unsafe { S::store(self.0.add(at), S::mul(S::load(self.0.add(at)), S::splat(fade))) };
        }
    }

    #[inline(always)]
    pub unsafe fn max(self) -> f32 {
        // SAFETY: the record's first float.
        unsafe { *self.0 }
    }

    #[inline(always)]
    pub unsafe fn sums<S: Simd>(self) -> S::F {
        // SAFETY: the record's second vector.
        unsafe { S::load(self.0.add(LANES)) }
    }

    #[inline(always)]
    pub unsafe fn set<S: Simd>(self, max: f32, sums: S::F) {
        // SAFETY: the record's first two vectors.
        unsafe {
            *self.0 = max;
            S::store(self.0.add(LANES), sums);
        }
    }

    #[inline(always)]
    pub unsafe fn values(self) -> *mut f32 {
        // SAFETY: behind two vectors.
        unsafe { self.0.add(2 * LANES) }
    }

    /// Takes in `later`, which reduced the positions that follow. Both are `len` floats.
    #[inline(always)]
    pub unsafe fn merge<S: Simd>(self, later: Record, len: usize) {
        // SAFETY: as the caller vouches.
        unsafe {
            // A query that sees nothing of a partition keeps what it has.
            if later.max() == f32::NEG_INFINITY {
                return;
            }
            if self.max() == f32::NEG_INFINITY {
                return std::ptr::copy_nonoverlapping(later.0, self.0, len);
            }
            let max = self.max().max(later.max());
            let fade = S::splat(lane::<S>(S::exp(S::splat(self.max() - max))));
            let weight = S::splat(lane::<S>(S::exp(S::splat(later.max() - max))));
            *self.0 = max;
            for at in (LANES..len).step_by(LANES) {
                let kept = S::mul(S::load(self.0.add(at)), fade);
                S::store(self.0.add(at), S::fma(S::load(later.0.add(at)), weight, kept));
            }
        }
    }
}

/// So few queries wait for the cache's bytes more than for their products.
const FEW: usize = 3;

/// Scores or weights of a chunk, a row a query.
type Scores<const Q: usize> = [[f32; CHUNK]; Q];

/// Elements of a cell.
const fn per_cell(bf16: bool) -> usize {
    if bf16 { Element::Bf16.per_cell() } else { Element::F32.per_cell() }
}

/// Adds the products of sixteen cells with one.
#[inline(always)]
unsafe fn dot_cells<S: Simd, const BF16: bool>(sum: S::F, cells: S::B, cell: u32) -> S::F {
    // SAFETY: lanes only.
    unsafe {
        if BF16 {
            S::dot_pairs(sum, cells, cell)
        } else {
            S::fma(S::floats(cells), S::splat(f32::from_bits(cell)), sum)
        }
    }
}

/// Cuts `len` floats into cells, which may lie where the floats do.
#[inline(always)]
pub(super) unsafe fn cut<S: Simd, const BF16: bool>(from: *const f32, to: *mut u32, len: usize) {
    // SAFETY: the caller has whole vectors on both sides; bf16 are written behind what is still to be read.
    unsafe {
        for at in (0..len).step_by(LANES) {
            let lanes = S::load(from.add(at));
            if BF16 {
                S::store_bf16(to.cast::<u16>().add(at), lanes)
            } else {
                S::store(to.cast::<f32>().add(at), lanes)
            }
        }
    }
}

/// One partition for `Q` queries from `first` on, to records side by side. `T` tiles (of tokens, of dimensions) are computed side by
/// side.
pub(super) struct Queries<'a, const BF16: bool, const Q: usize, const T: usize> {
    pub work: Work<'a>,
    pub first: usize,
    pub partition: usize,
    pub records: *mut f32,
}

impl<const BF16: bool, const Q: usize, const T: usize> Op for Queries<'_, BF16, Q, T> {
    const PAIRS: bool = BF16;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { work, first, partition, records } = self;
        let Attention { q, spec, inputs, .. } = work.attention;
        let (dim, len) = (spec.head_dim, Record::len(spec.head_dim));
        let (start, limit) = (partition * PARTITION, (partition + 1) * PARTITION);
        let mut seen = [Seen { from: 0, to: 0 }; Q];
        let mut queries = [[0; MAX_HEAD_DIM]; Q];
        let (mut from, mut to) = (limit, start);
        for idx in 0..Q {
            let (token, head) = work.place(first + idx);
            let position = inputs.positions[token] as usize;
            seen[idx] = Seen { from: first_seen(position, spec.window), to: position + 1 };
            (from, to) = (from.min(seen[idx].from.max(start)), to.max(seen[idx].to.min(limit)));
            // SAFETY: the token and the head exist.
            unsafe { cut::<S, BF16>(q.add((token * spec.num_heads + head) * dim), queries[idx].as_mut_ptr(), dim) };
        }
        // SAFETY: positions below `to` have blocks, and each query has a record.
        unsafe {
            let records: [Record; Q] = std::array::from_fn(|idx| Record(records.add(idx * len)));
            records.iter().for_each(|record| record.clear(dim));
            let mut scores: Scores<Q> = [[0.0; CHUNK]; Q];
            for chunk in (from / CHUNK * CHUNK..to).step_by(CHUNK) {
                let end = to.min(chunk + CHUNK);
                work.score::<S, BF16, Q, T>(&queries, chunk, end, to, &mut scores);
                for idx in 0..Q {
                    let (seen, record, scores) = (seen[idx], records[idx], scores[idx].as_mut_ptr());
                    S::call(Soften::<BF16> { chunk, seen, scores, record, dim });
                }
                work.weigh::<S, BF16, Q, T>(chunk.max(from), chunk, end, &scores, &records);
            }
        }
    }
}

impl Work<'_> {
    #[inline(always)]
    fn block(&self, position: usize) -> (usize, usize) {
        let block_size = self.attention.cache.block_size;
        let table = self.attention.group.table(self.job.seq);
        (table[position / block_size] as usize, position % block_size)
    }

    /// Scores of positions `chunk .. end`, in whole tiles of sixteen; positions up to `to` come next.
    #[inline(always)]
    unsafe fn score<S: Simd, const BF16: bool, const Q: usize, const T: usize>(
        &self,
        queries: &[[u32; MAX_HEAD_DIM]; Q],
        chunk: usize,
        end: usize,
        to: usize,
        scores: &mut Scores<Q>,
    ) {
        let mut tile = chunk;
        // SAFETY: every tile below `end` has a block.
        unsafe {
            while tile + T * LANES <= end.next_multiple_of(LANES) {
                self.score_tiles::<S, BF16, Q, T>(queries, chunk, tile, to, scores);
                tile += T * LANES;
            }
            while tile < end {
                self.score_tiles::<S, BF16, Q, 1>(queries, chunk, tile, to, scores);
                tile += LANES;
            }
        }
    }

    #[inline(always)]
    unsafe fn score_tiles<S: Simd, const BF16: bool, const Q: usize, const T: usize>(
        &self,
        queries: &[[u32; MAX_HEAD_DIM]; Q],
        chunk: usize,
        tile: usize,
        to: usize,
        scores: &mut Scores<Q>,
    ) {
        let Attention { spec, cache, .. } = self.attention;
        let (mut keys, mut ahead) = ([0; T], [[0; 2]; T]);
        for (idx, (keys, ahead)) in keys.iter_mut().zip(&mut ahead).enumerate() {
            let position = tile + idx * LANES;
            let (block, offset) = self.block(position);
            *keys = cache.key_tile(block, self.kv_head, offset);
            if Q <= FEW {
                let (next, next_offset) = self.block((position + T * LANES).min(to - 1));
                *ahead = [cache.value(block, self.kv_head, offset), cache.key_tile(next, self.kv_head, next_offset)];
            }
        }
        // SAFETY: the tiles lie within their blocks; the queries hold a head.
        unsafe {
            let mut dots = [[S::splat(0.0); T]; Q];
            for cell in 0..cache.head_dim / per_cell(BF16) {
                if Q <= FEW {
                    for at in ahead.as_flattened() {
                        cache.prefetch::<S>(at + cell * LANES);
                    }
                }
                let mut key = [cache.load::<S>(keys[0] + cell * LANES); T];
                for (key, keys) in key.iter_mut().zip(&keys).skip(1) {
                    *key = cache.load::<S>(keys + cell * LANES);
                }
                for (dots, query) in dots.iter_mut().zip(queries) {
                    for (dot, &key) in dots.iter_mut().zip(&key) {
                        *dot = dot_cells::<S, BF16>(*dot, key, *query.get_unchecked(cell));
                    }
                }
            }
            for (dots, scores) in dots.iter().zip(scores) {
                for (idx, &dot) in dots.iter().enumerate() {
                    let mut score = S::mul(dot, S::splat(spec.scale));
                    if let Some(cap) = spec.softcap {
                        score = capped::<S>(score, cap);
                    }
                    S::store(scores.as_mut_ptr().add(tile - chunk + idx * LANES), score);
                }
            }
        }
    }

    /// Adds weights times values of positions `from .. end` to the records.
    #[inline(always)]
    unsafe fn weigh<S: Simd, const BF16: bool, const Q: usize, const T: usize>(
        &self,
        from: usize,
        chunk: usize,
        end: usize,
        scores: &Scores<Q>,
        records: &[Record; Q],
    ) {
        let mut col = 0;
        // SAFETY: columns stay within the head.
        unsafe {
            while col + T * LANES <= self.attention.cache.head_dim {
                self.weigh_cols::<S, BF16, Q, T>(from, chunk, end, scores, records, col);
                col += T * LANES;
            }
            while col < self.attention.cache.head_dim {
                self.weigh_cols::<S, BF16, Q, 1>(from, chunk, end, scores, records, col);
                col += LANES;
            }
        }
    }

    #[inline(always)]
    unsafe fn weigh_cols<S: Simd, const BF16: bool, const Q: usize, const T: usize>(
        &self,
        from: usize,
        chunk: usize,
        end: usize,
        scores: &Scores<Q>,
        records: &[Record; Q],
        col: usize,
    ) {
        let cache: &LayerView = &self.attention.cache;
        // SAFETY: positions have blocks; the columns lie within the head.
        unsafe {
            let mut acc = [[S::splat(0.0); T]; Q];
            for (acc, record) in acc.iter_mut().zip(records) {
                for (idx, acc) in acc.iter_mut().enumerate() {
                    *acc = S::load(record.values().add(col + idx * LANES));
                }
            }
            // A token before the first is one of the sequence's own, and weighs nothing.
            let mut position = from / per_cell(BF16) * per_cell(BF16);
            while position < end {
                let (block, offset) = self.block(position);
                let stop = end.min(position - offset + cache.block_size);
                let values = cache.value(block, self.kv_head, offset) + col;
                for cell in 0..(stop - position).div_ceil(per_cell(BF16)) {
                    // A token after the last may be anybody's.
                    let is_last = position + (cell + 1) * per_cell(BF16) > stop;
                    let row = values + cell * cache.head_dim;
                    let mut value = [cache.load::<S>(row); T];
                    for (idx, value) in value.iter_mut().enumerate() {
                        *value = cache.load::<S>(row + idx * LANES);
                        if is_last {
                            *value = S::first_halves(*value);
                        }
                    }
                    let weight = (position - chunk) / per_cell(BF16) + cell;
                    for (acc, weights) in acc.iter_mut().zip(scores) {
                        let weight = weights.get_unchecked(weight).to_bits();
                        for (acc, &value) in acc.iter_mut().zip(&value) {
                            *acc = dot_cells::<S, BF16>(*acc, value, weight);
                        }
                    }
                }
                position = stop;
            }
            for (acc, record) in acc.iter().zip(records) {
                for (idx, &acc) in acc.iter().enumerate() {
                    S::store(record.values().add(col + idx * LANES), acc);
                }
            }
        }
    }
}
