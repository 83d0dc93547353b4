//! Activations as matmuls read them: f32, or signed bytes with a scale a group of 32.
//!
//! `Int8G32` of `[rows, cols]`: bytes `[rows, cols]`, then scales and `scale * sum of the bytes` `[rows, cols / 32]`
//! (a weight's minimum then costs one multiply-add a group), then sums of the bytes `[rows, cols / 16]` (i32: where an
//! instruction shifts signed bytes to unsigned ones, they take the shift off again).

use tensor::{ActSet, Encoding};

use super::simd::{LANES, Simd};

/// Columns in a group.
pub(super) const GROUP: usize = 32;

/// Bytes of `rows` x `cols` activations.
pub(super) fn bytes(encoding: Encoding, rows: usize, cols: usize) -> usize {
    match encoding {
        Encoding::F32 => rows * cols * 4,
        Encoding::Int8G32 => rows * cols + 4 * rows * (cols / GROUP) * 4,
        other => panic!("no CPU kernel reads activations as {other:?}"),
    }
}

/// Where `Int8G32` activations lie.
#[derive(Clone, Copy)]
pub(super) struct Int8 {
    pub q: *mut i8,
    pub scales: *mut f32,
    pub scaled_sums: *mut f32,
    /// Two a group, of its halves.
    pub sums: *mut i32,
}

impl Int8 {
    /// # Safety
    /// `base` holds `bytes(Int8G32, rows, cols)`.
    pub unsafe fn at(base: *mut f32, rows: usize, cols: usize) -> Self {
        // SAFETY: all four parts lie within those bytes; `cols` is a multiple of 32, so floats stay aligned.
        unsafe {
            let groups = rows * (cols / GROUP);
            let scales = base.cast::<u8>().add(rows * cols).cast::<f32>();
            let scaled_sums = scales.add(groups);
            Self { q: base.cast(), scales, scaled_sums, sums: scaled_sums.add(groups).cast() }
        }
    }
}

/// Where an op puts a row's results: in each encoding asked for.
#[derive(Clone, Copy)]
pub(super) struct Emit {
    pub cols: usize,
    pub f32: Option<*mut f32>,
    pub int8: Option<Int8>,
}

// SAFETY: tiles write disjoint rows or disjoint groups of columns.
unsafe impl Sync for Emit {}

impl Emit {
    /// Puts columns `col .. col + 32` of `row`.
    ///
    /// # Safety
    /// The row and the columns exist; `col` is a multiple of 32.
    #[inline(always)]
    pub unsafe fn put32<S: Simd>(&self, row: usize, col: usize, a: S::F, b: S::F) {
        // SAFETY: within the rows and columns that the caller vouches for.
        unsafe {
            if self.f32.is_some() {
                self.put16::<S>(row, col, a);
                self.put16::<S>(row, col + LANES, b);
            }
            if let Some(int8) = self.int8 {
                let group = row * (self.cols / GROUP) + col / GROUP;
                quantize::<S>(a, b, &int8, row * self.cols + col, group);
            }
        }
    }

    /// Puts columns `col .. col + 16` of `row`, where only f32 is asked for.
    ///
    /// # Safety
    /// As for [`Emit::put32`].
    #[inline(always)]
    pub unsafe fn put16<S: Simd>(&self, row: usize, col: usize, a: S::F) {
        if let Some(out) = self.f32 {
            // SAFETY: as the caller vouches.
            unsafe { S::store(out.add(row * self.cols + col), a) };
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

/// Whether `set` can be emitted for this many columns.
pub(super) fn fits(set: ActSet, cols: usize) -> bool {
    cols.is_multiple_of(if set.contains(Encoding::Int8G32) { GROUP } else { LANES })
}

/// 32 values to bytes: the largest magnitude becomes 127; ties round to even.
#[inline(always)]
unsafe fn quantize<S: Simd>(a: S::F, b: S::F, out: &Int8, at: usize, group: usize) {
    // SAFETY: 32 bytes at `at` and one element of each other part belong to the group.
    unsafe {
        // A NaN makes the scale NaN, so that it is not lost on the way through bytes.
        let peak = S::abs_peak(a, b);
        let step = peak / 127.0;
        let inverse = S::splat(if peak > 0.0 { 127.0 / peak } else { 0.0 });
        let (a, b) = (S::round(S::mul(a, inverse)), S::round(S::mul(b, inverse)));
        S::store_i8(out.q.add(at), a);
        S::store_i8(out.q.add(at + LANES), b);
        let sums = [S::sum_i(a), S::sum_i(b)];
        *out.scales.add(group) = step;
        *out.scaled_sums.add(group) = step * (sums[0] + sums[1]) as f32;
        *out.sums.add(2 * group) = sums[0];
        *out.sums.add(2 * group + 1) = sums[1];
    }
}
