//! Q8_0: 32 values in 34 bytes, symmetric.
//!
//! ```text
//! byte   0..2    2..34
//!        d: f16  qs: 32 signed bytes
//! value = d * code
//! ```

use half::f16;

use crate::Block;
use crate::block::{decode_blocks, encode_blocks, half_at};

pub const LEN: usize = 32;
pub const BYTES: usize = 34;

/// Codes are -128 to 127 (an encoder writes -127 to 127); the offset is 0.
pub fn unpack(block: &[u8; BYTES]) -> Block<LEN, 1> {
    let codes = std::array::from_fn(|i| block[2 + i] as i8);
    Block { codes, scales: [half_at(block, 0)], offsets: [0.0] }
}

pub fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, unpack);
}

/// The largest magnitude becomes 127; ties round away from zero.
pub fn encode(values: &[f32]) -> Vec<u8> {
    encode_blocks(values, |values: &[f32; LEN]| {
        let scale = values.iter().fold(0.0f32, |max, v| max.max(v.abs())) / 127.0;
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        let mut block = [0u8; BYTES];
        block[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
        for (code, value) in block[2..].iter_mut().zip(values) {
            *code = (value * inverse).round() as i8 as u8;
        }
        block
    })
}
