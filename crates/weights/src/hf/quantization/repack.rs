//! The layouts that transpose: packed words of [K, N] matrices to rows of nibbles.

/// Nibbles in a word.
pub(super) const NIBBLES: usize = 8;
pub(super) const IN_ORDER: [usize; NIBBLES] = [0, 1, 2, 3, 4, 5, 6, 7];
/// The column that each nibble of an AWQ word holds.
pub(super) const AWQ_ORDER: [usize; NIBBLES] = [0, 2, 4, 6, 1, 3, 5, 7];
/// Rows that are written together, so that lines of the output stay in the cache.
const TILE: usize = 64;

/// GPTQ: word `[j, n]` holds columns `8j..8j+8` of row `n`, the first in its lowest nibble. To `[rows, words * 4]` bytes.
pub(super) fn gptq(words: &[[u8; 4]], rows: usize) -> Vec<u8> {
    let row_words = words.len() / rows.max(1);
    let mut out = vec![0; words.len() * 4];
    for first in (0..rows).step_by(TILE) {
        for (j, words) in words.chunks_exact(rows).enumerate() {
            for (n, word) in words.iter().enumerate().skip(first).take(TILE) {
                out[(n * row_words + j) * 4..][..4].copy_from_slice(word);
            }
        }
    }
    out
}

/// AWQ: word `[k, m]` holds rows `8m..8m+8` of column `k`, in an order of its own. To `[row_words * 8, cols / 2]` bytes.
pub(super) fn awq(words: &[[u8; 4]], row_words: usize) -> Vec<u8> {
    let cols = words.len() / row_words.max(1);
    let mut out = vec![0; words.len() * 4];
    for m in 0..row_words {
        for k in 0..cols {
            let word = u32::from_le_bytes(words[k * row_words + m]);
            for (nibble, row) in AWQ_ORDER.iter().enumerate() {
                let code = (word >> (4 * nibble) & 15) as u8;
                out[(m * NIBBLES + row) * (cols / 2) + k / 2] |= code << (4 * (k % 2));
            }
        }
    }
    out
}

/// Zero points as words of eight neighbouring rows: word `row_stride * m + group_stride * g` is of rows `8m..8m+8` and group `g`.
pub(super) struct Words<'a> {
    pub words: &'a [[u8; 4]],
    pub row_words: usize,
    pub groups: usize,
    pub row_stride: usize,
    pub group_stride: usize,
}

impl Words<'_> {
    /// To `[row_words * 8, groups]`; nibble `i` is of row `order[i]`, and `shift` too small.
    pub fn zeros(&self, order: &[usize; NIBBLES], shift: u8) -> Vec<u8> {
        let mut out = vec![0; self.words.len() * NIBBLES];
        for m in 0..self.row_words {
            for g in 0..self.groups {
                let word = u32::from_le_bytes(self.words[m * self.row_stride + g * self.group_stride]);
                for (nibble, row) in order.iter().enumerate() {
                    let zero = (word >> (4 * nibble) & 15) as u8;
                    out[(m * NIBBLES + row) * self.groups + g] = (zero + shift) & 15;
                }
            }
        }
        out
    }
}

/// `[outer, inner]` to `[inner, outer]`.
pub(super) fn transpose<T: Copy + Default>(values: &[T], outer: usize) -> Vec<T> {
    let inner = values.len() / outer.max(1);
    let mut out = vec![T::default(); values.len()];
    for (idx, value) in values.iter().enumerate() {
        out[idx % inner * outer + idx / inner] = *value;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A word of these nibbles, lowest first.
    fn word(nibbles: [u8; NIBBLES]) -> [u8; 4] {
        nibbles.iter().rev().fold(0u32, |word, nibble| word << 4 | u32::from(*nibble)).to_le_bytes()
    }

    /// Nibbles of bytes, lowest first.
    fn nibbles(bytes: &[u8]) -> Vec<u8> {
        bytes.iter().flat_map(|byte| [byte & 15, byte >> 4]).collect()
    }

    #[test]
    fn words_of_columns_become_rows() {
        // [16, 2]: column k of row n has the code (k + 5 n) % 16.
        let code = |n: usize, k: usize| ((k + 5 * n) % 16) as u8;
        let words: Vec<_> =
            (0..4).map(|idx| word(std::array::from_fn(|i| code(idx % 2, idx / 2 * NIBBLES + i)))).collect();
        let expected: Vec<u8> = (0..2).flat_map(|n| (0..16).map(move |k| code(n, k))).collect();
        assert_eq!(nibbles(&gptq(&words, 2)), expected);
        assert!(gptq(&[], 0).is_empty() && gptq(&[], 3).is_empty());
    }

    #[test]
    fn words_of_rows_become_rows() {
        // 16 rows, 4 columns; row n of column k has the code (n + 3 k) % 16.
        let code = |n: usize, k: usize| ((n + 3 * k) % 16) as u8;
        let words: Vec<_> =
            (0..8).map(|idx| word(AWQ_ORDER.map(|row| code(idx % 2 * NIBBLES + row, idx / 2)))).collect();
        let expected: Vec<u8> = (0..16).flat_map(|n| (0..4).map(move |k| code(n, k))).collect();
        assert_eq!(nibbles(&awq(&words, 2)), expected);
        assert!(awq(&[], 0).is_empty());
    }

    #[test]
    fn zeros_come_from_either_side_of_their_words() {
        // 8 rows, 2 groups: row n has the zero n, or n + 8 in the second group.
        let words = [word(IN_ORDER.map(|n| n as u8)), word(IN_ORDER.map(|n| n as u8 + 8))];
        let expected: Vec<u8> = (0..8).flat_map(|n| [n, n + 8]).collect();
        for (row_stride, group_stride) in [(2, 1), (1, 1)] {
            let words = Words { words: &words, row_words: 1, groups: 2, row_stride, group_stride };
            assert_eq!(words.zeros(&IN_ORDER, 0), expected);
            let next: Vec<u8> = expected.iter().map(|zero| (zero + 1) % 16).collect();
            assert_eq!(words.zeros(&IN_ORDER, 1), next, "one larger, 15 becomes 0");
        }
    }

    #[test]
    fn transposing_swaps_the_dimensions() {
        assert_eq!(transpose(&[1, 2, 3, 4, 5, 6], 2), [1, 4, 2, 5, 3, 6]);
        assert!(transpose::<u8>(&[], 0).is_empty());
    }
}
