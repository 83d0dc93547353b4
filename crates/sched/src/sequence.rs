//! Sequence: one token stream being generated, as a state that owns its data.
//!
//! ```text
//!   Waiting ──start──► Running ──finish──► (gone)
//!      ▲                  │
//!      └────preempt───────┘        the stream goes on; row and blocks do not
//! ```
//!
//! A [`Stream`] is what survives every state. A transition takes its state by value.

use std::sync::Arc;

use contract::{AdapterId, RowId, SamplingParams, TokenId};

use crate::kv::{Chains, Tables};

/// A sequence's name and its rank at once: smaller ones are served first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId {
    /// 0 for all under the FCFS policy.
    pub rank: i32,
    /// The request, numbered in the order of arrival.
    pub request: u64,
    /// Which of the request's choices.
    pub index: u32,
}

impl SequenceId {
    /// The choice whose prefill the others wait for.
    pub fn leader(self) -> Self {
        Self { index: 0, ..self }
    }
}

/// What a sequence is, wherever it is.
pub(crate) struct Stream {
    pub id: SequenceId,
    /// Prompt, then output.
    pub tokens: Vec<TokenId>,
    pub prompt_len: u32,
    /// Prompt and output at the most.
    pub max_len: u32,
    pub sampling: Arc<SamplingParams>,
    pub adapter: Option<AdapterId>,
    pub chains: Chains,
    /// Prompt positions whose log probabilities were reported.
    pub prompt_reported: u32,
    pub started: bool,
    /// Steps of this sequence in which the executor lost its state.
    pub losses: u32,
}

impl Stream {
    pub fn len(&self) -> u32 {
        self.tokens.len() as u32
    }

    pub fn output_len(&self) -> u32 {
        self.len() - self.prompt_len
    }

    /// Takes the memory that it will grow into.
    pub fn reserve(&mut self) {
        let max_len = self.max_len as usize;
        self.tokens.reserve(max_len.saturating_sub(self.tokens.len()));
        self.chains.reserve(max_len);
    }

    /// Prompt positions whose log probabilities the client wants: all that a known prompt token follows.
    pub fn prompt_positions(&self) -> u32 {
        if self.sampling.prompt_logprobs.is_some() && self.id.index == 0 { self.prompt_len - 1 } else { 0 }
    }

    /// Whether log probabilities of the prompt are still to come, so that its logits are needed and not only its KV.
    pub fn wants_prompt(&self) -> bool {
        self.prompt_reported < self.prompt_positions()
    }
}

pub(crate) struct Waiting {
    pub stream: Stream,
}

pub(crate) struct Running {
    pub stream: Stream,
    pub row: RowId,
    /// Tells this stay on the device from an earlier one, whose results may still be under way.
    pub stay: u64,
    pub tables: Tables,
    /// KV exists up to here once all steps in flight are done.
    pub computed: u32,
    /// Sampled tokens in flight: the device knows them, we do not.
    pub pending: u32,
}

impl Waiting {
    pub fn start(self, row: RowId, stay: u64, tables: Tables, computed: u32) -> Running {
        Running { stream: self.stream, row, stay, tables, computed, pending: 0 }
    }
}

impl Running {
    /// Known and pending tokens: what `computed` chases.
    pub fn target(&self) -> u32 {
        self.stream.len() + self.pending
    }

    /// Tokens that wait for their KV. None if a token in flight is the last one for sure.
    pub fn remaining(&self) -> u32 {
        let is_last = self.pending > 0 && self.target() >= self.stream.max_len;
        if is_last { 0 } else { self.target() - self.computed }
    }

    /// Gives row and blocks up; tokens in flight are sampled again, alike.
    pub fn preempt(self) -> (Waiting, Tables) {
        (Waiting { stream: self.stream }, self.tables)
    }
}
