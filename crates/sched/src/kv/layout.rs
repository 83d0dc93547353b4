//! Layout: the part of a capacity that says how tokens become blocks; checked once, shared with every caller.

use std::fmt;

use contract::{Kind, KvCapacity};

/// How many blocks of which pool a sequence of some length needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Per pool, without the null block.
    blocks: Vec<u32>,
    /// Per group.
    pools: Vec<usize>,
    /// Per group, in tokens.
    block_sizes: Vec<u32>,
    max_model_len: u32,
}

/// Why an executor's capacity cannot be scheduled on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvError {
    NoGroups,
    UnknownPool { group: usize },
    EmptyBlock { group: usize },
    EmptyPool { pool: usize },
    Unsupported { group: usize, kind: Kind },
    NoRoom { what: &'static str },
}

impl fmt::Display for KvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoGroups => write!(f, "the executor has no KV groups"),
            Self::UnknownPool { group } => write!(f, "KV group {group} draws on a pool that does not exist"),
            Self::EmptyBlock { group } => write!(f, "KV group {group} has blocks of zero tokens"),
            Self::EmptyPool { pool } => {
                write!(f, "KV pool {pool} has no block beside the null block; give the KV cache more memory")
            }
            Self::Unsupported { group, kind } => {
                write!(f, "KV group {group} is of the kind {kind:?}, which the scheduler does not support")
            }
            Self::NoRoom { what } => write!(f, "the executor's {what} is zero"),
        }
    }
}

impl std::error::Error for KvError {}

impl Layout {
    /// A window group is held like a full one, which wastes memory and nothing else. Recurrent state has no blocks per
    /// token and is refused.
    pub fn new(capacity: &KvCapacity) -> Result<Self, KvError> {
        if capacity.groups.is_empty() {
            return Err(KvError::NoGroups);
        }
        for (group, spec) in capacity.groups.iter().enumerate() {
            match spec.kind {
                Kind::Full | Kind::Window { .. } => {}
                kind @ Kind::State { .. } => return Err(KvError::Unsupported { group, kind }),
            }
            if spec.block_size == 0 {
                return Err(KvError::EmptyBlock { group });
            }
            if spec.pool.idx() >= capacity.pools.len() {
                return Err(KvError::UnknownPool { group });
            }
        }
        if let Some(pool) = capacity.pools.iter().position(|pool| pool.blocks < 2) {
            return Err(KvError::EmptyPool { pool });
        }
        let counts = [
            ("max_rows", capacity.max_rows),
            ("max_tokens", capacity.max_tokens),
            ("max_logit_rows", capacity.max_logit_rows),
            ("max_model_len", capacity.max_model_len),
            ("depth", capacity.depth),
        ];
        if let Some((what, _)) = counts.into_iter().find(|&(_, count)| count == 0) {
            return Err(KvError::NoRoom { what });
        }
        Ok(Self {
            blocks: capacity.pools.iter().map(|pool| pool.blocks - 1).collect(),
            pools: capacity.groups.iter().map(|group| group.pool.idx()).collect(),
            block_sizes: capacity.groups.iter().map(|group| group.block_size).collect(),
            max_model_len: capacity.max_model_len,
        })
    }

    /// Per group, in tokens.
    pub fn block_sizes(&self) -> &[u32] {
        &self.block_sizes
    }

    /// The longest sequence that the pools can hold when it is alone, in tokens with KV, and that the model can read. The
    /// token sampled last needs no KV.
    pub fn max_kv_tokens(&self) -> u32 {
        let fits = |tokens: u32| self.needed(tokens).iter().zip(&self.blocks).all(|(need, have)| need <= have);
        let (mut low, mut high) = (0, self.max_model_len);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if fits(middle) { low = middle } else { high = middle - 1 }
        }
        low
    }

    fn needed(&self, tokens: u32) -> Vec<u32> {
        let mut needed = vec![0u32; self.blocks.len()];
        for (&pool, &block_size) in self.pools.iter().zip(&self.block_sizes) {
            needed[pool] = needed[pool].saturating_add(tokens.div_ceil(block_size));
        }
        needed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::{Group, Pool, PoolId};

    fn capacity(blocks: &[u32], groups: &[(u32, u32)]) -> KvCapacity {
        KvCapacity {
            pools: blocks.iter().map(|&blocks| Pool { blocks, host_blocks: 0, block_bytes: 1 }).collect(),
            groups: groups
                .iter()
                .map(|&(pool, block_size)| Group { pool: PoolId(pool), block_size, kind: Kind::Full })
                .collect(),
            max_rows: 4,
            max_tokens: 64,
            max_logit_rows: 4,
            max_drafts: 0,
            max_model_len: 100,
            depth: 1,
        }
    }

    #[test]
    fn the_longest_sequence_fits_alone() {
        for (blocks, groups, longest) in [
            (&[3][..], &[(0, 16)][..], 32),
            (&[2], &[(0, 1)], 1),
            (&[5], &[(0, 16), (0, 16)], 32),
            (&[9, 3], &[(0, 4), (1, 8)], 16),
            (&[1000], &[(0, 16)], 100),
        ] {
            let layout = Layout::new(&capacity(blocks, groups)).expect("a valid capacity");
            assert_eq!(layout.max_kv_tokens(), longest, "{blocks:?} {groups:?}");
        }
    }

    #[test]
    fn a_capacity_that_cannot_work_is_refused_with_its_reason() {
        let mut state = capacity(&[4], &[(0, 16)]);
        state.groups[0].kind = Kind::State { checkpoint_every: 4 };
        let mut rowless = capacity(&[4], &[(0, 16)]);
        rowless.max_rows = 0;
        for (capacity, reason) in [
            (capacity(&[4], &[]), "no KV groups"),
            (capacity(&[4], &[(1, 16)]), "does not exist"),
            (capacity(&[4], &[(0, 0)]), "zero tokens"),
            (capacity(&[1], &[(0, 16)]), "null block"),
            (state, "does not support"),
            (rowless, "max_rows is zero"),
        ] {
            let error = Layout::new(&capacity).expect_err(reason);
            assert!(error.to_string().contains(reason), "{error}");
        }
    }
}
