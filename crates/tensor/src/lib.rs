//! The vocabulary of the data plane: element types, step inputs, the workspace arena, activations, and [`Backend`].
//!
//! Knows no model, no request and no device. Above it `nn` and `models` compose; below it `kernels` implements.

mod act;
mod backend;
mod inputs;
mod routing;
mod workspace;

pub use act::{Act, ActSet, Encoding};
pub use backend::{
    Activation, AttnSpec, Backend, CacheSpec, DeviceError, KvDtype, KvScales, LoadError, Memory, NormSpec, QkvSpec,
    Role, RopeTable, StepKey,
};
pub use inputs::{GroupInputs, StepInputs};
pub use routing::{RouteSpec, Routing};
pub use workspace::{Region, Workspace};
