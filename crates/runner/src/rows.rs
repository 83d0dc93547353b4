//! What the device keeps of each running sequence: tokens, counts, block tables, sampling.

use std::sync::Arc;

use contract::{AddRow, BlockId, BlockTable, GroupId, RowId, SamplingParams, SchedulerOutput, Span, TokenId};
use sampler::Counts;

/// One sequence's place. Slots are reused; their vectors keep their memory.
#[derive(Default)]
pub(crate) struct Row {
    /// Prompt, then output so far.
    pub tokens: Vec<TokenId>,
    pub prompt_len: usize,
    /// One per KV group.
    pub tables: Vec<BlockTable>,
    pub counts: Counts,
    /// `None` while the slot is free.
    pub sampling: Option<Arc<SamplingParams>>,
}

/// All places, by [`RowId`].
pub(crate) struct Rows {
    rows: Vec<Row>,
    max_model_len: usize,
    max_blocks: u32,
}

impl Rows {
    pub fn new(max_rows: u32, num_groups: usize, max_model_len: u32, block_size: u32) -> Self {
        let empty = || Row { tables: vec![BlockTable::default(); num_groups], ..Row::default() };
        Self {
            rows: (0..max_rows).map(|_| empty()).collect(),
            max_model_len: max_model_len as usize,
            max_blocks: max_model_len.div_ceil(block_size),
        }
    }

    pub fn get(&self, row: RowId) -> &Row {
        &self.rows[row.idx()]
    }

    pub fn drop_row(&mut self, row: RowId) {
        let row = &mut self.rows[row.idx()];
        row.sampling = None;
        row.tokens.clear();
        row.counts.clear();
        row.tables.iter_mut().for_each(BlockTable::clear);
    }

    pub fn clear(&mut self) {
        (0..self.rows.len() as u32).for_each(|row| self.drop_row(RowId(row)));
    }

    pub fn add(&mut self, add: &AddRow, plan: &SchedulerOutput) {
        self.drop_row(add.row);
        let max_model_len = self.max_model_len;
        let row = &mut self.rows[add.row.idx()];
        row.tokens.reserve(max_model_len + 1);
        row.tables.iter_mut().for_each(|table| table.reserve(self.max_blocks));
        row.tokens.extend_from_slice(add.tokens.of(&plan.tokens));
        row.prompt_len = add.prompt_len as usize;
        if sampler::has_penalties(&add.sampling) {
            row.counts.rebuild(&row.tokens, row.prompt_len, max_model_len);
        }
        row.sampling = Some(Arc::clone(&add.sampling));
        self.extend_tables(add.row, add.blocks, plan);
    }

    pub fn extend_tables(&mut self, row: RowId, blocks: Span, plan: &SchedulerOutput) {
        let tables = &mut self.rows[row.idx()].tables;
        for &(GroupId(group), block) in blocks.of(&plan.blocks) {
            tables[group as usize].extend([block]);
        }
    }

    pub fn push_forced(&mut self, row: RowId, tokens: &[TokenId]) {
        tokens.iter().for_each(|&token| self.push_output(row, token));
    }

    /// One more token of output.
    pub fn push_output(&mut self, row: RowId, token: TokenId) {
        let row = &mut self.rows[row.idx()];
        row.tokens.push(token);
        if row.sampling.as_ref().is_some_and(|sampling| sampler::has_penalties(sampling)) {
            row.counts.push_output(token);
        }
    }
}

impl Row {
    pub fn table(&self, group: usize) -> &[BlockId] {
        self.tables[group].as_slice()
    }
}
