//! Matrices as the kernels read them: fused parts stacked; gate and up alternate eight rows by eight.

mod blocks;
mod fp8;
mod fragments;
mod int4;
mod kind;
mod super_blocks;

use half::bf16;
use quant::{Format, Stored};
use tensor::{LoadError, Role};

use super::Buf;
use super::moe::MAX_EXPERTS;
use crate::parts::Limits;
pub(super) use fp8::Scaling;
pub(super) use kind::Kind;

/// Rows of gate, then rows of up: the outputs that one thread of a tensor core's tile holds side by side.
const GLU_ROWS: usize = 8;
const LIMITS: Limits = Limits { cols: 8, glu_rows: GLU_ROWS, name: "CUDA", hint: "" };

/// One matrix, packed; or a stack of experts of one shape, one after the other.
pub struct Weight {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) experts: usize,
    pub(super) kind: Kind,
    /// Runs that the sum over the columns is cut into.
    pub(super) splits: usize,
    pub(super) data: Buf,
    /// Scales, where it is coded.
    pub(super) meta: Option<Buf>,
    /// Scales `[cols / 128, rows]` of FP8 in blocks, for cublasLt.
    pub(super) wide_scales: Option<Buf>,
    /// The order that the inputs are to be brought into, where the columns are not in theirs.
    pub(super) order: Option<Buf>,
}

/// A matrix on its way to the device.
pub(super) struct Packed {
    pub rows: usize,
    pub cols: usize,
    pub experts: usize,
    pub kind: Kind,
    pub data: Vec<u8>,
    pub meta: Vec<u8>,
    pub order: Vec<u32>,
}

/// Rows of parts, in the order in which they are packed.
type Rows<'a> = [(&'a Stored<'a>, usize)];

/// Packs `parts` as `role` says.
pub(super) fn pack(parts: &[Stored<'_>], role: Role) -> Result<Packed, LoadError> {
    match role {
        Role::Experts => stack(parts, 1, Role::Row),
        Role::ExpertsGlu => stack(parts, 2, Role::Glu),
        _ => matrix(parts, role),
    }
}

/// A stack of experts, `each` parts of `role` one.
fn stack(parts: &[Stored<'_>], each: usize, role: Role) -> Result<Packed, LoadError> {
    let mut experts = parts.chunks(each).map(|parts| matrix(parts, role));
    let mut stack = experts.next().unwrap_or_else(|| matrix(parts, role))?;
    for expert in experts {
        let expert = expert?;
        if (expert.rows, expert.cols, expert.kind) != (stack.rows, stack.cols, stack.kind) {
            return Err(LoadError::Shape("the experts of a stack have one shape and one kind".to_owned()));
        }
        if !expert.order.is_empty() || !stack.order.is_empty() {
            return Err(LoadError::Unsupported(
                "experts whose columns have an order of their own cannot be run".to_owned(),
            ));
        }
        stack.data.extend(expert.data);
        stack.meta.extend(expert.meta);
        stack.experts += 1;
    }
    if stack.experts > MAX_EXPERTS {
        let message = format!("the CUDA kernels take {MAX_EXPERTS} experts at most, not {}", stack.experts);
        return Err(LoadError::Unsupported(message));
    }
    Ok(stack)
}

/// Packs one matrix: in codes where all of them are coded in one way that the kernels have, else as bf16 `[N, K]`.
fn matrix(parts: &[Stored<'_>], role: Role) -> Result<Packed, LoadError> {
    let cols = LIMITS.check(parts, role)?;
    let rows: Vec<(&Stored<'_>, usize)> = match role {
        Role::Glu => (0..parts[0].rows).step_by(GLU_ROWS).flat_map(|first| pair_rows(parts, first)).collect(),
        _ => parts.iter().flat_map(|part| (0..part.rows).map(move |row| (part, row))).collect(),
    };
    let kind = Kind::of(parts, rows.len(), cols, role);
    let order = if let Kind::Int4(_) = kind { int4::order(&parts[0]) } else { Vec::new() };
    let (data, meta) = match kind {
        Kind::Bf16 => (dense(&rows, cols), Vec::new()),
        Kind::W4 | Kind::W8 => blocks::pack(kind, &rows, cols),
        Kind::Int4(group) => int4::pack(group, &order, &rows, cols),
        Kind::Q4K => super_blocks::pack_q4k(&rows, cols),
        Kind::Q6K => super_blocks::pack_q6k(&rows, cols),
        Kind::Fp8(scaling) => scaling.pack(&rows, cols),
    };
    Ok(Packed { rows: rows.len(), cols, experts: 1, kind, data, meta, order })
}

/// Eight rows of the gate from `first` on, then eight of the up part.
fn pair_rows<'a>(parts: &'a [Stored<'a>], first: usize) -> impl Iterator<Item = (&'a Stored<'a>, usize)> {
    parts.iter().flat_map(move |part| (first..first + GLU_ROWS).map(move |row| (part, row)))
}

fn dense(rows: &Rows<'_>, cols: usize) -> Vec<u8> {
    let mut values = vec![0.0; cols];
    let mut packed = Vec::with_capacity(rows.len() * cols * 2);
    for (part, row) in rows {
        if part.format == Format::Bf16 {
            packed.extend_from_slice(part.row(*row));
            continue;
        }
        part.dequantize_row(*row, &mut values);
        packed.extend(values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()));
    }
    packed
}
