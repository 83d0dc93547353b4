//! What a checkpoint's tensors look like in the file: byte layouts and their reference codecs, one file per format.
//!
//! Pure bytes: no device, no model, no I/O.

mod stored;

pub use stored::{Format, Stored};
