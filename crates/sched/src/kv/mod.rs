//! KV memory: which blocks a sequence holds, which may be shared, which go first.

mod block_hash;
mod block_pool;
mod free_queue;
mod layout;
mod manager;

pub use block_hash::{BlockHash, Chains};
pub use layout::{KvError, Layout};
pub(crate) use manager::{KvManager, Tables};
