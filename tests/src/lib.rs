//! Whole-model tests: real checkpoints through the executor seam, on every backend, against the references.

mod backends;
mod driver;

pub use backends::{Device, cpu};
pub use driver::{Driver, Request};
