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

/// A matrix that is still in the checkpoint's parts.
struct Unpacked<'a> {
    parts: &'a [Stored<'a>],
    rows: Vec<(&'a Stored<'a>, usize)>,
    cols: usize,
    /// In codes where all parts are coded in one way that the kernels have, else bf16.
    kind: Kind,
}

/// Packs `parts` as `role` says.
pub(super) fn pack(parts: &[Stored<'_>], role: Role) -> Result<Packed, LoadError> {
    match role {
        Role::Experts | Role::ExpertsGlu => stack(parts, role),
        _ => Unpacked::of(parts, role).map(|matrix| matrix.pack(matrix.kind)),
    }
}

/// A stack of experts, each a matrix or a gate and an up part: in codes where all experts are held alike, their columns as they come, else bf16.
fn stack(parts: &[Stored<'_>], stacked: Role) -> Result<Packed, LoadError> {
    LIMITS.check(parts, stacked)?;
    let (each, role) = if stacked == Role::ExpertsGlu { (2, Role::Glu) } else { (1, Role::Row) };
    let experts = parts.chunks(each).map(|parts| Unpacked::of(parts, role)).collect::<Result<Vec<_>, _>>()?;
    if experts.len() > MAX_EXPERTS {
        let message = format!("the CUDA kernels take {MAX_EXPERTS} experts at most, not {}", experts.len());
        return Err(LoadError::Unsupported(message));
    }
    let kind = experts[0].kind;
    let alike = |expert: &Unpacked<'_>| expert.kind == kind && expert.order(kind).is_empty();
    let kind = if experts.iter().all(alike) { kind } else { Kind::Bf16 };
    let mut packed = experts.iter().map(|expert| expert.pack(kind));
    let mut stack = packed.next().expect("a stack has an expert");
    for expert in packed {
        stack.data.extend(expert.data);
        stack.meta.extend(expert.meta);
        stack.experts += 1;
    }
    Ok(stack)
}

impl<'a> Unpacked<'a> {
    fn of(parts: &'a [Stored<'a>], role: Role) -> Result<Self, LoadError> {
        let cols = LIMITS.check(parts, role)?;
        let rows: Vec<(&Stored<'_>, usize)> = match role {
            Role::Glu => (0..parts[0].rows).step_by(GLU_ROWS).flat_map(|first| pair_rows(parts, first)).collect(),
            _ => parts.iter().flat_map(|part| (0..part.rows).map(move |row| (part, row))).collect(),
        };
        let kind = Kind::of(parts, rows.len(), cols, role);
        Ok(Self { parts, rows, cols, kind })
    }

    /// The order that the columns of `kind` are packed in; empty for their own.
    fn order(&self, kind: Kind) -> Vec<u32> {
        if let Kind::Int4(_) = kind { int4::order(&self.parts[0]) } else { Vec::new() }
    }

    /// The matrix as `kind`: its own, or bf16 `[N, K]`.
    fn pack(&self, kind: Kind) -> Packed {
        let (rows, cols, order) = (self.rows.as_slice(), self.cols, self.order(kind));
        let (data, meta) = match kind {
            Kind::Bf16 => (dense(rows, cols), Vec::new()),
            Kind::W4 | Kind::W8 => blocks::pack(kind, rows, cols),
            Kind::Int4(group) => int4::pack(group, &order, rows, cols),
            Kind::Q4K => super_blocks::pack_q4k(rows, cols),
            Kind::Q6K => super_blocks::pack_q6k(rows, cols),
            Kind::Fp8(scaling) => scaling.pack(rows, cols),
        };
        Packed { rows: rows.len(), cols, experts: 1, kind, data, meta, order }
    }
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
