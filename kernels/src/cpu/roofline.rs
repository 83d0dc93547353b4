//! What this machine could do at most: the line that measured kernels are held against.

use std::hint::black_box;
use std::time::Instant;

use super::Cpu;
use super::arena::Shared;
use super::simd::{LANES, Op, Simd};

/// Peaks of all compute threads together.
#[derive(Clone, Copy, Debug)]
pub struct Peaks {
    /// Multiply-adds of signed with unsigned bytes, in 10^9 a second.
    pub int8_gmacs: f64,
    /// Multiply-adds of bf16, in 10^9 a second.
    pub bf16_gmacs: f64,
    /// Fused multiply-adds of f32, in 10^9 a second.
    pub f32_gmacs: f64,
    /// Reads from memory beyond every cache, in 10^9 bytes a second.
    pub read_gbs: f64,
}

/// Independent chains: more than latency times ports.
const CHAINS: usize = 12;
const STEPS: usize = 20_000;
/// Jobs a thread, so that a thread that loses its core for a moment leaves work to the others.
const JOBS: usize = 8;
const READ_BYTES: usize = 256 << 20;
const ROUNDS: usize = 12;

impl Cpu {
    /// Measures the peaks, in some tenths of a second; best of several rounds.
    pub fn peaks(&self) -> Peaks {
        let (pool, isa) = (&self.pool, self.isa);
        let jobs = JOBS * pool.threads();
        let mut results = vec![[0.0f32; LANES]; jobs];
        let out = Shared(results.as_mut_ptr());
        let best = |run: &dyn Fn()| (0..ROUNDS).map(|_| seconds(run)).fold(f64::INFINITY, f64::min);
        // SAFETY: `isa` is available, and each job has a result of its own.
        let int8 = best(&|| pool.run(jobs, &|job| unsafe { isa.run(Dots(out.get().add(job).cast())) }));
        // SAFETY: as above.
        let bf16 = best(&|| pool.run(jobs, &|job| unsafe { isa.run(Pairs(out.get().add(job).cast())) }));
        // SAFETY: as above.
        let f32 = best(&|| pool.run(jobs, &|job| unsafe { isa.run(Fmas(out.get().add(job).cast())) }));
        let memory = vec![1u64; READ_BYTES / 8];
        let part = memory.len().div_ceil(jobs);
        let read = best(&|| {
            pool.run(jobs, &|job| {
                black_box(
                    memory.chunks(part).nth(job).map(|part| part.iter().fold(0u64, |sum, x| sum.wrapping_add(*x))),
                );
            });
        });
        black_box(&results);
        let steps = (jobs * STEPS * CHAINS) as f64;
        Peaks {
            int8_gmacs: steps * 64.0 / int8 / 1e9,
            bf16_gmacs: steps * 2.0 * LANES as f64 / bf16 / 1e9,
            f32_gmacs: steps * LANES as f64 / f32 / 1e9,
            read_gbs: READ_BYTES as f64 / read / 1e9,
        }
    }
}

fn seconds(run: &dyn Fn()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_secs_f64()
}

/// A cache line: an operand that straddles two would halve the rate.
#[repr(align(64))]
struct Line([u8; 64]);

struct Dots(*mut f32);

impl Op for Dots {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: lanes only, and a result of sixteen.
        unsafe {
            let bytes = S::load_b(black_box(&Line([3; 64])).0.as_ptr());
            let word = black_box(0x0101_0101);
            let mut sums = [S::splat_i(0); CHAINS];
            for (idx, sum) in sums.iter_mut().enumerate() {
                // All different, or the compiler computes one.
                *sum = S::splat_i(idx as i32);
            }
            for _ in 0..STEPS {
                for sum in &mut sums {
                    *sum = S::dot_bytes(*sum, bytes, word);
                }
            }
            let total = sums.into_iter().fold(S::splat_i(0), |total, sum| S::add_i(total, sum));
            S::store(self.0, S::to_f(total));
        }
    }
}

struct Pairs(*mut f32);

impl Op for Pairs {
    const PAIRS: bool = true;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: as above.
        unsafe {
            let pairs = S::load_b(black_box(&Line([0; 64])).0.as_ptr());
            let pair = black_box(0x3f80_3f80);
            let mut sums = [S::splat(0.0); CHAINS];
            for (idx, sum) in sums.iter_mut().enumerate() {
                *sum = S::splat(idx as f32);
            }
            for _ in 0..STEPS {
                for sum in &mut sums {
                    *sum = S::dot_pairs(*sum, pairs, pair);
                }
            }
            S::store(self.0, sums.into_iter().fold(S::splat(0.0), |total, sum| S::add(total, sum)));
        }
    }
}

struct Fmas(*mut f32);

impl Op for Fmas {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: as above.
        unsafe {
            let (a, b) = (S::splat(black_box(0.5)), S::splat(black_box(1.0)));
            let mut sums = [S::splat(0.0); CHAINS];
            for (idx, sum) in sums.iter_mut().enumerate() {
                *sum = S::splat(idx as f32);
            }
            for _ in 0..STEPS {
                for sum in &mut sums {
                    *sum = S::fma(*sum, a, b);
                }
            }
            S::store(self.0, sums.into_iter().fold(S::splat(0.0), |total, sum| S::add(total, sum)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::CpuOptions;

    #[test]
    fn peaks_are_rates() {
        let peaks = Cpu::new(CpuOptions { threads: Some(2), ..CpuOptions::default() }).unwrap().peaks();
        for rate in [peaks.int8_gmacs, peaks.bf16_gmacs, peaks.f32_gmacs, peaks.read_gbs] {
            assert!(rate.is_finite() && rate > 0.0, "{peaks:?}");
        }
    }
}
