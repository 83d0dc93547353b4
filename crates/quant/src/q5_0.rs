//! Q5_0: 32 values in 22 bytes, symmetric around code 16.
//!
//! ```text
//! byte   0..2    2..6              6..22
//!        d: f16  qh: u32, bit i    qs: 16 bytes; byte i holds the low nibbles of code i and code i + 16
//!                is bit 4 of code i
//! value = d * (code - 16)
//! ```

use half::f16;

use crate::Block;
use crate::block::{decode_blocks, encode_blocks, half_at};
use crate::nibbles::{fifth_bits, join_fifth_bits, join_halves, split_halves};

pub const LEN: usize = 32;
pub const BYTES: usize = 22;

/// Codes come out centred, -16 to 15; the offset is 0.
pub fn unpack(block: &[u8; BYTES]) -> Block<LEN, 1> {
    let (low, high) = (split_halves(&block[6..]), fifth_bits(&block[2..6]));
    let codes = std::array::from_fn(|i| (low[i] | high[i]) as i8 - 16);
    Block { codes, scales: [half_at(block, 0)], offsets: [0.0] }
}

pub fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, unpack);
}

/// The value of largest magnitude becomes code 0, that is -16 times the scale.
pub fn encode(values: &[f32]) -> Vec<u8> {
    encode_blocks(values, |values: &[f32; LEN]| {
        let extreme = values.iter().copied().fold(0.0f32, |a, v| if v.abs() > a.abs() { v } else { a });
        let scale = extreme / -16.0;
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        let codes = values.map(|v| (v * inverse + 16.5).clamp(0.0, 31.0) as u8);
        let mut block = [0u8; BYTES];
        block[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
        block[2..6].copy_from_slice(&join_fifth_bits(&codes));
        block[6..].copy_from_slice(&join_halves(&codes));
        block
    })
}
