//! What a checkpoint's tensors look like in the file: byte layouts and their reference codecs, one file per format.
//!
//! Pure bytes: no device, no model, no I/O. Start with [`Stored`]; each format's file draws its layout.

mod block;
mod format;
mod nibbles;
mod quantize;
mod scales;
mod scheme;
mod stored;

pub mod bf16;
pub mod f16;
pub mod f32;
pub mod fp8_e4m3;
pub mod int4;
pub mod int8;
pub mod k_scales;
pub mod q2_k;
pub mod q3_k;
pub mod q4_0;
pub mod q4_1;
pub mod q4_k;
pub mod q5_0;
pub mod q5_1;
pub mod q5_k;
pub mod q6_k;
pub mod q8_0;

pub use block::Block;
pub use format::Format;
pub use quantize::{QuantizeError, quantize};
pub use scales::{OwnedScales, Scales, ScalesError};
pub use scheme::{NotFinite, Scheme};
pub use stored::{Stored, StoredError};
