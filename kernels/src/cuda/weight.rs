//! Matrices as the kernels read them: bf16, `[N, K]`, fused parts stacked; gate and up alternate eight rows by eight.

use half::bf16;
use quant::Stored;
use tensor::{LoadError, Role};

/// Rows of gate, then rows of up: the outputs that one thread of a tensor core's tile holds side by side.
const GLU_ROWS: usize = 8;

/// One matrix, packed.
pub struct Weight {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) data: super::Buf,
}

/// The rows of `parts` in packed order, as bf16.
pub(super) fn pack(parts: &[Stored<'_>], role: Role) -> Result<Vec<bf16>, LoadError> {
    let cols = parts.first().ok_or_else(|| LoadError::Shape("a weight has at least one part".to_owned()))?.cols;
    if cols == 0 || !cols.is_multiple_of(8) {
        return Err(LoadError::Unsupported(format!("the CUDA kernels take inputs in multiples of 8, not {cols}")));
    }
    for part in parts {
        if part.cols != cols {
            return Err(LoadError::Shape(format!("fused parts have {cols} and {} columns", part.cols)));
        }
        if Stored::new(part.rows, cols, part.format, part.bytes).is_err() {
            return Err(LoadError::Shape(format!("{} x {cols} of {} are not these bytes", part.rows, part.format)));
        }
    }
    let mut packed = Vec::with_capacity(parts.iter().map(|part| part.rows * cols).sum());
    let mut row = vec![0.0; cols];
    let mut put = |part: &Stored<'_>, idx: usize| {
        part.dequantize_row(idx, &mut row);
        packed.extend(row.iter().map(|&x| bf16::from_f32(x)));
    };
    if role != Role::Glu {
        parts.iter().for_each(|part| (0..part.rows).for_each(|idx| put(part, idx)));
        return Ok(packed);
    }
    let is_pair = parts.len() == 2 && parts[0].rows == parts[1].rows && parts[0].rows.is_multiple_of(GLU_ROWS);
    if !is_pair {
        return Err(LoadError::Shape(format!(
            "a gate and an up part of equal rows in multiples of {GLU_ROWS} are wanted"
        )));
    }
    for first in (0..parts[0].rows).step_by(GLU_ROWS) {
        parts.iter().for_each(|part| (first..first + GLU_ROWS).for_each(|idx| put(part, idx)));
    }
    Ok(packed)
}
