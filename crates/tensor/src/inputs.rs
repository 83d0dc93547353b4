//! One step flattened to arrays; what the runner uploads and the backend's ops read.
//!
//! Shape letters: T tokens, S sequences in the step, R logit rows.

/// Inputs of one step. The vectors are reused from step to step and never shrink.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct StepInputs {
    /// [T] token ids, or [`StepInputs::SAMPLED`] for "what the row sampled last", kept by the device.
    pub token_ids: Vec<u32>,
    /// [T] absolute positions.
    pub positions: Vec<u32>,
    /// [S] the device row of each sequence.
    pub rows: Vec<u32>,
    /// [S + 1] where each sequence's tokens start.
    pub cu_seqlens_q: Vec<u32>,
    /// [S] context length once this step's tokens are written.
    pub seq_lens: Vec<u32>,
    /// [R] indices into T whose logits are wanted, ascending.
    pub logit_tokens: Vec<u32>,
    /// One per KV group.
    pub groups: Vec<GroupInputs>,
}

/// One KV group's addresses.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct GroupInputs {
    /// [T] where each token's K and V go: block * block_size + offset. [`GroupInputs::SKIP`] marks padding: it is not
    /// written, and what attention yields for it is undefined.
    pub slot_mapping: Vec<u32>,
    /// [S, stride] block ids, row-major, unused entries 0 (the null block).
    pub block_tables: Vec<u32>,
    pub stride: usize,
}

impl StepInputs {
    pub const SAMPLED: u32 = u32::MAX;

    pub fn num_tokens(&self) -> usize {
        self.token_ids.len()
    }

    pub fn num_seqs(&self) -> usize {
        self.seq_lens.len()
    }

    pub fn num_logit_rows(&self) -> usize {
        self.logit_tokens.len()
    }

    /// Empties the inputs and keeps their memory.
    pub fn clear(&mut self) {
        self.token_ids.clear();
        self.positions.clear();
        self.rows.clear();
        self.cu_seqlens_q.clear();
        self.seq_lens.clear();
        self.logit_tokens.clear();
        for group in &mut self.groups {
            group.slot_mapping.clear();
            group.block_tables.clear();
        }
    }
}

impl GroupInputs {
    pub const SKIP: u32 = u32::MAX;

    /// The block table of sequence `seq`.
    pub fn table(&self, seq: usize) -> &[u32] {
        &self.block_tables[seq * self.stride..(seq + 1) * self.stride]
    }
}

/// By hand, as `clone_from` shall keep the memory: a backend takes the inputs of every step.
impl Clone for StepInputs {
    fn clone(&self) -> Self {
        let mut clone = Self::default();
        clone.clone_from(self);
        clone
    }

    fn clone_from(&mut self, from: &Self) {
        self.token_ids.clone_from(&from.token_ids);
        self.positions.clone_from(&from.positions);
        self.rows.clone_from(&from.rows);
        self.cu_seqlens_q.clone_from(&from.cu_seqlens_q);
        self.seq_lens.clone_from(&from.seq_lens);
        self.logit_tokens.clone_from(&from.logit_tokens);
        self.groups.clone_from(&from.groups);
    }
}

impl Clone for GroupInputs {
    fn clone(&self) -> Self {
        let mut clone = Self::default();
        clone.clone_from(self);
        clone
    }

    fn clone_from(&mut self, from: &Self) {
        self.slot_mapping.clone_from(&from.slot_mapping);
        self.block_tables.clone_from(&from.block_tables);
        self.stride = from.stride;
    }
}
