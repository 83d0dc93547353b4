//! IEEE single precision, little-endian. Elements stand alone.

pub const BYTES: usize = 4;

pub fn decode(bytes: &[u8], out: &mut [f32]) {
    let (elements, rest) = bytes.as_chunks::<BYTES>();
    assert!(rest.is_empty() && elements.len() == out.len(), "one element per value");
    for (element, value) in elements.iter().zip(out) {
        *value = f32::from_le_bytes(*element);
    }
}

pub fn encode(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
