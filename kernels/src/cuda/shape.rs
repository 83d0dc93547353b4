//! What the launches of a step depend on, and all of it: a recorded step stands for every other of its shape.

use tensor::StepInputs;

use super::attention::SPAN;

/// Block tables of up to this many entries are all one shape where shapes are rounded.
const SMALLEST_STRIDE: usize = 16;

/// Sizes of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    pub tokens: usize,
    pub seqs: usize,
    pub logit_rows: usize,
    /// Tokens of the sequences that have fewest and most of them in this step.
    pub fewest_tokens: usize,
    pub most_tokens: usize,
    /// Spans of all sequences' contexts.
    pub spans: usize,
    /// Entries of a block table, in every group.
    pub stride: usize,
    pub groups: usize,
}

impl Shape {
    pub fn of(inputs: &StepInputs) -> Self {
        let lens = || inputs.cu_seqlens_q.windows(2).map(|pair| pair[1].saturating_sub(pair[0]) as usize);
        Self {
            tokens: inputs.num_tokens(),
            seqs: inputs.num_seqs(),
            logit_rows: inputs.num_logit_rows(),
            fewest_tokens: lens().min().unwrap_or(0),
            most_tokens: lens().max().unwrap_or(0),
            spans: spans(inputs).sum::<u32>() as usize,
            stride: inputs.groups.iter().map(|group| group.stride).max().unwrap_or(0),
            groups: inputs.groups.len(),
        }
    }

    /// The same with contexts rounded up to powers of two, so that there are few shapes; tables stay within `max_stride`.
    pub fn rounded(self, max_stride: usize) -> Self {
        let stride = self.stride.next_power_of_two().max(SMALLEST_STRIDE).min(max_stride).max(self.stride);
        let spans = if self.spans > self.seqs { self.spans.next_power_of_two() } else { self.spans };
        Self { spans, stride, ..self }
    }

    /// The smallest shape that holds both.
    pub fn cover(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.max(other.tokens),
            seqs: self.seqs.max(other.seqs),
            logit_rows: self.logit_rows.max(other.logit_rows),
            fewest_tokens: self.fewest_tokens.max(other.fewest_tokens),
            most_tokens: self.most_tokens.max(other.most_tokens),
            spans: self.spans.max(other.spans),
            stride: self.stride.max(other.stride),
            groups: self.groups.max(other.groups),
        }
    }
}

/// Spans of each sequence's context, up to its last position.
pub(super) fn spans(inputs: &StepInputs) -> impl Iterator<Item = u32> {
    let last = |end: u32| inputs.positions.get(end.wrapping_sub(1) as usize).copied().unwrap_or(0);
    inputs.cu_seqlens_q.iter().skip(1).map(move |&end| last(end) / SPAN as u32 + 1)
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
        let shape = |spans, stride| Shape { seqs: 4, spans, stride, ..Shape::default() };
        for (given, max_stride, expected) in [
            (shape(4, 1), 100, shape(4, 16)),
            (shape(4, 16), 100, shape(4, 16)),
            (shape(5, 17), 100, shape(8, 32)),
            (shape(17, 94), 100, shape(32, 100)),
            (shape(4, 3), 4, shape(4, 4)),
            (shape(4, 6), 4, shape(4, 6)),
        ] {
            assert_eq!(given.rounded(max_stride), expected);
        }
    }
}
