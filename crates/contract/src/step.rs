//! One step's plan and its result: what crosses the seam.

use std::ops::Range;
use std::sync::Arc;

use crate::{AdapterId, BlockId, GroupId, RowId, SamplingParams, TokenId};

/// A run of entries in one of the plan's shared vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub start: u32,
    pub len: u32,
}

impl Span {
    pub fn range(self) -> Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }

    pub fn of<T>(self, items: &[T]) -> &[T] {
        &items[self.range()]
    }

    /// Appends to the shared vector and returns where.
    pub fn push<T>(items: &mut Vec<T>, new: impl IntoIterator<Item = T>) -> Span {
        let start = items.len() as u32;
        items.extend(new);
        Span { start, len: items.len() as u32 - start }
    }
}

/// What one step does, in this order: `drop`, `add`, `copies`, then the forward over `work`.
///
/// Spans point into `tokens` and `blocks`. The vectors are reused from step to step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SchedulerOutput {
    /// Counts executor losses. Results of an older epoch are discarded.
    pub epoch: u32,
    pub step: u64,
    pub drop: Vec<RowId>,
    /// New, resumed and replayed rows: one path.
    pub add: Vec<AddRow>,
    /// Fork, checkpoint, offload; done before the forward.
    pub copies: Vec<Copy>,
    pub work: Vec<RowWork>,
    pub tokens: Vec<TokenId>,
    /// Block-table entries, each with its group.
    pub blocks: Vec<(GroupId, BlockId)>,
}

impl SchedulerOutput {
    /// Empties the plan and keeps its memory.
    pub fn clear(&mut self) {
        self.drop.clear();
        self.add.clear();
        self.copies.clear();
        self.work.clear();
        self.tokens.clear();
        self.blocks.clear();
    }

    /// Nothing to tell the executor.
    pub fn is_empty(&self) -> bool {
        self.drop.is_empty() && self.add.is_empty() && self.copies.is_empty() && self.work.is_empty()
    }

    /// Tokens in the forward.
    pub fn num_tokens(&self) -> u32 {
        self.work.iter().map(|work| work.len).sum()
    }
}

/// A row comes to the device with all that is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct AddRow {
    pub row: RowId,
    /// Prompt, then output so far.
    pub tokens: Span,
    /// How many of `tokens` are prompt; penalties tell the two apart.
    pub prompt_len: u32,
    /// KV exists up to here: a prefix-cache hit, or a fork.
    pub computed: u32,
    /// The block tables so far.
    pub blocks: Span,
    pub sampling: Arc<SamplingParams>,
    pub adapter: Option<AdapterId>,
}

/// One row's share of a step: positions `start .. start + len`.
///
/// The inputs are the row's known tokens; where those end, `forced` (tokens a grammar leaves no choice in), then
/// `drafts` (speculated), and an input beyond all of them is what this row sampled last, kept by the device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowWork {
    pub row: RowId,
    pub start: u32,
    pub len: u32,
    pub forced: Span,
    pub drafts: Span,
    /// Appended to the row's block tables before the forward.
    pub new_blocks: Span,
    pub want: Want,
}

/// What a row's share of the step shall yield.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// Sample at the last position (and verify the drafts before it).
    pub sample: bool,
    /// A grammar mask arrives with `Executor::sample`.
    pub masked: bool,
    /// Log probabilities of the known tokens that follow each position.
    pub prompt_logprobs: bool,
    pub pool: Option<PoolKind>,
}

/// How hidden states become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolKind {
    Last,
    Mean,
    Cls,
}

/// One block's contents to another block of the same group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    pub id: u32,
    pub group: GroupId,
    pub from: BlockId,
    pub to: BlockId,
}

/// What came of one step. Spans point into the vectors, which are reused.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelRunnerOutput {
    pub epoch: u32,
    pub step: u64,
    /// One per `RowWork` that wanted something, in the plan's order.
    pub rows: Vec<RowOut>,
    pub copies_done: Vec<u32>,
    pub tokens: Vec<TokenId>,
    pub logprobs: Vec<Logprob>,
    pub floats: Vec<f32>,
    /// Time the step took on the device, in microseconds; the engine fits the step budget from it.
    pub elapsed_us: u32,
}

impl ModelRunnerOutput {
    /// Empties the result and keeps its memory.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.copies_done.clear();
        self.tokens.clear();
        self.logprobs.clear();
        self.floats.clear();
        self.elapsed_us = 0;
    }
}

/// One row's result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowOut {
    pub row: RowId,
    pub outcome: Outcome,
    /// Sampled tokens: none, one, or one more than the accepted drafts.
    pub tokens: Span,
    /// Drafts for the row's next step.
    pub drafts: Span,
    /// Of each prompt position asked for, then of each sampled token: the token itself, then the best ones in order.
    pub logprobs: Span,
    /// Into `floats`.
    pub pooled: Span,
}

/// Whether a row's logits can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    /// A NaN or infinity reached the logits; the row fails alone, and its blocks are never hashed.
    NonFinite,
}

/// A token's natural-log probability, after the row's logits processors and temperature are left out: the model's own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Logprob {
    pub token: TokenId,
    pub logprob: f32,
    /// 1 for the likeliest token.
    pub rank: u32,
}
