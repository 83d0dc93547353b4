//! Q5_K: 256 values in 176 bytes; 8 groups of 32, each with a 6-bit scale and a 6-bit minimum.
//!
//! ```text
//! byte   0..2    2..4       4..16                     16..48   48..176
//!        d: f16  dmin: f16  scales and minima, see    qh       qs: 128 bytes
//!                           `k_scales`
//! ```
//! Low nibbles are placed as in Q4_K; bit `g` of `qh[i]` is the fifth bit of code `i` of group `g`.
//! `value = d * scale * code - dmin * minimum`.

use crate::Block;
use crate::block::{decode_blocks, half_at};
use crate::k_scales::scales_and_minima;

pub const LEN: usize = 256;
pub const BYTES: usize = 176;

/// Codes are 0 to 31; the offsets are the minima with their sign.
pub fn unpack(block: &[u8; BYTES]) -> Block<LEN, 8> {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    let (scales, minima) = scales_and_minima(&block[4..16]);
    let (qh, qs) = (&block[16..48], &block[48..]);
    Block {
        codes: std::array::from_fn(|i| {
            let low = qs[i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4) & 15;
            let fifth = qh[i % 32] >> (i / 32) & 1;
            (low | fifth << 4) as i8
        }),
        scales: scales.map(|s| scale * f32::from(s)),
        offsets: minima.map(|m| -(minimum * f32::from(m))),
    }
}

pub fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, unpack);
}
