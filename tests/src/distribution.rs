//! The whole distribution at every position but the last, by way of prompt log probabilities.

use contract::{Executor, TokenId};

use crate::Driver;

/// Natural log of the softmax, in f64.
pub fn log_softmax(logits: &[f32]) -> Vec<f32> {
    let max = logits.iter().copied().fold(f32::MIN, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - max).exp()).sum();
    logits.iter().map(|&logit| (f64::from(logit - max) - sum.ln()) as f32).collect()
}

/// Log probabilities of all `vocab_size` tokens after each token of `prompt` but the last.
///
/// # Panics
/// If the executor fails.
pub fn distributions(executor: &mut dyn Executor, prompt: &[TokenId], vocab_size: usize) -> Vec<Vec<f32>> {
    let positions = Driver::new(executor).prompt_logprobs(prompt, vocab_size as u32);
    assert_eq!(positions.len(), prompt.len() - 1);
    let distribution = |entries: Vec<contract::Logprob>| {
        let mut distribution = vec![f32::NAN; vocab_size];
        entries.iter().for_each(|entry| distribution[entry.token as usize] = entry.logprob);
        distribution
    };
    positions.into_iter().map(distribution).collect()
}
