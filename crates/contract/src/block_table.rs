//! A sequence's blocks in order, and the only place where block-size arithmetic is written.

use crate::{BlockId, SlotId};

/// How tokens map to blocks in one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotMapping {
    block_size: u32,
}

impl SlotMapping {
    /// # Panics
    /// If `block_size` is zero.
    pub fn new(block_size: u32) -> Self {
        assert!(block_size > 0, "a block holds at least one token");
        Self { block_size }
    }

    pub fn block_size(self) -> u32 {
        self.block_size
    }

    /// Blocks needed to hold `num_tokens`.
    pub fn num_blocks(self, num_tokens: u32) -> u32 {
        num_tokens.div_ceil(self.block_size)
    }

    /// Blocks that `num_tokens` fill to the last slot.
    pub fn num_full_blocks(self, num_tokens: u32) -> u32 {
        num_tokens / self.block_size
    }

    /// Index into the block table of the block that holds `position`.
    pub fn block_idx(self, position: u32) -> usize {
        (position / self.block_size) as usize
    }

    /// Tokens held by `num_blocks` full blocks.
    pub fn num_tokens(self, num_blocks: u32) -> u32 {
        num_blocks * self.block_size
    }

    /// The slot of `position` for a sequence whose blocks are `blocks`.
    ///
    /// # Panics
    /// If the table does not reach `position`.
    pub fn slot(self, blocks: &[BlockId], position: u32) -> SlotId {
        let block = blocks[self.block_idx(position)];
        SlotId(block.0 * self.block_size + position % self.block_size)
    }
}

/// The blocks of one row in one group. Its length only grows while the row exists; an entry that left the attention
/// window becomes [`BlockId::NULL`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockTable {
    blocks: Vec<BlockId>,
}

impl BlockTable {
    /// Makes room for `num_blocks` in all.
    pub fn reserve(&mut self, num_blocks: u32) {
        self.blocks.reserve((num_blocks as usize).saturating_sub(self.blocks.len()));
    }

    pub fn extend(&mut self, blocks: impl IntoIterator<Item = BlockId>) {
        self.blocks.extend(blocks);
    }

    /// Forgets the block at `idx`, which left the window.
    pub fn expire(&mut self, idx: usize) -> BlockId {
        std::mem::replace(&mut self.blocks[idx], BlockId::NULL)
    }

    pub fn clear(&mut self) {
        self.blocks.clear();
    }

    pub fn as_slice(&self) -> &[BlockId] {
        &self.blocks
    }

    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_follow_the_table_across_block_borders() {
        let mapping = SlotMapping::new(16);
        let mut table = BlockTable::default();
        table.extend([BlockId(7), BlockId(3)]);
        for (position, slot) in [(0, 112), (15, 127), (16, 48), (31, 63)] {
            assert_eq!(mapping.slot(table.as_slice(), position), SlotId(slot), "position {position}");
        }
    }

    #[test]
    fn counts_round_as_their_names_say() {
        let mapping = SlotMapping::new(16);
        for (tokens, blocks, full) in [(0, 0, 0), (1, 1, 0), (15, 1, 0), (16, 1, 1), (17, 2, 1)] {
            assert_eq!(
                (mapping.num_blocks(tokens), mapping.num_full_blocks(tokens)),
                (blocks, full),
                "{tokens} tokens"
            );
        }
    }
}
