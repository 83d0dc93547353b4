//! The paged KV memory: `[layer, block, K then V, kv head, block_size, D]` of bf16.

use tensor::CacheSpec;

use super::device::{Address, Memory};

/// One group's KV memory.
pub struct Cache {
    pub(super) spec: CacheSpec,
    pub(super) data: Memory,
}

/// Bytes of one block in one layer.
pub(super) fn block_bytes(spec: &CacheSpec) -> usize {
    2 * spec.num_kv_heads * spec.block_size * spec.head_dim * 2
}

impl Cache {
    pub(super) fn block(&self, layer: usize, block: usize) -> Address {
        assert!(layer < self.spec.layers && block < self.spec.blocks, "block {block} of layer {layer} exists");
        self.data.address() + ((layer * self.spec.blocks + block) * block_bytes(&self.spec)) as Address
    }
}
