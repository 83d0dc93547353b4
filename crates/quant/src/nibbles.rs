//! Codes below a byte: how the 32-value formats place them.

/// 16 bytes to 32 codes: byte `i` holds code `i` in its low nibble and code `i + 16` in its high one.
pub(crate) fn split_halves(bytes: &[u8]) -> [u8; 32] {
    std::array::from_fn(|i| if i < 16 { bytes[i] & 15 } else { bytes[i - 16] >> 4 })
}

/// The inverse of [`split_halves`]; bits above the nibble are cut off.
pub(crate) fn join_halves(codes: &[u8; 32]) -> [u8; 16] {
    std::array::from_fn(|i| codes[i] & 15 | codes[i + 16] << 4)
}

/// The fifth bits of 32 codes: bit `i` of a little-endian word belongs to code `i`; each comes out as 0 or 16.
pub(crate) fn fifth_bits(bytes: &[u8]) -> [u8; 32] {
    let word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    std::array::from_fn(|i| ((word >> i & 1) << 4) as u8)
}

/// The inverse of [`fifth_bits`].
pub(crate) fn join_fifth_bits(codes: &[u8; 32]) -> [u8; 4] {
    codes.iter().enumerate().fold(0u32, |word, (i, code)| word | u32::from(code >> 4 & 1) << i).to_le_bytes()
}

/// The smallest and the largest value.
pub(crate) fn min_max(values: &[f32; 32]) -> (f32, f32) {
    values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(min, max), v| (min.min(*v), max.max(*v)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joining_undoes_splitting() {
        let codes: [u8; 32] = std::array::from_fn(|i| (i * 7 % 32) as u8);
        assert_eq!(split_halves(&join_halves(&codes)), codes.map(|code| code & 15));
        assert_eq!(fifth_bits(&join_fifth_bits(&codes)), codes.map(|code| code & 16));
    }
}
