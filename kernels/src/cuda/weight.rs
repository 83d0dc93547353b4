//! Matrices as the kernels read them: fused parts stacked; gate and up alternate eight rows by eight.

mod blocks;
mod fp8;
mod fragments;
mod int4;
mod kind;
mod super_blocks;

use half::bf16;
use quant::{Format, Stored};
use tensor::{DeviceError, LoadError, Role};

use super::Buf;
use super::device::Address;
use super::moe::MAX_EXPERTS;
use super::staging::{Loader, Plane};
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

/// A matrix, or a stack of experts of one shape, that is still in the checkpoint's parts.
#[derive(Debug)]
pub(super) struct Stack<'a> {
    pub rows: usize,
    pub cols: usize,
    pub kind: Kind,
    /// The order that the columns are packed in; empty for their own.
    pub order: Vec<u32>,
    experts: Vec<Unpacked<'a>>,
}

/// Rows of parts, in the order in which they are packed.
type Rows<'a> = [(&'a Stored<'a>, usize)];

/// One matrix in the checkpoint's parts.
#[derive(Debug)]
struct Unpacked<'a> {
    parts: &'a [Stored<'a>],
    rows: Vec<(&'a Stored<'a>, usize)>,
    cols: usize,
    /// In codes where all parts are coded in one way that the kernels have, else bf16.
    kind: Kind,
}

impl<'a> Stack<'a> {
    /// `parts` as `role` says.
    ///
    /// # Errors
    /// If they do not belong together, or are no shape for the kernels.
    pub fn of(parts: &'a [Stored<'a>], role: Role) -> Result<Self, LoadError> {
        match role {
            Role::Experts | Role::ExpertsGlu => Self::of_experts(parts, role),
            _ => {
                let matrix = Unpacked::of(parts, role)?;
                let (kind, order) = (matrix.kind, matrix.order(matrix.kind));
                Ok(Self::new(vec![matrix], kind, order))
            }
        }
    }

    /// In codes where all experts are held alike, their columns as they come, else bf16.
    fn of_experts(parts: &'a [Stored<'a>], stacked: Role) -> Result<Self, LoadError> {
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
        Ok(Self::new(experts, kind, Vec::new()))
    }

    fn new(experts: Vec<Unpacked<'a>>, kind: Kind, order: Vec<u32>) -> Self {
        Self { rows: experts[0].rows.len(), cols: experts[0].cols, kind, order, experts }
    }

    pub fn num_experts(&self) -> usize {
        self.experts.len()
    }

    /// Bytes of all codes or numbers, and of all scales.
    pub fn bytes(&self) -> [usize; 2] {
        self.kind.planes(self.cols).map(|planes| self.experts.len() * pitched(&planes, self.rows))
    }

    /// Scales of FP8 as cublasLt wants them, expert by expert.
    pub fn wide_scales(&self, scaling: Scaling) -> Vec<f32> {
        self.experts.iter().flat_map(|expert| scaling.widened(&expert.rows, self.cols)).collect()
    }

    /// Packs everything into memory at `data` and `meta`.
    ///
    /// # Errors
    /// If the device fails.
    pub fn load(&self, loader: &mut Loader, mut data: Address, mut meta: Address) -> Result<(), DeviceError> {
        let [numbers, scales] = self.kind.planes(self.cols);
        for expert in &self.experts {
            let planes = [place(&numbers, data, self.rows), place(&scales, meta, self.rows)].concat();
            loader.load_rows(self.rows, &planes, &|rows, bytes| {
                let numbers = numbers.iter().map(|plane| plane.bytes_of(rows.len())).sum();
                let (data, meta) = bytes.split_at_mut(numbers);
                pack(self.kind, &self.order, &expert.rows[rows], self.cols, data, meta);
            })?;
            data += pitched(&numbers, self.rows) as Address;
            meta += pitched(&scales, self.rows) as Address;
        }
        Ok(())
    }
}

/// Bytes that planes of so many rows take on the device.
fn pitched(planes: &[Plane], rows: usize) -> usize {
    planes.iter().map(|plane| plane.runs * plane.pitch(rows)).sum()
}

/// Planes of so many rows, one after the other from `start` on.
fn place(planes: &[Plane], start: Address, rows: usize) -> Vec<(Address, Plane)> {
    let starts = planes.iter().scan(start, |next, plane| {
        let start = *next;
        *next += (plane.runs * plane.pitch(rows)) as Address;
        Some(start)
    });
    starts.zip(planes.iter().copied()).collect()
}

/// Packs `rows` as `kind` has them: its own codes, or bf16.
fn pack(kind: Kind, order: &[u32], rows: &Rows<'_>, cols: usize, data: &mut [u8], meta: &mut [u8]) {
    match kind {
        Kind::Bf16 => dense(rows, cols, data),
        Kind::W4 => blocks::pack(4, rows, cols, data, meta),
        Kind::W8 => blocks::pack(8, rows, cols, data, meta),
        Kind::Int4(group) => int4::pack(group, order, rows, cols, data, meta),
        Kind::Q4K => super_blocks::pack_q4k(rows, data, meta),
        Kind::Q6K => super_blocks::pack_q6k(rows, data, meta),
        Kind::Fp8(scaling) => scaling.pack(rows, cols, data, meta),
    }
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
}

/// Eight rows of the gate from `first` on, then eight of the up part.
fn pair_rows<'a>(parts: &'a [Stored<'a>], first: usize) -> impl Iterator<Item = (&'a Stored<'a>, usize)> {
    parts.iter().flat_map(move |part| (first..first + GLU_ROWS).map(move |row| (part, row)))
}

fn dense(rows: &Rows<'_>, cols: usize, data: &mut [u8]) {
    let mut values = vec![0.0; cols];
    for ((part, row), packed) in rows.iter().zip(data.chunks_exact_mut(cols * 2)) {
        if part.format == Format::Bf16 {
            packed.copy_from_slice(part.row(*row));
            continue;
        }
        part.dequantize_row(*row, &mut values);
        for (packed, &x) in packed.as_chunks_mut().0.iter_mut().zip(&values) {
            *packed = bf16::from_f32(x).to_le_bytes();
        }
    }
}
