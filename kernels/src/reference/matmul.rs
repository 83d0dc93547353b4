//! Matrices as f32, multiplied by candle.
//!
//! A matmul library picks its kernels by the number of rows, and with them the order of its sums. So every call has
//! [`TILE`] rows, the last ones padded with zeros: then a row's sum runs over K the same way in any batch.

use candle_core::{Device, Tensor};
use quant::{Format, Stored};
use tensor::{Encoding, LoadError};

/// Rows of each multiplication.
const TILE: usize = 32;
/// Rows and columns under one scale where activations have groups of 128 too.
const BLOCK: (usize, usize) = (128, 128);

/// A dequantized matrix `[N, K]`, or a stack of them, one on the other.
pub struct Weight {
    matrix: Tensor,
    rows: usize,
    cols: usize,
    encoding: Encoding,
}

impl Weight {
    /// Stacks `parts` along the output.
    pub(super) fn new(parts: &[Stored<'_>]) -> Result<Self, LoadError> {
        let cols = parts.first().map_or(0, |part| part.cols);
        parts.iter().try_for_each(Stored::check).map_err(|error| LoadError::Shape(error.to_string()))?;
        if parts.iter().any(|part| part.cols != cols) {
            return Err(LoadError::Shape("fused matrices have one number of columns".to_owned()));
        }
        let rows = parts.iter().map(|part| part.rows).sum();
        let values: Vec<f32> = parts.iter().flat_map(|part| part.dequantize()).collect();
        let matrix = Tensor::from_vec(values, (rows, cols), &Device::Cpu);
        Ok(Self {
            matrix: matrix.map_err(|error| LoadError::Shape(error.to_string()))?,
            rows,
            cols,
            encoding: encoding(parts),
        })
    }

    /// Stacks `parts` as experts, `each` of them to one matrix.
    pub(super) fn experts(parts: &[Stored<'_>], each: usize) -> Result<Self, LoadError> {
        if !parts.len().is_multiple_of(each) || parts.iter().any(|part| part.rows != parts[0].rows) {
            return Err(LoadError::Shape("the experts of a stack have one shape".to_owned()));
        }
        let stack = Self::new(parts)?;
        Ok(Self { rows: each * parts.first().map_or(0, |part| part.rows), ..stack })
    }

    /// One matrix of a stack.
    pub(super) fn expert(&self, idx: usize) -> Self {
        let matrix = self.matrix.narrow(0, idx * self.rows, self.rows);
        Self { matrix: matrix.expect("experts are within their stack"), ..*self }
    }

    /// Rows of the matrix, or of one of a stack.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn cols(&self) -> usize {
        self.cols
    }

    /// Of the activations that it multiplies.
    pub(super) fn encoding(&self) -> Encoding {
        self.encoding
    }

    pub(super) fn bytes(&self) -> u64 {
        (self.matrix.elem_count() * size_of::<f32>()) as u64
    }

    /// One row of the matrix.
    pub(super) fn row(&self, row: usize) -> Vec<f32> {
        self.matrix.get(row).and_then(|row| row.to_vec1()).expect("tokens are within the vocabulary")
    }

    /// `x [M, K]` times the transpose: `[M, N]`, row-major.
    pub(super) fn multiply(&self, x: &[f32]) -> Vec<f32> {
        let mut out = Vec::with_capacity(x.len() / self.cols * self.rows);
        for tile in x.chunks(TILE * self.cols) {
            let product = self.multiply_tile(tile).expect("a tile has the matrix's columns");
            out.extend_from_slice(&product[..tile.len() / self.cols * self.rows]);
        }
        out
    }

    fn multiply_tile(&self, tile: &[f32]) -> candle_core::Result<Vec<f32>> {
        let mut padded = tile.to_vec();
        padded.resize(TILE * self.cols, 0.0);
        let x = Tensor::from_vec(padded, (TILE, self.cols), &Device::Cpu)?;
        x.matmul(&self.matrix.t()?)?.flatten_all()?.to_vec1()
    }
}

/// FP8 multiplies FP8: activations are rounded in groups where the weight is in blocks, else by the row.
fn encoding(parts: &[Stored<'_>]) -> Encoding {
    let in_blocks = |part: &Stored<'_>| part.scales.is_some_and(|s| (s.rows_per, s.cols_per) == BLOCK);
    match parts.iter().all(|part| part.format == Format::Fp8E4m3) {
        true if parts.iter().all(in_blocks) => Encoding::E4m3G128,
        true => Encoding::E4m3Token,
        false => Encoding::F32,
    }
}
