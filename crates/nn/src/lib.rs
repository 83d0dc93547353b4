//! The layers that families are composed of, on any backend.
//!
//! A layer loads itself from a checkpoint by its Hugging Face name and runs by calling [`tensor::Backend`]. Which format
//! the checkpoint stores is between the checkpoint and the backend. Nothing here knows a family or a device.

mod attention;
mod embedding;
mod feed_forward;
mod linear;
mod loader;
mod mlp;
mod moe;
mod norm;
mod quantize;
mod rope;

pub use attention::{Attention, AttentionConfig};
pub use embedding::{Embedding, Head};
pub use feed_forward::FeedForward;
pub use linear::Linear;
pub use loader::{Loader, NnError};
pub use mlp::Mlp;
pub use moe::{ExpertNames, Moe};
pub use norm::RmsNorm;
pub use rope::{Rope, rope_table};
