//! Q4_K: 256 values in 144 bytes; 8 groups of 32, each with a 6-bit scale and a 6-bit minimum.
//!
//! ```text
//! byte   0..2    2..4       4..16                     16..144
//!        d: f16  dmin: f16  scales and minima, see    qs: 128 bytes
//!                           `k_scales`
//! ```
//! Groups go in pairs: byte `i` of the 32 bytes of pair `p` holds code `i` of group `2p` (low nibble) and of group
//! `2p + 1` (high nibble). `value = d * scale * code - dmin * minimum`.

use crate::Block;
use crate::block::{decode_blocks, half_at};
use crate::k_scales::scales_and_minima;

pub const LEN: usize = 256;
pub const BYTES: usize = 144;

/// Codes are 0 to 15; the offsets are the minima with their sign.
pub fn unpack(block: &[u8; BYTES]) -> Block<LEN, 8> {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    let (scales, minima) = scales_and_minima(&block[4..16]);
    let qs = &block[16..];
    Block {
        codes: std::array::from_fn(|i| (qs[i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4) & 15) as i8),
        scales: scales.map(|s| scale * f32::from(s)),
        offsets: minima.map(|m| -(minimum * f32::from(m))),
    }
}

pub fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, unpack);
}
