//! `y = x W^T` for every packing and epilogue.
//!
//! A job is a strip of four tiles (64 outputs) and a chunk of rows. The strip's weights stay in the first-level cache
//! while the rows stream past in register blocks of 12 x 2, 8 x 2, 4 x 4, 2 x 4 or 1 x 4 (rows x tiles). Each output is
//! reduced over k in one order, whatever the block: groups ascending, within a group exact integers, one multiply-add for
//! the scale and one for the minimum (W4), or k ascending (Bf16, F32). So a row's bits do not depend on its neighbours.

use std::mem::MaybeUninit;

use tensor::Activation;

use super::act::{Emit, GROUP, Int8};
use super::isa::{Isa, Op};
use super::pool::Pool;
use super::simd::{LANES, Simd};
use super::weight::{Kind, W4_MINS, W4_NIBBLES, W4_RECORD, W8_BYTES, W8_RECORD, Weight};

/// Tiles in a strip.
const STRIP: usize = 4;
const STRIP_COLS: usize = STRIP * LANES;
/// Rows in the largest register block.
const MAX_ROWS: usize = 12;
/// Rows in a job: enough to amortize a strip's way into the cache, few enough to spread over threads.
const CHUNK: usize = 8 * MAX_ROWS;

/// The input rows, in the encoding that the weight wants.
#[derive(Clone, Copy)]
pub(super) enum Input {
    Int8(Int8),
    F32(*const f32),
}

/// What becomes of the sums.
#[derive(Clone, Copy)]
pub(super) enum Epilogue {
    /// `out [rows, N] = y + bias`
    Store { out: *mut f32, bias: Option<*const f32> },
    /// `out [rows, N] += y + bias`
    Add { out: *mut f32, bias: Option<*const f32> },
    /// Tiles alternate gate and up: emits `f(gate) * up`.
    Glu { f: Activation, emit: Emit },
}

/// One matmul; `Input` and `Epilogue` point to `rows` rows.
#[derive(Clone, Copy)]
pub(super) struct Matmul<'a> {
    pub weight: &'a Weight,
    pub input: Input,
    pub epilogue: Epilogue,
    pub rows: usize,
}

// SAFETY: jobs read shared inputs and write disjoint outputs.
unsafe impl Sync for Matmul<'_> {}

impl Matmul<'_> {
    pub fn run(&self, pool: &Pool, isa: Isa) {
        let strips = self.weight.tiles().div_ceil(STRIP);
        let chunks = self.rows.div_ceil(CHUNK);
        pool.run(strips * chunks, &|job| {
            let first_tile = job / chunks * STRIP;
            let first_row = job % chunks * CHUNK;
            let job = Job {
                matmul: self,
                first_tile,
                tiles: STRIP.min(self.weight.tiles() - first_tile),
                first_row,
                end_row: self.rows.min(first_row + CHUNK),
            };
            // SAFETY: `isa` was found available; the pointers hold `rows` rows, as whoever built the matmul checked.
            unsafe { isa.run(job) };
        });
    }
}

struct Job<'a> {
    matmul: &'a Matmul<'a>,
    first_tile: usize,
    tiles: usize,
    first_row: usize,
    end_row: usize,
}

impl Op for Job<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the kinds' blocks read the weight and input that belong together.
        unsafe {
            match self.matmul.weight.kind {
                Kind::W4 => self.rows::<S, W4>(),
                Kind::W8 => self.rows::<S, W8>(),
                Kind::Bf16 => self.rows::<S, Bf16>(),
                Kind::F32 => self.rows::<S, F32>(),
            }
        }
    }
}

impl Job<'_> {
    #[inline(always)]
    unsafe fn rows<S: Simd, K: Block>(&self) {
        let mut row = self.first_row;
        // SAFETY: rows stay below `end_row`.
        unsafe {
            while row < self.end_row {
                row += match self.end_row - row {
                    12.. => self.block::<S, K, 12, 2>(row),
                    8.. => self.block::<S, K, 8, 2>(row),
                    4.. => self.block::<S, K, 4, 4>(row),
                    2.. => self.block::<S, K, 2, 4>(row),
                    _ => self.block::<S, K, 1, 4>(row),
                };
            }
        }
    }

    /// `R` rows of the strip, `T` tiles at a time; returns `R`.
    #[inline(always)]
    unsafe fn block<S: Simd, K: Block, const R: usize, const T: usize>(&self, row: usize) -> usize {
        let Matmul { weight, input, .. } = *self.matmul;
        let mut sums = [const { MaybeUninit::<f32>::uninit() }; MAX_ROWS * STRIP_COLS];
        let mut tile = 0;
        // SAFETY: tiles stay within the strip, and `sums` holds `R` rows of it.
        unsafe {
            while tile < self.tiles {
                let (w, out) = (weight.tile(self.first_tile + tile), sums.as_mut_ptr().cast::<f32>().add(tile * LANES));
                if tile + T <= self.tiles {
                    K::block::<S, R, T>(w, weight.cols, input, row, out);
                    tile += T;
                } else {
                    K::block::<S, R, 1>(w, weight.cols, input, row, out);
                    tile += 1;
                }
            }
            for idx in 0..R {
                self.finish::<S>(row + idx, sums.as_ptr().cast::<f32>().add(idx * STRIP_COLS));
            }
        }
        R
    }

    /// The epilogue of one row of the strip.
    #[inline(always)]
    unsafe fn finish<S: Simd>(&self, row: usize, sums: *const f32) {
        let n = self.matmul.weight.rows;
        // SAFETY: columns stay below `n`, rows below the matmul's.
        unsafe {
            match self.matmul.epilogue {
                Epilogue::Store { out, bias } => self.store::<S, false>(out.add(row * n), bias, sums),
                Epilogue::Add { out, bias } => self.store::<S, true>(out.add(row * n), bias, sums),
                Epilogue::Glu { f, emit } => self.glu::<S>(f, &emit, row, sums),
            }
        }
    }

    #[inline(always)]
    unsafe fn store<S: Simd, const ADD: bool>(&self, out: *mut f32, bias: Option<*const f32>, sums: *const f32) {
        let n = self.matmul.weight.rows;
        for tile in 0..self.tiles {
            let col = (self.first_tile + tile) * LANES;
            // SAFETY: `col + LANES <= n`, or `col..n` one by one.
            unsafe {
                let sums = sums.add(tile * LANES);
                if col + LANES <= n {
                    let mut y = S::load(sums);
                    if let Some(bias) = bias {
                        y = S::add(y, S::load(bias.add(col)));
                    }
                    if ADD {
                        y = S::add(S::load(out.add(col)), y);
                    }
                    S::store(out.add(col), y);
                } else {
                    for idx in 0..n - col {
                        let y = *sums.add(idx) + bias.map_or(0.0, |bias| *bias.add(col + idx));
                        *out.add(col + idx) = if ADD { *out.add(col + idx) + y } else { y };
                    }
                }
            }
        }
    }

    /// Two pairs of tiles are 32 outputs, one quantization group.
    #[inline(always)]
    unsafe fn glu<S: Simd>(&self, f: Activation, emit: &Emit, row: usize, sums: *const f32) {
        let col = self.first_tile / 2 * LANES;
        // SAFETY: the strip holds whole pairs, as packing made sure.
        unsafe {
            let first = gate::<S>(f, S::load(sums), S::load(sums.add(LANES)));
            if self.tiles == STRIP {
                let second = gate::<S>(f, S::load(sums.add(2 * LANES)), S::load(sums.add(3 * LANES)));
                emit.put32::<S>(row, col, first, second);
            } else {
                emit.put16::<S>(row, col, first);
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

/// The register block of one packing.
trait Block {
    /// `R` rows from `row` on against `T` tiles side by side at `w`; row `i`, tile `j` goes to `out + i * 64 + j * 16`.
    ///
    /// # Safety
    /// All of them exist, and `input` is of the kind that the packing wants.
    unsafe fn block<S: Simd, const R: usize, const T: usize>(
        w: *const u8,
        cols: usize,
        input: Input,
        row: usize,
        out: *mut f32,
    );
}

struct W4;
struct W8;
struct Bf16;
struct F32;

#[inline(always)]
unsafe fn store_block<S: Simd, const R: usize, const T: usize>(acc: &[[S::F; T]; R], out: *mut f32) {
    for (i, row) in acc.iter().enumerate() {
        for (j, &lanes) in row.iter().enumerate() {
            // SAFETY: `out` holds `R` rows of a strip.
            unsafe { S::store(out.add(i * STRIP_COLS + j * LANES), lanes) };
        }
    }
}

/// Four signed bytes, as one word.
#[inline(always)]
unsafe fn word(p: *const i8) -> i32 {
    // SAFETY: the caller has four bytes there.
    unsafe { p.cast::<i32>().read_unaligned() }
}

impl Block for W4 {
    #[inline(always)]
    unsafe fn block<S: Simd, const R: usize, const T: usize>(
        w: *const u8,
        cols: usize,
        input: Input,
        row: usize,
        out: *mut f32,
    ) {
        let Input::Int8(x) = input else { unreachable!("W4 wants bytes") };
        let groups = cols / GROUP;
        // SAFETY: records, rows and groups exist.
        unsafe {
            let mut acc = [[S::splat(0.0); T]; R];
            for group in 0..groups {
                let record: [*const u8; T] = std::array::from_fn(|j| w.add((j * groups + group) * W4_RECORD));
                let q = x.q.add(row * cols + group * GROUP);
                let mut dots = [[S::splat_i(0); T]; R];
                for step in 0..4 {
                    let bytes: [S::B; T] = std::array::from_fn(|j| S::load_b(record[j].add(W4_NIBBLES + step * 64)));
                    for (i, dots) in dots.iter_mut().enumerate() {
                        let q = q.add(i * cols + step * 8);
                        for (dot, &bytes) in dots.iter_mut().zip(&bytes) {
                            *dot = S::dot_nibbles(*dot, S::low_nibbles(bytes), word(q));
                            *dot = S::dot_nibbles(*dot, S::high_nibbles(bytes), word(q.add(4)));
                        }
                    }
                }
                for j in 0..T {
                    let scale = S::load_f16(record[j].cast());
                    let min = S::load_f16(record[j].add(W4_MINS).cast());
                    for i in 0..R {
                        let at = (row + i) * groups + group;
                        let step = S::mul(scale, S::splat(*x.scales.add(at)));
                        acc[i][j] = S::fma(S::to_f(dots[i][j]), step, acc[i][j]);
                        acc[i][j] = S::fma(min, S::splat(*x.scaled_sums.add(at)), acc[i][j]);
                    }
                }
            }
            store_block::<S, R, T>(&acc, out);
        }
    }
}

impl Block for W8 {
    #[inline(always)]
    unsafe fn block<S: Simd, const R: usize, const T: usize>(
        w: *const u8,
        cols: usize,
        input: Input,
        row: usize,
        out: *mut f32,
    ) {
        let Input::Int8(x) = input else { unreachable!("W8 wants bytes") };
        let groups = cols / GROUP;
        // SAFETY: records, rows and groups exist.
        unsafe {
            let mut acc = [[S::splat(0.0); T]; R];
            for group in 0..groups {
                let record: [*const u8; T] = std::array::from_fn(|j| w.add((j * groups + group) * W8_RECORD));
                let q = x.q.add(row * cols + group * GROUP);
                let mut dots = [[S::splat_i(0); T]; R];
                for (i, dots) in dots.iter_mut().enumerate() {
                    *dots = [S::unshift(*x.sums.add((row + i) * groups + group)); T];
                }
                for step in 0..8 {
                    let mut bytes = [S::load_b(record[0].add(W8_BYTES + step * 64)); T];
                    for (bytes, record) in bytes.iter_mut().zip(&record) {
                        *bytes = S::shift_bytes(S::load_b(record.add(W8_BYTES + step * 64)));
                    }
                    for (i, dots) in dots.iter_mut().enumerate() {
                        let q = word(q.add(i * cols + step * 4));
                        for (dot, &bytes) in dots.iter_mut().zip(&bytes) {
                            *dot = S::dot_bytes(*dot, bytes, q);
                        }
                    }
                }
                for j in 0..T {
                    let scale = S::load(record[j].cast());
                    for i in 0..R {
                        let step = S::mul(scale, S::splat(*x.scales.add((row + i) * groups + group)));
                        acc[i][j] = S::fma(S::to_f(dots[i][j]), step, acc[i][j]);
                    }
                }
            }
            store_block::<S, R, T>(&acc, out);
        }
    }
}

/// `k` ascending; `load` reads one k of one tile.
#[inline(always)]
unsafe fn dense<S: Simd, const R: usize, const T: usize>(
    load: impl Fn(usize, usize) -> S::F,
    cols: usize,
    input: Input,
    row: usize,
    out: *mut f32,
) {
    let Input::F32(x) = input else { unreachable!("dense weights want f32") };
    // SAFETY: rows and columns exist.
    unsafe {
        let x = x.add(row * cols);
        let mut acc = [[S::splat(0.0); T]; R];
        for k in 0..cols {
            let w: [S::F; T] = std::array::from_fn(|j| load(j, k));
            for (i, acc) in acc.iter_mut().enumerate() {
                let x = S::splat(*x.add(i * cols + k));
                for (acc, &w) in acc.iter_mut().zip(&w) {
                    *acc = S::fma(w, x, *acc);
                }
            }
        }
        store_block::<S, R, T>(&acc, out);
    }
}

impl Block for Bf16 {
    #[inline(always)]
    unsafe fn block<S: Simd, const R: usize, const T: usize>(
        w: *const u8,
        cols: usize,
        input: Input,
        row: usize,
        out: *mut f32,
    ) {
        // SAFETY: tile `j` and input `k` exist.
        let load = |j: usize, k: usize| unsafe { S::load_bf16(w.cast::<u16>().add((j * cols + k) * LANES)) };
        // SAFETY: as the caller vouches.
        unsafe { dense::<S, R, T>(load, cols, input, row, out) }
    }
}

impl Block for F32 {
    #[inline(always)]
    unsafe fn block<S: Simd, const R: usize, const T: usize>(
        w: *const u8,
        cols: usize,
        input: Input,
        row: usize,
        out: *mut f32,
    ) {
        // SAFETY: tile `j` and input `k` exist.
        let load = |j: usize, k: usize| unsafe { S::load(w.cast::<f32>().add((j * cols + k) * LANES)) };
        // SAFETY: as the caller vouches.
        unsafe { dense::<S, R, T>(load, cols, input, row, out) }
    }
}
