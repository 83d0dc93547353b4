//! Matrices as the kernels read them: fused parts stacked; gate and up alternate eight rows by eight.

mod codes;

use half::bf16;
use quant::Stored;
use tensor::{LoadError, Role};

use super::Buf;
pub(super) use codes::Kind;

/// Rows of gate, then rows of up: the outputs that one thread of a tensor core's tile holds side by side.
const GLU_ROWS: usize = 8;

/// One matrix, packed.
pub struct Weight {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) kind: Kind,
    /// Runs that the sum over the columns is cut into.
    pub(super) splits: usize,
    pub(super) data: Buf,
    /// Scales and minimums, where it is coded.
    pub(super) meta: Option<Buf>,
}

/// A matrix on its way to the device.
pub(super) struct Packed {
    pub rows: usize,
    pub cols: usize,
    pub kind: Kind,
    pub data: Vec<u8>,
    pub meta: Vec<u32>,
}

/// Packs `parts`: in codes where all of them are coded in one way that the kernels have, else as bf16 `[N, K]`.
pub(super) fn pack(parts: &[Stored<'_>], role: Role) -> Result<Packed, LoadError> {
    let cols = parts.first().ok_or_else(|| LoadError::Shape("a weight has at least one part".to_owned()))?.cols;
    check(parts, role, cols)?;
    let rows: Vec<(usize, usize)> = match role {
        Role::Glu => (0..parts[0].rows).step_by(GLU_ROWS).flat_map(pair_rows).collect(),
        _ => parts.iter().enumerate().flat_map(|(idx, part)| (0..part.rows).map(move |row| (idx, row))).collect(),
    };
    let rows = rows.into_iter().map(|(part, row)| (&parts[part], row));
    let num_rows = rows.len();
    let kind = Kind::of(parts, num_rows, cols);
    let (data, meta) = match kind {
        Kind::Bf16 => (dense(rows, cols), Vec::new()),
        Kind::W4 | Kind::W8 => codes::pack(kind, rows, num_rows, cols),
    };
    Ok(Packed { rows: num_rows, cols, kind, data, meta })
}

/// Eight rows of the gate from `first` on, then eight of the up part.
fn pair_rows(first: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..2).flat_map(move |part| (first..first + GLU_ROWS).map(move |row| (part, row)))
}

fn dense<'a>(rows: impl Iterator<Item = (&'a Stored<'a>, usize)>, cols: usize) -> Vec<u8> {
    let mut values = vec![0.0; cols];
    let mut packed = Vec::new();
    for (part, row) in rows {
        part.dequantize_row(row, &mut values);
        packed.extend(values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()));
    }
    packed
}

fn check(parts: &[Stored<'_>], role: Role, cols: usize) -> Result<(), LoadError> {
    if cols == 0 || !cols.is_multiple_of(8) {
        return Err(LoadError::Unsupported(format!("the CUDA kernels take inputs in multiples of 8, not {cols}")));
    }
    for part in parts {
        if part.cols != cols {
            return Err(LoadError::Shape(format!("fused parts have {cols} and {} columns", part.cols)));
        }
        part.check().map_err(|error| LoadError::Shape(error.to_string()))?;
    }
    let is_pair = parts.len() == 2 && parts[0].rows == parts[1].rows && parts[0].rows.is_multiple_of(GLU_ROWS);
    if role == Role::Glu && !is_pair {
        return Err(LoadError::Shape(format!(
            "a gate and an up part of equal rows in multiples of {GLU_ROWS} are wanted"
        )));
    }
    Ok(())
}
