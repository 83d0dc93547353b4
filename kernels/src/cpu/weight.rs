//! Weights as the kernels stream them: tiles of 16 output columns, so that a lane is a column.
//!
//! ```text
//!   W4    per tile and 32 k: 16 f16 scales, 16 f16 minimums, 4 x 64 bytes of nibbles        320 bytes, the file's own 20
//!         in the i-th 64 bytes, lane c holds k 8i..8i+4 in its low and 8i+4..8i+8 in its high nibbles
//!   W8    per tile and 32 k: 16 f32 scales, 8 x 64 signed bytes, 4 k a lane                 576 bytes
//!   Bf16  per tile and k: 16 bf16                                                            32 bytes
//!   F32   per tile and k: 16 f32                                                             64 bytes
//! ```
//!
//! W4 and W8 hold the checkpoint's own blocks: value = scale * q + minimum, nothing is quantized anew.

use half::f16;
use quant::{Format, Stored};
use tensor::{ActSet, Encoding, LoadError, Role};

use super::act::GROUP;
use super::arena::{Lines, Shared};
use super::pool::Pool;
use super::simd::LANES;

/// One matrix, packed. `rows` outputs, `cols` inputs.
pub struct Weight {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) kind: Kind,
    pub(super) data: Lines,
}

/// How a packed matrix is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    W4,
    W8,
    Bf16,
    F32,
}

/// Bytes of a W4 record: scales, minimums, nibbles.
pub(super) const W4_RECORD: usize = 320;
pub(super) const W4_MINS: usize = 32;
pub(super) const W4_NIBBLES: usize = 64;
/// Bytes of a W8 record: scales, bytes.
pub(super) const W8_RECORD: usize = 576;
pub(super) const W8_BYTES: usize = 64;

impl Kind {
    fn of(format: Format, cols: usize) -> Self {
        match format {
            Format::Q4_0 | Format::Q4_1 if cols.is_multiple_of(GROUP) => Self::W4,
            Format::Q8_0 if cols.is_multiple_of(GROUP) => Self::W8,
            Format::Bf16 => Self::Bf16,
            _ => Self::F32,
        }
    }

    /// Bytes of one tile of `cols` inputs.
    pub fn tile_bytes(self, cols: usize) -> usize {
        match self {
            Self::W4 => cols / GROUP * W4_RECORD,
            Self::W8 => cols / GROUP * W8_RECORD,
            Self::Bf16 => cols * LANES * 2,
            Self::F32 => cols * LANES * 4,
        }
    }
}

impl Weight {
    /// Packs `parts` stacked along the output; gate and up of a [`Role::Glu`] alternate tile by tile.
    pub(super) fn pack(pool: &Pool, parts: &[Stored<'_>], role: Role) -> Result<Self, LoadError> {
        let cols = parts.first().ok_or_else(|| LoadError::Shape("a weight has at least one part".to_owned()))?.cols;
        let rows: usize = parts.iter().map(|part| part.rows).sum();
        check(parts, role, cols)?;
        let mut kinds = parts.iter().map(|part| Kind::of(part.format, cols));
        let first = kinds.next().expect("there is a first part");
        let kind = if kinds.all(|kind| kind == first) { first } else { Kind::F32 };
        let (tiles, tile_bytes) = (rows.div_ceil(LANES), kind.tile_bytes(cols));
        let mut data = Lines::zeroed(tiles * tile_bytes);
        let out = Shared(data.as_mut_ptr());
        pool.run(tiles, &|tile| {
            // SAFETY: each tile is written by one thread, and the tiles lie side by side within `data`.
            let bytes = unsafe { std::slice::from_raw_parts_mut(out.get().add(tile * tile_bytes), tile_bytes) };
            let mut scratch = Vec::new();
            for lane in 0..LANES {
                if let Some((part, row)) = source_row(parts, role, tile, lane) {
                    pack_row(kind, part, row, lane, bytes, &mut scratch);
                }
            }
        });
        Ok(Self { rows, cols, kind, data })
    }

    pub(super) fn tiles(&self) -> usize {
        self.rows.div_ceil(LANES)
    }

    /// How the kernels read the activations that this weight multiplies.
    pub(super) fn encoding(&self) -> Encoding {
        match self.kind {
            Kind::W4 | Kind::W8 => Encoding::Int8G32,
            Kind::Bf16 | Kind::F32 => Encoding::F32,
        }
    }

    pub(super) fn wants(&self) -> ActSet {
        ActSet::of(self.encoding())
    }

    /// The tile's first byte.
    pub(super) fn tile(&self, tile: usize) -> *const u8 {
        let offset = tile * self.kind.tile_bytes(self.cols);
        assert!(offset < self.data.bytes(), "tile {tile} is beyond the weight");
        // SAFETY: within the data, as just checked.
        unsafe { self.data.as_ptr().add(offset) }
    }

    /// Output row `row`, as f32, into `out [cols]`.
    pub(super) fn unpack_row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.cols, "row {row} of {}", self.rows);
        let (tile_bytes, lane) = (self.kind.tile_bytes(self.cols), row % LANES);
        // SAFETY: the tile lies within the data.
        let tile = unsafe { std::slice::from_raw_parts(self.tile(row / LANES), tile_bytes) };
        for (k, value) in out.iter_mut().enumerate() {
            *value = element(self.kind, tile, lane, k);
        }
    }
}

fn check(parts: &[Stored<'_>], role: Role, cols: usize) -> Result<(), LoadError> {
    if !cols.is_multiple_of(LANES) {
        return Err(LoadError::Unsupported(format!(
            "the CPU kernels take inputs in multiples of {LANES}, not {cols}; use --device reference"
        )));
    }
    if let Some(other) = parts.iter().find(|part| part.cols != cols) {
        return Err(LoadError::Shape(format!("fused parts have {cols} and {} columns", other.cols)));
    }
    let is_pair = parts.len() == 2 && parts[0].rows == parts[1].rows && parts[0].rows.is_multiple_of(LANES);
    if role == Role::Glu && !is_pair {
        return Err(LoadError::Shape(format!(
            "a gate and an up part of equal rows in multiples of {LANES} are wanted"
        )));
    }
    Ok(())
}

/// Which row of which part stands in this lane of this tile; none in the padding at the end.
fn source_row<'a, 'b>(
    parts: &'a [Stored<'b>],
    role: Role,
    tile: usize,
    lane: usize,
) -> Option<(&'a Stored<'b>, usize)> {
    if role == Role::Glu {
        return Some((&parts[tile % 2], tile / 2 * LANES + lane));
    }
    let mut row = tile * LANES + lane;
    for part in parts {
        if row < part.rows {
            return Some((part, row));
        }
        row -= part.rows;
    }
    None
}

fn pack_row(kind: Kind, part: &Stored<'_>, row: usize, lane: usize, tile: &mut [u8], scratch: &mut Vec<f32>) {
    let row_bytes = part.row_bytes();
    let bytes = &part.bytes[row * row_bytes..(row + 1) * row_bytes];
    match kind {
        Kind::W4 => pack_w4(part.format, bytes, lane, tile),
        Kind::W8 => pack_w8(bytes, lane, tile),
        Kind::Bf16 => {
            for (k, value) in bytes.chunks_exact(2).enumerate() {
                tile[(k * LANES + lane) * 2..][..2].copy_from_slice(value);
            }
        }
        Kind::F32 => {
            scratch.resize(part.cols, 0.0);
            part.dequantize_row(row, scratch);
            for (k, value) in scratch.iter().enumerate() {
                tile[(k * LANES + lane) * 4..][..4].copy_from_slice(&value.to_le_bytes());
            }
        }
    }
}

/// GGUF's 4-bit blocks of 32: an f16 scale, in Q4_1 an f16 minimum, 16 bytes with element j in the low and j + 16 in the
/// high nibble of byte j. Q4_0 counts from -8: its minimum is -8 times the scale, exact in f16.
fn pack_w4(format: Format, row: &[u8], lane: usize, tile: &mut [u8]) {
    let header = if format == Format::Q4_1 { 4 } else { 2 };
    for (block, record) in row.chunks_exact(header + 16).zip(tile.chunks_exact_mut(W4_RECORD)) {
        let scale = f16::from_le_bytes([block[0], block[1]]);
        let min = match format {
            Format::Q4_1 => f16::from_le_bytes([block[2], block[3]]),
            _ => f16::from_f32(-8.0 * scale.to_f32()),
        };
        record[lane * 2..][..2].copy_from_slice(&scale.to_le_bytes());
        record[W4_MINS + lane * 2..][..2].copy_from_slice(&min.to_le_bytes());
        for k in 0..GROUP {
            let byte = block[header + k % 16];
            let nibble = if k < 16 { byte & 15 } else { byte >> 4 };
            record[nibble_at(lane, k)] |= nibble << nibble_shift(k);
        }
    }
}

/// Byte of a W4 record that holds element `k` of a group.
fn nibble_at(lane: usize, k: usize) -> usize {
    W4_NIBBLES + k / 8 * 64 + lane * 4 + k % 4
}

fn nibble_shift(k: usize) -> usize {
    k % 8 / 4 * 4
}

/// GGUF's Q8_0: an f16 scale, then 32 signed bytes.
fn pack_w8(row: &[u8], lane: usize, tile: &mut [u8]) {
    for (block, record) in row.chunks_exact(34).zip(tile.chunks_exact_mut(W8_RECORD)) {
        let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
        record[lane * 4..][..4].copy_from_slice(&scale.to_le_bytes());
        for (word, values) in block[2..].chunks_exact(4).enumerate() {
            record[W8_BYTES + word * 64 + lane * 4..][..4].copy_from_slice(values);
        }
    }
}

fn element(kind: Kind, tile: &[u8], lane: usize, k: usize) -> f32 {
    let half_at = |bytes: &[u8], idx: usize| f16::from_le_bytes([bytes[idx * 2], bytes[idx * 2 + 1]]).to_f32();
    let float_at = |bytes: &[u8], idx: usize| f32::from_le_bytes(bytes[idx * 4..][..4].try_into().expect("four bytes"));
    match kind {
        Kind::W4 => {
            let record = &tile[k / GROUP * W4_RECORD..][..W4_RECORD];
            let nibble = record[nibble_at(lane, k % GROUP)] >> nibble_shift(k % GROUP) & 15;
            half_at(record, lane) * f32::from(nibble) + half_at(&record[W4_MINS..], lane)
        }
        Kind::W8 => {
            let record = &tile[k / GROUP * W8_RECORD..][..W8_RECORD];
            let byte = record[W8_BYTES + k % GROUP / 4 * 64 + lane * 4 + k % 4] as i8;
            float_at(record, lane) * f32::from(byte)
        }
        Kind::Bf16 => {
            let idx = (k * LANES + lane) * 2;
            half::bf16::from_le_bytes([tile[idx], tile[idx + 1]]).to_f32()
        }
        Kind::F32 => float_at(tile, k * LANES + lane),
    }
}
