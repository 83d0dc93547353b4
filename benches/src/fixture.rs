//! Made-up weights and steps in the shapes of the default model.

use std::ops::Range;

use quant::{Format, OwnedScales, Stored};
use tensor::{GroupInputs, StepInputs};
use testkit::Random;

use crate::Part;

/// Outputs and inputs of one matrix.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub rows: usize,
    pub cols: usize,
}

/// Attention output, gate and up, down, and head of the default model.
pub const SHAPES: [Shape; 4] = [
    Shape { rows: 576, cols: 576 },
    Shape { rows: 3072, cols: 576 },
    Shape { rows: 576, cols: 1536 },
    Shape { rows: 49_152, cols: 576 },
];

/// Columns that share a scale in INT4.
const INT4_GROUP: usize = 128;

/// A valid matrix of `format`.
///
/// # Panics
/// If `format` has no encoder, and no blocks that any codes fill.
pub fn weight_bytes(format: Format, shape: Shape) -> Vec<u8> {
    let mut random = Random::new(1);
    // A few rows repeated: encoding 28 M values takes longer than measuring with them.
    let row = |_| match format {
        Format::Q4K => super_blocks(&mut random, format, shape.cols, &[0, 2]),
        Format::Q6K => super_blocks(&mut random, format, shape.cols, &[208]),
        _ => quant::quantize(format, &random.vector(shape.cols)).expect("the format has an encoder"),
    };
    let rows: Vec<u8> = (0..16).flat_map(row).collect();
    rows.repeat(shape.rows / 16)
}

/// A row of random codes, and small factors in half precision at `factors` of each block.
fn super_blocks(random: &mut Random, format: Format, cols: usize, factors: &[usize]) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        (0..format.row_bytes(cols).expect("whole blocks")).map(|_| random.next_u64() as u8).collect();
    for block in bytes.chunks_exact_mut(format.block_bytes()) {
        // 2^-13: a weight is well below one.
        factors.iter().for_each(|&at| block[at..at + 2].copy_from_slice(&0x0800u16.to_le_bytes()));
    }
    bytes
}

/// A made-up matrix, with its scales where the format keeps them apart.
#[derive(Clone)]
pub struct Matrix {
    pub shape: Shape,
    format: Format,
    bytes: Vec<u8>,
    scales: Option<OwnedScales>,
}

impl Matrix {
    /// # Panics
    /// If `format` has no encoder.
    pub fn new(format: Format, shape: Shape) -> Self {
        let values = Random::new(1).vector(16 * shape.cols);
        let (bytes, scales) = match format {
            Format::Fp8E4m3 => quant::fp8_e4m3::quantize_rows(&values, shape.cols),
            Format::Int4 => quant::int4::quantize_groups(&values, shape.cols, INT4_GROUP.min(shape.cols)),
            _ => return Self { shape, format, bytes: weight_bytes(format, shape), scales: None },
        };
        let times = shape.rows / 16;
        let zeros = scales.zeros.as_ref().map(|zeros| zeros.repeat(times));
        let scales = OwnedScales { values: scales.values.repeat(times), zeros, ..scales };
        Self { shape, format, bytes: bytes.repeat(times), scales: Some(scales) }
    }

    /// # Panics
    /// Never: what was made above is whole.
    pub fn stored(&self) -> Stored<'_> {
        let Shape { rows, cols } = self.shape;
        let stored = Stored::new(rows, cols, self.format, &self.bytes).expect("whole blocks");
        match &self.scales {
            Some(scales) => stored.with_scales(scales.borrow()).expect("a scale for each part"),
            None => stored,
        }
    }

    /// All that a kernel must read of it: codes, scales as f32, zeros as bytes.
    pub fn num_bytes(&self) -> usize {
        let scales = self
            .scales
            .as_ref()
            .map_or(0, |scales| 4 * scales.values.len() + scales.zeros.as_ref().map_or(0, Vec::len));
        self.bytes.len() + scales
    }
}

/// One step of `seqs` sequences that each have `context` tokens, the last being new.
pub fn decode_inputs(seqs: usize, context: usize, block_size: usize) -> StepInputs {
    step_inputs(&[Part { sequences: seqs, context, new: 1 }], block_size)
}

/// One step of the last `tokens` of a `context` long prompt.
pub fn prefill_inputs(tokens: usize, context: usize, block_size: usize) -> StepInputs {
    step_inputs(&[Part { sequences: 1, context, new: tokens }], block_size)
}

/// One step of all `parts`.
pub fn step_inputs(parts: &[Part], block_size: usize) -> StepInputs {
    let seqs: Vec<Range<usize>> =
        parts.iter().flat_map(|part| vec![part.context - part.new..part.context; part.sequences]).collect();
    let stride = seqs.iter().map(|seq| seq.end.div_ceil(block_size)).max().unwrap_or(0);
    let block = |seq: usize, idx: usize| (1 + seq * stride + idx) as u32;
    let slot = |seq: usize, position: usize| {
        block(seq, position / block_size) * block_size as u32 + (position % block_size) as u32
    };
    let each = || seqs.iter().enumerate().flat_map(|(seq, new)| new.clone().map(move |position| (seq, position)));
    let ends = seqs.iter().scan(0, |end, new| {
        *end += new.len() as u32;
        Some(*end)
    });
    let ends: Vec<u32> = ends.collect();
    let group = GroupInputs {
        slot_mapping: each().map(|(seq, position)| slot(seq, position)).collect(),
        block_tables: (0..seqs.len()).flat_map(|seq| (0..stride).map(move |idx| block(seq, idx))).collect(),
        stride,
    };
    StepInputs {
        token_ids: vec![7; each().count()],
        positions: each().map(|(_, position)| position as u32).collect(),
        rows: (0..seqs.len() as u32).collect(),
        cu_seqlens_q: [&[0], &ends[..]].concat(),
        seq_lens: seqs.iter().map(|new| new.end as u32).collect(),
        logit_tokens: ends.iter().map(|end| end - 1).collect(),
        groups: vec![group],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_are_whole() {
        for format in [Format::Bf16, Format::Q4_1, Format::Fp8E4m3, Format::Int4] {
            let matrix = Matrix::new(format, Shape { rows: 32, cols: 256 });
            assert!(matrix.stored().dequantize().iter().all(|value| value.abs() < 1.2), "{format}");
        }
        for format in [Format::Q4K, Format::Q6K] {
            let matrix = Matrix::new(format, Shape { rows: 16, cols: 512 });
            let values = matrix.stored().dequantize();
            assert!(
                values.iter().all(|value| value.abs() < 1.0) && values.iter().any(|value| *value != 0.0),
                "{format}"
            );
        }
        assert_eq!(Matrix::new(Format::Int4, Shape { rows: 16, cols: 256 }).num_bytes(), 16 * (128 + 2 * 5));
    }

    #[test]
    fn steps_are_consistent() {
        let part = |sequences, new| Part { sequences, context: 33, new };
        let mixed = step_inputs(&[part(3, 1), part(1, 5)], 16);
        assert_eq!((&mixed.cu_seqlens_q[..], &mixed.logit_tokens[..]), (&[0, 1, 2, 3, 8][..], &[0, 1, 2, 7][..]));
        for (inputs, tokens) in [(decode_inputs(3, 33, 16), 3), (prefill_inputs(5, 33, 16), 5), (mixed, 8)] {
            assert_eq!((inputs.num_tokens(), inputs.positions.len()), (tokens, tokens));
            assert_eq!(inputs.groups[0].slot_mapping.len(), tokens);
            assert_eq!(inputs.groups[0].table(inputs.num_seqs() - 1).len(), 3);
            assert_eq!(inputs.positions.last(), Some(&32));
        }
    }
}
