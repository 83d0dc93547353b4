//! One row of a checkpoint's matrix into its column of a strip, and back.

use half::{bf16, f16};
use quant::{Block, Format, Stored, fp8_e4m3, int4, q3_k, q4_0, q4_1, q4_k, q5_0, q5_1, q5_k, q6_k, q8_0};

use super::super::act::GROUP;
use super::super::simd::LANES;
use super::kind::Kind;
use super::{STRIP, STRIP_COLS};

/// 32 codes, the scales of their halves, and their minimum; of nibbles that have one, the code that means 0.
struct Group<'a> {
    codes: &'a [i8],
    scales: [f32; 2],
    min: f32,
    zero: u8,
}

/// Writes row `row` of `part` to column `col` of `strip`, which is zero there.
pub(super) fn pack(kind: Kind, part: &Stored<'_>, row: usize, col: usize, strip: &mut [u8]) {
    let (bytes, tile, lane) = (part.row(row), col / LANES, col % LANES);
    match kind {
        Kind::Bf16 => {
            for (k, element) in bytes.as_chunks::<2>().0.iter().enumerate() {
                strip[pair_at(kind, col, k)..][..2].copy_from_slice(element);
            }
        }
        Kind::Bf16Scaled => {
            for (k, &code) in bytes.iter().enumerate() {
                // Exact: bf16 has more bits of each kind.
                let element = bf16::from_f32(fp8_e4m3::decode_one(code));
                strip[pair_at(kind, col, k)..][..2].copy_from_slice(&element.to_le_bytes());
            }
            for (idx, group) in strip.chunks_exact_mut(kind.strip_bytes(GROUP)).enumerate() {
                put_f32(group, col, part.scale_and_zero(row, idx * GROUP).0);
            }
        }
        Kind::F16 => put_elements::<2>(bytes, col, strip),
        Kind::F32 if part.format == Format::F32 => put_elements::<4>(bytes, col, strip),
        Kind::F32 => {
            let mut values = vec![0.0; part.cols];
            part.dequantize_row(row, &mut values);
            for (k, value) in values.iter().enumerate() {
                put_f32(strip, k * STRIP_COLS + col, *value);
            }
        }
        _ => {
            groups(part, row, |idx, group| {
                let record = &mut strip[(idx * STRIP + tile) * kind.record()..][..kind.record()];
                put_header(kind, record, lane, &group);
                put_codes(kind, record, lane, group.codes);
            });
        }
    }
}

fn put_elements<const BYTES: usize>(row: &[u8], col: usize, strip: &mut [u8]) {
    for (k, element) in row.as_chunks::<BYTES>().0.iter().enumerate() {
        strip[(k * STRIP_COLS + col) * BYTES..][..BYTES].copy_from_slice(element);
    }
}

/// Calls `each` with the row's groups of 32, in order.
fn groups(part: &Stored<'_>, idx: usize, each: impl FnMut(usize, Group<'_>)) {
    let row = part.row(idx);
    match part.format {
        // Codes from 0 on, as nibbles are.
        Format::Q4_0 => blocks(row, |block| from_zero(q4_0::unpack(block)), each),
        Format::Q4_1 => blocks(row, q4_1::unpack, each),
        Format::Q4K => blocks(row, q4_k::unpack, each),
        Format::Q5_0 => blocks(row, q5_0::unpack, each),
        Format::Q5_1 => blocks(row, q5_1::unpack, each),
        Format::Q5K => blocks(row, q5_k::unpack, each),
        Format::Q8_0 => blocks(row, q8_0::unpack, each),
        Format::Q3K => blocks(row, q3_k::unpack, each),
        Format::Q6K => blocks(row, q6_k::unpack, each),
        Format::Int8 => planar(part, idx, |byte| [byte as i8], each),
        Format::Int4 => planar(part, idx, |byte| int4::unpack(byte).map(|code| code as i8), each),
        other => unreachable!("{other} is not held as codes"),
    }
}

fn from_zero(block: Block<32, 1>) -> Block<32, 1> {
    Block { codes: block.codes.map(|code| code + int4::ZERO as i8), ..block }
}

fn blocks<const BYTES: usize, const LEN: usize, const GROUPS: usize>(
    row: &[u8],
    unpack: impl Fn(&[u8; BYTES]) -> Block<LEN, GROUPS>,
    mut each: impl FnMut(usize, Group<'_>),
) {
    for (idx, bytes) in row.as_chunks::<BYTES>().0.iter().enumerate() {
        let block = unpack(bytes);
        for (sub, codes) in block.codes.chunks_exact(GROUP).enumerate() {
            let of = |k: usize| (sub * GROUP + k) * GROUPS / LEN;
            let scales = [block.scales[of(0)], block.scales[of(GROUP / 2)]];
            each(idx * (LEN / GROUP) + sub, Group { codes, scales, min: block.offsets[of(0)], zero: 0 });
        }
    }
}

/// Groups of a planar format, of which a byte holds `CODES`.
fn planar<const CODES: usize>(
    part: &Stored<'_>,
    row: usize,
    unpack: impl Fn(u8) -> [i8; CODES],
    mut each: impl FnMut(usize, Group<'_>),
) {
    for (idx, bytes) in part.row(row).chunks_exact(GROUP / CODES).enumerate() {
        let codes: Vec<i8> = bytes.iter().flat_map(|byte| unpack(*byte)).collect();
        let (scale, zero) = part.scale_and_zero(row, idx * GROUP);
        each(idx, Group { codes: &codes, scales: [scale; 2], min: -scale * zero, zero: zero as u8 });
    }
}

fn put_header(kind: Kind, record: &mut [u8], lane: usize, group: &Group<'_>) {
    let [scale, second_scale] = group.scales;
    match kind {
        Kind::W4 | Kind::W4Centered | Kind::W4Zeros => put_f16(record, lane, scale),
        _ => put_f32(record, lane, scale),
    }
    match kind {
        Kind::W4 => put_f16(record, LANES + lane, group.min),
        Kind::W4Zeros => record[LANES * 2 + lane] = group.zero,
        Kind::W4Wide | Kind::W8Min => put_f32(record, LANES + lane, group.min),
        Kind::W8Halves => put_f32(record, LANES + lane, second_scale),
        _ => {}
    }
}

fn put_codes(kind: Kind, record: &mut [u8], lane: usize, codes: &[i8]) {
    let words = &mut record[kind.header()..];
    if kind.has_nibbles() {
        for (word, codes) in codes.as_chunks::<8>().0.iter().enumerate() {
            for k in 0..4 {
                words[word * 64 + lane * 4 + k] = codes[k] as u8 | (codes[k + 4] as u8) << 4;
            }
        }
    } else {
        for (word, codes) in codes.as_chunks::<4>().0.iter().enumerate() {
            words[word * 64 + lane * 4..][..4].copy_from_slice(&codes.map(|code| code as u8));
        }
    }
}

/// Where element `k` of column `col` is, of a kind that holds pairs.
fn pair_at(kind: Kind, col: usize, k: usize) -> usize {
    let scales = if kind == Kind::Bf16Scaled { (k / GROUP + 1) * STRIP_COLS * 4 } else { 0 };
    scales + (k / 2 * STRIP_COLS + col) * 4 + k % 2 * 2
}

fn put_f16(bytes: &mut [u8], idx: usize, value: f32) {
    bytes[idx * 2..][..2].copy_from_slice(&f16::from_f32(value).to_le_bytes());
}

fn put_f32(bytes: &mut [u8], idx: usize, value: f32) {
    bytes[idx * 4..][..4].copy_from_slice(&value.to_le_bytes());
}

/// Element `k` of column `col`.
pub(super) fn element(kind: Kind, strip: &[u8], col: usize, k: usize) -> f32 {
    let half_at = |bytes: &[u8], idx: usize| f16::from_le_bytes([bytes[idx * 2], bytes[idx * 2 + 1]]).to_f32();
    let float_at = |bytes: &[u8], idx: usize| f32::from_le_bytes(bytes[idx * 4..][..4].try_into().expect("four bytes"));
    let (lane, k_in, at) = (col % LANES, k % GROUP, k * STRIP_COLS + col);
    let record = &strip[(k / GROUP * STRIP + col / LANES) * kind.record()..];
    let nibble = || f32::from(record[kind.header() + k_in / 8 * 64 + lane * 4 + k % 4] >> (k_in % 8 / 4 * 4) & 15);
    let byte = || f32::from(record[kind.header() + k_in / 4 * 64 + lane * 4 + k % 4] as i8);
    match kind {
        Kind::W4 => half_at(record, lane) * nibble() + half_at(record, LANES + lane),
        Kind::W4Centered => half_at(record, lane) * (nibble() - f32::from(int4::ZERO)),
        Kind::W4Zeros => half_at(record, lane) * (nibble() - f32::from(record[LANES * 2 + lane])),
        Kind::W4Wide => float_at(record, lane) * nibble() + float_at(record, LANES + lane),
        Kind::W8 => float_at(record, lane) * byte(),
        Kind::W8Min => float_at(record, lane) * byte() + float_at(record, LANES + lane),
        Kind::W8Halves => float_at(record, k_in / (GROUP / 2) * LANES + lane) * byte(),
        Kind::Bf16 | Kind::Bf16Scaled => {
            let at = pair_at(kind, col, k);
            let value = bf16::from_le_bytes([strip[at], strip[at + 1]]).to_f32();
            let scales = &strip[k / GROUP * kind.strip_bytes(GROUP)..];
            if kind == Kind::Bf16 { value } else { float_at(scales, col) * value }
        }
        Kind::F16 => half_at(strip, at),
        Kind::F32 => float_at(strip, at),
    }
}
