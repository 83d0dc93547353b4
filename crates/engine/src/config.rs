//! What an operator may set about the engine; knows no device and no HTTP.

use std::time::Duration;

/// Limits and policies of one engine.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineConfig {
    /// Sequences that run at once; the executor's own bound also holds.
    pub max_num_seqs: u32,
    /// Tokens in one step; the executor's own bound also holds.
    pub max_num_batched_tokens: u32,
    pub policy: sched::Policy,
    pub enable_prefix_caching: bool,
    /// Requests that have not started yet; more are refused.
    pub max_num_queued_reqs: u32,
    /// Output tokens of a request that names no number; `None` is the rest of the context.
    pub default_max_tokens: Option<u32>,
    /// Choices of one request; at most 64.
    pub max_n: u32,
    /// Best alternatives per token.
    pub max_logprobs: u32,
    /// While others decode, a prefill chunk is cut so that the step stays under this.
    pub target_step: Duration,
    /// A step older than this makes the engine overdue.
    pub step_timeout: Duration,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            max_num_seqs: 256,
            max_num_batched_tokens: 2048,
            policy: sched::Policy::Fcfs,
            enable_prefix_caching: true,
            max_num_queued_reqs: 1024,
            default_max_tokens: None,
            max_n: 16,
            max_logprobs: 20,
            target_step: Duration::from_millis(50),
            step_timeout: Duration::from_secs(60),
        }
    }
}
