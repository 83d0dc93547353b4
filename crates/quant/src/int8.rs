//! Signed bytes, symmetric. Their scales lie beside them.

pub const BYTES: usize = 1;

pub fn decode(bytes: &[u8], out: &mut [f32]) {
    assert_eq!(bytes.len(), out.len(), "one element per value");
    for (code, value) in bytes.iter().zip(out) {
        *value = f32::from(*code as i8);
    }
}

/// The nearest codes, -128 to 127.
pub fn encode(values: &[f32]) -> Vec<u8> {
    values.iter().map(|value| value.round_ties_even() as i8 as u8).collect()
}
