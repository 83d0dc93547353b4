//! How a matrix is held: in the checkpoint's own codes where there are kernels for them, else as bf16.

use quant::{Format, Stored};
use tensor::Role;

use super::super::staging::Plane;
use super::fp8::Scaling;
use super::fragments::{self, TILE_ROWS};
use super::{blocks, int4};

/// Columns of a super-block.
const SUPER: usize = 256;

/// How a matrix is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Kind {
    Bf16,
    /// Blocks of 32 codes of 4 bits.
    W4,
    /// Of 5 and of 8 bits.
    W8,
    /// With zeros, in groups of 32, 64 or 128.
    Int4(usize),
    Q4K,
    Q6K,
    /// With scales beside.
    Fp8(Scaling),
}

impl Kind {
    /// The kind that holds all `parts` in codes, or bf16: what has no kernels of its own (Q2_K, Q3_K, Q5_K), and what tokens
    /// are looked up in where it is INT4 or FP8, which no checkpoint has.
    pub fn of(parts: &[Stored<'_>], rows: usize, cols: usize, role: Role) -> Self {
        let kind = match parts[0].format {
            Format::Q4_0 | Format::Q4_1 => Self::W4,
            Format::Q5_0 | Format::Q5_1 | Format::Q8_0 => Self::W8,
            Format::Q4K => Self::Q4K,
            Format::Q6K => Self::Q6K,
            Format::Int4 if !matches!(role, Role::Embed | Role::Head) => {
                return int4::group(parts, rows).map_or(Self::Bf16, Self::Int4);
            }
            Format::Fp8E4m3 if !matches!(role, Role::Embed | Role::Head) => {
                return Scaling::of(parts, cols).map_or(Self::Bf16, Self::Fp8);
            }
            _ => Self::Bf16,
        };
        let fits = rows.is_multiple_of(TILE_ROWS) && cols.is_multiple_of(32);
        if fits && parts.iter().all(|part| kind.holds(part.format)) { kind } else { Self::Bf16 }
    }

    fn holds(self, format: Format) -> bool {
        match self {
            Self::Bf16 => true,
            Self::W4 => matches!(format, Format::Q4_0 | Format::Q4_1),
            Self::W8 => matches!(format, Format::Q5_0 | Format::Q5_1 | Format::Q8_0),
            Self::Int4(_) => format == Format::Int4,
            Self::Q4K => format == Format::Q4K,
            Self::Q6K => format == Format::Q6K,
            Self::Fp8(_) => format == Format::Fp8E4m3,
        }
    }

    /// How the rows of a matrix of `cols` lie on the device: their codes or numbers, and their scales.
    pub fn planes(self, cols: usize) -> [Vec<Plane>; 2] {
        let plane = |runs: usize, bytes: usize| Plane { runs, bytes, shift: 0 };
        let fragments = |bits: usize| plane(cols * bits / 128, fragments::ROW_BYTES);
        let supers = cols / SUPER;
        match self {
            Self::Bf16 => [vec![plane(1, cols * 2)], Vec::new()],
            Self::W4 => [vec![fragments(4)], vec![plane(cols / blocks::GROUP, 4)]],
            Self::W8 => [vec![fragments(8)], vec![plane(cols / blocks::GROUP, 4)]],
            Self::Int4(group) => [vec![fragments(4)], vec![plane(cols.div_ceil(group), 4)]],
            Self::Q4K => [vec![fragments(4)], vec![plane(supers, 16)]],
            Self::Q6K => [vec![fragments(4), fragments(2)], vec![plane(supers, 16), plane(supers, 2)]],
            Self::Fp8(scaling) => {
                [vec![plane(1, cols)], vec![Plane { runs: scaling.groups(cols), bytes: 4, shift: scaling.shift }]]
            }
        }
    }

    /// Of scales that several stages share: their number, as a power of two.
    pub fn meta_shift(self) -> usize {
        match self {
            Self::Int4(128) => 1,
            Self::Q4K | Self::Q6K => 2,
            _ => 0,
        }
    }
}
