//! Numbers for dashboards, under the names that vLLM made common; labels `model_name` and `engine` on each.
//!
//! What only this side of the engine sees (latencies, refusals) is recorded here as it happens (`registry`, `meter`);
//! what the engine counts is read from its stats when somebody asks (`snapshot`).

mod meter;
mod registry;
mod snapshot;

pub(crate) use meter::Meter;
pub(crate) use registry::{Metrics, Rejection};
