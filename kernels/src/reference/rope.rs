//! Rotary embedding of q and k, and the way of k and v into the cache.

use tensor::{GroupInputs, NormSpec, QkvSpec, StepInputs};

use super::{Cache, Reference, math};

/// Splits each token's `[q | k | v]`, normalizes and rotates q and k, writes k and v, and returns q `[T, Hq * D]`.
pub fn rope_write(
    qkv: &[f32],
    spec: &QkvSpec<Reference>,
    inputs: &StepInputs,
    cache: &mut Cache,
    layer: usize,
) -> Vec<f32> {
    let (q_size, kv_size) = (spec.num_heads * spec.head_dim, spec.num_kv_heads * spec.head_dim);
    let slots = &inputs.groups[cache.spec.group].slot_mapping;
    let mut all_q = Vec::with_capacity(inputs.num_tokens() * q_size);
    for (token, (&position, &slot)) in qkv.chunks(q_size + 2 * kv_size).zip(inputs.positions.iter().zip(slots)) {
        let mut token = token.to_vec();
        let (q, kv) = token.split_at_mut(q_size);
        let (k, v) = kv.split_at_mut(kv_size);
        q.chunks_mut(spec.head_dim).for_each(|head| turn(head, spec.q_norm.as_ref(), spec, position as usize));
        k.chunks_mut(spec.head_dim).for_each(|head| turn(head, spec.k_norm.as_ref(), spec, position as usize));
        all_q.extend_from_slice(q);
        if slot != GroupInputs::SKIP {
            cache.write(layer, slot as usize, k, v, spec.kv_scales);
        }
    }
    all_q
}

/// Normalizes one head, where the family does, and rotates each pair (i, i + rotary_dim / 2).
fn turn(head: &mut [f32], norm: Option<&NormSpec<Reference>>, spec: &QkvSpec<Reference>, position: usize) {
    if let Some(norm) = norm {
        math::norm(head, &norm.gain.values(), norm.eps);
    }
    let half = spec.rotary_dim / 2;
    let table = spec.rope.values();
    let (cos, sin) = table.split_at(table.len() / 2);
    for pair in 0..half {
        let (cos, sin) = (cos[position * half + pair], sin[position * half + pair]);
        let (a, b) = (head[pair], head[pair + half]);
        (head[pair], head[pair + half]) = (a * cos - b * sin, b * cos + a * sin);
    }
}
