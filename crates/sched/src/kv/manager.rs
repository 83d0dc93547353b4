//! KvManager: gives blocks to sequences, finds shared prefixes, takes blocks back; over all groups and pools.
//!
//! ```text
//!   tokens   |<- prefix hit: shared, full, never written ->|<- own blocks ------------->|
//!   blocks   [ 12 ][  7 ][ 30 ]                             [  4 ][ 19 ][  2 ]
//!                                                                  ^ published once full and vouched for
//! ```

use contract::{BlockId, BlockTable, GroupId, KvCapacity, SlotMapping, Span};

use super::block_hash::Chains;
use super::block_pool::BlockPool;
use crate::faults::{self, Fault};

/// One sequence's blocks, per group, and how many of them can be found by hash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tables {
    groups: Vec<Held>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Held {
    table: BlockTable,
    published: u32,
}

impl Tables {
    /// Per group, the blocks in order.
    pub fn groups(&self) -> impl Iterator<Item = &[BlockId]> {
        self.groups.iter().map(|held| held.table.as_slice())
    }
}

struct Group {
    pool: usize,
    mapping: SlotMapping,
}

pub(crate) struct KvManager {
    pools: Vec<BlockPool>,
    groups: Vec<Group>,
    /// A prefix hit ends on a block border in every group.
    hit_step: u32,
    /// Blocks wanted per pool, in one growth; kept for its memory.
    wanted: Vec<u32>,
}

impl KvManager {
    /// Of a capacity that `Layout::new` accepted.
    pub fn new(capacity: &KvCapacity) -> Self {
        Self {
            pools: capacity.pools.iter().map(|pool| BlockPool::new(pool.blocks)).collect(),
            groups: capacity
                .groups
                .iter()
                .map(|group| Group { pool: group.pool.idx(), mapping: SlotMapping::new(group.block_size) })
                .collect(),
            hit_step: capacity.groups.iter().fold(1, |step, group| lcm(step, group.block_size)),
            wanted: vec![0; capacity.pools.len()],
        }
    }

    /// Takes the longest known prefix of at most `max_tokens` and says how long it is.
    pub fn take_prefix(&mut self, chains: &Chains, max_tokens: u32) -> (Tables, u32) {
        let hit = self.prefix_len(chains, max_tokens);
        let mut tables = Tables { groups: vec![Held::default(); self.groups.len()] };
        for (idx, (group, held)) in self.groups.iter().zip(&mut tables.groups).enumerate() {
            let pool = &mut self.pools[group.pool];
            for &hash in &chains.group(idx)[..group.mapping.num_full_blocks(hit) as usize] {
                let block = pool.find(hash).expect("the prefix was just found");
                pool.share(block);
                held.table.extend([block]);
                held.published += 1;
            }
        }
        (tables, hit)
    }

    /// Makes room in `tables` for the blocks of `num_tokens`, and takes none.
    pub fn reserve(&self, tables: &mut Tables, num_tokens: u32) {
        let held = self.groups.iter().zip(&mut tables.groups);
        held.for_each(|(group, held)| held.table.reserve(group.mapping.num_blocks(num_tokens)));
    }

    fn prefix_len(&self, chains: &Chains, max_tokens: u32) -> u32 {
        let in_group = |(idx, group): (usize, &Group)| {
            let known = chains.group(idx).iter().take_while(|&&hash| self.pools[group.pool].find(hash).is_some());
            group.mapping.num_tokens(known.count() as u32)
        };
        let found = self.groups.iter().enumerate().map(in_group).fold(max_tokens, u32::min);
        found - found % self.hit_step
    }

    /// Whether `tables` can grow to hold `num_tokens` when `promised` blocks per pool are spoken for.
    pub fn can_grow(&mut self, tables: &Tables, num_tokens: u32, promised: &[u32]) -> bool {
        self.count_wanted(tables, num_tokens);
        let mut pools = self.wanted.iter().zip(promised).zip(&self.pools);
        pools.all(|((wanted, promised), pool)| wanted + promised <= pool.available())
    }

    /// Adds to `promised`, per pool, what `tables` still need to hold `num_tokens`.
    pub fn promise(&mut self, tables: &Tables, num_tokens: u32, promised: &mut [u32]) {
        self.count_wanted(tables, num_tokens);
        promised.iter_mut().zip(&self.wanted).for_each(|(promised, wanted)| *promised += wanted);
    }

    /// Grows `tables` to hold `num_tokens` and lists the new blocks, or changes nothing and returns `None`.
    pub fn grow(&mut self, tables: &mut Tables, num_tokens: u32, new: &mut Vec<(GroupId, BlockId)>) -> Option<Span> {
        self.count_wanted(tables, num_tokens);
        if self.wanted.iter().zip(&self.pools).any(|(&wanted, pool)| wanted > pool.available()) {
            return None;
        }
        let start = new.len() as u32;
        for (idx, (group, held)) in self.groups.iter().zip(&mut tables.groups).enumerate() {
            let pool = &mut self.pools[group.pool];
            while held.table.len() < group.mapping.num_blocks(num_tokens) as usize {
                let block = pool.allocate().expect("the pools were just asked");
                held.table.extend([block]);
                new.push((GroupId(idx as u32), told(block)));
            }
        }
        Some(Span { start, len: new.len() as u32 - start })
    }

    fn count_wanted(&mut self, tables: &Tables, num_tokens: u32) {
        self.wanted.fill(0);
        for (group, held) in self.groups.iter().zip(&tables.groups) {
            let missing = group.mapping.num_blocks(num_tokens).saturating_sub(held.table.len() as u32);
            self.wanted[group.pool] += missing;
        }
    }

    /// Makes the blocks that `num_tokens` fill findable, each once.
    pub fn publish(&mut self, tables: &mut Tables, chains: &Chains, num_tokens: u32) {
        for (idx, (group, held)) in self.groups.iter().zip(&mut tables.groups).enumerate() {
            let full = group.mapping.num_full_blocks(num_tokens);
            for block in held.published..full {
                let block = block as usize;
                self.pools[group.pool].publish(held.table.as_slice()[block], chains.group(idx)[block]);
            }
            held.published = held.published.max(full);
        }
    }

    /// Takes all blocks back, the last first: a prefix is worth more than what follows it.
    pub fn release(&mut self, tables: Tables) {
        for (group, held) in self.groups.iter().zip(tables.groups) {
            held.table.as_slice().iter().rev().for_each(|&block| self.pools[group.pool].release(block));
        }
    }

    /// After the device lost its memory.
    pub fn forget_all(&mut self) {
        self.pools.iter_mut().for_each(BlockPool::forget_all);
    }

    /// All blocks, and those held; summed over the pools.
    pub fn usage(&self) -> (u32, u32) {
        let total: u32 = self.pools.iter().map(BlockPool::total).sum();
        let available: u32 = self.pools.iter().map(BlockPool::available).sum();
        (total, total - available)
    }

    /// Recounts references from the tables of everyone who holds blocks.
    pub fn audit<'a>(&self, holders: impl Iterator<Item = &'a Tables>) -> Result<(), String> {
        let mut held: Vec<Vec<u32>> = self.pools.iter().map(|pool| vec![0; pool.total() as usize + 1]).collect();
        for tables in holders {
            for (group, entries) in self.groups.iter().zip(tables.groups()) {
                entries.iter().for_each(|block| held[group.pool][block.idx()] += 1);
            }
        }
        self.pools.iter().zip(&held).try_for_each(|(pool, held)| pool.audit(held))
    }
}

fn told(block: BlockId) -> BlockId {
    if faults::is(Fault::WrongBlock) { BlockId((block.0 - 1).max(1)) } else { block }
}

fn lcm(a: u32, b: u32) -> u32 {
    let gcd = |mut a: u32, mut b: u32| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    a / gcd(a, b) * b
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::Layout;
    use contract::{Kind, Pool, PoolId};

    fn capacity(blocks: u32, block_sizes: &[u32]) -> KvCapacity {
        let group = |&block_size: &u32| contract::Group { pool: PoolId(0), block_size, kind: Kind::Full };
        KvCapacity {
            pools: vec![Pool { blocks, host_blocks: 0, block_bytes: 1 }],
            groups: block_sizes.iter().map(group).collect(),
            max_rows: 4,
            max_tokens: 64,
            max_logit_rows: 4,
            max_drafts: 0,
            max_model_len: 64,
            depth: 1,
        }
    }

    /// Computes `tokens` once, publishes and releases them.
    fn warm(capacity: &KvCapacity, tokens: &[u32]) -> (KvManager, Chains) {
        let mut kv = KvManager::new(capacity);
        let mut chains = Chains::new(&Layout::new(capacity).expect("valid"), b"");
        chains.extend(tokens);
        let (mut tables, hit) = kv.take_prefix(&chains, u32::MAX);
        assert_eq!(hit, 0, "a cold cache knows nothing");
        kv.grow(&mut tables, tokens.len() as u32, &mut Vec::new()).expect("the pool is large enough");
        kv.publish(&mut tables, &chains, tokens.len() as u32);
        kv.release(tables);
        (kv, chains)
    }

    #[test]
    fn a_hit_ends_on_a_block_border_of_every_group_and_below_the_bound() {
        for (block_sizes, len, bound, hit) in [
            (&[4][..], 3, 2, 0),
            (&[4], 4, 3, 0),
            (&[4], 4, 4, 4),
            (&[4], 5, 4, 4),
            (&[4], 9, 8, 8),
            (&[4], 9, 7, 4),
            (&[4, 6], 30, 29, 24),
            (&[4, 6], 11, 10, 0),
            (&[1], 5, 4, 4),
        ] {
            let tokens: Vec<u32> = (0..len).collect();
            let (mut kv, chains) = warm(&capacity(60, block_sizes), &tokens);
            let (tables, found) = kv.take_prefix(&chains, bound);
            assert_eq!(found, hit, "{block_sizes:?}, {len} tokens, bound {bound}");
            kv.audit([&tables].into_iter()).expect("references match");
        }
    }

    #[test]
    fn growth_is_all_or_nothing() {
        let mut kv = KvManager::new(&capacity(5, &[4, 4]));
        let mut tables = Tables { groups: vec![Held::default(); 2] };
        let mut new = Vec::new();
        for (num_tokens, blocks) in [(0, Some(0)), (1, Some(2)), (4, Some(0)), (5, Some(2)), (9, None), (8, Some(0))] {
            let span = kv.grow(&mut tables, num_tokens, &mut new);
            assert_eq!(span.map(|span| span.len), blocks, "{num_tokens} tokens");
            kv.audit([&tables].into_iter()).expect("references match");
        }
    }

    #[test]
    fn nothing_is_found_after_a_loss() {
        let tokens: Vec<u32> = (0..8).collect();
        let (mut kv, chains) = warm(&capacity(9, &[4]), &tokens);
        kv.forget_all();
        assert_eq!(kv.take_prefix(&chains, 8).1, 0);
    }
}
