//! FreeBlockQueue: the free blocks in the order in which they will be reused. Knows nothing of hashes or references.
//!
//! An intrusive doubly linked list in one vector: every operation is O(1) and none allocates. Entry 0, the null block,
//! is never free and serves as the list's head and tail.
//!
//! ```text
//!   0 (head) ⇄ 7 ⇄ 3 ⇄ 9 ⇄ 0 (tail)      pop_front takes 7: the block that was used longest ago
//! ```

use contract::BlockId;

#[derive(Clone, Copy)]
struct Links {
    prev: BlockId,
    next: BlockId,
}

/// A block that is not in the queue.
const OUT: Links = Links { prev: BlockId(u32::MAX), next: BlockId(u32::MAX) };

pub(super) struct FreeBlockQueue {
    links: Vec<Links>,
    len: u32,
}

impl FreeBlockQueue {
    /// All blocks but the null block are free, in order.
    pub fn new(num_blocks: u32) -> Self {
        let mut queue = Self { links: vec![OUT; num_blocks as usize], len: 0 };
        queue.links[0] = Links { prev: BlockId::NULL, next: BlockId::NULL };
        (1..num_blocks).for_each(|block| queue.push_back(BlockId(block)));
        queue
    }

    pub fn len(&self) -> u32 {
        self.len
    }

    pub fn contains(&self, block: BlockId) -> bool {
        self.links[block.idx()].next != OUT.next
    }

    /// The block to reuse next.
    pub fn pop_front(&mut self) -> Option<BlockId> {
        let first = self.links[0].next;
        (!first.is_null()).then(|| {
            self.remove(first);
            first
        })
    }

    /// To be reused last.
    pub fn push_back(&mut self, block: BlockId) {
        self.link(self.links[0].prev, block, BlockId::NULL);
    }

    /// To be reused next.
    pub fn push_front(&mut self, block: BlockId) {
        self.link(BlockId::NULL, block, self.links[0].next);
    }

    /// Takes a block out of the middle: its contents are wanted again.
    pub fn remove(&mut self, block: BlockId) {
        assert!(!block.is_null() && self.contains(block), "{block:?} is not in the free queue");
        let Links { prev, next } = std::mem::replace(&mut self.links[block.idx()], OUT);
        self.links[prev.idx()].next = next;
        self.links[next.idx()].prev = prev;
        self.len -= 1;
    }

    fn link(&mut self, prev: BlockId, block: BlockId, next: BlockId) {
        assert!(!self.contains(block), "{block:?} is already in the free queue");
        self.links[block.idx()] = Links { prev, next };
        self.links[prev.idx()].next = block;
        self.links[next.idx()].prev = block;
        self.len += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(queue: &mut FreeBlockQueue) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop_front()).map(|block| block.0).collect()
    }

    #[test]
    fn blocks_leave_in_order() {
        for num_blocks in [1, 2, 5] {
            let mut queue = FreeBlockQueue::new(num_blocks);
            assert_eq!(queue.len(), num_blocks - 1);
            assert_eq!(drain(&mut queue), (1..num_blocks).collect::<Vec<_>>());
            assert_eq!(queue.len(), 0);
        }
    }

    #[test]
    fn ends_and_middle() {
        let mut queue = FreeBlockQueue::new(6);
        for block in [3, 1, 5] {
            queue.remove(BlockId(block));
        }
        queue.push_front(BlockId(5));
        queue.push_back(BlockId(1));
        assert!(!queue.contains(BlockId(3)));
        assert_eq!(drain(&mut queue), [5, 2, 4, 1]);
    }

    #[test]
    #[should_panic(expected = "already in the free queue")]
    fn freeing_twice_is_a_bug() {
        FreeBlockQueue::new(3).push_back(BlockId(1));
    }
}
