//! Q2_K: 256 values in 84 bytes; 16 groups of 16, each with a 4-bit scale and a 4-bit minimum.
//!
//! ```text
//! byte   0..16                    16..80      80..82  82..84
//!        scales: byte g holds     qs          d: f16  dmin: f16
//!        the scale (low nibble)
//!        and minimum (high) of
//!        group g
//! ```
//! Each half of 128 values has 32 bytes of `qs`; bits `2j..2j+2` of byte `i` are the code of value `32j + i` of the half.
//! `value = d * scale * code - dmin * minimum`.

use crate::Block;
use crate::block::{decode_blocks, half_at};

pub const LEN: usize = 256;
pub const BYTES: usize = 84;

/// Codes are 0 to 3; the offsets are the minima with their sign.
pub fn unpack(block: &[u8; BYTES]) -> Block<LEN, 16> {
    let (scale, minimum) = (half_at(block, 80), half_at(block, 82));
    let qs = &block[16..80];
    Block {
        codes: std::array::from_fn(|i| (qs[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3) as i8),
        scales: std::array::from_fn(|g| scale * f32::from(block[g] & 15)),
        offsets: std::array::from_fn(|g| -(minimum * f32::from(block[g] >> 4))),
    }
}

pub fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, unpack);
}
