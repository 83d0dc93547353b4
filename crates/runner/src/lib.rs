//! One device's implementation of the executor seam: rows, flattened inputs, the forward, the sampling.
//!
//! [`ModelRunner`] works with any [`tensor::Backend`]; it knows rows and tokens, never requests or text.

mod batch;
mod check;
mod memory;
mod model_runner;
mod restart;
mod rows;
mod workspace;

pub use memory::{Mebibytes, MemoryPlan, RunnerOptions, Shortage, Sizes};
pub use model_runner::{ModelRunner, RunnerError};
pub use restart::{Build, Restarting};
