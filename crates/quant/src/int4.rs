//! Four-bit integers, two in a byte along the row, low nibble first. Scales and the codes that mean 0 lie beside them.
//!
//! ```text
//! byte i   low nibble: code 2i   high nibble: code 2i + 1
//! value = scale * (code - zero), zero = 8 where none is given
//! ```

use half::f16;

use crate::OwnedScales;

/// Codes in a byte.
pub const LEN: usize = 2;
pub const BYTES: usize = 1;
/// The code that means 0 where nothing else is said.
pub const ZERO: u8 = 8;

/// The largest code.
const TOP: f32 = 15.0;

/// Two codes.
pub fn unpack(byte: u8) -> [u8; LEN] {
    [byte & 15, byte >> 4]
}

/// The inverse of [`unpack`]; bits above the nibble are cut off.
pub fn pack([low, high]: [u8; LEN]) -> u8 {
    low & 15 | high << 4
}

/// Codes less [`ZERO`].
pub fn decode(bytes: &[u8], out: &mut [f32]) {
    let (pairs, rest) = out.as_chunks_mut::<LEN>();
    assert!(rest.is_empty() && pairs.len() == bytes.len(), "two values per byte");
    for (byte, pair) in bytes.iter().zip(pairs) {
        *pair = unpack(*byte).map(|code| f32::from(code) - f32::from(ZERO));
    }
}

/// The nearest codes of `values`, -8 to 7.
pub fn encode(values: &[f32]) -> Vec<u8> {
    let code = |value: f32| (value.round_ties_even() + f32::from(ZERO)).clamp(0.0, TOP) as u8;
    values.as_chunks::<LEN>().0.iter().map(|pair| pack(pair.map(code))).collect()
}

/// Codes, scales and zeros of each row's groups of `group` values: the range from the smallest value to the largest, and
/// 0 in it, in 15 steps. The zero is a code, so that 0 stays 0. Scales are halves where halves reach.
pub fn quantize_groups(values: &[f32], cols: usize, group: usize) -> (Vec<u8>, OwnedScales) {
    let (mut bytes, mut scales, mut zeros) = (Vec::with_capacity(values.len() / LEN), Vec::new(), Vec::new());
    for values in values.chunks_exact(cols.max(1)).flat_map(|row| row.chunks(group)) {
        let (min, max) = values.iter().fold((0.0f32, 0.0f32), |(min, max), v| (min.min(*v), max.max(*v)));
        let scale = Some(half((max - min) / TOP)).filter(|scale| *scale > 0.0).unwrap_or(1.0);
        let zero = (-min / scale).round_ties_even().clamp(0.0, TOP);
        let code = |value: f32| ((value / scale).round_ties_even() + zero).clamp(0.0, TOP) as u8;
        bytes.extend(values.as_chunks::<LEN>().0.iter().map(|pair| pack(pair.map(code))));
        scales.push(scale);
        zeros.push(zero as u8);
    }
    (bytes, OwnedScales { zeros: Some(zeros), ..OwnedScales::new(1, group, scales) })
}

/// The nearest f16; `value` itself where that would lose bits for want of range.
fn half(value: f32) -> f32 {
    let half = f16::from_f32(value);
    if half.is_normal() { half.to_f32() } else { value }
}
