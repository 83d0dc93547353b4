//! Whole-model tests: real checkpoints through the executor seam, on every backend, against the references.

mod backends;
mod distribution;
mod driver;
mod golden_rope;

pub use backends::{Device, cpu};
pub use distribution::{distributions, log_softmax};
pub use driver::{Driver, Request};
pub use golden_rope::open_as_golden;
