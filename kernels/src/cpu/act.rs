//! Activations as matmuls read them: f32, bf16, or integers with a scale a group of 32.
//!
//! Integers are held in planes of signed bytes: one of 8 bits (`Int8G32`), or two of 15 (`Int16G32`: `128 * high + low`, low from
//! -64 to 63), which a matmul multiplies one after the other, exactly. `[rows, cols]` of them: bytes `[rows, cols / 32, planes, 32]`,
//! then scales and `scale * sum of the integers` `[rows, cols / 32]` (a weight's minimum then costs one multiply-add a
//! group), then sums of the integers `[rows, cols / 16]` (i32: where an instruction shifts signed bytes to unsigned ones, they
//! take the shift off again).

use tensor::{ActSet, Encoding};

use super::simd::{LANES, Simd};

/// Columns in a group.
pub(super) const GROUP: usize = 32;
/// Bits of the low one of two planes.
pub(super) const LOW_BITS: u32 = 7;

/// Planes of bytes in an encoding of integers.
pub(super) const fn planes(encoding: Encoding) -> usize {
    match encoding {
        Encoding::Int8G32 => 1,
        Encoding::Int16G32 => 2,
        _ => panic!("no CPU kernel reads activations so"),
    }
}

/// Bytes of `rows` x `cols` activations.
pub(super) fn bytes(encoding: Encoding, rows: usize, cols: usize) -> usize {
    match encoding {
        Encoding::F32 => rows * cols * 4,
        Encoding::Bf16 => rows * cols * 2,
        coded => rows * cols * planes(coded) + 4 * rows * (cols / GROUP) * 4,
    }
}

/// Where integer activations lie.
#[derive(Clone, Copy)]
pub(super) struct Codes {
    pub planes: usize,
    pub q: *mut i8,
    pub scales: *mut f32,
    pub scaled_sums: *mut f32,
    /// Two a group, of its halves.
    pub sums: *mut i32,
}

impl Codes {
    /// # Safety
    /// `base` holds `bytes(encoding, rows, cols)`.
    pub unsafe fn at(base: *mut f32, encoding: Encoding, rows: usize, cols: usize) -> Self {
        let planes = planes(encoding);
        // SAFETY: all four parts lie within those bytes; `cols` is a multiple of 32, so floats stay aligned.
        unsafe {
            let groups = rows * (cols / GROUP);
            let scales = base.cast::<u8>().add(rows * cols * planes).cast::<f32>();
            let scaled_sums = scales.add(groups);
            Self { planes, q: base.cast(), scales, scaled_sums, sums: scaled_sums.add(groups).cast() }
        }
    }
}

/// Where rows of `cols` lie, in each encoding that they have.
#[derive(Clone, Copy)]
pub(super) struct Encoded {
    pub cols: usize,
    pub f32: Option<*mut f32>,
    pub bf16: Option<*mut u16>,
    pub codes: Option<Codes>,
}

// SAFETY: who writes, writes disjoint rows or disjoint groups of columns.
unsafe impl Sync for Encoded {}

impl Encoded {
    pub fn nowhere(cols: usize) -> Self {
        Self { cols, f32: None, bf16: None, codes: None }
    }

    /// And in `encoding`, at `base`.
    ///
    /// # Safety
    /// `base` holds `bytes(encoding, rows, cols)`.
    pub unsafe fn with(self, encoding: Encoding, base: *mut f32, rows: usize) -> Self {
        match encoding {
            Encoding::F32 => Self { f32: Some(base), ..self },
            Encoding::Bf16 => Self { bf16: Some(base.cast()), ..self },
            // SAFETY: as the caller vouches.
            coded => Self { codes: Some(unsafe { Codes::at(base, coded, rows, self.cols) }), ..self },
        }
    }

    /// Puts columns `col .. col + 32` of `row`.
    ///
    /// # Safety
    /// The row and the columns exist; `col` is a multiple of 32.
    #[inline(always)]
    pub unsafe fn put32<S: Simd>(&self, row: usize, col: usize, a: S::F, b: S::F) {
        // SAFETY: within the rows and columns that the caller vouches for.
        unsafe {
            self.put16::<S>(row, col, a);
            self.put16::<S>(row, col + LANES, b);
            if let Some(codes) = self.codes {
                let group = row * (self.cols / GROUP) + col / GROUP;
                match codes.planes {
                    1 => quantize::<S, 1>(a, b, &codes, group),
                    _ => quantize::<S, 2>(a, b, &codes, group),
                }
            }
        }
    }

    /// Puts columns `col .. col + 16` of `row`, as floats.
    ///
    /// # Safety
    /// As for [`Encoded::put32`].
    #[inline(always)]
    pub unsafe fn put16<S: Simd>(&self, row: usize, col: usize, a: S::F) {
        let at = row * self.cols + col;
        // SAFETY: as the caller vouches.
        unsafe {
            if let Some(out) = self.f32 {
                S::store(out.add(at), a);
            }
            if let Some(out) = self.bf16 {
                S::store_bf16(out.add(at), a);
            }
        }
    }

    /// Puts a row as it lies in `from`, which has these columns in these encodings.
    ///
    /// # Safety
    /// Both rows exist.
    pub unsafe fn copy_row(&self, row: usize, from: &Encoded, from_row: usize) {
        // SAFETY: the row's elements, on both sides.
        unsafe {
            if let (Some(to), Some(from)) = (self.f32, from.f32) {
                copy(to, row, from, from_row, self.cols);
            }
            if let (Some(to), Some(from)) = (self.bf16, from.bf16) {
                copy(to, row, from, from_row, self.cols);
            }
            if let (Some(to), Some(from)) = (&self.codes, &from.codes) {
                let groups = self.cols / GROUP;
                copy(to.q, row, from.q, from_row, self.cols * to.planes);
                copy(to.scales, row, from.scales, from_row, groups);
                copy(to.scaled_sums, row, from.scaled_sums, from_row, groups);
                copy(to.sums, row, from.sums, from_row, 2 * groups);
            }
        }
    }

    /// Puts a whole row from memory.
    ///
    /// # Safety
    /// `from` holds `cols` values, and the row exists.
    #[inline(always)]
    pub unsafe fn put_row<S: Simd>(&self, row: usize, load: impl Fn(usize) -> S::F) {
        let mut col = 0;
        // SAFETY: columns stay below `cols`, a multiple of 16.
        unsafe {
            while col + GROUP <= self.cols {
                self.put32::<S>(row, col, load(col), load(col + LANES));
                col += GROUP;
            }
            if col < self.cols {
                self.put16::<S>(row, col, load(col));
            }
        }
    }
}

/// Row `from_row` of `len` elements to row `to_row`.
unsafe fn copy<T>(to: *mut T, to_row: usize, from: *const T, from_row: usize, len: usize) {
    // SAFETY: as the caller vouches.
    unsafe { to.add(to_row * len).copy_from_nonoverlapping(from.add(from_row * len), len) };
}

/// Whether `set` can be emitted for this many columns.
pub(super) fn fits(set: ActSet, cols: usize) -> bool {
    let coded = set.iter().any(|encoding| !matches!(encoding, Encoding::F32 | Encoding::Bf16));
    cols.is_multiple_of(if coded { GROUP } else { LANES })
}

/// 32 values to integers: the largest magnitude becomes 127 in the high plane; ties round to even.
#[inline(always)]
unsafe fn quantize<S: Simd, const PLANES: usize>(a: S::F, b: S::F, out: &Codes, group: usize) {
    // SAFETY: the planes' bytes and one element of each other part belong to the group.
    unsafe {
        let levels = if PLANES == 1 { 127.0 } else { (127 << LOW_BITS) as f32 };
        // A NaN makes the scale NaN, so that it is not lost on the way through integers.
        let peak = S::abs_peak(a, b);
        let step = peak / levels;
        let inverse = S::splat(if peak > 0.0 { levels / peak } else { 0.0 });
        let codes = [S::round(S::mul(a, inverse)), S::round(S::mul(b, inverse))];
        for (half, code) in codes.into_iter().enumerate() {
            let to = out.q.add(group * PLANES * GROUP + half * LANES);
            if PLANES == 1 {
                S::store_i8(to, code);
            } else {
                let high = S::sar::<LOW_BITS>(S::add_i(code, S::splat_i(1 << (LOW_BITS - 1))));
                S::store_i8(to, high);
                S::store_i8(to.add(GROUP), S::sub_i(code, S::shl::<LOW_BITS>(high)));
            }
        }
        let sums = S::sums_i(codes[0], codes[1]);
        *out.scales.add(group) = step;
        *out.scaled_sums.add(group) = step * (sums[0] + sums[1]) as f32;
        *out.sums.add(2 * group) = sums[0];
        *out.sums.add(2 * group + 1) = sums[1];
    }
}
