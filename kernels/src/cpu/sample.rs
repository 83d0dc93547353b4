//! Sampling: the sampler's own code, rows shared out over the threads.

use std::sync::Mutex;

use sampler::{Row, Sampled, Scratch};

use super::arena::Shared;
use super::pool::Pool;

/// What each thread keeps to sample with.
pub(super) struct Samplers(Vec<Mutex<(Scratch, Sampled)>>);

impl Samplers {
    pub fn new(threads: usize) -> Self {
        Self((0..threads).map(|_| Mutex::default()).collect())
    }

    /// Samples `rows` of `logits [R, vocab]` and appends the results in order.
    pub fn run(&self, pool: &Pool, logits: *mut f32, vocab: usize, rows: &[Row<'_>], out: &mut Sampled) {
        let (logits, share) = (Shared(logits), rows.len().div_ceil(self.0.len()).max(1));
        pool.run(rows.len().div_ceil(share), &|job| {
            let mut sampler = self.0[job].lock().expect("a sampler that panicked took the step with it");
            let (scratch, sampled) = &mut *sampler;
            sampled.clear();
            for row in &rows[job * share..rows.len().min((job + 1) * share)] {
                // SAFETY: each row of logits belongs to one row to sample, as `Backend::sample` asks.
                let logits = unsafe { std::slice::from_raw_parts_mut(logits.get().add(row.logits * vocab), vocab) };
                sampler::sample(logits, row, scratch, sampled);
            }
        });
        for sampler in &self.0[..rows.len().div_ceil(share)] {
            out.append(&sampler.lock().expect("nobody samples any more").1);
        }
    }
}
