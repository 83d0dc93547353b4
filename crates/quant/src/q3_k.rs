//! Q3_K: 256 values in 110 bytes; 16 groups of 16, each with a 6-bit scale around 32.
//!
//! ```text
//! byte   0..32    32..96   96..108        108..110
//!        hmask    qs       scales         d: f16
//! ```
//! Each half of 128 values has 32 bytes of `qs`; bits `2j..2j+2` of byte `i` are the low bits of value `32j + i` of the
//! half. Bit `4 * half + j` of `hmask[i]` is the third bit; where it is clear, 4 is taken off.
//! Scale `g`'s low nibble is nibble `g / 8` of byte `g % 8`, and its upper two bits are bits `2 (g / 4)` of byte `8 + g % 4`.
//! `value = d * (scale - 32) * code`.

use crate::Block;
use crate::block::{decode_blocks, half_at};

pub const LEN: usize = 256;
pub const BYTES: usize = 110;

/// Codes are -4 to 3; the offsets are 0.
pub fn unpack(block: &[u8; BYTES]) -> Block<LEN, 16> {
    let scale = half_at(block, 108);
    let (hmask, qs, scales) = (&block[..32], &block[32..96], &block[96..108]);
    let six_bits = |g: usize| (scales[g % 8] >> (g / 8 * 4) & 15) | (scales[8 + g % 4] >> (g / 4 * 2) & 3) << 4;
    Block {
        codes: std::array::from_fn(|i| {
            let low = qs[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
            let third = hmask[i % 32] >> (i / 32) & 1;
            (low | third << 2) as i8 - 4
        }),
        scales: std::array::from_fn(|g| scale * f32::from(six_bits(g) as i8 - 32)),
        offsets: [0.0; 16],
    }
}

pub fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, unpack);
}
