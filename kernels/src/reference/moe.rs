//! Mixtures of experts, one expert after the other. A routing is `[T, 2 * top_k]`: a token's experts as numbers, then their
//! weights; pairs are in the order of tokens and slots.

use tensor::{Act, RouteSpec, Routing};

use super::matmul::Weight;
use super::{Reference, math};

/// The experts and weights of each row of `logits`.
pub fn route(logits: &[f32], spec: RouteSpec) -> Vec<f32> {
    logits.chunks(spec.num_experts).flat_map(|logits| pick(logits, spec)).collect()
}

fn pick(logits: &[f32], spec: RouteSpec) -> Vec<f32> {
    // No logit is above a NaN, so that it stays, and is in every weight.
    let max = logits
        .iter()
        .copied()
        .fold(f32::NEG_INFINITY, |max, logit| if logit > max || logit.is_nan() { logit } else { max });
    let shares: Vec<f32> = logits.iter().map(|logit| (logit - max).exp()).collect();
    let mut experts: Vec<usize> = (0..logits.len()).collect();
    // Stable, so that of equal ones the first comes first; NaN counts as the smallest.
    let key = |expert: &usize| if logits[*expert].is_nan() { f32::NEG_INFINITY } else { logits[*expert] };
    experts.sort_by(|a, b| key(b).partial_cmp(&key(a)).expect("no key is NaN"));
    experts.truncate(spec.top_k);
    let of =
        if spec.renormalize { experts.iter().map(|&expert| shares[expert]).sum() } else { shares.iter().sum::<f32>() };
    let weights = experts.iter().map(|&expert| shares[expert] / of);
    experts.iter().map(|&expert| expert as f32).chain(weights).collect()
}

/// Rows of the pairs whose expert is `expert`, each multiplied by its matrix; `row_of` names a pair's input.
fn multiply(a: &Act<Reference>, w: &Weight, routing: &Routing<Reference>, row_of: impl Fn(usize) -> usize) -> Vec<f32> {
    let (top_k, input) = (routing.spec.top_k, a.get(w.encoding()).values());
    let experts = routing.buf.values();
    let expert_of = |pair: usize| experts[pair / top_k * 2 * top_k + pair % top_k] as usize;
    let mut out = vec![0.0; routing.pairs() * w.rows()];
    for expert in 0..routing.spec.num_experts {
        let pairs: Vec<usize> = (0..routing.pairs()).filter(|&pair| expert_of(pair) == expert).collect();
        let rows: Vec<f32> =
            pairs.iter().flat_map(|&pair| &input[row_of(pair) * a.cols..][..a.cols]).copied().collect();
        let products = w.expert(expert).multiply(&rows);
        for (pair, product) in pairs.iter().zip(products.chunks(w.rows())) {
            out[pair * w.rows()..][..w.rows()].copy_from_slice(product);
        }
    }
    out
}

/// `[T * top_k, N]` of the tokens in `a`.
pub fn of_tokens(a: &Act<Reference>, w: &Weight, routing: &Routing<Reference>) -> Vec<f32> {
    multiply(a, w, routing, |pair| pair / routing.spec.top_k)
}

/// `[T, N]` of the pairs in `a`: weighted, and summed slot by slot.
pub fn of_pairs(a: &Act<Reference>, w: &Weight, routing: &Routing<Reference>) -> Vec<f32> {
    let (top_k, n) = (routing.spec.top_k, w.rows());
    let (products, routes) = (multiply(a, w, routing, |pair| pair), routing.buf.values());
    let mut out = vec![0.0; routing.tokens * n];
    for (token, sums) in out.chunks_mut(n).enumerate() {
        for slot in 0..top_k {
            let weight = routes[token * 2 * top_k + top_k + slot];
            math::add_scaled(sums, weight, &products[(token * top_k + slot) * n..][..n]);
        }
    }
    out
}
