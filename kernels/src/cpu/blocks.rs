//! The register blocks of `matmul`: one reduction over k for each packing, the same whatever the block's shape.

use super::act::GROUP;
use super::matmul::{Input, STRIP_COLS};
use super::simd::{LANES, Simd};
use super::weight::{W4_MINS, W4_NIBBLES, W4_RECORD, W8_BYTES, W8_RECORD};

/// The register block of one packing.
pub(super) trait Block {
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

pub(super) struct W4;
pub(super) struct W8;
pub(super) struct Bf16;
pub(super) struct F32;

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
                let mut dots = [[S::nibble_zero(); T]; R];
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
                        acc[i][j] = S::fma(S::to_f(S::nibble_sums(dots[i][j])), step, acc[i][j]);
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
