//! Paged attention for any mix of prefill chunks and decodes, read in place through the block table.
//!
//! A job is one sequence, one KV head, and up to twelve queries (token, query head) that share it. Keys and values come
//! in chunks of 128 absolute positions with an online softmax between chunks, so a query's bits depend on its position
//! and its own past, never on which queries share its job or on how the prompt was cut.
//!
//! Masked scores are selected away before they are used. Positions past the last query of the job, which a recycled block
//! may hold NaN in, are never read as values.

use tensor::{AttnSpec, GroupInputs, StepInputs};

use super::act::Emit;
use super::cache::{Element, LayerView};
use super::isa::{Isa, Op};
use super::pool::Pool;
use super::rope::MAX_HEAD_DIM;
use super::simd::{LANES, Simd};

/// Queries in a job.
const MAX_QUERIES: usize = 12;
/// Positions between two rescalings; a multiple of 16.
const CHUNK: usize = 128;

/// One layer's attention.
pub(super) struct Attention<'a> {
    /// [T, Hq * D]
    pub q: *const f32,
    pub spec: AttnSpec,
    pub cache: LayerView,
    pub inputs: &'a StepInputs,
    pub group: &'a GroupInputs,
    pub emit: Emit,
}

// SAFETY: jobs write disjoint heads of disjoint rows.
unsafe impl Sync for Attention<'_> {}

impl Attention<'_> {
    pub fn run(&self, pool: &Pool, isa: Isa) {
        let kv_heads = self.spec.num_kv_heads;
        let shared = self.spec.num_heads / kv_heads;
        let jobs_of = |seq: usize| (self.seq_tokens(seq).len() * shared).div_ceil(MAX_QUERIES) * kv_heads;
        let total = (0..self.inputs.num_seqs()).map(jobs_of).sum();
        pool.run(total, &|mut job| {
            let mut seq = 0;
            while job >= jobs_of(seq) {
                job -= jobs_of(seq);
                seq += 1;
            }
            let queries = self.seq_tokens(seq).len() * shared;
            let first = job / kv_heads * MAX_QUERIES;
            let job = Job {
                attention: self,
                seq,
                kv_head: job % kv_heads,
                first_query: first,
                end_query: queries.min(first + MAX_QUERIES),
                shared,
            };
            // SAFETY: `isa` is available; the job's queries exist.
            unsafe { isa.run(job) };
        });
    }

    /// The step's token indices of one sequence.
    fn seq_tokens(&self, seq: usize) -> std::ops::Range<usize> {
        self.inputs.cu_seqlens_q[seq] as usize..self.inputs.cu_seqlens_q[seq + 1] as usize
    }
}

struct Job<'a> {
    attention: &'a Attention<'a>,
    seq: usize,
    kv_head: usize,
    /// Queries count (token, head) with the head fastest.
    first_query: usize,
    end_query: usize,
    /// Query heads a KV head.
    shared: usize,
}

/// One query's running softmax.
#[derive(Clone, Copy)]
struct State {
    max: f32,
    /// Positions that the query sees.
    from: usize,
    to: usize,
}

/// Scores or probabilities of a chunk, a row a query.
type Scores = [[f32; CHUNK]; MAX_QUERIES];

impl Op for Job<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let mut query = self.first_query;
        // SAFETY: queries stay below `end_query`.
        unsafe {
            while query < self.end_query {
                query += match self.end_query - query {
                    12.. => self.queries::<S, 12>(query),
                    6.. => self.queries::<S, 6>(query),
                    4.. => self.queries::<S, 4>(query),
                    3.. => self.queries::<S, 3>(query),
                    2.. => self.queries::<S, 2>(query),
                    _ => self.queries::<S, 1>(query),
                };
            }
        }
    }
}

impl Job<'_> {
    #[inline(always)]
    unsafe fn queries<S: Simd, const Q: usize>(&self, first: usize) -> usize {
        // SAFETY: as the caller vouches.
        unsafe {
            match self.attention.cache.element {
                Element::Bf16 => self.attend::<S, Q, true>(first),
                Element::F32 => self.attend::<S, Q, false>(first),
            }
        }
        Q
    }

    /// Token index in the step, and query head.
    #[inline(always)]
    fn place(&self, query: usize) -> (usize, usize) {
        let token = self.attention.inputs.cu_seqlens_q[self.seq] as usize + query / self.shared;
        (token, self.kv_head * self.shared + query % self.shared)
    }

    #[inline(always)]
    unsafe fn attend<S: Simd, const Q: usize, const BF16: bool>(&self, first: usize) {
        let Attention { q, spec, cache, inputs, emit, .. } = self.attention;
        let dim = cache.head_dim;
        let mut states = [State { max: f32::NEG_INFINITY, from: 0, to: 0 }; Q];
        let mut queries = [std::ptr::null::<f32>(); Q];
        for idx in 0..Q {
            let (token, head) = self.place(first + idx);
            let to = inputs.positions[token] as usize + 1;
            states[idx] = State { from: to - spec.window.unwrap_or(to).min(to), to, ..states[idx] };
            // SAFETY: the token and the head exist.
            queries[idx] = unsafe { q.add((token * spec.num_heads + head) * dim) };
        }
        let from = states.iter().map(|state| state.from).min().expect("a job has queries");
        let to = states.iter().map(|state| state.to).max().expect("a job has queries");
        // SAFETY: positions below `to` have blocks; buffers hold `Q` heads of at most MAX_HEAD_DIM.
        unsafe {
            let mut sums = [S::splat(0.0); Q];
            let mut out = [[0.0f32; MAX_HEAD_DIM]; Q];
            let mut scores: Scores = [[0.0; CHUNK]; MAX_QUERIES];
            let mut chunk = from / CHUNK * CHUNK;
            while chunk < to {
                let end = to.min(chunk + CHUNK);
                self.score::<S, Q, BF16>(&queries, chunk, end, &mut scores);
                for idx in 0..Q {
                    let fade = soften::<S>(&mut states[idx], chunk, &mut scores[idx], &mut sums[idx]);
                    scale_by::<S>(&mut out[idx][..dim], fade);
                }
                self.gather::<S, Q, BF16>(chunk.max(from), chunk, end, &scores, &mut out);
                chunk += CHUNK;
            }
            for idx in 0..Q {
                let (token, head) = self.place(first + idx);
                let inverse = S::splat(1.0 / S::sum(sums[idx]));
                let load = |col: usize| S::mul(S::load(out[idx].as_ptr().add(col)), inverse);
                for col in (0..dim).step_by(2 * LANES) {
                    if col + 2 * LANES <= dim {
                        emit.put32::<S>(token, head * dim + col, load(col), load(col + LANES));
                    } else {
                        emit.put16::<S>(token, head * dim + col, load(col));
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn block(&self, position: usize) -> (usize, usize) {
        let block_size = self.attention.cache.block_size;
        let table = self.attention.group.table(self.seq);
        (table[position / block_size] as usize, position % block_size)
    }

    /// Scores of positions `chunk .. end`, in whole tiles of sixteen.
    #[inline(always)]
    unsafe fn score<S: Simd, const Q: usize, const BF16: bool>(
        &self,
        queries: &[*const f32; Q],
        chunk: usize,
        end: usize,
        scores: &mut Scores,
    ) {
        let Attention { spec, cache, .. } = self.attention;
        for tile in (chunk..end).step_by(LANES) {
            let (block, offset) = self.block(tile);
            let keys = cache.key_tile(block, self.kv_head, offset);
            // SAFETY: the tile lies within the block; the queries hold a head.
            unsafe {
                let mut dots = [S::splat(0.0); Q];
                for d in 0..cache.head_dim {
                    let key = cache.load::<S, BF16>(keys + d * LANES);
                    for (dot, query) in dots.iter_mut().zip(queries) {
                        *dot = S::fma(key, S::splat(*query.add(d)), *dot);
                    }
                }
                for (idx, &dot) in dots.iter().enumerate() {
                    let score = S::mul(dot, S::splat(spec.scale));
                    let score = spec.softcap.map_or(score, |cap| capped::<S>(score, cap));
                    S::store(scores[idx].as_mut_ptr().add(tile - chunk), score);
                }
            }
        }
    }

    /// Adds probabilities times values of positions `from .. end`.
    #[inline(always)]
    unsafe fn gather<S: Simd, const Q: usize, const BF16: bool>(
        &self,
        from: usize,
        chunk: usize,
        end: usize,
        scores: &Scores,
        out: &mut [[f32; MAX_HEAD_DIM]; Q],
    ) {
        let cache = &self.attention.cache;
        for col in (0..cache.head_dim).step_by(LANES) {
            // SAFETY: positions have blocks; the columns lie within the head.
            unsafe {
                let mut acc: [S::F; Q] = std::array::from_fn(|idx| S::load(out[idx].as_ptr().add(col)));
                let mut position = from;
                while position < end {
                    let (block, offset) = self.block(position);
                    let stop = end.min(position - offset + cache.block_size);
                    let values = cache.value(block, self.kv_head, offset) + col;
                    for step in 0..stop - position {
                        let value = cache.load::<S, BF16>(values + step * cache.head_dim);
                        for (acc, scores) in acc.iter_mut().zip(scores) {
                            *acc = S::fma(S::splat(*scores.get_unchecked(position + step - chunk)), value, *acc);
                        }
                    }
                    position = stop;
                }
                for (acc, out) in acc.iter().zip(out.iter_mut()) {
                    S::store(out.as_mut_ptr().add(col), *acc);
                }
            }
        }
    }
}

/// Turns one query's scores of a chunk into probabilities against the running maximum: masked ones become 0. Returns the
/// factor by which what was summed before fades.
#[inline(always)]
unsafe fn soften<S: Simd>(state: &mut State, chunk: usize, scores: &mut [f32; CHUNK], sum: &mut S::F) -> f32 {
    let from = state.from.saturating_sub(chunk).min(CHUNK);
    let to = state.to.saturating_sub(chunk).min(CHUNK);
    // SAFETY: tiles lie within the chunk; lanes outside `from .. to` are selected away before use.
    unsafe {
        let masked = |tile: usize, inside: S::F, outside: f32| {
            let outside = S::splat(outside);
            let below_end = S::first(to.saturating_sub(tile).min(LANES), inside, outside);
            S::first(from.saturating_sub(tile).min(LANES), outside, below_end)
        };
        let mut peak = S::splat(f32::NEG_INFINITY);
        for tile in (0..to).step_by(LANES) {
            let score = masked(tile, S::load(scores.as_ptr().add(tile)), f32::NEG_INFINITY);
            peak = S::max(peak, score);
        }
        let max = state.max.max(S::peak(peak));
        if from >= to {
            scores.fill(0.0);
            return 1.0;
        }
        let fade = if state.max == f32::NEG_INFINITY { 0.0 } else { lane::<S>(S::exp(S::splat(state.max - max))) };
        state.max = max;
        *sum = S::mul(*sum, S::splat(fade));
        for tile in (0..CHUNK).step_by(LANES) {
            let score = S::load(scores.as_ptr().add(tile));
            let probability = masked(tile, S::exp(S::sub(score, S::splat(max))), 0.0);
            S::store(scores.as_mut_ptr().add(tile), probability);
            *sum = S::add(*sum, probability);
        }
        fade
    }
}

#[inline(always)]
unsafe fn lane<S: Simd>(x: S::F) -> f32 {
    let mut lanes = [0.0f32; LANES];
    // SAFETY: sixteen lanes.
    unsafe { S::store(lanes.as_mut_ptr(), x) };
    lanes[0]
}

#[inline(always)]
unsafe fn scale_by<S: Simd>(values: &mut [f32], factor: f32) {
    for tile in values.chunks_exact_mut(LANES) {
        // SAFETY: sixteen values.
        unsafe { S::store(tile.as_mut_ptr(), S::mul(S::load(tile.as_ptr()), S::splat(factor))) };
    }
}

/// `cap * tanh(x / cap)`, by `tanh(y) = 1 - 2 / (e^(2 y) + 1)` with `y` kept where it is not 1 anyway.
#[inline(always)]
unsafe fn capped<S: Simd>(x: S::F, cap: f32) -> S::F {
    // SAFETY: lanes only; `exp` sees at most 40.
    unsafe {
        let zero = S::splat(0.0);
        let y = S::max(S::mul(x, S::splat(2.0 / cap)), S::splat(-40.0));
        let y = S::sub(zero, S::max(S::sub(zero, y), S::splat(-40.0)));
        let one = S::splat(1.0);
        let tanh = S::sub(one, S::div(S::splat(2.0), S::add(S::exp(y), one)));
        S::mul(tanh, S::splat(cap))
    }
}
