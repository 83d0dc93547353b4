//! A borrowed matrix as the file holds it.

use thiserror::Error;

use crate::{Format, Scales, ScalesError, int4};

/// An `[rows, cols]` matrix, row-major; a vector has one row.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    pub rows: usize,
    pub cols: usize,
    pub format: Format,
    pub bytes: &'a [u8],
    /// Of the planar formats; without them every scale is 1.
    pub scales: Option<Scales<'a>>,
}

/// Why bytes are not the matrix they claim to be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StoredError {
    #[error("{cols} columns are not whole blocks of {format}, which are {block_len} long")]
    PartialBlock { format: Format, cols: usize, block_len: usize },
    #[error("{rows} x {cols} elements of {format} overflow the address space")]
    Overflow { format: Format, rows: usize, cols: usize },
    #[error("{rows} x {cols} elements of {format} take {expected} bytes, but there are {found}")]
    Length { format: Format, rows: usize, cols: usize, expected: usize, found: usize },
    #[error(transparent)]
    Scales(#[from] ScalesError),
}

impl<'a> Stored<'a> {
    /// Checks that `bytes` is exactly `rows` rows of whole blocks.
    pub fn new(rows: usize, cols: usize, format: Format, bytes: &'a [u8]) -> Result<Self, StoredError> {
        let expected = Self::byte_len(rows, cols, format)?;
        if bytes.len() != expected {
            return Err(StoredError::Length { format, rows, cols, expected, found: bytes.len() });
        }
        Ok(Self { rows, cols, format, bytes, scales: None })
    }

    /// The same elements under `scales`.
    pub fn with_scales(self, scales: Scales<'a>) -> Result<Self, StoredError> {
        scales.check(self.rows, self.cols, self.format)?;
        Ok(Self { scales: Some(scales), ..self })
    }

    /// Whether it is what [`Stored::new`] and [`Stored::with_scales`] would make; its fields can be set without them.
    pub fn check(&self) -> Result<(), StoredError> {
        let plain = Self::new(self.rows, self.cols, self.format, self.bytes)?;
        self.scales.map_or(Ok(()), |scales| plain.with_scales(scales).map(drop))
    }

    /// Bytes that a matrix of this shape takes; nothing in it overflows, not even the number of elements.
    pub fn byte_len(rows: usize, cols: usize, format: Format) -> Result<usize, StoredError> {
        let block_len = format.block_len();
        if !cols.is_multiple_of(block_len) {
            return Err(StoredError::PartialBlock { format, cols, block_len });
        }
        rows.checked_mul(cols)
            .and(format.row_bytes(cols))
            .and_then(|row| row.checked_mul(rows))
            .filter(|bytes| isize::try_from(*bytes).is_ok())
            .ok_or(StoredError::Overflow { format, rows, cols })
    }

    /// Of a planar format: the scale of the element at `row` and `col`, and the code that means 0.
    pub fn scale_and_zero(&self, row: usize, col: usize) -> (f32, f32) {
        let centre = if self.format == Format::Int4 { f32::from(int4::ZERO) } else { 0.0 };
        self.scales.map_or((1.0, centre), |scales| {
            let group = scales.group(col);
            let zeros = scales.zero_row(row, self.cols);
            (scales.row(row, self.cols)[group], zeros.map_or(centre, |zeros| f32::from(zeros[group])))
        })
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        self.cols / self.format.block_len() * self.format.block_bytes()
    }

    /// The bytes of row `row`.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, row: usize) -> &'a [u8] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        let row_bytes = self.row_bytes();
        &self.bytes[row * row_bytes..][..row_bytes]
    }

    /// Writes the values of row `row` to `out`, which is `cols` long.
    ///
    /// # Panics
    /// If there is no such row, or `out` has another length.
    pub fn dequantize_row(&self, row: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.cols, "a row has {} values", self.cols);
        self.format.decode(self.row(row), out);
        if let Some(scales) = &self.scales {
            scales.apply(row, out);
        }
    }

    /// All values, `[rows, cols]`.
    pub fn dequantize(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.rows * self.cols];
        if self.cols > 0 {
            values.chunks_exact_mut(self.cols).enumerate().for_each(|(row, out)| self.dequantize_row(row, out));
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_checked() {
        let bytes = [0u8; 40];
        let cases: [(usize, usize, Format, &[u8], &str); 5] = [
            (1, 33, Format::Q4_1, &bytes, "33 columns are not whole blocks of Q4_1, which are 32 long"),
            (usize::MAX, 32, Format::Q4_1, &bytes, "overflow the address space"),
            (usize::MAX / 4, 2, Format::F32, &bytes, "overflow the address space"),
            (2, 32, Format::Q4_1, &bytes[..39], "2 x 32 elements of Q4_1 take 40 bytes, but there are 39"),
            (1, 0, Format::F32, &bytes, "1 x 0 elements of F32 take 0 bytes, but there are 40"),
        ];
        for (rows, cols, format, bytes, message) in cases {
            let error = Stored::new(rows, cols, format, bytes).expect_err(message).to_string();
            assert!(error.contains(message), "{error}");
        }
        for (rows, len) in [(0, 0), (1, 20), (2, 40)] {
            let stored = Stored::new(rows, 32, Format::Q4_1, &bytes[..len]).expect("a whole matrix");
            assert_eq!(stored.dequantize(), vec![0.0; rows * 32]);
        }
    }

    #[test]
    fn rows_are_where_the_whole_says() {
        let values: Vec<f32> = (0..96).map(|i| i as f32 - 40.0).collect();
        let bytes = crate::quantize(Format::Q8_0, &values).expect("whole blocks");
        let stored = Stored::new(3, 32, Format::Q8_0, &bytes).expect("three rows");
        let all = stored.dequantize();
        for row in 0..3 {
            let mut out = [0.0; 32];
            stored.dequantize_row(row, &mut out);
            assert_eq!(out, all[row * 32..][..32], "row {row}");
        }
    }
}
