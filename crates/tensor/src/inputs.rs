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
    /// [S] the device row of each sequence, or [`StepInputs::NO_ROW`].
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
    /// The row of a sequence that only fills up a step.
    pub const NO_ROW: u32 = u32::MAX;

    pub fn num_tokens(&self) -> usize {
        self.token_ids.len()
    }

    pub fn num_seqs(&self) -> usize {
        self.seq_lens.len()
    }

    pub fn num_logit_rows(&self) -> usize {
        self.logit_tokens.len()
    }

    /// Whether every sequence has one token, whose logits are wanted.
    pub fn is_decode(&self) -> bool {
        let wanted = self.logit_tokens.iter().enumerate().all(|(idx, &token)| idx == token as usize);
        wanted && self.logit_tokens.len() == self.num_seqs() && self.num_tokens() == self.num_seqs()
    }

    /// Fills a decode step up to `num_seqs` sequences. Each of the new ones has token 0 at position 0, writes nothing, and reads
    /// the null block.
    pub fn pad(&mut self, num_seqs: usize) {
        for seq in self.num_seqs()..num_seqs {
            self.token_ids.push(0);
            self.positions.push(0);
            self.rows.push(Self::NO_ROW);
            self.cu_seqlens_q.push(seq as u32 + 1);
            self.seq_lens.push(1);
            self.logit_tokens.push(seq as u32);
            for group in &mut self.groups {
                group.slot_mapping.push(GroupInputs::SKIP);
                group.block_tables.resize(group.block_tables.len() + group.stride, 0);
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(num_seqs: u32) -> StepInputs {
        let groups = vec![GroupInputs { slot_mapping: vec![35; 2], block_tables: vec![1, 2, 3, 4], stride: 2 }];
        StepInputs {
            token_ids: vec![7; num_seqs as usize],
            positions: vec![3; num_seqs as usize],
            rows: (0..num_seqs).collect(),
            cu_seqlens_q: (0..=num_seqs).collect(),
            seq_lens: vec![4; num_seqs as usize],
            logit_tokens: (0..num_seqs).collect(),
            groups,
        }
    }

    #[test]
    fn padding_writes_nothing_and_reads_the_null_block() {
        let mut inputs = decode(2);
        inputs.pad(4);
        assert!(inputs.is_decode() && inputs.num_seqs() == 4);
        assert_eq!(inputs.groups[0].slot_mapping[2..], [GroupInputs::SKIP; 2]);
        assert_eq!((inputs.groups[0].table(1), inputs.groups[0].table(3)), (&[3, 4][..], &[0, 0][..]));
        assert_eq!((inputs.rows[3], inputs.positions[3], inputs.seq_lens[3]), (StepInputs::NO_ROW, 0, 1));
    }

    #[test]
    fn a_step_that_decodes_has_a_token_and_a_row_of_logits_a_sequence() {
        let spoil: [fn(&mut StepInputs); 4] = [
            |inputs| inputs.logit_tokens[1] = 0,
            |inputs| inputs.logit_tokens.truncate(1),
            |inputs| inputs.token_ids.push(1),
            |inputs| inputs.seq_lens.truncate(1),
        ];
        assert!(decode(2).is_decode());
        for spoil in spoil {
            let mut inputs = decode(2);
            spoil(&mut inputs);
            assert!(!inputs.is_decode(), "{inputs:?}");
        }
    }
}
