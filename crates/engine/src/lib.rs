//! The engine: one thread that owns the scheduler and the executor, and the handles that send it requests.
//!
//! A request goes [`EngineHandle::submit`] (on the caller's thread: template, tokenizer, limits) → the inbox →
//! [`driver::EngineCore::step`], the loop that everything hangs off → [`Response::next`] (on the caller's task:
//! detokenizer, stop strings). This crate knows no tensor and no HTTP.

mod admission;
mod config;
mod core;
mod cost;
mod handle;
mod inbox;
mod ledger;
mod output;
mod request;
mod shared;
mod stats;
mod thread;

pub use config::EngineConfig;
pub use contract::{SamplingParams, TokenId};
pub use handle::{EngineHandle, StartError, start};
pub use output::Response;
pub use request::{
    ChatPrompt, Delta, Event, Finish, FinishReason, GenerateRequest, Prompt, RequestError, StopMatch, SubmitError,
    Timing, TokenLogprob, Usage,
};
pub use sched::Policy;
pub use stats::{CacheConfig, Health, ITERATION_TOKENS_BUCKETS, State, Stats};

/// The parts below the handle, for those who drive the engine without its thread: the simulator.
pub mod driver {
    pub use crate::core::{Activity, EngineCore, Fatal};
    pub use crate::inbox::{Message, Queue, Submission, Ticket, Update};
}
