//! The best tokens of a row, found without sorting the vocabulary.
//!
//! The k-th greatest peak of the chunks is a lower bound of the k-th greatest logit. So a handful of chunks hold all
//! candidates, and only those are ordered.

use contract::TokenId;

use crate::scan::{CHUNK, Scan};

/// A token with its processed logit, as one number: better ones are smaller, ties go by token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate(u64);

impl Candidate {
    /// The candidate that a device found, by its number.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub fn new(logit: f32, token: TokenId) -> Self {
        let bits = (logit + 0.0).to_bits();
        let descending = if bits >> 31 == 1 { bits } else { !bits & !SIGN };
        Self(u64::from(descending) << 32 | u64::from(token))
    }

    pub fn logit(self) -> f32 {
        let descending = (self.0 >> 32) as u32;
        f32::from_bits(if descending & SIGN != 0 { descending } else { !descending & !SIGN })
    }

    pub fn token(self) -> TokenId {
        self.0 as u32
    }
}

const SIGN: u32 = 1 << 31;

/// Fills `out` with the tokens whose logit is at least `floor`, in token order.
pub fn gather(logits: &[f32], scan: &Scan, floor: f32, out: &mut Vec<Candidate>) {
    out.clear();
    for (idx, chunk) in logits.chunks(CHUNK).enumerate().filter(|&(idx, _)| scan.peaks[idx] >= floor) {
        let mut end = out.len();
        out.resize(end + chunk.len(), Candidate(0));
        for (&logit, token) in chunk.iter().zip((idx * CHUNK) as TokenId..) {
            out[end] = Candidate::new(logit, token);
            end += usize::from(logit >= floor);
        }
        out.truncate(end);
    }
}

/// Fills `out` with the `k` best tokens, the last of them at the end and the others before it in no order.
pub fn gather_best(logits: &[f32], scan: &Scan, k: usize, peaks: &mut Vec<f32>, out: &mut Vec<Candidate>) {
    let k = k.min(logits.len());
    gather(logits, scan, floor_of_best(scan, k, peaks), out);
    if k > 0 {
        out.select_nth_unstable(k - 1);
    }
    out.truncate(k);
}

/// A logit that at least `k` tokens reach.
fn floor_of_best(scan: &Scan, k: usize, peaks: &mut Vec<f32>) -> f32 {
    if k == 0 || k > scan.peaks.len() {
        return f32::NEG_INFINITY;
    }
    peaks.clear();
    peaks.extend_from_slice(&scan.peaks);
    *peaks.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1
}

/// How many of the best candidates together weigh at least `target`, which all together do. Brings these to the
/// front, the last of them at their end.
pub fn smallest_heap(candidates: &mut [Candidate], weights: &[u32], mut target: u64) -> usize {
    let (mut start, mut end) = (0, candidates.len());
    while end - start > 1 {
        let half = (end - start) / 2;
        candidates[start..end].select_nth_unstable(half);
        let best = &candidates[start..start + half];
        let mass: u64 = best.iter().map(|best| u64::from(weights[best.token() as usize])).sum();
        if mass >= target {
            end = start + half;
        } else {
            (start, target) = (start + half, target - mass);
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_order_by_falling_logit_then_token() {
        let logits = [f32::MAX, 2.0, 1e-40, 0.0, -0.0, -1e-40, -2.0, f32::MIN, f32::NEG_INFINITY];
        let candidates: Vec<_> = logits.iter().zip(0..).map(|(&logit, token)| Candidate::new(logit, token)).collect();
        assert!(candidates.is_sorted());
        for (candidate, (&logit, token)) in candidates.iter().zip(logits.iter().zip(0..)) {
            assert_eq!((candidate.logit(), candidate.token()), (logit, token));
        }
    }
}
