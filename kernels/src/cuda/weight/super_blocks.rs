//! GGUF's super-blocks of 256 as `gemm_super.cu` reads them: the file's own bits, codes as fragments.

use quant::{k_scales, q4_k, q6_k};

use super::Rows;
use super::fragments::{Fragments, Scales};

/// Nibbles, and the header of each block with its scales and minimums by 64 columns.
pub(super) fn pack_q4k(rows: &Rows<'_>, data: &mut [u8], meta: &mut [u8]) {
    let (mut codes, mut meta) = (Fragments::new(4, rows.len(), data), Scales::<16>::new(rows.len(), meta));
    for (n, (part, row)) in rows.iter().enumerate() {
        let blocks = part.row(*row).as_chunks::<{ q4_k::BYTES }>().0;
        let unpacked: Vec<u8> =
            blocks.iter().flat_map(|block| q4_k::unpack(block).codes).map(|code| code as u8).collect();
        codes.put(n, &unpacked);
        for (idx, block) in blocks.iter().enumerate() {
            meta.put(idx, n, header(block));
        }
    }
}

/// 24 bits for each 64 columns: scales of both groups, then their minimums. Then d and dmin.
fn header(block: &[u8; q4_k::BYTES]) -> [u8; 16] {
    let (scales, minima) = k_scales::scales_and_minima(&block[4..16]);
    let fields = (0..4).map(|quarter| {
        let of = |values: &[u8; 8], group: usize| u128::from(values[quarter * 2 + group]);
        of(&scales, 0) | of(&scales, 1) << 6 | of(&minima, 0) << 12 | of(&minima, 1) << 18
    });
    let mut header = fields.enumerate().fold(0, |all, (quarter, bits)| all | bits << (24 * quarter)).to_le_bytes();
    header[12..].copy_from_slice(&block[..4]);
    header
}

/// Low nibbles, then the bits above them; signed scales, then d.
pub(super) fn pack_q6k(rows: &Rows<'_>, data: &mut [u8], meta: &mut [u8]) {
    // Four bits of six, sixteen bytes of eighteen.
    let (low, upper) = data.split_at_mut(data.len() / 3 * 2);
    let (scales, halves) = meta.split_at_mut(meta.len() / 9 * 8);
    let (mut low, mut upper) = (Fragments::new(4, rows.len(), low), Fragments::new(2, rows.len(), upper));
    let (mut scales, mut halves) = (Scales::<16>::new(rows.len(), scales), Scales::<2>::new(rows.len(), halves));
    for (n, (part, row)) in rows.iter().enumerate() {
        let blocks = part.row(*row).as_chunks::<{ q6_k::BYTES }>().0;
        let codes = || blocks.iter().flat_map(|block| q6_k::unpack(block).codes).map(|code| (code + 32) as u8);
        low.put(n, &codes().map(|code| code & 15).collect::<Vec<_>>());
        upper.put(n, &codes().map(|code| code >> 4).collect::<Vec<_>>());
        for (idx, block) in blocks.iter().enumerate() {
            scales.put(idx, n, block[192..208].try_into().expect("sixteen bytes"));
            halves.put(idx, n, [block[208], block[209]]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_has_every_scale_and_minimum() {
        let block: [u8; q4_k::BYTES] = std::array::from_fn(|at| (at * 37 + 11) as u8);
        let (scales, minima) = k_scales::scales_and_minima(&block[4..16]);
        let header = header(&block);
        let bits = u128::from_le_bytes(header);
        for group in 0..8 {
            let at = group / 2 * 24 + group % 2 * 6;
            assert_eq!((bits >> at & 63) as u8, scales[group], "scale {group}");
            assert_eq!((bits >> (at + 12) & 63) as u8, minima[group], "minimum {group}");
        }
        assert_eq!(header[12..], block[..4], "d and dmin");
    }
}
