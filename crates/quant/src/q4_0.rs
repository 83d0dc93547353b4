//! Q4_0: 32 values in 18 bytes, symmetric around code 8.
//!
//! ```text
//! byte   0..2    2..18
//!        d: f16  qs: 16 bytes; byte i holds code i (low nibble) and code i + 16 (high nibble)
//! value = d * (code - 8)
//! ```

use half::f16;

use crate::Block;
use crate::block::{decode_blocks, encode_blocks, half_at};
use crate::nibbles::{join_halves, split_halves};

pub const LEN: usize = 32;
pub const BYTES: usize = 18;

/// Codes come out centred, -8 to 7; the offset is 0.
pub fn unpack(block: &[u8; BYTES]) -> Block<LEN, 1> {
    let codes = split_halves(&block[2..]).map(|code| code as i8 - 8);
    Block { codes, scales: [half_at(block, 0)], offsets: [0.0] }
}

pub fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, unpack);
}

/// The value of largest magnitude becomes code 0, that is -8 times the scale.
pub fn encode(values: &[f32]) -> Vec<u8> {
    encode_blocks(values, |values: &[f32; LEN]| {
        let extreme = values.iter().copied().fold(0.0f32, |a, v| if v.abs() > a.abs() { v } else { a });
        let scale = extreme / -8.0;
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        let mut block = [0u8; BYTES];
        block[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
        block[2..].copy_from_slice(&join_halves(&values.map(|v| (v * inverse + 8.5).clamp(0.0, 15.0) as u8)));
        block
    })
}
