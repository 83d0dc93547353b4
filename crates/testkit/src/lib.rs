//! What tests share: where fixtures are, goldens made by the reference tools, and comparisons that a NaN cannot pass.

mod close;
mod golden;
mod model;
mod random;
mod write;

pub use close::{Tolerance, check_close};
pub use golden::{ChatGolden, TextGolden, TinyGolden};
pub use model::{default_model, skip};
pub use random::Random;
pub use write::{widen, write_f32};

use std::path::{Path, PathBuf};

/// The repository's top folder.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("this crate lies two folders deep").to_owned()
}

/// A tiny checkpoint of `family`, as the hub lays it out.
pub fn tiny(family: &str) -> PathBuf {
    root().join("tests/tiny").join(family)
}

/// The tiny llama, quantized by `scheme`.
pub fn quantized(scheme: &str) -> PathBuf {
    root().join("tests/quant").join(scheme)
}
