//! FP8 weights as `gemm_fp8.cu` and cublasLt read them: the checkpoint's codes row by row, scales beside them.

use quant::{Format, Scales, Stored};
use tensor::Encoding;

use super::super::act::GROUP;
use super::Rows;
use super::fragments::TILE_ROWS;

/// Bytes of a chunk that is copied at once.
const CHUNK: usize = 16;
/// How scales lie over a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Scaling {
    /// One for 128 columns, or one for all.
    pub by_group: bool,
    /// One for 2^shift rows.
    pub shift: u32,
}

impl Scaling {
    /// Of parts that the kernels take as they are: all FP8, with whole chunks a row, scaled alike along the columns.
    pub fn of(parts: &[Stored<'_>], cols: usize) -> Option<Self> {
        let fits = |part: &Stored<'_>| part.format == Format::Fp8E4m3 && part.rows.is_multiple_of(TILE_ROWS);
        if !cols.is_multiple_of(CHUNK) || !parts.iter().all(fits) {
            return None;
        }
        let is_whole = |scales: &Scales<'_>| scales.cols_per >= cols;
        let is_grouped = |scales: &Scales<'_>| scales.cols_per == GROUP && !is_whole(scales);
        let by_group = if parts.iter().all(|part| part.scales.as_ref().is_none_or(is_whole)) {
            false
        } else if parts.iter().all(|part| part.scales.as_ref().is_some_and(is_grouped)) {
            true
        } else {
            return None;
        };
        let in_tiles =
            |part: &Stored<'_>| part.scales.as_ref().is_some_and(|scales| scales.rows_per.is_multiple_of(TILE_ROWS));
        let shift = if by_group && parts.iter().all(in_tiles) { TILE_ROWS.ilog2() } else { 0 };
        Some(Self { by_group, shift })
    }

    /// Scales a row of groups, in whole chunks.
    pub fn stride(self, rows: usize) -> usize {
        (rows >> self.shift).next_multiple_of(4)
    }

    /// What a matmul with such a weight reads: inputs are scaled by groups where the weight is in blocks.
    pub fn encoding(self) -> Encoding {
        if self.by_group && self.shift > 0 { Encoding::E4m3G128 } else { Encoding::E4m3Token }
    }

    /// The scales as cublasLt wants those of a weight in blocks: `[groups, rows]`.
    pub fn widened(self, rows: &Rows<'_>, cols: usize) -> Vec<f32> {
        let of = |group: usize| rows.iter().map(move |(part, row)| part.scale_and_zero(*row, group * GROUP).0);
        (0..self.groups(cols)).flat_map(of).collect()
    }

    /// Runs of scales: one a group.
    pub fn groups(self, cols: usize) -> usize {
        if self.by_group { cols.div_ceil(GROUP) } else { 1 }
    }

    /// Codes `[rows, cols]` and scales `[groups, rows >> shift]`.
    pub fn pack(self, rows: &Rows<'_>, cols: usize, data: &mut [u8], meta: &mut [u8]) {
        for ((part, row), codes) in rows.iter().zip(data.chunks_exact_mut(cols)) {
            codes.copy_from_slice(part.row(*row));
        }
        let scales = meta.as_chunks_mut::<4>().0.chunks_exact_mut(rows.len() >> self.shift);
        for (group, scales) in scales.enumerate() {
            // Rows that share a scale have the same.
            for ((part, row), scale) in rows.iter().step_by(1 << self.shift).zip(scales) {
                *scale = part.scale_and_zero(*row, group * GROUP).0.to_le_bytes();
            }
        }
    }
}
