//! What is wrong with a plan, found before anything is changed: a refused step leaves no trace.
//!
//! The scheduler never makes such a plan. But a wrong one would reach past a row's tokens or another's memory, so it is
//! looked at here, once, in the cost of a few comparisons a row.

use contract::{AddRow, GroupId, KvCapacity, Masks, RowId, RowWork, SchedulerOutput, SlotMapping};

use crate::rows::Rows;

/// A plan, and what it must fit.
pub(crate) struct Check<'a> {
    pub plan: &'a SchedulerOutput,
    pub rows: &'a Rows,
    pub capacity: &'a KvCapacity,
    pub vocab_size: usize,
    pub epoch: u32,
}

impl Check<'_> {
    pub fn run(&self) -> Result<(), String> {
        require(self.plan.epoch == self.epoch, || {
            format!("the plan is of epoch {}, the device is in {}", self.plan.epoch, self.epoch)
        })?;
        self.plan.drop.iter().try_for_each(|&row| self.row(row))?;
        self.plan.add.iter().try_for_each(|add| self.add(add))?;
        self.copies()?;
        self.blocks()?;
        self.tokens()?;
        self.plan.work.iter().enumerate().try_for_each(|(idx, work)| self.work(idx, work))?;
        self.sizes()
    }

    fn row(&self, row: RowId) -> Result<(), String> {
        let max_rows = self.capacity.max_rows;
        require(row.0 < max_rows, || format!("row {} is beyond the {max_rows} there are", row.0))
    }

    fn add(&self, add: &AddRow) -> Result<(), String> {
        self.row(add.row)?;
        require(add.prompt_len <= add.tokens.len, || {
            format!("row {} has {} tokens, {} of them prompt", add.row.0, add.tokens.len, add.prompt_len)
        })?;
        require(add.adapter.is_none(), || "this executor has no adapters".to_owned())
    }

    fn copies(&self) -> Result<(), String> {
        self.plan.copies.iter().try_for_each(|copy| {
            self.block(copy.group, copy.from.0)?;
            self.block(copy.group, copy.to.0)
        })
    }

    fn blocks(&self) -> Result<(), String> {
        self.plan.blocks.iter().try_for_each(|&(group, block)| self.block(group, block.0))
    }

    fn block(&self, group: GroupId, block: u32) -> Result<(), String> {
        let group = self.capacity.groups.get(group.idx()).ok_or_else(|| format!("there is no KV group {}", group.0))?;
        let blocks = self.capacity.pools[group.pool.idx()].blocks;
        require(block < blocks, || format!("block {block} is beyond the {blocks} there are"))
    }

    fn tokens(&self) -> Result<(), String> {
        match self.plan.tokens.iter().find(|&&token| token as usize >= self.vocab_size) {
            Some(token) => Err(format!("token {token} is beyond the vocabulary of {}", self.vocab_size)),
            None => Ok(()),
        }
    }

    fn work(&self, idx: usize, work: &RowWork) -> Result<(), String> {
        self.row(work.row)?;
        let row = work.row.0;
        let again = self.plan.work[..idx].iter().any(|other| other.row == work.row);
        require(!again, || format!("row {row} is in the plan twice"))?;
        require(work.drafts.len == 0, || format!("row {row} has drafts, and this executor does not speculate"))?;
        require(work.want.pool.is_none(), || format!("row {row} wants pooling, which this executor does not do"))?;
        let known = self.known_tokens(work).ok_or_else(|| format!("row {row} is not on the device"))?;
        let end = u64::from(work.start) + u64::from(work.len);
        require(work.len > 0 && end <= known && end <= u64::from(self.capacity.max_model_len), || {
            format!("row {row} has {known} tokens and was asked to run from {} to {end}", work.start)
        })?;
        require(!work.want.sample || end == known, || format!("row {row} samples before its last known token"))?;
        self.tables(work, end as u32)
    }

    /// Every group's table reaches `end`.
    fn tables(&self, work: &RowWork, end: u32) -> Result<(), String> {
        self.capacity.groups.iter().enumerate().try_for_each(|(group, spec)| {
            let of_group =
                |span: contract::Span| span.of(&self.plan.blocks).iter().filter(|block| block.0.idx() == group).count();
            let held = match self.added(work.row) {
                Some(add) => of_group(add.blocks),
                None => self.rows.get(work.row).table(group).len(),
            };
            let needed = SlotMapping::new(spec.block_size).num_blocks(end) as usize;
            require(held + of_group(work.new_blocks) >= needed, || {
                format!("row {} has no blocks up to position {end}", work.row.0)
            })
        })
    }

    /// Tokens that the row will have once the plan is applied; `None` if it is not there.
    fn known_tokens(&self, work: &RowWork) -> Option<u64> {
        let present = match self.added(work.row) {
            Some(add) => add.tokens.len as usize,
            None if self.plan.drop.contains(&work.row) => return None,
            None => self.rows.get(work.row).sampling.as_ref().map(|_| self.rows.get(work.row).tokens.len())?,
        };
        Some(present as u64 + u64::from(work.forced.len))
    }

    fn added(&self, row: RowId) -> Option<&AddRow> {
        self.plan.add.iter().rev().find(|add| add.row == row)
    }

    fn sizes(&self) -> Result<(), String> {
        let (tokens, max_tokens) = (self.plan.num_tokens(), self.capacity.max_tokens);
        require(tokens <= max_tokens, || format!("{tokens} tokens exceed the {max_tokens} of a step"))?;
        let logit_rows = |work: &RowWork| if work.want.prompt_logprobs { work.len } else { work.want.sample.into() };
        let (rows, max_rows) = (self.plan.work.iter().map(logit_rows).sum::<u32>(), self.capacity.max_logit_rows);
        require(rows <= max_rows, || format!("{rows} rows of logits exceed the {max_rows} of a step"))
    }
}

/// Each row that wants a mask has one, and the words are there.
pub(crate) fn check_masks(masks: &Masks, plan_rows: impl Iterator<Item = RowId>) -> Result<(), String> {
    let words = masks.rows.len() * masks.words_per_row as usize;
    require(masks.bits.len() == words, || format!("the masks have {} words, not {words}", masks.bits.len()))?;
    for row in plan_rows {
        require(masks.rows.contains(&row), || format!("row {} wants a mask and got none", row.0))?;
    }
    Ok(())
}

fn require(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}
