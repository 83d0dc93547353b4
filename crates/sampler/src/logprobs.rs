//! Log probabilities of the model's own distribution: the log-softmax of logits that nothing has changed.

use contract::{Logprob, TokenId};

use crate::Scratch;
use crate::candidates::{self, Candidate};
use crate::exp::{exp, fine, ln_fine};

/// What a pass over a row's logits finds, and all that log probabilities are made of.
#[derive(Clone, Copy, Debug)]
pub struct Judged<'a> {
    pub token: TokenId,
    /// The token's own logit.
    pub logit: f32,
    /// 1 for the likeliest token; ties rank by token.
    pub rank: u32,
    /// The greatest logit.
    pub peak: f32,
    /// The sum of `e^(logit - peak)` over the row, each in units of 2^-40: exact in any order.
    pub sum: u64,
    /// The likeliest tokens in order.
    pub best: &'a [Candidate],
}

impl Judged<'_> {
    /// Appends the token's log probability, then those of the best ones.
    pub fn push(&self, out: &mut Vec<Logprob>) {
        let norm = self.peak + ln_fine(self.sum);
        let logprob = |token, logit: f32, rank| Logprob { token, logprob: logit - norm, rank };
        out.push(logprob(self.token, self.logit, self.rank));
        out.extend(self.best.iter().zip(1..).map(|(best, rank)| logprob(best.token(), best.logit(), rank)));
    }
}

/// Appends `token`'s log probability, then those of the `num_best` likeliest in order. `scratch.scan` has just read
/// `logits` and found them sound.
pub fn push(logits: &[f32], token: TokenId, num_best: u32, scratch: &mut Scratch, out: &mut Vec<Logprob>) {
    let Scratch { scan, peaks, candidates, .. } = scratch;
    candidates::gather_best(logits, scan, num_best as usize, peaks, candidates);
    candidates.sort_unstable();
    let (peak, logit) = (scan.peak, logits[token as usize]);
    let sum = logits.iter().map(|&logit| fine(exp(logit - peak))).sum();
    Judged { token, logit, rank: rank(logits, logit, token), peak, sum, best: candidates }.push(out);
}

fn rank(logits: &[f32], own: f32, token: TokenId) -> u32 {
    let greater = logits.iter().map(|&logit| u32::from(logit > own)).sum::<u32>();
    let ties = logits[..token as usize].iter().map(|&logit| u32::from(logit == own)).sum::<u32>();
    1 + greater + ties
}
