//! Causal attention over the paged cache, one token and one head at a time.

use std::ops::Range;

use tensor::{AttnSpec, StepInputs};

use super::{Cache, Reference, math};

/// One token that looks back over its own sequence.
struct Query<'a> {
    spec: &'a AttnSpec<Reference>,
    cache: &'a Cache,
    layer: usize,
    /// The sequence's blocks.
    table: &'a [u32],
    /// Positions that it sees, itself the last.
    visible: Range<usize>,
}

/// `q [T, Hq * D]`: softmax(q k^T * scale) v for every token and head, `[T, Hq * D]`.
pub fn attend(q: &[f32], spec: &AttnSpec<Reference>, inputs: &StepInputs, cache: &Cache, layer: usize) -> Vec<f32> {
    let mut out = vec![0.0; q.len()];
    let size = spec.num_heads * spec.head_dim;
    let group = &inputs.groups[cache.spec.group];
    for (seq, tokens) in inputs.cu_seqlens_q.windows(2).enumerate() {
        for token in tokens[0] as usize..tokens[1] as usize {
            let end = inputs.positions[token] as usize + 1;
            let start = spec.window.map_or(0, |window| end.saturating_sub(window));
            let query = Query { spec, cache, layer, table: group.table(seq), visible: start..end };
            let row = token * size..(token + 1) * size;
            query.attend(&q[row.clone()], &mut out[row]);
        }
    }
    out
}

impl Query<'_> {
    fn attend(&self, q: &[f32], out: &mut [f32]) {
        let heads = q.chunks(self.spec.head_dim).zip(out.chunks_mut(self.spec.head_dim));
        for (head, (q, out)) in heads.enumerate() {
            let kv_head = head * self.spec.num_kv_heads / self.spec.num_heads;
            let sink = self.spec.sinks.as_ref().map(|sinks| sinks.values()[head]);
            self.attend_head(q, kv_head, sink, out);
        }
    }

    fn attend_head(&self, q: &[f32], kv_head: usize, sink: Option<f32>, out: &mut [f32]) {
        let slots = || self.visible.clone().map(|position| self.cache.slot(self.table, position));
        let score = |slot| self.capped(math::dot(q, self.cache.k(self.layer, slot, kv_head)) * self.spec.scale);
        let mut weights: Vec<f32> = slots().map(score).collect();
        let peak = weights.iter().copied().chain(sink).fold(f32::NEG_INFINITY, f32::max);
        weights.iter_mut().for_each(|weight| *weight = (*weight - peak).exp());
        let total = weights.iter().sum::<f32>() + sink.map_or(0.0, |sink| (sink - peak).exp());
        for (slot, weight) in slots().zip(weights) {
            math::add_scaled(out, weight / total, self.cache.v(self.layer, slot, kv_head));
        }
    }

    fn capped(&self, score: f32) -> f32 {
        self.spec.softcap.map_or(score, |cap| cap * (score / cap).tanh())
    }
}
