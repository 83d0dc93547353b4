//! How packed matrices are held: strips of four tiles of 16 output columns, so that a lane is a column. A strip is one
//! stream, in the order in which a single row reads it.
//!
//! ```text
//!   per strip, 32 k and tile, a record:
//!     W4          16 f16 scales, 16 f16 minimums,   4 x 64 bytes of nibbles     320 bytes
//!     W4Centered  16 f16 scales,                    4 x 64 bytes of nibbles     288
//!     W4Zeros     16 f16 scales, 16 bytes of zeros, 4 x 64 bytes of nibbles     304
//!     W4Wide      16 f32 scales, 16 f32 minimums,   4 x 64 bytes of nibbles     384
//!     W8          16 f32 scales,                    8 x 64 signed bytes         576
//!     W8Min       16 f32 scales, 16 f32 minimums,   8 x 64 signed bytes         640
//!     W8Halves    16 f32 scales of k 0..16, 16 of k 16..32, 8 x 64 bytes        640
//!   in the i-th 64 bytes, lane c holds
//!     nibbles   k 8i..8i+4 in its low and 8i+4..8i+8 in its high halves
//!     bytes     k 4i..4i+4
//!   per strip, pair of k and tile:
//!     Bf16      16 pairs                                                       64 bytes
//!   per strip and 32 k:
//!     Bf16Scaled       16 f32 scales a tile, then 16 k's pairs as Bf16        4 x 64 + 16 x 4 x 64
//!   per strip, k and tile:
//!     F16, F32         16 elements
//! ```
//!
//! All hold the checkpoint's own elements: the coded kinds value = scale * code + minimum, where the minimum is -8 scales of `W4Centered`
//! and minus the zero's scales of `W4Zeros`, and bf16 that has a scale is FP8's codes.

use half::f16;
use quant::{Format, Scales, Stored, int4};
use tensor::Encoding;

use super::super::act::GROUP;
use super::super::simd::LANES;
use super::STRIP;

/// How a packed matrix is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Kind {
    W4,
    W4Centered,
    W4Zeros,
    W4Wide,
    W8,
    W8Min,
    W8Halves,
    Bf16,
    Bf16Scaled,
    F16,
    F32,
}

impl Kind {
    /// The kind that holds `part` exactly.
    pub fn of(part: &Stored<'_>) -> Self {
        let coded = match part.format {
            Format::Q4_0 => Self::W4Centered,
            Format::Q4_1 => Self::W4,
            Format::Q4K => Self::W4Wide,
            Format::Q5_0 | Format::Q8_0 => Self::W8,
            Format::Q5_1 | Format::Q5K => Self::W8Min,
            Format::Q3K | Format::Q6K => Self::W8Halves,
            Format::Bf16 => return Self::Bf16,
            Format::F16 => return Self::F16,
            Format::Int4 => part.scales.map_or(Self::W4Centered, of_int4),
            Format::Int8 => Self::W8,
            Format::Fp8E4m3 => Self::Bf16Scaled,
            Format::F32 | Format::Q2K => return Self::F32,
        };
        let grouped = part.scales.is_none_or(|scales| under_one_scale(scales, part.cols));
        if part.cols.is_multiple_of(GROUP) && grouped { coded } else { Self::F32 }
    }

    /// The encoding of the activations that it multiplies; `codes` where it takes integers.
    pub fn wants(self, codes: Encoding) -> Encoding {
        match self {
            Self::F16 | Self::F32 => Encoding::F32,
            Self::Bf16 | Self::Bf16Scaled => Encoding::Bf16,
            _ => codes,
        }
    }

    /// Whether a byte holds two codes.
    pub const fn has_nibbles(self) -> bool {
        matches!(self, Self::W4 | Self::W4Centered | Self::W4Zeros | Self::W4Wide)
    }

    /// Bytes before a record's codes.
    pub const fn header(self) -> usize {
        match self {
            Self::W4Centered => 32,
            Self::W4Zeros => 48,
            Self::W4 | Self::W8 | Self::Bf16Scaled => 64,
            Self::W4Wide | Self::W8Min | Self::W8Halves => 128,
            Self::Bf16 | Self::F16 | Self::F32 => 0,
        }
    }

    /// Bytes of a record; of a tile's 32 k where there are none.
    pub const fn record(self) -> usize {
        match self {
            Self::Bf16 | Self::Bf16Scaled | Self::F16 => self.header() + GROUP * LANES * 2,
            Self::F32 => GROUP * LANES * 4,
            _ if self.has_nibbles() => self.header() + GROUP * LANES / 2,
            _ => self.header() + GROUP * LANES,
        }
    }

    /// Bytes from a tile's first record or vector to the next tile's.
    pub const fn tile_step(self) -> usize {
        match self {
            Self::Bf16 | Self::Bf16Scaled | Self::F32 => LANES * 4,
            Self::F16 => LANES * 2,
            _ => self.record(),
        }
    }

    /// Bytes of one strip of `cols` inputs, a multiple of 64.
    pub const fn strip_bytes(self, cols: usize) -> usize {
        cols * STRIP * self.record() / GROUP
    }
}

/// Whether the columns of each record share a scale.
fn under_one_scale(scales: Scales<'_>, cols: usize) -> bool {
    scales.group_of.is_none() && (scales.cols_per.is_multiple_of(GROUP) || scales.cols_per >= cols)
}

/// The kind that holds nibbles of these scales and zeros.
fn of_int4(scales: Scales<'_>) -> Kind {
    let is_half = |value: &f32| f16::from_f32(*value).to_f32() == *value;
    if !scales.values.iter().all(is_half) {
        Kind::W4Wide
    } else if scales.zeros.is_none_or(|zeros| zeros.iter().all(|&zero| zero == int4::ZERO)) {
        Kind::W4Centered
    } else {
        Kind::W4Zeros
    }
}
