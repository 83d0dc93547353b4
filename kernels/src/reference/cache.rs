//! The paged KV cache: per layer, one `[Hkv, D]` row of K and one of V for each slot. All dtypes are f32 in memory; fp8 is rounded when
//! it is written.

use quant::fp8_e4m3;
use tensor::{CacheSpec, KvDtype, KvScales};

/// K and V of one group's layers.
pub struct Cache {
    pub(super) spec: CacheSpec,
    layers: Vec<Layer>,
}

/// [slots, Hkv * D] each.
struct Layer {
    k: Vec<f32>,
    v: Vec<f32>,
}

impl Cache {
    /// Filled with NaN: whoever reads what nobody has written shows it.
    pub(super) fn new(spec: CacheSpec) -> Self {
        let len = spec.blocks * spec.block_size * spec.num_kv_heads * spec.head_dim;
        let layer = || Layer { k: vec![f32::NAN; len], v: vec![f32::NAN; len] };
        Self { layers: (0..spec.layers).map(|_| layer()).collect(), spec }
    }

    /// Writes one token's `k` and `v`, `[Hkv, D]` each, to `slot`.
    pub(super) fn write(&mut self, layer: usize, slot: usize, k: &[f32], v: &[f32], scales: KvScales) {
        let (at, Layer { k: keys, v: values }) = (slot * k.len(), &mut self.layers[layer]);
        for (to, from, scale) in [(keys, k, scales.k), (values, v, scales.v)] {
            let to = &mut to[at..at + from.len()];
            to.copy_from_slice(from);
            if self.spec.dtype == KvDtype::Fp8 {
                to.iter_mut().for_each(|x| *x = fp8_e4m3::decode_one(fp8_e4m3::encode_one(*x / scale)) * scale);
            }
        }
    }

    /// One head's k at `slot`.
    pub(super) fn k(&self, layer: usize, slot: usize, head: usize) -> &[f32] {
        &self.layers[layer].k[self.start(slot, head)..][..self.spec.head_dim]
    }

    /// One head's v at `slot`.
    pub(super) fn v(&self, layer: usize, slot: usize, head: usize) -> &[f32] {
        &self.layers[layer].v[self.start(slot, head)..][..self.spec.head_dim]
    }

    /// The slot of `position` in a sequence whose blocks are `table`.
    pub(super) fn slot(&self, table: &[u32], position: usize) -> usize {
        let size = self.spec.block_size;
        table[position / size] as usize * size + position % size
    }

    pub(super) fn copy_block(&mut self, from: usize, to: usize) {
        let len = self.spec.block_size * self.spec.num_kv_heads * self.spec.head_dim;
        for layer in &mut self.layers {
            layer.k.copy_within(from * len..(from + 1) * len, to * len);
            layer.v.copy_within(from * len..(from + 1) * len, to * len);
        }
    }

    fn start(&self, slot: usize, head: usize) -> usize {
        (slot * self.spec.num_kv_heads + head) * self.spec.head_dim
    }
}
