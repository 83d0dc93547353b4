//! What the simulated device holds: rows, block tables, and one integer per KV slot. Checks what it is told to do with
//! them.

use std::sync::Arc;

use contract::{
    AddRow, BlockId, GroupId, KvCapacity, RowId, RowWork, SamplingParams, SchedulerOutput, SlotMapping, TokenId,
};

use crate::model::{self, POISON, State, Tag};

/// Rows and KV memory; a new one has no rows, and poison in every slot.
pub(crate) struct Device {
    mappings: Vec<SlotMapping>,
    /// Per group.
    pools: Vec<usize>,
    /// Per group, one integer per slot of its pool.
    slots: Vec<Vec<u64>>,
    /// Per pool, how many table entries name each block.
    holders: Vec<Vec<u32>>,
    rows: Vec<Option<Row>>,
    is_tagged: bool,
}

pub(crate) struct Row {
    /// Known and sampled.
    pub tokens: Vec<TokenId>,
    pub prompt_len: u32,
    pub computed: u32,
    tables: Vec<Vec<BlockId>>,
    pub sampling: Arc<SamplingParams>,
    pub tag: Tag,
}

impl Device {
    pub fn new(capacity: &KvCapacity, is_tagged: bool) -> Self {
        let num_slots = |group: &contract::Group| capacity.pools[group.pool.idx()].blocks * group.block_size;
        Self {
            mappings: capacity.groups.iter().map(|group| SlotMapping::new(group.block_size)).collect(),
            pools: capacity.groups.iter().map(|group| group.pool.idx()).collect(),
            slots: capacity.groups.iter().map(|group| vec![POISON; num_slots(group) as usize]).collect(),
            holders: capacity.pools.iter().map(|pool| vec![0; pool.blocks as usize]).collect(),
            rows: (0..capacity.max_rows).map(|_| None).collect(),
            is_tagged,
        }
    }

    pub fn row(&self, row: RowId) -> Option<&Row> {
        self.rows[row.idx()].as_ref()
    }

    pub fn drop_row(&mut self, row: RowId) {
        let row = self.rows[row.idx()].take().unwrap_or_else(|| panic!("{row:?} is dropped and was never added"));
        for (group, blocks) in row.tables.iter().enumerate() {
            blocks.iter().for_each(|&block| *self.holder(group, block) -= 1);
        }
    }

    pub fn add_row(&mut self, add: &AddRow, plan: &SchedulerOutput) {
        let tokens = add.tokens.of(&plan.tokens).to_vec();
        assert!(self.rows[add.row.idx()].is_none(), "{:?} is added twice", add.row);
        assert!(add.computed < tokens.len() as u32, "{:?} has nothing left to compute", add.row);
        assert!((1..=tokens.len() as u32).contains(&add.prompt_len), "{:?} has an impossible prompt", add.row);
        let tag = if self.is_tagged { Tag::of(add.sampling.seed) } else { Tag::default() };
        let tables = vec![Vec::new(); self.mappings.len()];
        let sampling = Arc::clone(&add.sampling);
        let row = Row { tokens, prompt_len: add.prompt_len, computed: add.computed, tables, sampling, tag };
        self.rows[add.row.idx()] = Some(row);
        self.grow(add.row, add.blocks.of(&plan.blocks));
    }

    pub fn grow(&mut self, row: RowId, blocks: &[(GroupId, BlockId)]) {
        for &(group, block) in blocks {
            assert!(!block.is_null(), "{row:?} is given the null block");
            *self.holder(group.idx(), block) += 1;
            self.row_mut(row).tables[group.idx()].push(block);
        }
    }

    fn holder(&mut self, group: usize, block: BlockId) -> &mut u32 {
        &mut self.holders[self.pools[group]][block.idx()]
    }

    pub fn row_mut(&mut self, row: RowId) -> &mut Row {
        self.rows[row.idx()].as_mut().unwrap_or_else(|| panic!("{row:?} has work and was never added"))
    }

    pub fn write(&mut self, work: &RowWork) {
        let row = self.rows[work.row.idx()].as_ref().expect("the caller has seen the row");
        for (group, (mapping, blocks)) in self.mappings.iter().zip(&row.tables).enumerate() {
            let holders = &self.holders[self.pools[group]];
            for position in work.start..work.start + work.len {
                let slot = mapping.slot(blocks, position);
                let holders = holders[blocks[mapping.block_idx(position)].idx()];
                assert_eq!(holders, 1, "{:?} writes position {position} where others read", work.row);
                let kv = model::kv(row.tokens[position as usize], position, row.tag.tenant, group);
                self.slots[group][slot.idx()] = if row.tag.is_poisoned_at(position) { POISON } else { kv };
            }
        }
    }

    /// What positions `first .. end` have read: everything up to and including themselves.
    pub fn read(&self, row: &Row, first: u32, end: u32) -> Vec<u64> {
        let mut states = vec![State::default(); self.mappings.len()];
        let mut joined = Vec::with_capacity((end - first) as usize);
        for position in 0..end {
            for (group, state) in states.iter_mut().enumerate() {
                state.read(self.slots[group][self.mappings[group].slot(&row.tables[group], position).idx()]);
            }
            if position >= first {
                joined.push(State::join(states.iter().copied()));
            }
        }
        joined
    }
}
