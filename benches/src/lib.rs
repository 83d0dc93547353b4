//! What the micro-benchmarks share: made-up weights and steps, and the machine's peaks to hold results against.

mod bound;
mod fixture;
mod options;

pub use bound::{Bound, Timed};
pub use fixture::{SHAPES, Shape, decode_inputs, prefill_inputs, weight_bytes};
pub use options::cpu;
