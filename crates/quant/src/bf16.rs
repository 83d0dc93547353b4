//! bfloat16, little-endian: the upper half of an f32. Elements stand alone.

use half::bf16;

pub const BYTES: usize = 2;

pub fn decode(bytes: &[u8], out: &mut [f32]) {
    let (elements, rest) = bytes.as_chunks::<BYTES>();
    assert!(rest.is_empty() && elements.len() == out.len(), "one element per value");
    for (element, value) in elements.iter().zip(out) {
        *value = bf16::from_le_bytes(*element).to_f32();
    }
}

/// Rounds to the nearest, ties to even.
pub fn encode(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect()
}
