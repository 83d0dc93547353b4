//! The paged KV memory.
//!
//! ```text
//!   layer, block, K then V, kv head:
//!     K  [block_size / 16][D][16]   sixteen tokens side by side, so that a vector is sixteen scores
//!     V  [block_size][D]            token by token, so that a vector is sixteen dimensions
//! ```

use tensor::{CacheSpec, KvDtype};

use super::arena::Lines;
use super::simd::{LANES, Simd};

/// One group's KV memory.
pub struct Cache {
    pub(super) spec: CacheSpec,
    pub(super) element: Element,
    data: Lines,
}

/// Element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    Bf16,
    F32,
}

impl Element {
    pub fn of(dtype: KvDtype) -> Option<Self> {
        match dtype {
            KvDtype::Auto | KvDtype::Bf16 => Some(Self::Bf16),
            KvDtype::F32 => Some(Self::F32),
            KvDtype::Fp8 | KvDtype::Int8 => None,
        }
    }

    pub fn bytes(self) -> usize {
        match self {
            Self::Bf16 => 2,
            Self::F32 => 4,
        }
    }
}

/// Elements of one block in one layer.
pub(super) fn block_elements(spec: &CacheSpec) -> usize {
    2 * spec.num_kv_heads * spec.block_size * spec.head_dim
}

/// Where one layer's blocks lie, for kernels.
#[derive(Clone, Copy)]
pub(super) struct LayerView {
    pub base: *mut u8,
    pub element: Element,
    pub num_kv_heads: usize,
    pub head_dim: usize,
    pub block_size: usize,
}

// SAFETY: tiles write the slots of their own tokens, and read what no tile of the same op writes.
unsafe impl Sync for LayerView {}

impl Cache {
    /// Debug builds fill it with NaN: whoever reads what nobody has written shows it.
    pub(super) fn new(spec: CacheSpec, element: Element) -> Self {
        let bytes = spec.layers * spec.blocks * block_elements(&spec) * element.bytes();
        let mut data = Lines::zeroed(bytes);
        if cfg!(debug_assertions) {
            // SAFETY: the bytes are the data's own.
            unsafe { std::ptr::write_bytes(data.as_mut_ptr(), 0xff, bytes) };
        }
        Self { data, spec, element }
    }

    /// # Panics
    /// If there is no such layer.
    pub(super) fn layer(&self, layer: usize) -> LayerView {
        assert!(layer < self.spec.layers, "layer {layer} of {}", self.spec.layers);
        let offset = layer * self.spec.blocks * block_elements(&self.spec) * self.element.bytes();
        // SAFETY: the layer's bytes lie within the data. Only `rope_write` and `copy`, which hold the cache mutably,
        // write through it.
        let base = unsafe { self.data.as_ptr().add(offset).cast_mut() };
        LayerView {
            base,
            element: self.element,
            num_kv_heads: self.spec.num_kv_heads,
            head_dim: self.spec.head_dim,
            block_size: self.spec.block_size,
        }
    }

    /// Copies block `from` to block `to` in all layers.
    pub(super) fn copy(&mut self, from: usize, to: usize) {
        assert!(from < self.spec.blocks && to < self.spec.blocks, "block {from} or {to} of {}", self.spec.blocks);
        let bytes = block_elements(&self.spec) * self.element.bytes();
        for layer in 0..self.spec.layers {
            let first = layer * self.spec.blocks;
            let base = self.data.as_mut_ptr();
            // SAFETY: both blocks lie within the data, as just checked; `copy` allows them to be the same.
            unsafe { std::ptr::copy(base.add((first + from) * bytes), base.add((first + to) * bytes), bytes) };
        }
    }
}

impl LayerView {
    fn head(&self, block: usize, kv: usize, head: usize) -> usize {
        ((block * 2 + kv) * self.num_kv_heads + head) * self.block_size * self.head_dim
    }

    /// Element index of sixteen keys at dimension 0, for the tile that holds `offset` within the block.
    #[inline(always)]
    pub fn key_tile(&self, block: usize, head: usize, offset: usize) -> usize {
        self.head(block, 0, head) + offset / LANES * LANES * self.head_dim
    }

    /// Element index of one token's value.
    #[inline(always)]
    pub fn value(&self, block: usize, head: usize, offset: usize) -> usize {
        self.head(block, 1, head) + offset * self.head_dim
    }

    /// Sixteen elements from `idx` on.
    ///
    /// # Safety
    /// They lie within the layer.
    #[inline(always)]
    pub unsafe fn load<S: Simd, const BF16: bool>(&self, idx: usize) -> S::F {
        // SAFETY: as the caller vouches.
        unsafe {
            if BF16 {
                S::load_bf16(self.base.cast::<u16>().add(idx))
            } else {
                S::load(self.base.cast::<f32>().add(idx))
            }
        }
    }

    /// Writes one token's key: a lane of the tile's every dimension.
    ///
    /// # Safety
    /// The slot exists and nobody else touches it now; `key` holds `head_dim` values.
    #[inline(always)]
    pub unsafe fn put_key<S: Simd>(&self, block: usize, head: usize, offset: usize, key: *const f32) {
        let first = self.key_tile(block, head, offset) + offset % LANES;
        for d in (0..self.head_dim).step_by(LANES) {
            // SAFETY: as the caller vouches; a head is whole vectors.
            unsafe {
                match self.element {
                    Element::Bf16 => {
                        let mut lanes = [0u16; LANES];
                        S::store_bf16(lanes.as_mut_ptr(), S::load(key.add(d)));
                        scatter(self.base.cast::<u16>().add(first + d * LANES), &lanes);
                    }
                    Element::F32 => {
                        let lanes = &*key.add(d).cast::<[f32; LANES]>();
                        scatter(self.base.cast::<f32>().add(first + d * LANES), lanes);
                    }
                }
            }
        }
    }

    /// Writes one token's value.
    ///
    /// # Safety
    /// As for [`LayerView::put_key`].
    #[inline(always)]
    pub unsafe fn put_value<S: Simd>(&self, block: usize, head: usize, offset: usize, value: *const f32) {
        let first = self.value(block, head, offset);
        for d in (0..self.head_dim).step_by(LANES) {
            // SAFETY: as the caller vouches; a head is whole vectors.
            unsafe {
                let lanes = S::load(value.add(d));
                match self.element {
                    Element::Bf16 => S::store_bf16(self.base.cast::<u16>().add(first + d), lanes),
                    Element::F32 => S::store(self.base.cast::<f32>().add(first + d), lanes),
                }
            }
        }
    }
}

/// Writes each of sixteen dimensions to its own row of a key tile.
#[inline(always)]
unsafe fn scatter<T: Copy>(out: *mut T, lanes: &[T; LANES]) {
    for (d, &value) in lanes.iter().enumerate() {
        // SAFETY: the tile has as many rows.
        unsafe { *out.add(d * LANES) = value };
    }
}
