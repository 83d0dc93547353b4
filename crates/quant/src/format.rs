//! The formats a checkpoint's tensors may have. A closed set: adding one is adding a file here, and a packing to
//! each backend.

use std::fmt;

use crate::{bf16, f16, f32, fp8_e4m3, int4, int8, q2_k, q3_k, q4_0, q4_1, q4_k, q5_0, q5_1, q5_k, q6_k, q8_0};

/// Element or block layout. A row is a whole number of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    /// Planar, as the two below: scales lie beside the elements.
    Fp8E4m3,
    Int8,
    Int4,
}

impl Format {
    pub const ALL: [Format; 16] = [
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
        Self::Fp8E4m3,
        Self::Int8,
        Self::Int4,
    ];

    /// Those that carry their scales within, as GGUF has them.
    pub fn blocks() -> impl Iterator<Item = Format> {
        Self::ALL.into_iter().filter(|format| !format.is_planar())
    }

    /// Elements in one block.
    pub const fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 | Self::Fp8E4m3 | Self::Int8 => 1,
            Self::Int4 => int4::LEN,
            Self::Q4_0 => q4_0::LEN,
            Self::Q4_1 => q4_1::LEN,
            Self::Q5_0 => q5_0::LEN,
            Self::Q5_1 => q5_1::LEN,
            Self::Q8_0 => q8_0::LEN,
            Self::Q2K => q2_k::LEN,
            Self::Q3K => q3_k::LEN,
            Self::Q4K => q4_k::LEN,
            Self::Q5K => q5_k::LEN,
            Self::Q6K => q6_k::LEN,
        }
    }

    /// Bytes of one block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => f32::BYTES,
            Self::F16 => f16::BYTES,
            Self::Bf16 => bf16::BYTES,
            Self::Q4_0 => q4_0::BYTES,
            Self::Q4_1 => q4_1::BYTES,
            Self::Q5_0 => q5_0::BYTES,
            Self::Q5_1 => q5_1::BYTES,
            Self::Q8_0 => q8_0::BYTES,
            Self::Q2K => q2_k::BYTES,
            Self::Q3K => q3_k::BYTES,
            Self::Q4K => q4_k::BYTES,
            Self::Q5K => q5_k::BYTES,
            Self::Q6K => q6_k::BYTES,
            Self::Fp8E4m3 => fp8_e4m3::BYTES,
            Self::Int8 => int8::BYTES,
            Self::Int4 => int4::BYTES,
        }
    }

    /// Bytes of a row of `cols` elements; `None` when blocks do not divide it or the product overflows.
    pub const fn row_bytes(self, cols: usize) -> Option<usize> {
        if !cols.is_multiple_of(self.block_len()) {
            return None;
        }
        (cols / self.block_len()).checked_mul(self.block_bytes())
    }

    /// Whether its scales lie beside its elements, as [`crate::Scales`].
    pub const fn is_planar(self) -> bool {
        matches!(self, Self::Fp8E4m3 | Self::Int8 | Self::Int4)
    }

    /// The name that GGUF and its tools print; of the planar ones, what people call them.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q2K => "Q2_K",
            Self::Q3K => "Q3_K",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
            Self::Fp8E4m3 => "FP8_E4M3",
            Self::Int8 => "INT8",
            Self::Int4 => "INT4",
        }
    }

    /// Whole blocks to values, by the format's reference codec; of the planar ones, to unscaled values. Both lengths are multiples of a block's.
    pub(crate) fn decode(self, bytes: &[u8], out: &mut [std::primitive::f32]) {
        match self {
            Self::F32 => f32::decode(bytes, out),
            Self::F16 => f16::decode(bytes, out),
            Self::Bf16 => bf16::decode(bytes, out),
            Self::Q4_0 => q4_0::decode(bytes, out),
            Self::Q4_1 => q4_1::decode(bytes, out),
            Self::Q5_0 => q5_0::decode(bytes, out),
            Self::Q5_1 => q5_1::decode(bytes, out),
            Self::Q8_0 => q8_0::decode(bytes, out),
            Self::Q2K => q2_k::decode(bytes, out),
            Self::Q3K => q3_k::decode(bytes, out),
            Self::Q4K => q4_k::decode(bytes, out),
            Self::Q5K => q5_k::decode(bytes, out),
            Self::Q6K => q6_k::decode(bytes, out),
            Self::Fp8E4m3 => fp8_e4m3::decode(bytes, out),
            Self::Int8 => int8::decode(bytes, out),
            Self::Int4 => int4::decode(bytes, out),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
