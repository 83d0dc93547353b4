//! `y = x W^T` for every packing and epilogue.
//!
//! A job is a strip of four tiles (64 outputs) and a chunk of rows, or a part of one. The strip's weights stay in the first-level cache
//! while the rows stream past in register blocks of 4 x 2 (4 x 4 for bf16), 2 x 4 or 1 x 4 (rows x tiles), of 4 x 1 and less where
//! registers are narrow. Each output is reduced over k in one order, whatever the block: groups ascending, within a group exact
//! integers, or k ascending where weights are not coded. So a row's bits do not depend on its neighbours.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

use tensor::Activation;

use super::act::{Encoded, GROUP};
use super::blocks::{Ahead, Block, CENTERED, F16, F32, HALVES, MIN, PLAIN, Pairs, W4, W8, WIDE, ZEROS};
use super::isa::Isa;
use super::pool::Pool;
use super::simd::{LANES, Op, Simd};
use super::weight::{Kind, STRIP, STRIP_COLS, Segment, Weight};

/// Rows in the largest register block.
const MAX_ROWS: usize = 4;
/// Rows in a job: enough to amortize a strip's way into the cache, few enough to spread over threads.
pub(super) const CHUNK: usize = 24 * MAX_ROWS;

/// Rows of one expert, as many as a job takes at most.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tile {
    pub expert: u32,
    pub first: u32,
    pub end: u32,
}

/// What becomes of the sums.
#[derive(Clone, Copy)]
pub(super) enum Epilogue {
    /// `out [rows, N] = y + bias`
    Store { out: *mut f32, bias: Option<*const f32> },
    /// `out [rows, N] += y + bias`
    Add { out: *mut f32, bias: Option<*const f32> },
    /// Tiles alternate gate and up: emits `f(gate) * up`.
    Glu { f: Activation, emit: Encoded },
}

/// One matmul; `input` and `epilogue` point to `rows` rows.
#[derive(Clone, Copy)]
pub(super) struct Matmul<'a> {
    pub weight: &'a Weight,
    /// In the encodings that the weight wants.
    pub input: Encoded,
    pub epilogue: Epilogue,
    pub rows: usize,
}

// SAFETY: jobs read shared inputs and write disjoint outputs.
unsafe impl Sync for Matmul<'_> {}

impl Matmul<'_> {
    pub fn run(&self, pool: &Pool, isa: Isa) {
        let chunks = self.rows.div_ceil(CHUNK);
        let cut = Cut::of(self.weight.strips() * chunks, self.rows.min(CHUNK), pool.threads());
        pool.run(cut.jobs(), &|idx| {
            let (piece, rows) = cut.at(idx);
            let (segment, strip) = self.weight.locate(piece / chunks);
            let first_row = piece % chunks * CHUNK;
            let job = Job {
                matmul: self,
                segment,
                first_tile: strip * STRIP,
                first_row: first_row + rows.start,
                end_row: self.rows.min(first_row + rows.end),
                next: self.weight.strip_at(piece / chunks + pool.threads()),
            };
            // SAFETY: `isa` was found available; the pointers hold `rows` rows, as whoever built the matmul checked.
            unsafe { job.run_on(isa) };
        });
    }

    /// Multiplies each of `tiles` by its expert, a segment of the weight.
    pub fn run_experts(&self, tiles: &[Tile], pool: &Pool, isa: Isa) {
        let strips = self.weight.segments[0].strips();
        pool.run(strips * tiles.len(), &|job| {
            let Tile { expert, first, end } = tiles[job / strips];
            let segment = &self.weight.segments[expert as usize];
            let job = Job {
                matmul: self,
                segment,
                first_tile: job % strips * STRIP,
                first_row: first as usize,
                end_row: end as usize,
                next: None,
            };
            // SAFETY: as for `run`; the experts of a stack have equally many strips.
            unsafe { job.run_on(isa) };
        });
    }
}

/// How pieces, each a strip and a chunk of rows, become jobs: one each, but for the last, whose rows are cut once more so that no
/// thread waits long for another.
struct Cut {
    whole: usize,
    cut: usize,
    parts: usize,
    /// Rows of a part.
    part_rows: usize,
}

impl Cut {
    fn of(pieces: usize, rows: usize, threads: usize) -> Self {
        let cut = pieces.min(threads + pieces % threads);
        let parts = threads.min(rows / MAX_ROWS).max(1);
        Self { whole: pieces - cut, cut, parts, part_rows: rows.div_ceil(parts).next_multiple_of(MAX_ROWS) }
    }

    fn jobs(&self) -> usize {
        self.whole + self.cut * self.parts
    }

    /// The piece of a job, and its rows, counted from the first of the chunk.
    fn at(&self, job: usize) -> (usize, Range<usize>) {
        match job.checked_sub(self.whole) {
            None => (job, 0..CHUNK),
            Some(job) => {
                let first = job % self.parts * self.part_rows;
                (self.whole + job / self.parts, first..first + self.part_rows)
            }
        }
    }
}

/// A strip of tiles and some rows.
struct Job<'a> {
    matmul: &'a Matmul<'a>,
    segment: &'a Segment,
    first_tile: usize,
    first_row: usize,
    end_row: usize,
    /// The strip that this thread is likely to take next.
    next: Option<*const u8>,
}

/// A job on blocks of `K`.
struct Rows<'a, K>(Job<'a>, PhantomData<K>);

impl<K: Block> Op for Rows<'_, K> {
    const PAIRS: bool = K::PAIRS;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self(job, _) = self;
        let mut row = job.first_row;
        // SAFETY: rows stay below `end_row`.
        unsafe {
            while row < job.end_row {
                row += match job.end_row - row {
                    4.. if S::WIDE && K::LONG_CHAINS => job.block::<S, K, 4, 4>(row),
                    4.. if S::WIDE => job.block::<S, K, 4, 2>(row),
                    2.. if S::WIDE => job.block::<S, K, 2, 4>(row),
                    _ if S::WIDE => job.block::<S, K, 1, 4>(row),
                    4.. => job.block::<S, K, 4, 1>(row),
                    2.. => job.block::<S, K, 2, 1>(row),
                    _ => job.block::<S, K, 1, 2>(row),
                };
            }
        }
    }
}

/// The gated unit of some rows of a strip, in place of their sums `[rows, 64]`.
struct Glu<'a> {
    job: &'a Job<'a>,
    f: Activation,
    emit: &'a Encoded,
    first_row: usize,
    rows: usize,
    sums: *mut f32,
}

impl Op for Glu<'_> {
    /// Two pairs of tiles are 32 outputs, one quantization group; at the end one pair may be padding. First the units of all rows, then
    /// their codes: both are long chains, and so the processor has several of them under way.
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { job, f, emit, first_row, rows, sums } = self;
        let col = job.first_tile / 2 * LANES;
        let is_whole = col + 2 * LANES <= job.segment.rows / 2;
        // SAFETY: the strip holds whole pairs, as packing made sure; a unit takes the place of its gate.
        unsafe {
            for pair in (0..rows * STRIP_COLS).step_by(2 * LANES) {
                let sums = sums.add(pair);
                S::store(sums, gate::<S>(f, S::load(sums), S::load(sums.add(LANES))));
            }
            for idx in 0..rows {
                let (row, units) = (first_row + idx, sums.add(idx * STRIP_COLS));
                if is_whole {
                    emit.put32::<S>(row, col, S::load(units), S::load(units.add(2 * LANES)));
                } else {
                    emit.put16::<S>(row, col, S::load(units));
                }
            }
        }
    }
}

impl Job<'_> {
    /// # Safety
    /// As for [`Isa::run`].
    unsafe fn run_on(self, isa: Isa) {
        // SAFETY: as the caller vouches; the kinds' blocks read the weight and the input that belong together.
        unsafe {
            match self.segment.kind {
                Kind::W4 => self.coded::<W4<MIN, 1>, W4<MIN, 2>>(isa),
                Kind::W4Centered => self.coded::<W4<CENTERED, 1>, W4<CENTERED, 2>>(isa),
                Kind::W4Zeros => self.coded::<W4<ZEROS, 1>, W4<ZEROS, 2>>(isa),
                Kind::W4Wide => self.coded::<W4<WIDE, 1>, W4<WIDE, 2>>(isa),
                Kind::W8 => self.coded::<W8<PLAIN, 1>, W8<PLAIN, 2>>(isa),
                Kind::W8Min => self.coded::<W8<MIN, 1>, W8<MIN, 2>>(isa),
                Kind::W8Halves => self.coded::<W8<HALVES, 1>, W8<HALVES, 2>>(isa),
                Kind::Bf16 => self.rows::<Pairs<false>>(isa),
                Kind::Bf16Scaled => self.rows::<Pairs<true>>(isa),
                Kind::F16 => self.rows::<F16>(isa),
                Kind::F32 => self.rows::<F32>(isa),
            }
        }
    }

    /// By the planes of the activations.
    unsafe fn coded<One: Block, Two: Block>(self, isa: Isa) {
        // SAFETY: as for `run_on`.
        unsafe {
            match self.matmul.input.codes.map(|codes| codes.planes) {
                Some(1) => self.rows::<One>(isa),
                _ => self.rows::<Two>(isa),
            }
        }
    }

    unsafe fn rows<K: Block>(self, isa: Isa) {
        // SAFETY: as for `run_on`.
        unsafe { isa.run(Rows::<K>(self, PhantomData)) }
    }

    /// `R` rows of the strip, `T` tiles at a time; returns `R`.
    #[inline(always)]
    unsafe fn block<S: Simd, K: Block, const R: usize, const T: usize>(&self, row: usize) -> usize {
        let mut sums = [const { MaybeUninit::<f32>::uninit() }; MAX_ROWS * STRIP_COLS];
        let sums = sums.as_mut_ptr().cast::<f32>();
        // SAFETY: a strip's tiles exist, padding included, and `sums` holds `R` rows of it.
        unsafe {
            for tile in (0..STRIP).step_by(T) {
                let w = self.segment.strip(self.first_tile / STRIP).add(tile * self.segment.kind.tile_step());
                let ahead = self.ahead::<R, T>(w, row, tile);
                K::block::<S, R, T>(w, self.matmul.weight.cols, &self.matmul.input, row, sums.add(tile * LANES), ahead);
            }
            self.finish::<S, R>(row, sums);
        }
        R
    }

    /// Where few rows wait for each byte, what they need next; else the next strip, a part with each block.
    #[inline(always)]
    fn ahead<const R: usize, const T: usize>(&self, w: *const u8, row: usize, tile: usize) -> Ahead {
        const NEAR: usize = 4096;
        if R < MAX_ROWS {
            return Ahead { at: w.wrapping_add(NEAR), step: self.segment.kind.strip_bytes(GROUP) };
        }
        let Some(next) = self.next else { return Ahead { at: w, step: 0 } };
        let blocks = (self.end_row - self.first_row).div_ceil(MAX_ROWS) * STRIP / T;
        let block = (row - self.first_row) / MAX_ROWS * STRIP / T + tile / T;
        let part = self.segment.kind.strip_bytes(self.matmul.weight.cols).div_ceil(blocks);
        Ahead { at: next.wrapping_add(block * part), step: part.div_ceil(self.matmul.weight.cols.div_ceil(GROUP)) }
    }

    /// The epilogue of `R` rows of the strip.
    #[inline(always)]
    unsafe fn finish<S: Simd, const R: usize>(&self, first_row: usize, sums: *mut f32) {
        let n = self.matmul.weight.rows;
        // SAFETY: columns stay below `n`, rows below the matmul's.
        unsafe {
            let (out, bias, add) = match &self.matmul.epilogue {
                Epilogue::Store { out, bias } => (out, bias, false),
                Epilogue::Add { out, bias } => (out, bias, true),
                Epilogue::Glu { f, emit } => {
                    return S::call(Glu { job: self, f: *f, emit, first_row, rows: R, sums });
                }
            };
            for idx in 0..R {
                self.store::<S>(out.add((first_row + idx) * n), *bias, add, sums.add(idx * STRIP_COLS));
            }
        }
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(&self, out: *mut f32, bias: Option<*const f32>, add: bool, sums: *const f32) {
        let Segment { first, rows, .. } = *self.segment;
        let (start, end) = (first + self.first_tile * LANES, first + rows);
        for (tile, col) in (start..end).step_by(LANES).take(STRIP).enumerate() {
            // SAFETY: `col + LANES <= end`, or `col..end` one by one.
            unsafe {
                let sums = sums.add(tile * LANES);
                if col + LANES <= end {
                    let mut y = S::load(sums);
                    if let Some(bias) = bias {
                        y = S::add(y, S::load(bias.add(col)));
                    }
                    if add {
                        y = S::add(S::load(out.add(col)), y);
                    }
                    S::store(out.add(col), y);
                } else {
                    for idx in 0..end - col {
                        let y = *sums.add(idx) + bias.map_or(0.0, |bias| *bias.add(col + idx));
                        *out.add(col + idx) = if add { *out.add(col + idx) + y } else { y };
                    }
                }
            }
        }
    }
}

/// `f(gate) * up`. (No closures here: one that is not inlined is compiled without the caller's instruction set.)
#[inline(always)]
unsafe fn gate<S: Simd>(f: Activation, gate: S::F, up: S::F) -> S::F {
    // SAFETY: lanes only.
    unsafe {
        let y = match f {
            Activation::Silu => gate,
            // tanh(y) = 2 sigmoid(2 y) - 1, so 0.5 x (1 + tanh(y)) = x sigmoid(2 y).
            Activation::GeluTanh => {
                let cube = S::mul(S::mul(gate, gate), gate);
                S::mul(S::fma(cube, S::splat(0.044_715), gate), S::splat(2.0 * 0.797_884_6))
            }
        };
        let one = S::splat(1.0);
        // `max` takes its second argument where one is NaN, and `exp` sees at most 87.
        let y = S::max(S::splat(-87.0), y);
        let sigmoid = S::div(one, S::add(one, S::exp(S::sub(S::splat(0.0), y))));
        S::mul(S::mul(gate, sigmoid), up)
    }
}
