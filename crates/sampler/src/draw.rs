//! How a row draws its token: its parameters as the numbers that a pass over the logits needs, on the host or on a device.

use crate::Row;
use crate::noise::noise;

/// Below this temperature the pick is greedy, as in vLLM.
const GREEDY_BELOW: f32 = 1e-5;

/// A draw from the tokens that top-k, top-p and min-p keep.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// A token weighs `e^((logit - peak) * inverse)`.
    pub inverse: f32,
    /// 0 keeps all, and so does the vocabulary's size.
    pub top_k: u32,
    /// From 1 on all are kept.
    pub top_p: f32,
    /// Where min-p cuts, relative to the peak; -infinity cuts nothing.
    pub floor: f32,
    /// Which part of the kept weight, in units of 2^-64, comes before the token.
    pub noise: u64,
}

impl Draw {
    /// How `row` draws; `None` where it takes the best token.
    pub fn of(row: &Row<'_>) -> Option<Self> {
        let params = row.params;
        let (temperature, min_p) = (params.temperature, params.min_p);
        (temperature >= GREEDY_BELOW && params.top_k != 1).then(|| Self {
            inverse: 1.0 / temperature,
            top_k: params.top_k,
            top_p: params.top_p,
            floor: if min_p > 0.0 { temperature * min_p.min(1.0).ln() } else { f32::NEG_INFINITY },
            noise: noise(params.seed, row.position),
        })
    }
}
