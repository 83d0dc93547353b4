//! The simulator: the real engine core and scheduler, driven from a seed over an executor that keeps one integer per KV
//! slot. What comes out must equal an oracle that never heard of blocks, so any wrong block table, early free, bad prefix
//! hit or half-undone preemption changes the text.
//!
//! `run` plays one seed; [`SimExecutor`] also serves behind a real engine thread. Start at `world`.

mod chaos;
mod client;
mod device;
mod executor;
mod model;
mod oracle;
mod rng;
mod scenario;
mod world;

use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use chaos::Chaos;
pub use executor::{SimConfig, SimExecutor};
pub use model::Tag;

/// How to run a seed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Prints a line per step to standard error.
    pub trace: bool,
}

/// What happened in a seed that held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub requests: u64,
    pub steps: u64,
    pub generated_tokens: u64,
    pub preemptions: u64,
    /// Prompt tokens found in the prefix cache.
    pub prefix_hits: u64,
    pub losses: u64,
    /// Requests that ended with an error, as they had to.
    pub failed_requests: u64,
    pub aborted_requests: u64,
    /// Of every plan and every update; equal for equal seeds.
    pub trace_hash: u64,
}

/// What broke, and how to see it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub seed: u64,
    pub depth: u32,
    pub step: u64,
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, depth, step, message } = self;
        write!(f, "seed {seed} at depth {depth} fails in step {step}: {message}")
    }
}

impl std::error::Error for Failure {}

/// Plays the scenario of `seed` with up to `depth` steps in flight and checks everything after every step.
pub fn run(seed: u64, depth: u32, options: Options) -> Result<Report, Failure> {
    let step = Cell::new(0);
    let attempt = AssertUnwindSafe(|| world::World::new(seed, depth, options).run(&step));
    let outcome = catch_unwind(attempt).unwrap_or_else(|panic| Err(panic_message(&*panic)));
    outcome.map_err(|message| Failure { seed, depth, step: step.get(), message })
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    format!("panicked: {}", text.as_deref().unwrap_or("without a message"))
}

/// The seeds of a file: one a line, `#` starts a comment.
///
/// # Panics
/// If a line is not a number.
pub fn pinned(text: &str) -> Vec<u64> {
    let seeds = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let parse = |line: &str| line.parse().unwrap_or_else(|_| panic!("'{line}' in the list of seeds is not a number"));
    seeds.filter(|line| !line.is_empty()).map(parse).collect()
}
