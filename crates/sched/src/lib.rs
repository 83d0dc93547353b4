//! Decides what each step computes: continuous batching over a paged KV cache, in plain integers.
//!
//! There are no phases. A sequence has `computed` tokens that chase its known tokens; a step mixes prefill chunks and
//! decodes under one budget. This crate refuses to know the time, a token's text and a device: no I/O, no clock, no
//! threads, no floats. Start at [`Scheduler`]; memory is under `kv`.

mod budget;
mod faults;
mod kv;
mod policy;
mod progress;
mod queue;
mod rows;
mod scheduler;
mod sequence;

pub use budget::{Prices, StepBudget};
#[cfg(feature = "faults")]
pub use faults::{Fault, inject};
pub use kv::{BlockHash, Chains, KvError, Layout};
pub use policy::Policy;
pub use progress::{End, Progress, Why};
pub use scheduler::{Counters, Limits, NewRequest, Scheduler};
pub use sequence::SequenceId;
