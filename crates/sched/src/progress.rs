//! What the scheduler tells its caller about sequences: plain data, in the order in which it happened.

use contract::{Span, TokenId};

use crate::SequenceId;

/// One thing that happened to one sequence. Spans point into the `ModelRunnerOutput` that brought the news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The sequence has its first row; `cached` tokens of its prompt were found in the prefix cache.
    Started { id: SequenceId, cached: u32 },
    /// Log probabilities of the prompt tokens that follow the last ones reported.
    Prompt { id: SequenceId, logprobs: Span },
    /// The sequence grew by a token.
    Token { id: SequenceId, token: TokenId, logprobs: Span, end: Option<End> },
    /// The sequence ended without a further token.
    Ended { id: SequenceId, end: End },
    /// The sequence is gone; nobody else is touched.
    Failed { id: SequenceId, why: Why },
}

/// Why a sequence is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It sampled one of its stop tokens.
    Stop,
    /// It reached its own limit or the model's.
    Length,
}

/// Why a sequence failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its logits were not finite.
    NonFinite,
    /// The executor refused a step that it was part of.
    Refused,
    /// It was part of several steps in which the executor lost its state.
    Lost,
}
