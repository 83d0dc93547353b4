//! A borrowed matrix as the file holds it.

/// An `[rows, cols]` matrix, row-major; a vector has one row.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    pub rows: usize,
    pub cols: usize,
    pub format: Format,
    pub bytes: &'a [u8],
}

/// Element or block layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q8_0,
}
