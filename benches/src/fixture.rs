//! Made-up weights and steps in the shapes of the default model.

use quant::Format;
use tensor::{GroupInputs, StepInputs};
use testkit::Random;

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

/// A valid matrix of `format`.
///
/// # Panics
/// If `format` has no encoder.
pub fn weight_bytes(format: Format, shape: Shape) -> Vec<u8> {
    let mut random = Random::new(1);
    // One row repeated: encoding 28 M values takes longer than measuring with them.
    let rows: Vec<u8> = (0..16)
        .flat_map(|_| quant::quantize(format, &random.vector(shape.cols)).expect("the format has an encoder"))
        .collect();
    rows.repeat(shape.rows / 16)
}

/// One step of `seqs` sequences that each have `context` tokens, the last being new.
pub fn decode_inputs(seqs: usize, context: usize, block_size: usize) -> StepInputs {
    inputs(&vec![context - 1; seqs], 1, block_size)
}

/// One step of the last `tokens` of a `context` long prompt.
pub fn prefill_inputs(tokens: usize, context: usize, block_size: usize) -> StepInputs {
    inputs(&[context - tokens], tokens, block_size)
}

fn inputs(starts: &[usize], tokens: usize, block_size: usize) -> StepInputs {
    let stride = starts.iter().map(|start| (start + tokens).div_ceil(block_size)).max().unwrap_or(0);
    let block = |seq: usize, idx: usize| (1 + seq * stride + idx) as u32;
    let slot = |seq: usize, position: usize| {
        block(seq, position / block_size) * block_size as u32 + (position % block_size) as u32
    };
    let each = || starts.iter().enumerate().flat_map(|(seq, &start)| (start..start + tokens).map(move |p| (seq, p)));
    let group = GroupInputs {
        slot_mapping: each().map(|(seq, position)| slot(seq, position)).collect(),
        block_tables: (0..starts.len()).flat_map(|seq| (0..stride).map(move |idx| block(seq, idx))).collect(),
        stride,
    };
    StepInputs {
        token_ids: vec![7; starts.len() * tokens],
        positions: each().map(|(_, position)| position as u32).collect(),
        rows: (0..starts.len() as u32).collect(),
        cu_seqlens_q: (0..=starts.len()).map(|seq| (seq * tokens) as u32).collect(),
        seq_lens: starts.iter().map(|start| (start + tokens) as u32).collect(),
        logit_tokens: vec![0],
        groups: vec![group],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_consistent() {
        for (inputs, tokens) in [(decode_inputs(3, 33, 16), 3), (prefill_inputs(5, 33, 16), 5)] {
            assert_eq!((inputs.num_tokens(), inputs.positions.len()), (tokens, tokens));
            assert_eq!(inputs.groups[0].slot_mapping.len(), tokens);
            assert_eq!(inputs.groups[0].table(inputs.num_seqs() - 1).len(), 3);
            assert_eq!(inputs.positions.last(), Some(&32));
        }
    }
}
