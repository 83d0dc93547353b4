//! BlockHash: the prefix-cache key of a full block, and the chain of them that a token stream has.
//!
//! hash = first 128 bits of SHA-256(parent, tokens); the chain starts from SHA-256(group, salt). A match is trusted
//! without comparing tokens: to make one tenant's blocks answer to another's key one would have to find a collision of
//! a cryptographic hash. Hashing a prompt is a pure function and is done on the caller's thread.

use contract::TokenId;
use sha2::{Digest, Sha256};

use super::Layout;
use crate::faults::{self, Fault};

/// Names the contents of a full block: its tokens, everything before them, the group and the salt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockHash(u128);

impl BlockHash {
    /// The parent of the first block.
    pub fn root(group: usize, salt: &[u8]) -> Self {
        let salt = if faults::is(Fault::HashWithoutSalt) { &[][..] } else { salt };
        Self::digest(Sha256::new().chain_update((group as u64).to_le_bytes()).chain_update(salt))
    }

    /// The block that follows `self` and holds `tokens`.
    pub fn child(self, tokens: &[TokenId]) -> Self {
        let parent = if faults::is(Fault::HashWithoutParent) { 0 } else { self.0 };
        let mut hasher = Sha256::new_with_prefix(parent.to_le_bytes());
        for token in tokens {
            hasher.update(token.to_le_bytes());
        }
        Self::digest(hasher)
    }

    fn digest(hasher: Sha256) -> Self {
        let digest = hasher.finalize();
        Self(u128::from_le_bytes(digest[..16].try_into().expect("a digest has 32 bytes")))
    }
}

/// The hashes of all full blocks of a growing token stream, per group.
#[derive(Clone, Debug)]
pub struct Chains {
    groups: Vec<Chain>,
}

#[derive(Clone, Debug)]
struct Chain {
    block_size: usize,
    root: BlockHash,
    hashes: Vec<BlockHash>,
}

impl Chains {
    /// Streams match only within one `salt`.
    pub fn new(layout: &Layout, salt: &[u8]) -> Self {
        let chain = |(group, &block_size): (usize, &u32)| Chain {
            block_size: block_size as usize,
            root: BlockHash::root(group, salt),
            hashes: Vec::new(),
        };
        Self { groups: layout.block_sizes().iter().enumerate().map(chain).collect() }
    }

    /// Hashes the blocks that `tokens` have filled since the last call; `tokens` only ever grow.
    pub fn extend(&mut self, tokens: &[TokenId]) {
        for chain in &mut self.groups {
            while let Some(block) =
                tokens.get(chain.hashes.len() * chain.block_size..).and_then(|rest| rest.get(..chain.block_size))
            {
                let parent = chain.hashes.last().copied().unwrap_or(chain.root);
                chain.hashes.push(parent.child(block));
            }
        }
    }

    /// Makes room for the hashes of `len` tokens.
    pub fn reserve(&mut self, len: usize) {
        for chain in &mut self.groups {
            chain.hashes.reserve((len / chain.block_size).saturating_sub(chain.hashes.len()));
        }
    }

    /// The hashes of `group`'s full blocks so far.
    pub fn group(&self, group: usize) -> &[BlockHash] {
        &self.groups[group].hashes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::{Group, Kind, KvCapacity, Pool, PoolId};

    fn layout(block_sizes: &[u32]) -> Layout {
        let group = |&block_size: &u32| Group { pool: PoolId(0), block_size, kind: Kind::Full };
        Layout::new(&KvCapacity {
            pools: vec![Pool { blocks: 100, host_blocks: 0, block_bytes: 1 }],
            groups: block_sizes.iter().map(group).collect(),
            max_rows: 1,
            max_tokens: 1,
            max_logit_rows: 1,
            max_drafts: 0,
            max_model_len: 64,
            depth: 1,
        })
        .expect("a valid capacity")
    }

    fn hashes(salt: &[u8], tokens: &[TokenId]) -> Vec<BlockHash> {
        let mut chains = Chains::new(&layout(&[4]), salt);
        chains.extend(tokens);
        chains.group(0).to_vec()
    }

    #[test]
    fn only_full_blocks_have_hashes() {
        let tokens: Vec<TokenId> = (0..9).collect();
        for (len, blocks) in [(0, 0), (1, 0), (3, 0), (4, 1), (5, 1), (8, 2), (9, 2)] {
            assert_eq!(hashes(b"", &tokens[..len]).len(), blocks, "{len} tokens");
        }
    }

    #[test]
    fn a_hash_names_everything_before_it() {
        let base = hashes(b"a", &[1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(base, hashes(b"a", &[1, 2, 3, 4, 5, 6, 7, 8]));
        for (what, other) in [
            ("salt", hashes(b"b", &[1, 2, 3, 4, 5, 6, 7, 8])),
            ("parent", hashes(b"a", &[1, 2, 3, 9, 5, 6, 7, 8])),
            ("token", hashes(b"a", &[1, 2, 3, 4, 5, 6, 7, 9])),
        ] {
            assert_ne!(base[1], other[1], "the {what} is part of the hash");
        }
    }

    #[test]
    fn growing_step_by_step_gives_the_same_chain_in_every_group() {
        let tokens: Vec<TokenId> = (0..13).collect();
        let mut whole = Chains::new(&layout(&[4, 2]), b"");
        whole.extend(&tokens);
        let mut grown = Chains::new(&layout(&[4, 2]), b"");
        (0..=tokens.len()).for_each(|len| grown.extend(&tokens[..len]));
        for group in 0..2 {
            assert_eq!(whole.group(group), grown.group(group));
        }
        assert_ne!(whole.group(0)[0], Chains::group(&whole, 1)[1], "groups do not match each other");
    }
}
