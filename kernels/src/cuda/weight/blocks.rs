//! GGUF's blocks of 32 as `gemm_coded.cu` reads them: codes of 4 or 8 bits, a scale and a minimum each.

use half::f16;
use quant::{Block, Format, Stored, q4_0, q4_1, q5_0, q5_1, q8_0};

use super::Rows;
use super::fragments::{Fragments, Scales};

/// Columns under one scale.
pub(super) const GROUP: usize = 32;

/// Codes of `bits`, and scales with minimums.
pub(super) fn pack(bits: usize, rows: &Rows<'_>, cols: usize, data: &mut [u8], meta: &mut [u8]) {
    let (mut fragments, mut meta) = (Fragments::new(bits, rows.len(), data), Scales::<4>::new(rows.len(), meta));
    let mut codes = Vec::with_capacity(cols);
    for (n, (part, row)) in rows.iter().enumerate() {
        codes.clear();
        each_group(part, *row, |block| {
            let [scale, min] = [block.scales[0], block.offsets[0]].map(|x| f16::from_f32(x).to_le_bytes());
            meta.put(codes.len() / GROUP, n, [scale[0], scale[1], min[0], min[1]]);
            codes.extend(block.codes.map(|code| code as u8));
        });
        fragments.put(n, &codes);
    }
}

/// Calls `each` with the row's groups, whose codes are from 0 on where they are nibbles.
fn each_group(part: &Stored<'_>, row: usize, mut each: impl FnMut(Block<GROUP, 1>)) {
    let bytes = part.row(row);
    match part.format {
        Format::Q4_0 => blocks(bytes, |block| each(from_zero(q4_0::unpack(block)))),
        Format::Q4_1 => blocks(bytes, |block| each(q4_1::unpack(block))),
        Format::Q5_0 => blocks(bytes, |block| each(q5_0::unpack(block))),
        Format::Q5_1 => blocks(bytes, |block| each(q5_1::unpack(block))),
        Format::Q8_0 => blocks(bytes, |block| each(q8_0::unpack(block))),
        other => unreachable!("{other} is not held in such blocks"),
    }
}

fn from_zero(block: Block<GROUP, 1>) -> Block<GROUP, 1> {
    Block { codes: block.codes.map(|code| code + 8), offsets: [-8.0 * block.scales[0]], ..block }
}

fn blocks<const BYTES: usize>(bytes: &[u8], mut each: impl FnMut(&[u8; BYTES])) {
    bytes.as_chunks::<BYTES>().0.iter().for_each(&mut each);
}
