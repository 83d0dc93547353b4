//! Rows by index: token embeddings, and the rows whose logits are wanted.

use super::arena::Shared;
use super::pool::Pool;
use super::weight::Weight;

/// Tokens in a job.
const CHUNK: usize = 8;

/// `out [T, cols] = table[token] * scale`.
pub(super) fn embed(pool: &Pool, table: &Weight, tokens: &[u32], scale: f32, out: *mut f32) {
    let out = Shared(out);
    pool.run(tokens.len().div_ceil(CHUNK), &|job| {
        let first = job * CHUNK;
        for (idx, &token) in tokens.iter().enumerate().skip(first).take(CHUNK) {
            // SAFETY: row `idx` of the output is this job's own.
            let row = unsafe { std::slice::from_raw_parts_mut(out.get().add(idx * table.cols), table.cols) };
            table.unpack_row(token as usize, row);
            if scale != 1.0 {
                row.iter_mut().for_each(|value| *value *= scale);
            }
        }
    });
}

/// `out [R, cols] = x[rows]`.
pub(super) fn gather(x: *const f32, cols: usize, rows: &[u32], out: *mut f32) {
    for (idx, &row) in rows.iter().enumerate() {
        // SAFETY: `x` has every row that the step's inputs name, `out` one for each.
        unsafe { std::ptr::copy_nonoverlapping(x.add(row as usize * cols), out.add(idx * cols), cols) };
    }
}
