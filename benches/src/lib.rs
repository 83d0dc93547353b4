//! What the micro-benchmarks share: made-up weights and steps, and the machine's peaks to hold results against.

mod bound;
mod fixture;
mod options;
mod roofline;

pub use bound::{Bound, Timed};
pub use fixture::{Matrix, SHAPES, Shape, decode_inputs, prefill_inputs, step_inputs, weight_bytes};
pub use options::cpu;
pub use roofline::{Ceilings, Experts, Heads, Part, Work};
