//! What the launches of a step depend on, and all of it: a recorded step stands for every other of its shape.

use tensor::StepInputs;

/// Contexts up to this, and block tables of this many entries, are all one shape where shapes are rounded.
const SMALLEST_CONTEXT: usize = 256;
const SMALLEST_STRIDE: usize = 16;

/// Sizes of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    pub tokens: usize,
    pub seqs: usize,
    pub logit_rows: usize,
    /// Tokens of the sequence that has most of them in this step.
    pub most_tokens: usize,
    /// No sequence's context is longer.
    pub longest: usize,
    /// Entries of a block table, in every group.
    pub stride: usize,
    pub groups: usize,
}

impl Shape {
    pub fn of(inputs: &StepInputs) -> Self {
        let largest = |values: &mut dyn Iterator<Item = u32>| values.max().unwrap_or(0) as usize;
        Self {
            tokens: inputs.num_tokens(),
            seqs: inputs.num_seqs(),
            logit_rows: inputs.num_logit_rows(),
            most_tokens: largest(&mut inputs.cu_seqlens_q.windows(2).map(|pair| pair[1].saturating_sub(pair[0]))),
            longest: largest(&mut inputs.seq_lens.iter().copied()),
            stride: inputs.groups.iter().map(|group| group.stride).max().unwrap_or(0),
            groups: inputs.groups.len(),
        }
    }

    /// The same with the context rounded up to a power of two, so that there are few shapes; tables stay within `max_stride`.
    pub fn rounded(self, max_stride: usize) -> Self {
        let stride = self.stride.next_power_of_two().max(SMALLEST_STRIDE).min(max_stride).max(self.stride);
        Self { longest: self.longest.next_power_of_two().max(SMALLEST_CONTEXT), stride, ..self }
    }

    /// The smallest shape that holds both.
    pub fn cover(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.max(other.tokens),
            seqs: self.seqs.max(other.seqs),
            logit_rows: self.logit_rows.max(other.logit_rows),
            most_tokens: self.most_tokens.max(other.most_tokens),
            longest: self.longest.max(other.longest),
            stride: self.stride.max(other.stride),
            groups: self.groups.max(other.groups),
        }
    }
}

/// Sequences that a step decoding `num_seqs` is filled up to: few sizes, of which none wastes more than a fifth from 32 on.
pub(super) fn bucket(num_seqs: usize) -> u32 {
    let bucket = match num_seqs {
        0..=8 => num_seqs.next_power_of_two(),
        9..=64 => num_seqs.next_multiple_of(8),
        65..=256 => num_seqs.next_multiple_of(16),
        _ => num_seqs.next_multiple_of(32),
    };
    u32::try_from(bucket).expect("a step has fewer than 2^32 sequences")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_few_and_hold_what_is_asked() {
        let cases =
            [(1, 1), (2, 2), (3, 4), (5, 8), (8, 8), (9, 16), (17, 24), (64, 64), (65, 80), (256, 256), (257, 288)];
        for (seqs, expected) in cases {
            assert_eq!(bucket(seqs), expected, "{seqs}");
        }
        let different: std::collections::BTreeSet<u32> = (1..=256).map(bucket).collect();
        assert_eq!(different.len(), 23);
    }

    #[test]
    fn contexts_round_up_and_tables_stay_within_what_was_planned() {
        let shape = |longest, stride| Shape { longest, stride, ..Shape::default() };
        for (given, max_stride, expected) in [
            (shape(1, 1), 100, shape(256, 16)),
            (shape(256, 16), 100, shape(256, 16)),
            (shape(257, 17), 100, shape(512, 32)),
            (shape(1500, 94), 100, shape(2048, 100)),
            (shape(10, 3), 4, shape(256, 4)),
            (shape(10, 6), 4, shape(256, 6)),
        ] {
            assert_eq!(given.rounded(max_stride), expected);
        }
    }
}
