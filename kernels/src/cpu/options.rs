//! What a user may choose.

use std::str::FromStr;

use tensor::Encoding;

use super::Isa;

/// How to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuOptions {
    /// Compute threads, the caller's included; one per core when `None`.
    pub threads: Option<usize>,
    /// The best of this processor when `None`.
    pub isa: Option<Isa>,
    pub activations: Activations,
}

/// How activations are rounded where a quantized weight multiplies them: integers with one scale for 32 of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activations {
    /// 8 bits: a matmul takes half the time where it is bound by multiplications, and close calls fall either way.
    Int8,
    /// 15 bits: as exact as weights in f32 would be, for tokens' purposes.
    #[default]
    Int16,
}

impl Activations {
    pub(super) fn encoding(self) -> Encoding {
        match self {
            Self::Int8 => Encoding::Int8G32,
            Self::Int16 => Encoding::Int16G32,
        }
    }
}

impl FromStr for Activations {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "int8" => Ok(Self::Int8),
            "int16" => Ok(Self::Int16),
            other => Err(format!("activations are int8 or int16, not {other:?}")),
        }
    }
}
