//! The packing of eight 6-bit scales and eight 6-bit minima in 12 bytes that Q4_K and Q5_K share.
//!
//! ```text
//! byte   0..4                     4..8                       8..12
//!        low 6 bits: scale 0..4   low 6 bits: minimum 0..4   low nibble: scale 4..8, bits 0..4
//!        top 2: scale 4..8,       top 2: minimum 4..8,       high nibble: minimum 4..8, bits 0..4
//!        bits 4..6                bits 4..6
//! ```

/// Scales and minima of the eight groups, each 0 to 63.
pub fn scales_and_minima(bytes: &[u8]) -> ([u8; 8], [u8; 8]) {
    let scales =
        std::array::from_fn(|g| if g < 4 { bytes[g] & 63 } else { bytes[g + 4] & 15 | bytes[g - 4] >> 6 << 4 });
    let minima =
        std::array::from_fn(|g| if g < 4 { bytes[g + 4] & 63 } else { bytes[g + 4] >> 4 | bytes[g] >> 6 << 4 });
    (scales, minima)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_from_their_bits() {
        let mut bytes = [0u8; 12];
        bytes[1] = 0b10_000101; // scale 1 = 5; top bits of scale 5
        bytes[5] = 0b01_001001; // minimum 1 = 9; top bits of minimum 5
        bytes[9] = 0b0011_0111; // scale 5 = 0b10_0111, minimum 5 = 0b01_0011
        let (scales, minima) = scales_and_minima(&bytes);
        assert_eq!(scales, [0, 5, 0, 0, 0, 0b10_0111, 0, 0]);
        assert_eq!(minima, [0, 9, 0, 0, 0, 0b01_0011, 0, 0]);
    }
}
