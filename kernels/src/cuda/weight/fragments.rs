//! Codes as a tensor core's fragments: `gemm_coded.cuh` draws them.

/// Rows of a tile, and the lanes that share one.
pub(super) const TILE_ROWS: usize = 8;
const ROW_LANES: usize = 4;

/// `[cols / (128 / bits), rows / 8, 32 lanes]` words of codes of `bits`.
pub(super) struct Fragments {
    bits: usize,
    rows: usize,
    words: Vec<u32>,
}

impl Fragments {
    pub fn new(bits: usize, rows: usize, cols: usize) -> Self {
        Self { bits, rows, words: vec![0; cols * bits / 128 * rows * ROW_LANES] }
    }

    /// Puts the codes, above whose `bits` are zeros, of a whole row.
    pub fn put(&mut self, row: usize, codes: &[u8]) {
        for (tile, codes) in codes.chunks_exact(128 / self.bits).enumerate() {
            let at = (tile * (self.rows / TILE_ROWS) + row / TILE_ROWS) * TILE_ROWS + row % TILE_ROWS;
            for lane in 0..ROW_LANES {
                self.words[at * ROW_LANES + lane] = self.word(codes, lane);
            }
        }
    }

    /// Pairs of columns (2 lane, 2 lane + 1) of each eight: the first in the low half of the word, the second in the high one.
    fn word(&self, codes: &[u8], lane: usize) -> u32 {
        let pairs = codes.chunks_exact(8).map(|eight| [eight[2 * lane], eight[2 * lane + 1]].map(u32::from));
        pairs.enumerate().fold(0, |word, (idx, [low, high])| word | (low | high << 16) << (idx * self.bits))
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.words.into_iter().flat_map(u32::to_le_bytes).collect()
    }
}

/// `[groups, rows, BYTES]`, one entry a group of columns and row.
pub(super) struct Scales<const BYTES: usize> {
    rows: usize,
    entries: Vec<[u8; BYTES]>,
}

impl<const BYTES: usize> Scales<BYTES> {
    pub fn new(groups: usize, rows: usize) -> Self {
        Self { rows, entries: vec![[0; BYTES]; groups * rows] }
    }

    pub fn put(&mut self, group: usize, row: usize, entry: [u8; BYTES]) {
        self.entries[group * self.rows + row] = entry;
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.entries.into_flattened()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_lie_where_a_lane_looks() {
        // Row 9 is the second of the second tile: lanes 4 to 7 of its 32.
        for (bits, columns) in [(2, 64), (4, 32), (8, 16)] {
            let mut fragments = Fragments::new(bits, 16, 2 * columns);
            let codes: Vec<u8> = (0..2 * columns).map(|col| (col * 5 % (1 << bits)) as u8).collect();
            fragments.put(9, &codes);
            let words = fragments.into_bytes();
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
        let mut scales = Scales::<2>::new(2, 3);
        scales.put(1, 2, [7, 8]);
        assert_eq!(scales.into_bytes(), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 8]);
    }
}
