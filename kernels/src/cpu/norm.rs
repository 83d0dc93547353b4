//! RMSNorm with its encodings, and the quantization of rows that lie in memory.

use super::act::Encoded;
use super::isa::Isa;
use super::pool::Pool;
use super::simd::{LANES, Op, Simd};

/// Rows in a job.
const CHUNK: usize = 8;

/// Emits `x [rows, cols]`: normalized with `gain`, or as it is.
pub(super) struct Rows {
    pub x: *const f32,
    pub rows: usize,
    pub cols: usize,
    /// Gain and epsilon.
    pub norm: Option<(*const f32, f32)>,
    pub emit: Encoded,
}

// SAFETY: jobs write disjoint rows.
unsafe impl Sync for Rows {}

impl Rows {
    pub fn run(&self, pool: &Pool, isa: Isa) {
        pool.run(self.rows.div_ceil(CHUNK), &|job| {
            let first = job * CHUNK;
            // SAFETY: `isa` is available; rows stay below `rows`.
            unsafe { isa.run(Job { rows: self, first, end: self.rows.min(first + CHUNK) }) };
        });
    }
}

struct Job<'a> {
    rows: &'a Rows,
    first: usize,
    end: usize,
}

impl Op for Job<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Rows { x, cols, norm, ref emit, .. } = *self.rows;
        for row in self.first..self.end {
            // SAFETY: the row has `cols` columns, a multiple of 16, and so has the gain.
            unsafe {
                let x = x.add(row * cols);
                match norm {
                    None => emit.put_row::<S>(row, |col| S::load(x.add(col))),
                    Some((gain, eps)) => {
                        let scale = S::splat(inverse_rms::<S>(x, cols, eps));
                        emit.put_row::<S>(row, |col| {
                            S::mul(S::mul(S::load(x.add(col)), scale), S::load(gain.add(col)))
                        });
                    }
                }
            }
        }
    }
}

/// `1 / sqrt(mean(x^2) + eps)` over `cols` values, a multiple of 16.
#[inline(always)]
pub(super) unsafe fn inverse_rms<S: Simd>(x: *const f32, cols: usize, eps: f32) -> f32 {
    // SAFETY: `x` holds `cols` values.
    unsafe {
        let mut squares = S::splat(0.0);
        for col in (0..cols).step_by(LANES) {
            let x = S::load(x.add(col));
            squares = S::fma(x, x, squares);
        }
        1.0 / (S::sum(squares) / cols as f32 + eps).sqrt()
    }
}
