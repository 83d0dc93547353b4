//! Which attention kernel runs: one block for all spans of some rows, or one a span.

use tensor::AttnSpec;

use super::params::Attention;
use super::{Buf, Cuda};

/// Positions of a tile and of a span: as `paged_attention.cu` has them.
const TILE: usize = 32;
const SPAN: usize = 256;
/// Rows of attention that a warp takes.
const WARP_ROWS: usize = 16;
/// Records of spans a head: more (token, span) pairs fill a card without being split.
const MAX_RECORDS: usize = 256;

/// The attention kernels for heads of one size.
pub(super) struct AttentionKernels {
    attend: &'static str,
    attend_span: &'static str,
    merge_spans: &'static str,
}

pub(super) fn kernels_of(head_dim: usize) -> Option<AttentionKernels> {
    let [attend, attend_span, merge_spans] = match head_dim {
        16 => ["attend_16", "attend_span_16", "merge_spans_16"],
        32 => ["attend_32", "attend_span_32", "merge_spans_32"],
        64 => ["attend_64", "attend_span_64", "merge_spans_64"],
        128 => ["attend_128", "attend_span_128", "merge_spans_128"],
        _ => return None,
    };
    Some(AttentionKernels { attend, attend_span, merge_spans })
}

impl Cuda {
    /// Spans that get blocks of their own: where each sequence has so few rows that one warp holds them, and there are several
    /// spans, but not so many that the records outgrow the workspace. A row's bits are the same either way.
    pub(super) fn split(&self, spec: &AttnSpec<Cuda>) -> Option<usize> {
        let step = &self.inputs.step;
        let spans = step.seq_lens.iter().max().map_or(0, |&len| len as usize).div_ceil(SPAN);
        let is_narrow = self.most_rows(spec) <= WARP_ROWS && step.num_tokens() * spans <= MAX_RECORDS;
        (spans > 1 && is_narrow).then_some(spans)
    }

    /// Memory for the records of `split` spans; for as many as there may be while planning.
    pub(super) fn records(&self, spec: &AttnSpec<Cuda>, split: Option<usize>) -> Option<Buf> {
        let records =
            if self.planning { Some(MAX_RECORDS) } else { split.map(|spans| self.inputs.step.num_tokens() * spans) };
        records.map(|records| self.floats(records * spec.num_heads, spec.head_dim + 2))
    }

    /// Rows of the sequence that has most in this step: its tokens, by the query heads that share a key head.
    fn most_rows(&self, spec: &AttnSpec<Cuda>) -> usize {
        let tokens = self.inputs.step.cu_seqlens_q.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
        tokens as usize * (spec.num_heads / spec.num_kv_heads)
    }

    pub(super) fn launch_attention(&mut self, spec: &AttnSpec<Cuda>, split: Option<usize>, params: &Attention) {
        let step = &self.inputs.step;
        let kernels = kernels_of(spec.head_dim).expect("a cache was made for these heads");
        let sequences = step.num_seqs() * spec.num_kv_heads;
        let tokens = step.num_tokens();
        let blocks = self.most_rows(spec).div_ceil(4 * WARP_ROWS);
        let shared = 2 * 2 * TILE * (spec.head_dim * 2 + 16);
        match split {
            None => self.launch(kernels.attend, [blocks, sequences, 1], 128, shared, params),
            Some(spans) => {
                self.launch(kernels.attend_span, [1, sequences, spans], 32, shared, params);
                self.launch(kernels.merge_spans, [tokens, spec.num_heads, 1], spec.head_dim, 0, params);
            }
        }
    }
}
