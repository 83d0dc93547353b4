//! Checkpoints: GGUF and safetensors files, mapped and checked, under one set of tensor names.
//!
//! Files are untrusted: every length, count and offset is checked before it is used, and nothing is allocated that the
//! file's own size does not justify. Knows no device and no request. Start with [`Checkpoint`].

mod bytes;
mod checkpoint;
mod config;
mod dummy;
mod error;
mod gguf;
mod hf;
mod mapping;
mod size;
mod text_source;
mod yarn;

pub use checkpoint::{Checkpoint, Tensor};
pub use config::{ModelConfig, MoeConfig, RopeConfig, RopeScaling};
pub use error::{Problem, WeightsError};
pub use text_source::{ChatTemplateSource, GgufVocab, SpecialTokens, TextSource, TokenizerSource};
pub use yarn::Yarn;
