//! Picks tokens from logits: processors, sampler, log probabilities. Host math over `f32` slices; a device backend
//! repeats it and is tested against it.

mod counts;
mod row;

pub use counts::{Count, Counts};
pub use row::{Row, Sampled, SampledRow};

/// Memory that sampling reuses from row to row; one for each thread that samples.
#[derive(Debug, Default)]
pub struct Scratch {}

/// Samples one row: appends its result to `out`. `logits [V]` are `row`'s own and are overwritten. Allocates nothing
/// once `scratch` and `out` have grown to the vocabulary.
pub fn sample(logits: &mut [f32], row: &Row<'_>, _scratch: &mut Scratch, out: &mut Sampled) {
    let best = |best: usize, idx: usize| if logits[idx] > logits[best] { idx } else { best };
    let token = row.known.unwrap_or((1..logits.len()).fold(0, best) as u32);
    let logprobs = contract::Span { start: out.logprobs.len() as u32, len: 0 };
    out.rows.push(SampledRow { token, finite: logits.iter().all(|&logit| logit < f32::INFINITY), logprobs });
}
