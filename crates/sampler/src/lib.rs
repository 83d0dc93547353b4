//! Picks tokens from logits: processors, sampler, log probabilities. Host math over `f32` slices; a device backend
//! repeats it and is tested against it.
//!
//! One row in: [`sample`] reads the model's logits once for faults, lets the [`processors`] change them, and picks by
//! argmax or by noise. Everything that could depend on how it is computed is exact: weights are integers, noise is a
//! hash of seed and position, ties go to the lower token. Knows no device, no batch and no text.

mod candidates;
mod counts;
mod draw;
mod exp;
mod logprobs;
mod noise;
mod pick;
mod processors;
mod row;
mod scan;

use contract::TokenId;

pub use candidates::Candidate;
pub use counts::{Count, Counts};
pub use draw::Draw;
pub use logprobs::Judged;
pub use processors::{dropped, has_penalties};
pub use row::{Row, Sampled, SampledRow};
use scan::Scan;

/// Memory that sampling reuses from row to row; one for each thread that samples.
#[derive(Debug, Default)]
pub struct Scratch {
    scan: Scan,
    /// The model's own logits, where log probabilities are wanted.
    raw: Vec<f32>,
    weights: Vec<u32>,
    candidates: Vec<Candidate>,
    /// Peaks of chunks, to select among.
    peaks: Vec<f32>,
    /// Kept weight of each chunk.
    sums: Vec<u64>,
}

/// Samples one row, or judges its known token, and appends the result to `out`. `logits [V]` are `row`'s own and are
/// overwritten. Allocates nothing once `scratch` and `out` have grown to the vocabulary.
pub fn sample(logits: &mut [f32], row: &Row<'_>, scratch: &mut Scratch, out: &mut Sampled) {
    let start = out.logprobs.len();
    let token = match row.known {
        Some(known) => judge(logits, row, known, scratch, out),
        None => choose(logits, row, scratch, out),
    };
    out.push(token, start);
}

/// The known token's log probability; `None` if the logits cannot be trusted.
fn judge(logits: &[f32], row: &Row<'_>, known: TokenId, scratch: &mut Scratch, out: &mut Sampled) -> Option<TokenId> {
    if !scratch.scan.read(logits) || known as usize >= logits.len() {
        return None;
    }
    logprobs::push(logits, known, row.params.prompt_logprobs.unwrap_or(0), scratch, &mut out.logprobs);
    Some(known)
}

/// The sampled token, with its log probabilities where they are wanted; `None` if there is none to pick.
fn choose(logits: &mut [f32], row: &Row<'_>, scratch: &mut Scratch, out: &mut Sampled) -> Option<TokenId> {
    if !scratch.scan.read(logits) {
        return None;
    }
    scratch.raw.clear();
    if row.params.logprobs.is_some() {
        scratch.raw.extend_from_slice(logits);
    }
    if processors::apply(logits, row) && !scratch.scan.read(logits) {
        return None;
    }
    let token = pick::pick(logits, row, scratch);
    if let Some(num_best) = row.params.logprobs {
        let raw = std::mem::take(&mut scratch.raw);
        scratch.scan.read(&raw);
        logprobs::push(&raw, token, num_best, scratch, &mut out.logprobs);
        scratch.raw = raw;
    }
    Some(token)
}
