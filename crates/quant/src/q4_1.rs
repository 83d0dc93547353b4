//! Q4_1: 32 values in 20 bytes, from a minimum upwards.
//!
//! ```text
//! byte   0..2    2..4    4..20
//!        d: f16  m: f16  qs: 16 bytes; byte i holds code i (low nibble) and code i + 16 (high nibble)
//! value = d * code + m
//! ```

use half::f16;

use crate::Block;
use crate::block::{decode_blocks, encode_blocks, half_at};
use crate::nibbles::{join_halves, min_max, split_halves};

pub const LEN: usize = 32;
pub const BYTES: usize = 20;

/// Codes are 0 to 15; the offset is the minimum.
pub fn unpack(block: &[u8; BYTES]) -> Block<LEN, 1> {
    let codes = split_halves(&block[4..]).map(|code| code as i8);
    Block { codes, scales: [half_at(block, 0)], offsets: [half_at(block, 2)] }
}

pub fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, unpack);
}

/// The smallest value becomes code 0 and the largest code 15.
pub fn encode(values: &[f32]) -> Vec<u8> {
    encode_blocks(values, |values: &[f32; LEN]| {
        let (min, max) = min_max(values);
        let scale = (max - min) / 15.0;
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        let mut block = [0u8; BYTES];
        block[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
        block[2..4].copy_from_slice(&f16::from_f32(min).to_le_bytes());
        block[4..].copy_from_slice(&join_halves(&values.map(|v| ((v - min) * inverse + 0.5).clamp(0.0, 15.0) as u8)));
        block
    })
}
