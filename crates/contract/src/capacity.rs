//! What an executor can hold; read once by the scheduler, never negotiated again.

use crate::PoolId;

/// Limits of one executor. All counts are per step unless said otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvCapacity {
    pub pools: Vec<Pool>,
    pub groups: Vec<Group>,
    /// Rows that may exist at once.
    pub max_rows: u32,
    /// Tokens in one step, prefill and decode together.
    pub max_tokens: u32,
    /// Rows of logits in one step; prompt logprobs are chunked by it.
    pub max_logit_rows: u32,
    /// Speculated tokens per row and step; 0 where speculation is off.
    pub max_drafts: u32,
    /// Prompt and output of one sequence, in tokens.
    pub max_model_len: u32,
    /// Steps in flight: 1 waits for each, 2 overlaps one.
    pub depth: u32,
}

/// Equally sized blocks; block 0 of each pool is the null block and is counted in `blocks`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    pub blocks: u32,
    pub host_blocks: u32,
    /// Bytes of one block over all layers of the groups that draw on this pool.
    pub block_bytes: u64,
}

/// Layers that share one block table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub pool: PoolId,
    /// Tokens in a block.
    pub block_size: u32,
    pub kind: Kind,
}

/// What a group's layers read of the past. Latent attention is `Full` with other bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Full,
    Window { tokens: u32 },
    State { checkpoint_every: u32 },
}
