//! What all block formats have in common: integer codes, and a scale and an offset per group of them.

/// One block taken apart: `value[i] = scales[g] * codes[i] + offsets[g]`, where `g = i / (LEN / GROUPS)`.
///
/// A packer that wants integers reads these; the reference codec multiplies them out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Block<const LEN: usize, const GROUPS: usize> {
    pub codes: [i8; LEN],
    pub scales: [f32; GROUPS],
    pub offsets: [f32; GROUPS],
}

impl<const LEN: usize, const GROUPS: usize> Block<LEN, GROUPS> {
    /// The block's values.
    pub fn values(&self) -> [f32; LEN] {
        let group_len = LEN / GROUPS;
        std::array::from_fn(|i| {
            let group = i / group_len;
            self.scales[group] * f32::from(self.codes[i]) + self.offsets[group]
        })
    }
}

/// Decodes a run of blocks of `BYTES` bytes to `LEN` values each.
///
/// # Panics
/// If the two runs are not the same whole number of blocks.
pub(crate) fn decode_blocks<const BYTES: usize, const LEN: usize, const GROUPS: usize>(
    bytes: &[u8],
    out: &mut [f32],
    unpack: impl Fn(&[u8; BYTES]) -> Block<LEN, GROUPS>,
) {
    let (blocks, rest) = bytes.as_chunks::<BYTES>();
    let (values, out_rest) = out.as_chunks_mut::<LEN>();
    assert!(rest.is_empty() && out_rest.is_empty() && blocks.len() == values.len(), "whole blocks on both sides");
    for (block, values) in blocks.iter().zip(values) {
        *values = unpack(block).values();
    }
}

/// Encodes a run of whole blocks.
pub(crate) fn encode_blocks<const BYTES: usize, const LEN: usize>(
    values: &[f32],
    pack: impl Fn(&[f32; LEN]) -> [u8; BYTES],
) -> Vec<u8> {
    let (blocks, rest) = values.as_chunks::<LEN>();
    assert!(rest.is_empty(), "whole blocks");
    blocks.iter().flat_map(pack).collect()
}

/// The half-precision number stored little-endian at `bytes[at..]`, as f32.
pub(crate) fn half_at(bytes: &[u8], at: usize) -> f32 {
    half::f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}
