//! Flattens a plan into the arrays of a step, and remembers which logits row belongs to whom.

use contract::{RowId, RowWork, SchedulerOutput, SlotMapping};
use tensor::{GroupInputs, StepInputs};

use crate::rows::Rows;

/// One step, flattened. Reused from step to step.
pub(crate) struct InputBatch {
    pub inputs: StepInputs,
    /// Rows that wanted something, in the plan's order.
    pub wanted: Vec<Wanted>,
    mappings: Vec<SlotMapping>,
}

/// Where one row's logits are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub row: RowId,
    /// First of its logits rows: those of prompt positions, then the one to sample.
    pub first_logits: usize,
    /// Prompt positions to judge; the first judges token `first_known`.
    pub num_known: usize,
    pub first_known: usize,
    /// Position of the token to sample.
    pub sample: Option<u32>,
    pub masked: bool,
}

impl InputBatch {
    /// Room for the largest step: `max_tokens`, `max_seqs`, and block tables for `max_model_len` tokens.
    pub fn new(block_sizes: &[u32], max_tokens: usize, max_seqs: usize, max_model_len: u32) -> Self {
        let mappings: Vec<SlotMapping> = block_sizes.iter().map(|&size| SlotMapping::new(size)).collect();
        let group = |mapping: &SlotMapping| GroupInputs {
            slot_mapping: Vec::with_capacity(max_tokens),
            block_tables: Vec::with_capacity(max_seqs * mapping.num_blocks(max_model_len) as usize),
            stride: 0,
        };
        let inputs = StepInputs {
            token_ids: Vec::with_capacity(max_tokens),
            positions: Vec::with_capacity(max_tokens),
            rows: Vec::with_capacity(max_seqs),
            cu_seqlens_q: Vec::with_capacity(max_seqs + 1),
            seq_lens: Vec::with_capacity(max_seqs),
            logit_tokens: Vec::with_capacity(max_tokens),
            groups: mappings.iter().map(group).collect(),
        };
        Self { inputs, wanted: Vec::with_capacity(max_seqs), mappings }
    }

    /// Fills the arrays from `plan`, which was checked; `rows` hold its changes already.
    pub fn fill(&mut self, plan: &SchedulerOutput, rows: &Rows) {
        self.inputs.clear();
        self.wanted.clear();
        self.inputs.cu_seqlens_q.push(0);
        for work in &plan.work {
            self.push_tokens(work, rows);
            self.push_wanted(work, rows);
        }
        self.push_tables(plan, rows);
    }

    fn push_tokens(&mut self, work: &RowWork, rows: &Rows) {
        let row = rows.get(work.row);
        let positions = work.start..work.start + work.len;
        self.inputs.token_ids.extend_from_slice(&row.tokens[positions.start as usize..positions.end as usize]);
        self.inputs.positions.extend(positions.clone());
        self.inputs.rows.push(work.row.0);
        self.inputs.cu_seqlens_q.push(self.inputs.positions.len() as u32);
        self.inputs.seq_lens.push(positions.end);
        for (group, mapping) in self.mappings.iter().enumerate() {
            let slots = positions.clone().map(|position| mapping.slot(row.table(group), position).0);
            self.inputs.groups[group].slot_mapping.extend(slots);
        }
    }

    fn push_wanted(&mut self, work: &RowWork, rows: &Rows) {
        let prompt_len = rows.get(work.row).prompt_len as u32;
        let end = work.start + work.len;
        let known = match work.want.prompt_logprobs {
            true => work.start..end.min(prompt_len.saturating_sub(1)).max(work.start),
            false => work.start..work.start,
        };
        if known.is_empty() && !work.want.sample {
            return;
        }
        let first_token = self.inputs.token_ids.len() as u32 - work.len;
        self.wanted.push(Wanted {
            row: work.row,
            first_logits: self.inputs.logit_tokens.len(),
            num_known: known.len(),
            first_known: known.start as usize + 1,
            sample: work.want.sample.then_some(end),
            masked: work.want.masked,
        });
        self.inputs.logit_tokens.extend(known.map(|position| first_token + position - work.start));
        self.inputs.logit_tokens.extend(work.want.sample.then_some(first_token + work.len - 1));
    }

    /// Block tables side by side, as wide as the widest.
    fn push_tables(&mut self, plan: &SchedulerOutput, rows: &Rows) {
        for (idx, group) in self.inputs.groups.iter_mut().enumerate() {
            let tables = || plan.work.iter().map(|work| rows.get(work.row).table(idx));
            group.stride = tables().map(<[_]>::len).max().unwrap_or(0);
            for table in tables() {
                let filled = group.block_tables.len() + group.stride;
                group.block_tables.extend(table.iter().map(|block| block.0));
                group.block_tables.resize(filled, 0);
            }
        }
    }
}
