//! The seam: one device's implementation of a step.

use std::fmt;

use crate::{AdapterId, KvCapacity, ModelRunnerOutput, RowId, SchedulerOutput};

/// Runs steps. Built by a factory on the engine's own thread and never shared.
///
/// Call order per step: `submit`, then `sample` exactly once; `wait` returns the oldest step in flight. At most
/// `KvCapacity::depth` steps are between `submit` and `wait`. Steps take effect in the order in which they were
/// submitted: a block may be given to another row while an earlier step still writes to it for the old one.
pub trait Executor {
    fn capacity(&self) -> &KvCapacity;

    /// Enqueues the forward.
    fn submit(&mut self, plan: &SchedulerOutput) -> Result<(), ExecutorError>;

    /// Enqueues the sampling of the step submitted last; `masks` holds rows whose `Want::masked` is set. A refusal leaves
    /// the step half done and is answered with a restart.
    fn sample(&mut self, masks: &Masks) -> Result<(), ExecutorError>;

    /// Waits for the oldest step in flight and overwrites `out` with its result. After a refusal that step is over: its
    /// rows are dropped.
    fn wait(&mut self, out: &mut ModelRunnerOutput) -> Result<(), ExecutorError>;

    /// Rare and slow operations, between steps.
    fn control(&mut self, control: &Control) -> Result<(), ExecutorError>;
}

/// Why a step did not happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecutorError {
    /// Nothing changed; the step's requests fail, everything else goes on.
    Refused(Reason),
    /// Rows and KV are gone. The engine starts a new epoch and replays.
    Lost(Reason),
}

/// A sentence for the log.
pub type Reason = String;

impl fmt::Display for ExecutorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(reason) => write!(f, "the executor refused the step: {reason}"),
            Self::Lost(reason) => write!(f, "the executor lost its state: {reason}"),
        }
    }
}

impl std::error::Error for ExecutorError {}

/// Grammar masks of one step: bit `t % 32` of word `t / 32` allows token `t`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Masks {
    pub rows: Vec<RowId>,
    /// `rows.len() * words_per_row` words, row-major.
    pub bits: Vec<u32>,
    pub words_per_row: u32,
}

/// Operations beside the steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Starts over after `Lost`: no rows, no KV; plans carry this epoch from now on.
    Restart {
        epoch: u32,
    },
    LoadAdapter {
        id: AdapterId,
        path: std::path::PathBuf,
    },
    UnloadAdapter {
        id: AdapterId,
    },
    /// Gives device memory back; `Restart` wakes.
    Sleep,
}
