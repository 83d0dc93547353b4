//! Plain numbers about the engine, for metrics and health; knows no metric library.

use std::time::Duration;

/// A snapshot taken after the last step. Counters count from the start of the engine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Sequences with a row.
    pub running: u32,
    /// Sequences without one.
    pub waiting: u32,
    pub kv_blocks_total: u32,
    /// Blocks that running sequences hold.
    pub kv_blocks_used: u32,
    /// Prompt tokens looked up in the prefix cache.
    pub prefix_cache_queries: u64,
    /// Prompt tokens found there.
    pub prefix_cache_hits: u64,
    pub preemptions: u64,
    /// Prompt tokens of the requests that started.
    pub prompt_tokens: u64,
    pub generation_tokens: u64,
    pub requests_started: u64,
    pub requests_finished: u64,
    pub requests_aborted: u64,
    pub requests_failed: u64,
    pub steps: u64,
    /// Sum of the tokens of all steps.
    pub iteration_tokens: u64,
    /// Steps with at most `ITERATION_TOKENS_BUCKETS[i]` tokens, not cumulative; the last entry counts larger ones.
    pub iteration_tokens_histogram: [u64; ITERATION_TOKENS_BUCKETS.len() + 1],
    /// Times the executor lost its state.
    pub executor_losses: u64,
}

/// How the KV cache is kept, from the engine's start to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    /// Tokens in a block; of several groups of layers, the first one's.
    pub block_size: u32,
    pub enable_prefix_caching: bool,
}

/// Upper bounds of `Stats::iteration_tokens_histogram`.
pub const ITERATION_TOKENS_BUCKETS: [u32; 15] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384];

impl Stats {
    pub(crate) fn count_step(&mut self, num_tokens: u32) {
        self.steps += 1;
        self.iteration_tokens += u64::from(num_tokens);
        let bucket = ITERATION_TOKENS_BUCKETS.partition_point(|&bound| bound < num_tokens);
        self.iteration_tokens_histogram[bucket] += 1;
    }
}

/// Whether the engine takes requests, and whether it makes progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    pub state: State,
    /// The age of the step that is under way, if it is older than `EngineConfig::step_timeout`.
    pub overdue: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Ready,
    /// New requests are refused; running ones go on.
    Draining,
    Stopped,
}
