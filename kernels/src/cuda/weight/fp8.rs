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

    /// `scales` of a weight in blocks as cublasLt wants them: `[groups, rows]`.
    pub fn widened(self, scales: &[u8], rows: usize) -> Vec<u8> {
        let one = |group: &[u8], row: usize| -> [u8; 4] {
            group[(row >> self.shift) * 4..][..4].try_into().expect("four bytes")
        };
        scales
            .chunks_exact(self.stride(rows) * 4)
            .flat_map(|group| (0..rows).flat_map(move |row| one(group, row)))
            .collect()
    }

    fn groups(self, cols: usize) -> usize {
        if self.by_group { cols.div_ceil(GROUP) } else { 1 }
    }

    /// Codes `[rows, cols]` and scales `[groups, stride]`.
    pub fn pack(self, rows: &Rows<'_>, cols: usize) -> (Vec<u8>, Vec<u8>) {
        let (groups, stride) = (self.groups(cols), self.stride(rows.len()));
        let mut codes = Vec::with_capacity(rows.len() * cols);
        let mut scales = vec![0.0f32; groups * stride];
        for (n, (part, row)) in rows.iter().enumerate() {
            codes.extend_from_slice(part.row(*row));
            for group in 0..groups {
                scales[group * stride + (n >> self.shift)] = part.scale_and_zero(*row, group * GROUP).0;
            }
        }
        (codes, scales.into_iter().flat_map(f32::to_le_bytes).collect())
    }
}
