//! Codes as a tensor core's fragments: `gemm_coded.cuh` draws them.

/// Rows of a tile, and the lanes that share one.
pub(super) const TILE_ROWS: usize = 8;
const ROW_LANES: usize = 4;

/// Bytes of a row in a tile.
pub(super) const ROW_BYTES: usize = ROW_LANES * 4;

/// `[cols / (128 / bits), rows / 8, 32 lanes]` words of codes of `bits`.
pub(super) struct Fragments<'a> {
    bits: usize,
    rows: usize,
    bytes: &'a mut [u8],
}

impl<'a> Fragments<'a> {
    /// In memory of just their size.
    pub fn new(bits: usize, rows: usize, bytes: &'a mut [u8]) -> Self {
        Self { bits, rows, bytes }
    }

    /// Puts the codes, above whose `bits` are zeros, of a whole row.
    pub fn put(&mut self, row: usize, codes: &[u8]) {
        for (tile, codes) in codes.chunks_exact(128 / self.bits).enumerate() {
            let at = (tile * (self.rows / TILE_ROWS) + row / TILE_ROWS) * TILE_ROWS + row % TILE_ROWS;
            for lane in 0..ROW_LANES {
                let word = self.word(codes, lane).to_le_bytes();
                self.bytes[at * ROW_BYTES + lane * 4..][..4].copy_from_slice(&word);
            }
        }
    }

    /// Pairs of columns (2 lane, 2 lane + 1) of each eight: the first in the low half of the word, the second in the high one.
    fn word(&self, codes: &[u8], lane: usize) -> u32 {
        let pairs = codes.chunks_exact(8).map(|eight| [eight[2 * lane], eight[2 * lane + 1]].map(u32::from));
        pairs.enumerate().fold(0, |word, (idx, [low, high])| word | (low | high << 16) << (idx * self.bits))
    }
}

/// `[groups, rows, BYTES]`, one entry a group of columns and row.
pub(super) struct Scales<'a, const BYTES: usize> {
    rows: usize,
    entries: &'a mut [[u8; BYTES]],
}

impl<'a, const BYTES: usize> Scales<'a, BYTES> {
    /// In memory of just their size.
    pub fn new(rows: usize, bytes: &'a mut [u8]) -> Self {
        Self { rows, entries: bytes.as_chunks_mut().0 }
    }

    pub fn put(&mut self, group: usize, row: usize, entry: [u8; BYTES]) {
        self.entries[group * self.rows + row] = entry;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_lie_where_a_lane_looks() {
        // Row 9 is the second of the second tile: lanes 4 to 7 of its 32.
        for (bits, columns) in [(2, 64), (4, 32), (8, 16)] {
            let mut words = vec![0; 2 * columns * bits / 128 * 16 * ROW_BYTES];
            let mut fragments = Fragments::new(bits, 16, &mut words);
            let codes: Vec<u8> = (0..2 * columns).map(|col| (col * 5 % (1 << bits)) as u8).collect();
            fragments.put(9, &codes);
            let words: Vec<u32> = words.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
            for (col, &code) in codes.iter().enumerate() {
                let (tile, eight, lane) = (col / columns, col % columns / 8, col % 8 / 2);
                let word = words[(tile * 2 + 1) * 32 + 4 + lane];
                let shift = eight * bits + col % 2 * 16;
                assert_eq!(word >> shift & ((1 << bits) - 1), u32::from(code), "column {col} of {bits} bits");
            }
            assert!(words[..32].iter().all(|word| *word == 0), "the first tile has no such row");
        }
    }

    #[test]
    fn scales_lie_by_group_then_row() {
        let mut bytes = [0; 12];
        Scales::<2>::new(3, &mut bytes).put(1, 2, [7, 8]);
        assert_eq!(bytes, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 8]);
    }
}
