//! The paged KV memory: `[layer, block, K then V, kv head, block_size, D]` of bf16 or e4m3.

use std::rc::Rc;

use tensor::{CacheSpec, DeviceError, KvDtype};

use super::attention::{self, MAX_RECORDS};
use super::device::{Address, Device, advised, refused};
use super::memory::Memory;

/// One group's KV memory.
pub struct Cache {
    pub(super) spec: CacheSpec,
    pub(super) element: Element,
    data: Memory,
    /// Counters of attention's blocks: zeros between launches.
    arrivals: Memory,
}

/// Element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    Bf16,
    E4m3,
}

impl Element {
    pub fn of(dtype: KvDtype) -> Option<Self> {
        match dtype {
            KvDtype::Auto | KvDtype::Bf16 => Some(Self::Bf16),
            KvDtype::Fp8 => Some(Self::E4m3),
            KvDtype::F32 | KvDtype::Int8 => None,
        }
    }

    pub fn bytes(self) -> usize {
        match self {
            Self::Bf16 => 2,
            Self::E4m3 => 1,
        }
    }
}

/// Bytes of one block in one layer.
pub(super) fn block_bytes(spec: &CacheSpec) -> usize {
    let element = Element::of(spec.dtype).map_or(0, Element::bytes);
    2 * spec.num_kv_heads * spec.block_size * spec.head_dim * element
}

impl Cache {
    /// # Errors
    /// If there are no kernels for these heads and elements, or no memory.
    pub(super) fn new(device: &Rc<Device>, spec: &CacheSpec) -> Result<Self, DeviceError> {
        let element = Element::of(spec.dtype)
            .ok_or_else(|| refused(format!("the CUDA kernels have no {:?} KV cache; use bf16 or fp8", spec.dtype)))?;
        attention::check(element, spec.head_dim).map_err(refused)?;
        let arrivals = device.alloc(MAX_RECORDS * spec.num_kv_heads * 4)?;
        device.zero(arrivals.address(), arrivals.bytes())?;
        let data = device
            .alloc(spec.layers * spec.blocks * block_bytes(spec))
            .map_err(|error| advised(error, "the KV cache takes less with a smaller --kv-cache-memory"))?;
        let cache = Self { spec: spec.clone(), element, data, arrivals };
        // Sequences that fill up a step read the null block, which nobody writes.
        for layer in 0..spec.layers {
            device.zero(cache.block(layer, 0), block_bytes(spec))?;
        }
        Ok(cache)
    }

    pub(super) fn block(&self, layer: usize, block: usize) -> Address {
        assert!(layer < self.spec.layers && block < self.spec.blocks, "block {block} of layer {layer} exists");
        self.data.address() + ((layer * self.spec.blocks + block) * block_bytes(&self.spec)) as Address
    }

    pub(super) fn arrivals(&self) -> Address {
        self.arrivals.address()
    }
}
