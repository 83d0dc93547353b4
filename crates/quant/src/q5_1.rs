//! Q5_1: 32 values in 24 bytes, from a minimum upwards.
//!
//! ```text
//! byte   0..2    2..4    4..8              8..24
//!        d: f16  m: f16  qh: u32, bit i    qs: 16 bytes; byte i holds the low nibbles of code i and code i + 16
//!                        is bit 4 of code i
//! value = d * code + m
//! ```

use half::f16;

use crate::Block;
use crate::block::{decode_blocks, encode_blocks, half_at};
use crate::nibbles::{fifth_bits, join_fifth_bits, join_halves, min_max, split_halves};

pub const LEN: usize = 32;
pub const BYTES: usize = 24;

/// Codes are 0 to 31; the offset is the minimum.
pub fn unpack(block: &[u8; BYTES]) -> Block<LEN, 1> {
    let (low, high) = (split_halves(&block[8..]), fifth_bits(&block[4..8]));
    let codes = std::array::from_fn(|i| (low[i] | high[i]) as i8);
    Block { codes, scales: [half_at(block, 0)], offsets: [half_at(block, 2)] }
}

pub fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, unpack);
}

/// The smallest value becomes code 0 and the largest code 31.
pub fn encode(values: &[f32]) -> Vec<u8> {
    encode_blocks(values, |values: &[f32; LEN]| {
        let (min, max) = min_max(values);
        let scale = (max - min) / 31.0;
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        let codes = values.map(|v| ((v - min) * inverse + 0.5).clamp(0.0, 31.0) as u8);
        let mut block = [0u8; BYTES];
        block[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
        block[2..4].copy_from_slice(&f16::from_f32(min).to_le_bytes());
        block[4..8].copy_from_slice(&join_fifth_bits(&codes));
        block[8..].copy_from_slice(&join_halves(&codes));
        block
    })
}
