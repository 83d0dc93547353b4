//! Q6_K: 256 values in 210 bytes; 16 groups of 16, each with a signed 8-bit scale.
//!
//! ```text
//! byte   0..128   128..192   192..208          208..210
//!        ql       qh         scales: 16 i8     d: f16
//! ```
//! Each half of 128 values has 64 bytes of `ql` and 32 of `qh`. Value `32j + i` of the half takes its low nibble from
//! `ql[32 (j % 2) + i]`, low nibble for `j < 2` and high for the others, and its upper two bits from bits `2j..2j+2` of `qh[i]`.
//! `value = d * scale * (code - 32)`.

use crate::Block;
use crate::block::{decode_blocks, half_at};

pub const LEN: usize = 256;
pub const BYTES: usize = 210;

/// Codes come out centred, -32 to 31; the offsets are 0.
pub fn unpack(block: &[u8; BYTES]) -> Block<LEN, 16> {
    let scale = half_at(block, 208);
    let (ql, qh, scales) = (&block[..128], &block[128..192], &block[192..208]);
    Block {
        codes: std::array::from_fn(|i| {
            let (half, j, i) = (i / 128, i % 128 / 32, i % 32);
            let low = ql[half * 64 + j % 2 * 32 + i] >> (j / 2 * 4) & 15;
            let high = qh[half * 32 + i] >> (2 * j) & 3;
            (low | high << 4) as i8 - 32
        }),
        scales: std::array::from_fn(|g| scale * f32::from(scales[g] as i8)),
        offsets: [0.0; 16],
    }
}

pub fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, unpack);
}
