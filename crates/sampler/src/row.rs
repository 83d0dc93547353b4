//! What the sampler is told of one row, and what it answers.

use contract::{Logprob, SamplingParams, Span, TokenId};

use crate::Counts;

/// One row to sample, or whose known next token to judge.
pub struct Row<'a> {
    /// Which row of the logits.
    pub logits: usize,
    pub params: &'a SamplingParams,
    /// Absolute position of the token to be sampled: with `params.seed`, all that the noise depends on.
    pub position: u32,
    /// Prompt, then output so far.
    pub tokens: &'a [TokenId],
    pub prompt_len: usize,
    /// Occurrences in `tokens`, kept by the owner of the row; needed where `params` has penalties.
    pub counts: Option<&'a Counts>,
    /// Grammar mask, one bit a token; `None` allows all.
    pub mask: Option<&'a [u32]>,
    /// The token that follows in a prompt: nothing is sampled, and the log probabilities are this token's, with
    /// `params.prompt_logprobs` best ones.
    pub known: Option<TokenId>,
}

impl<'a> Row<'a> {
    /// The first token of a row that has no tokens yet, of all that there are.
    pub fn alone(logits: usize, params: &'a SamplingParams) -> Self {
        Self { logits, params, position: 0, tokens: &[], prompt_len: 0, counts: None, mask: None, known: None }
    }
}

/// Results in the order of the rows; vectors are reused.
#[derive(Clone, Debug, Default)]
pub struct Sampled {
    pub rows: Vec<SampledRow>,
    pub logprobs: Vec<Logprob>,
}

/// One row's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampledRow {
    pub token: TokenId,
    /// False where a logit was NaN or +infinity, or where no token was left to sample; `token` then means nothing.
    pub finite: bool,
    /// Into `Sampled::logprobs`: the token, then the best ones in order.
    pub logprobs: Span,
}

impl Sampled {
    /// Empties the results and keeps their memory.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.logprobs.clear();
    }

    /// Appends a row, whose log probabilities are those from `start` on; `None` is a row that could not be sampled.
    pub fn push(&mut self, token: Option<TokenId>, start: usize) {
        let logprobs = Span { start: start as u32, len: (self.logprobs.len() - start) as u32 };
        self.rows.push(SampledRow { token: token.unwrap_or(0), finite: token.is_some(), logprobs });
    }

    /// Appends the results of `other`, as when threads sample shares of the rows.
    pub fn append(&mut self, other: &Sampled) {
        let shift = self.logprobs.len() as u32;
        self.logprobs.extend_from_slice(&other.logprobs);
        self.rows.extend(other.rows.iter().map(|row| SampledRow {
            logprobs: Span { start: row.logprobs.start + shift, len: row.logprobs.len },
            ..*row
        }));
    }
}
