//! Log probabilities of the model's own distribution: the log-softmax of logits that nothing has changed.

use contract::{Logprob, TokenId};

use crate::Scratch;
use crate::candidates;
use crate::exp::exp;
use crate::scan::CHUNK;

/// Appends `token`'s log probability, then those of the `num_best` likeliest in order. `scratch.scan` has just read
/// `logits` and found them sound.
pub fn push(logits: &[f32], token: TokenId, num_best: u32, scratch: &mut Scratch, out: &mut Vec<Logprob>) {
    let Scratch { scan, peaks, candidates, .. } = scratch;
    let norm = scan.peak + log_sum_exp(logits, scan.peak);
    let own = logits[token as usize];
    out.push(Logprob { token, logprob: own - norm, rank: rank(logits, own, token) });
    candidates::gather_best(logits, scan, num_best as usize, peaks, candidates);
    candidates.sort_unstable();
    out.extend(candidates.iter().zip(1..).map(|(best, rank)| Logprob {
        token: best.token(),
        logprob: best.logit() - norm,
        rank,
    }));
}

/// `ln(sum(e^(logit - peak)))`, at least 0. Each chunk in lanes, then the chunks in order: one schedule for all.
fn log_sum_exp(logits: &[f32], peak: f32) -> f32 {
    const LANES: usize = 16;
    let sum_of_chunk = |chunk: &[f32]| {
        let mut sums = [0.0f32; LANES];
        let (full, rest) = chunk.as_chunks::<LANES>();
        for part in full {
            for lane in 0..LANES {
                sums[lane] += exp(part[lane] - peak);
            }
        }
        sums.into_iter().chain(rest.iter().map(|&logit| exp(logit - peak))).map(f64::from).sum::<f64>()
    };
    logits.chunks(CHUNK).map(sum_of_chunk).sum::<f64>().ln() as f32
}

/// 1 for the likeliest token; ties rank by token.
fn rank(logits: &[f32], own: f32, token: TokenId) -> u32 {
    let greater = logits.iter().map(|&logit| u32::from(logit > own)).sum::<u32>();
    let ties = logits[..token as usize].iter().map(|&logit| u32::from(logit == own)).sum::<u32>();
    1 + greater + ties
}
