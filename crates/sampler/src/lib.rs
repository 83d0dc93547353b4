//! Picks tokens from logits: processors, sampler, log probabilities. Host math over `f32` slices; a device backend
//! repeats it and is tested against it.

use contract::{Logprob, SamplingParams, TokenId};

/// One row to sample.
pub struct Row<'a> {
    /// Which row of the logits.
    pub logits: usize,
    pub params: &'a SamplingParams,
    /// Absolute position of the token to be sampled: with `params.seed`, all that the noise depends on.
    pub position: u32,
    /// Prompt, then output so far.
    pub tokens: &'a [TokenId],
    pub prompt_len: usize,
    /// Grammar mask, one bit a token; `None` allows all.
    pub mask: Option<&'a [u32]>,
}

/// Results in the order of the rows; vectors are reused.
#[derive(Clone, Debug, Default)]
pub struct Sampled {
    pub rows: Vec<SampledRow>,
    pub logprobs: Vec<Logprob>,
}

/// One row's result.
#[derive(Clone, Copy, Debug)]
pub struct SampledRow {
    pub token: TokenId,
    /// False where a logit was NaN or +infinity; `token` then means nothing.
    pub finite: bool,
    /// Into `Sampled::logprobs`: the token, then the best ones in order.
    pub logprobs: contract::Span,
}
