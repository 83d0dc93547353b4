//! The register blocks of `matmul`: one reduction over k for each packing, the same whatever the block's shape.
//!
//! Coded kinds take groups of 32 ascending: integers exactly, then a multiply-add for each scale and one for the minimum. Bf16 takes
//! pairs of k ascending.

use quant::int4;

use super::act::{Codes, Encoded, GROUP, LOW_BITS};
use super::simd::{LANES, Simd};
use super::weight::{Kind, STRIP, STRIP_COLS};

/// The register block of one packing.
pub(super) trait Block {
    /// Whether sums wait for each other so long that eight of them do not keep the processor busy.
    const LONG_CHAINS: bool = false;
    /// As [`Op::PAIRS`](super::simd::Op::PAIRS).
    const PAIRS: bool = false;

    /// `R` rows from `row` on against `T` tiles of a strip, whose first record or vector is at `w`; row `i`, tile `j` goes to
    /// `out + i * 64 + j * 16`.
    ///
    /// # Safety
    /// All of them exist, and `input` is in the encoding that the packing wants.
    unsafe fn block<S: Simd, const R: usize, const T: usize>(
        w: *const u8,
        cols: usize,
        input: &Encoded,
        row: usize,
        out: *mut f32,
        ahead: Ahead,
    );
}

/// Bytes to ask for while a block is multiplied: one core's own prefetcher does not reach the memory's bandwidth.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    /// The first of them; need not be valid.
    pub at: *const u8,
    /// Bytes for each 32 k.
    pub step: usize,
}

impl Ahead {
    /// Asks for the bytes of part `idx`, where 32 k are `PARTS` of them.
    #[inline(always)]
    unsafe fn fetch<S: Simd, const PARTS: usize>(self, idx: usize) {
        let bytes = self.step.div_ceil(PARTS);
        for line in (0..bytes).step_by(64) {
            // SAFETY: a hint, valid anywhere.
            unsafe { S::prefetch(self.at.wrapping_add(idx * bytes + line)) };
        }
    }
}

/// Nibbles with what [`EXTRA`](W4) says: a minimum, none as 8 means 0, the code that means 0, or a minimum and all of it in f32. Like
/// all codes, times activations of `P` planes.
pub(super) struct W4<const EXTRA: u8, const P: usize>;
/// Bytes with what [`EXTRA`](W8) says: nothing, a minimum, or a scale of the second half.
pub(super) struct W8<const EXTRA: u8, const P: usize>;
/// Pairs of bf16; with a scale for 32 of them where `SCALED`.
pub(super) struct Pairs<const SCALED: bool>;
pub(super) struct F16;
pub(super) struct F32;

pub(super) const PLAIN: u8 = 0;
pub(super) const MIN: u8 = 1;
pub(super) const HALVES: u8 = 2;
pub(super) const CENTERED: u8 = 3;
pub(super) const ZEROS: u8 = 4;
pub(super) const WIDE: u8 = 5;

#[inline(always)]
unsafe fn store_block<S: Simd, const R: usize, const T: usize>(acc: &[[S::F; T]; R], out: *mut f32) {
    for (i, row) in acc.iter().enumerate() {
        for (j, &lanes) in row.iter().enumerate() {
            // SAFETY: `out` holds `R` rows of a strip.
            unsafe { S::store(out.add(i * STRIP_COLS + j * LANES), lanes) };
        }
    }
}

/// The integers of `input`, in `P` planes.
#[inline(always)]
fn codes<const P: usize>(input: &Encoded) -> Codes {
    let codes = input.codes.expect("codes want integers");
    debug_assert_eq!(codes.planes, P);
    codes
}

/// Four signed bytes, as one word.
#[inline(always)]
unsafe fn word(p: *const i8) -> i32 {
    // SAFETY: the caller has four bytes there.
    unsafe { p.cast::<i32>().read_unaligned() }
}

/// One sum of the planes' sums.
#[inline(always)]
unsafe fn join<S: Simd, const P: usize>(planes: [S::I; P]) -> S::I {
    let mut sum = planes[0];
    for &low in &planes[1..] {
        // SAFETY: lanes only.
        sum = unsafe { S::add_i(S::shl::<LOW_BITS>(sum), low) };
    }
    sum
}

impl<const EXTRA: u8, const P: usize> W4<EXTRA, P> {
    const KIND: Kind = match EXTRA {
        MIN => Kind::W4,
        CENTERED => Kind::W4Centered,
        ZEROS => Kind::W4Zeros,
        _ => Kind::W4Wide,
    };

    /// Scales and minimums of a record.
    #[inline(always)]
    unsafe fn header<S: Simd>(record: *const u8) -> [S::F; 2] {
        // SAFETY: the header holds them.
        unsafe {
            if EXTRA == WIDE {
                return [S::load(record.cast()), S::load(record.cast::<f32>().add(LANES))];
            }
            let scale = S::load_f16(record.cast());
            let min = match EXTRA {
                MIN => S::load_f16(record.cast::<u16>().add(LANES)),
                CENTERED => S::mul(scale, S::splat(-f32::from(int4::ZERO))),
                _ => S::mul(scale, S::sub(S::splat(0.0), S::load_u8(record.add(LANES * 2)))),
            };
            [scale, min]
        }
    }
}

impl<const EXTRA: u8, const P: usize> Block for W4<EXTRA, P> {
    #[inline(always)]
    unsafe fn block<S: Simd, const R: usize, const T: usize>(
        w: *const u8,
        cols: usize,
        input: &Encoded,
        row: usize,
        out: *mut f32,
        ahead: Ahead,
    ) {
        let (x, groups) = (codes::<P>(input), cols / GROUP);
        // SAFETY: records, rows and groups exist.
        unsafe {
            let mut acc = [[S::splat(0.0); T]; R];
            for group in 0..groups {
                let record: [*const u8; T] = std::array::from_fn(|j| w.add((group * STRIP + j) * Self::KIND.record()));
                let q = x.q.add((row * groups + group) * P * GROUP);
                ahead.fetch::<S, 1>(group);
                let mut dots = [[[S::nibble_zero(); P]; T]; R];
                for step in 0..4 {
                    let at = Self::KIND.header() + step * 64;
                    let bytes: [S::B; T] = std::array::from_fn(|j| S::load_b(record[j].add(at)));
                    for (i, dots) in dots.iter_mut().enumerate() {
                        for plane in 0..P {
                            let q = q.add((i * groups * P + plane) * GROUP + step * 8);
                            for (dots, &bytes) in dots.iter_mut().zip(&bytes) {
                                dots[plane] = S::dot_nibbles(dots[plane], S::low_nibbles(bytes), word(q));
                                dots[plane] = S::dot_nibbles(dots[plane], S::high_nibbles(bytes), word(q.add(4)));
                            }
                        }
                    }
                }
                for j in 0..T {
                    let [scale, min] = Self::header::<S>(record[j]);
                    for i in 0..R {
                        let at = (row + i) * groups + group;
                        let step = S::mul(scale, S::splat(*x.scales.add(at)));
                        let dot = join::<S, P>(std::array::from_fn(|plane| S::nibble_sums(dots[i][j][plane])));
                        acc[i][j] = S::fma(S::to_f(dot), step, acc[i][j]);
                        acc[i][j] = S::fma(min, S::splat(*x.scaled_sums.add(at)), acc[i][j]);
                    }
                }
            }
            store_block::<S, R, T>(&acc, out);
        }
    }
}

impl<const EXTRA: u8, const P: usize> W8<EXTRA, P> {
    const KIND: Kind = match EXTRA {
        PLAIN => Kind::W8,
        MIN => Kind::W8Min,
        _ => Kind::W8Halves,
    };
    /// Steps of 4 k under one scale.
    const STEPS: usize = if EXTRA == HALVES { 4 } else { 8 };
}

impl<const EXTRA: u8, const P: usize> Block for W8<EXTRA, P> {
    #[inline(always)]
    unsafe fn block<S: Simd, const R: usize, const T: usize>(
        w: *const u8,
        cols: usize,
        input: &Encoded,
        row: usize,
        out: *mut f32,
        ahead: Ahead,
    ) {
        let (x, groups) = (codes::<P>(input), cols / GROUP);
        // SAFETY: records, rows and groups exist.
        unsafe {
            let mut acc = [[S::splat(0.0); T]; R];
            for group in 0..groups {
                let record: [*const u8; T] = std::array::from_fn(|j| w.add((group * STRIP + j) * Self::KIND.record()));
                let q = x.q.add((row * groups + group) * P * GROUP);
                ahead.fetch::<S, 1>(group);
                for part in 0..8 / Self::STEPS {
                    let mut dots = [[[S::splat_i(0); P]; T]; R];
                    for (i, dots) in dots.iter_mut().enumerate() {
                        let sums = x.sums.add(((row + i) * groups + group) * 2);
                        let sum = if EXTRA == HALVES { *sums.add(part) } else { *sums + *sums.add(1) };
                        dots.iter_mut().for_each(|dots| dots[P - 1] = S::unshift(sum));
                    }
                    for step in part * Self::STEPS..(part + 1) * Self::STEPS {
                        let at = Self::KIND.header() + step * 64;
                        let mut bytes = [S::load_b(record[0].add(at)); T];
                        for (bytes, record) in bytes.iter_mut().zip(&record) {
                            *bytes = S::shift_bytes(S::load_b(record.add(at)));
                        }
                        for (i, dots) in dots.iter_mut().enumerate() {
                            for plane in 0..P {
                                let q = word(q.add((i * groups * P + plane) * GROUP + step * 4));
                                for (dots, &bytes) in dots.iter_mut().zip(&bytes) {
                                    dots[plane] = S::dot_bytes(dots[plane], bytes, q);
                                }
                            }
                        }
                    }
                    for j in 0..T {
                        let header = record[j].cast::<f32>();
                        let scale = S::load(header.add(part * LANES));
                        for i in 0..R {
                            let at = (row + i) * groups + group;
                            let step = S::mul(scale, S::splat(*x.scales.add(at)));
                            acc[i][j] = S::fma(S::to_f(join::<S, P>(dots[i][j])), step, acc[i][j]);
                            if EXTRA == MIN {
                                let min = S::load(header.add(LANES));
                                acc[i][j] = S::fma(min, S::splat(*x.scaled_sums.add(at)), acc[i][j]);
                            }
                        }
                    }
                }
            }
            store_block::<S, R, T>(&acc, out);
        }
    }
}

impl<const SCALED: bool> Block for Pairs<SCALED> {
    const LONG_CHAINS: bool = true;
    const PAIRS: bool = true;

    #[inline(always)]
    unsafe fn block<S: Simd, const R: usize, const T: usize>(
        w: *const u8,
        cols: usize,
        input: &Encoded,
        row: usize,
        out: *mut f32,
        ahead: Ahead,
    ) {
        let x = input.bf16.expect("bf16 weights want bf16");
        // SAFETY: records, rows and pairs exist.
        unsafe {
            let x = x.add(row * cols).cast::<u32>().cast_const();
            if !SCALED {
                return store_block::<S, R, T>(&pairs::<S, R, T>(w, x, cols / 2, cols / 2, ahead), out);
            }
            let mut acc = [[S::splat(0.0); T]; R];
            for group in 0..cols / GROUP {
                let scales = w.add(group * Kind::Bf16Scaled.strip_bytes(GROUP));
                let x = x.add(group * GROUP / 2);
                let ahead = Ahead { at: ahead.at.wrapping_add(group * ahead.step), ..ahead };
                let dots = pairs::<S, R, T>(scales.add(STRIP * LANES * 4), x, cols / 2, GROUP / 2, ahead);
                for j in 0..T {
                    let scale = S::load(scales.add(j * LANES * 4).cast());
                    for i in 0..R {
                        acc[i][j] = S::fma(dots[i][j], scale, acc[i][j]);
                    }
                }
            }
            store_block::<S, R, T>(&acc, out);
        }
    }
}

/// The sums of `count` pairs of `x`, whose rows are `stride` pairs apart.
#[inline(always)]
unsafe fn pairs<S: Simd, const R: usize, const T: usize>(
    w: *const u8,
    x: *const u32,
    stride: usize,
    count: usize,
    ahead: Ahead,
) -> [[S::F; T]; R] {
    // SAFETY: as many pairs as the caller has of each.
    unsafe {
        let mut acc = [[S::splat(0.0); T]; R];
        for pair in 0..count {
            let w = w.add(pair * STRIP * 64);
            if pair.is_multiple_of(4) {
                ahead.fetch::<S, 4>(pair / 4);
            }
            let w: [S::B; T] = std::array::from_fn(|j| S::load_b(w.add(j * 64)));
            for (i, acc) in acc.iter_mut().enumerate() {
                let x = x.add(i * stride + pair).read_unaligned();
                for (acc, &w) in acc.iter_mut().zip(&w) {
                    *acc = S::dot_pairs(*acc, w, x);
                }
            }
        }
        acc
    }
}

/// `k` ascending; `load` reads one k of one tile.
#[inline(always)]
unsafe fn dense<S: Simd, const R: usize, const T: usize>(
    load: impl Fn(usize, usize) -> S::F,
    cols: usize,
    input: &Encoded,
    row: usize,
    out: *mut f32,
) {
    let x = input.f32.expect("dense weights want f32");
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

macro_rules! dense_block {
    ($kind:ty, $element:ty, $load:ident) => {
        impl Block for $kind {
            #[inline(always)]
            unsafe fn block<S: Simd, const R: usize, const T: usize>(
                w: *const u8,
                cols: usize,
                input: &Encoded,
                row: usize,
                out: *mut f32,
                _: Ahead,
            ) {
                // SAFETY: tile `j` and input `k` exist.
                let load = |j: usize, k: usize| unsafe { S::$load(w.cast::<$element>().add((k * STRIP + j) * LANES)) };
                // SAFETY: as the caller vouches.
                unsafe { dense::<S, R, T>(load, cols, input, row, out) }
            }
        }
    };
}

dense_block!(F16, u16, load_f16);
dense_block!(F32, f32, load);
