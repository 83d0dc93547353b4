//! BlockPool: all blocks of one pool with their references and hashes. Knows no sequence and no token.
//!
//! A block is *held* (references > 0), *evictable* (no reference, but its contents can still be found by hash) or
//! *free*. Evictable blocks stay findable until the queue has nothing older to give.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};

use contract::BlockId;

use super::block_hash::BlockHash;
use super::free_queue::FreeBlockQueue;
use crate::faults::{self, Fault};

#[derive(Clone, Default)]
struct Block {
    references: u32,
    hash: Option<BlockHash>,
}

pub(crate) struct BlockPool {
    blocks: Vec<Block>,
    free: FreeBlockQueue,
    /// Looked up by key and never iterated, so that its order means nothing.
    by_hash: HashMap<BlockHash, BlockId, BuildHasherDefault<DefaultHasher>>,
}

impl BlockPool {
    /// `num_blocks` counts the null block.
    pub fn new(num_blocks: u32) -> Self {
        Self {
            blocks: vec![Block::default(); num_blocks as usize],
            free: FreeBlockQueue::new(num_blocks),
            // In twice the room, what removals leave behind is swept without new memory.
            by_hash: HashMap::with_capacity_and_hasher(2 * num_blocks as usize, BuildHasherDefault::default()),
        }
    }

    /// Blocks that can be had now, evictable ones included.
    pub fn available(&self) -> u32 {
        self.free.len()
    }

    /// All blocks but the null block.
    pub fn total(&self) -> u32 {
        self.blocks.len() as u32 - 1
    }

    /// Takes the block that is missed least; its old contents can no longer be found.
    pub fn allocate(&mut self) -> Option<BlockId> {
        let id = self.free.pop_front()?;
        let block = &mut self.blocks[id.idx()];
        if let Some(hash) = block.hash.take() {
            self.by_hash.remove(&hash);
        }
        block.references = 1;
        Some(id)
    }

    /// The block with these contents.
    pub fn find(&self, hash: BlockHash) -> Option<BlockId> {
        self.by_hash.get(&hash).copied()
    }

    /// One more reference to a block that was found.
    pub fn share(&mut self, id: BlockId) {
        if faults::is(Fault::UncountedShare) && self.blocks[id.idx()].references > 0 {
            return;
        }
        let block = &mut self.blocks[id.idx()];
        assert!(block.hash.is_some(), "{id:?} is shared before its contents are known");
        if block.references == 0 {
            self.free.remove(id);
        }
        block.references += 1;
    }

    /// One reference less; at zero the block may be reused, at once if nobody can find its contents.
    pub fn release(&mut self, id: BlockId) {
        let block = &mut self.blocks[id.idx()];
        assert!(block.references > 0, "{id:?} is released more often than it was taken");
        block.references -= 1;
        match (block.references, block.hash) {
            (0, Some(_)) => self.free.push_back(id),
            (0, None) => self.free.push_front(id),
            _ => {}
        }
    }

    /// Makes a full and computed block findable. The first block with some contents wins; a later twin stays private.
    pub fn publish(&mut self, id: BlockId, hash: BlockHash) {
        let block = &mut self.blocks[id.idx()];
        assert!(block.references > 0 && block.hash.is_none(), "{id:?} is published once, by its holder");
        self.by_hash.entry(hash).or_insert_with(|| {
            block.hash = Some(hash);
            id
        });
    }

    /// Nothing can be found any more: the memory behind the blocks is gone.
    pub fn forget_all(&mut self) {
        self.by_hash.clear();
        self.blocks.iter_mut().for_each(|block| block.hash = None);
    }

    /// Recounts everything; `held` is what the sequences say they hold, per block.
    pub fn audit(&self, held: &[u32]) -> Result<(), String> {
        let mut findable = 0;
        for (idx, (block, &held)) in self.blocks.iter().zip(held).enumerate().skip(1) {
            let id = BlockId(idx as u32);
            if block.references != held {
                return Err(format!("{id:?} counts {} references, but {held} sequences hold it", block.references));
            }
            if self.free.contains(id) != (held == 0) {
                return Err(format!("{id:?} has {held} holders and is on the wrong side of the free queue"));
            }
            if let Some(hash) = block.hash {
                findable += 1;
                if self.find(hash) != Some(id) {
                    return Err(format!("{id:?} has a hash that finds another block"));
                }
            }
        }
        if findable != self.by_hash.len() {
            return Err(format!("{} hashes find {findable} blocks", self.by_hash.len()));
        }
        let held = held.iter().skip(1).filter(|&&held| held > 0).count() as u32;
        if self.available() + held != self.total() {
            return Err(format!(
                "{} free and evictable + {held} held blocks are not {}",
                self.available(),
                self.total()
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u32) -> BlockHash {
        BlockHash::root(0, b"").child(&[n])
    }

    #[test]
    fn a_released_block_is_found_until_it_is_reused() {
        let mut pool = BlockPool::new(3);
        let block = pool.allocate().expect("two are free");
        pool.publish(block, hash(1));
        pool.release(block);
        assert_eq!((pool.available(), pool.find(hash(1))), (2, Some(block)));
        assert_ne!(pool.allocate(), Some(block), "blocks without contents go first");
        assert_eq!(pool.allocate(), Some(block));
        assert_eq!((pool.find(hash(1)), pool.allocate()), (None, None));
    }

    #[test]
    fn the_block_used_longest_ago_is_evicted_first() {
        let mut pool = BlockPool::new(4);
        let blocks: Vec<_> = (0..3).map(|_| pool.allocate().expect("three are free")).collect();
        blocks.iter().enumerate().for_each(|(n, &block)| pool.publish(block, hash(n as u32)));
        [1, 0, 2].into_iter().for_each(|n| pool.release(blocks[n]));
        pool.share(blocks[1]);
        pool.release(blocks[1]);
        let order: Vec<_> = std::iter::from_fn(|| pool.allocate()).collect();
        assert_eq!(order, [blocks[0], blocks[2], blocks[1]]);
    }

    #[test]
    fn a_twin_stays_private() {
        let mut pool = BlockPool::new(3);
        let (first, twin) = (pool.allocate().expect("free"), pool.allocate().expect("free"));
        pool.publish(first, hash(1));
        pool.publish(twin, hash(1));
        assert_eq!(pool.find(hash(1)), Some(first));
        assert_eq!(pool.audit(&[0, 1, 1]), Ok(()));
    }

    #[test]
    fn shared_blocks_stay_until_the_last_holder_leaves() {
        let mut pool = BlockPool::new(2);
        let block = pool.allocate().expect("free");
        pool.publish(block, hash(1));
        pool.share(block);
        pool.release(block);
        assert_eq!((pool.audit(&[0, 1]), pool.available()), (Ok(()), 0));
        pool.release(block);
        assert_eq!((pool.audit(&[0, 0]), pool.available()), (Ok(()), 1));
    }

    #[test]
    fn audits_notice_a_wrong_count() {
        let mut pool = BlockPool::new(3);
        pool.allocate();
        assert_eq!(pool.audit(&[0, 1, 0]), Ok(()));
        assert!(pool.audit(&[0, 0, 0]).is_err());
        assert!(pool.audit(&[0, 1, 1]).is_err());
    }

    #[test]
    #[should_panic(expected = "released more often")]
    fn releasing_twice_is_a_bug() {
        let mut pool = BlockPool::new(2);
        let block = pool.allocate().expect("free");
        pool.release(block);
        pool.release(block);
    }
}
