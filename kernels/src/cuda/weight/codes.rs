//! Weights of 4 and 8 bits as `gemm_coded.cu` reads them: the checkpoint's own blocks, laid out as a tensor core's fragments.

use half::f16;
use quant::{Block, Format, Stored, q4_0, q4_1, q5_0, q5_1, q8_0};

/// Columns under one scale.
const GROUP: usize = 32;
/// Rows of a tile, and the lanes that share one.
const TILE_ROWS: usize = 8;
const ROW_LANES: usize = 4;

/// How a matrix is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Kind {
    Bf16,
    W4,
    W8,
}

impl Kind {
    /// The kind that holds all `parts` exactly in codes, or bf16.
    pub fn of(parts: &[Stored<'_>], rows: usize, cols: usize) -> Self {
        let kind = |part: &Stored<'_>| match part.format {
            Format::Q4_0 | Format::Q4_1 => Self::W4,
            Format::Q5_0 | Format::Q5_1 | Format::Q8_0 => Self::W8,
            _ => Self::Bf16,
        };
        let first = kind(&parts[0]);
        let fits = rows.is_multiple_of(TILE_ROWS) && cols.is_multiple_of(GROUP);
        if fits && parts.iter().all(|part| kind(part) == first) { first } else { Self::Bf16 }
    }

    /// Columns that the four words of a row in one tile hold.
    fn columns(self) -> usize {
        if self == Self::W4 { 32 } else { 16 }
    }
}

/// Words of codes as bytes, and scales with minimums.
pub(super) fn pack<'a>(
    kind: Kind,
    rows: impl Iterator<Item = (&'a Stored<'a>, usize)>,
    num_rows: usize,
    cols: usize,
) -> (Vec<u8>, Vec<u32>) {
    let mut words = vec![0u32; cols / kind.columns() * num_rows * ROW_LANES];
    let mut meta = vec![0u32; cols / GROUP * num_rows];
    for (n, (part, row)) in rows.enumerate() {
        let mut group = 0;
        each_group(part, row, |codes, scale, min| {
            let halves = [scale, min].map(|x| u32::from(f16::from_f32(x).to_bits()));
            meta[group * num_rows + n] = halves[0] | halves[1] << 16;
            for (idx, codes) in codes.chunks_exact(kind.columns()).enumerate() {
                let tile = group * (GROUP / kind.columns()) + idx;
                for lane in 0..ROW_LANES {
                    let at = (tile * (num_rows / TILE_ROWS) + n / TILE_ROWS) * TILE_ROWS + n % TILE_ROWS;
                    words[at * ROW_LANES + lane] = word(kind, codes, lane);
                }
            }
            group += 1;
        });
    }
    (words.into_iter().flat_map(u32::to_le_bytes).collect(), meta)
}

/// Pairs of columns (2 lane, 2 lane + 1) of each eight: the first in the low half of the word, the second in the high one.
fn word(kind: Kind, codes: &[i8], lane: usize) -> u32 {
    let (bits, mask) = if kind == Kind::W4 { (4, 0x0f) } else { (8, 0xff) };
    let pairs =
        codes.chunks_exact(8).map(|eight| [eight[2 * lane], eight[2 * lane + 1]].map(|code| code as u8 as u32 & mask));
    pairs.enumerate().fold(0, |word, (idx, [low, high])| word | (low | high << 16) << (idx * bits))
}

/// Calls `each` with the row's codes, from 0 on where they are nibbles, the scale and the minimum of each group.
fn each_group(part: &Stored<'_>, row: usize, mut each: impl FnMut(&[i8; GROUP], f32, f32)) {
    let bytes = part.row(row);
    let mut put = |block: Block<GROUP, 1>| each(&block.codes, block.scales[0], block.offsets[0]);
    match part.format {
        Format::Q4_0 => blocks(bytes, |block| put(from_zero(q4_0::unpack(block)))),
        Format::Q4_1 => blocks(bytes, |block| put(q4_1::unpack(block))),
        Format::Q5_0 => blocks(bytes, |block| put(q5_0::unpack(block))),
        Format::Q5_1 => blocks(bytes, |block| put(q5_1::unpack(block))),
        Format::Q8_0 => blocks(bytes, |block| put(q8_0::unpack(block))),
        other => unreachable!("{other} is not held in codes"),
    }
}

fn from_zero(block: Block<GROUP, 1>) -> Block<GROUP, 1> {
    Block { codes: block.codes.map(|code| code + 8), offsets: [-8.0 * block.scales[0]], ..block }
}

fn blocks<const BYTES: usize>(bytes: &[u8], mut each: impl FnMut(&[u8; BYTES])) {
    bytes.as_chunks::<BYTES>().0.iter().for_each(&mut each);
}
