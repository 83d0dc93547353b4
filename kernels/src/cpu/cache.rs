//! The paged KV memory.
//!
//! ```text
//!   layer, block, K then V, kv head:
//!     K  [block_size / 16][D / P][16] cells of P dimensions   sixteen tokens side by side: a vector is sixteen scores
//!     V  [block_size / P][D] cells of P tokens                a vector is sixteen dimensions
//! ```
//!
//! A cell is 32 bits: one f32 (P = 1), or two bf16 (P = 2), whose products one instruction adds up.

use tensor::{CacheSpec, KvDtype};

use super::arena::Lines;
use super::simd::{LANES, Simd};

/// One group's KV memory.
pub struct Cache {
    pub(super) spec: CacheSpec,
    pub(super) element: Element,
    data: Lines,
}

/// Bytes of a cell.
const CELL: usize = 4;

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
        CELL / self.per_cell()
    }

    /// Elements in a cell.
    pub const fn per_cell(self) -> usize {
        match self {
            Self::Bf16 => 2,
            Self::F32 => 1,
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
    /// Cells before a head's.
    fn head(&self, block: usize, kv: usize, head: usize) -> usize {
        let elements = ((block * 2 + kv) * self.num_kv_heads + head) * self.block_size * self.head_dim;
        elements / self.element.per_cell()
    }

    /// The cells of sixteen keys from dimension 0 on, for the tile that holds `offset` within the block.
    #[inline(always)]
    pub fn key_tile(&self, block: usize, head: usize, offset: usize) -> usize {
        self.head(block, 0, head) + offset / LANES * LANES * self.head_dim / self.element.per_cell()
    }

    /// The cells that hold one token's value.
    #[inline(always)]
    pub fn value(&self, block: usize, head: usize, offset: usize) -> usize {
        self.head(block, 1, head) + offset / self.element.per_cell() * self.head_dim
    }

    /// Sixteen cells from `idx` on.
    ///
    /// # Safety
    /// They lie within the layer.
    #[inline(always)]
    pub unsafe fn load<S: Simd>(&self, idx: usize) -> S::B {
        // SAFETY: as the caller vouches.
        unsafe { S::load_b(self.base.add(idx * CELL)) }
    }

    /// Asks for sixteen cells from `idx` on, ahead of their use.
    ///
    /// # Safety
    /// As for every method of [`Simd`]; the cells need not exist.
    #[inline(always)]
    pub unsafe fn prefetch<S: Simd>(&self, idx: usize) {
        // SAFETY: a hint, valid anywhere.
        unsafe { S::prefetch(self.base.wrapping_add(idx * CELL)) };
    }

    /// Writes one token's key: a lane of the tile's every dimension.
    ///
    /// # Safety
    /// The slot exists and nobody else touches it now; `key` holds `head_dim` values.
    #[inline(always)]
    pub unsafe fn put_key<S: Simd>(&self, block: usize, head: usize, offset: usize, key: *const f32) {
        let first = self.key_tile(block, head, offset) + offset % LANES;
        // SAFETY: as the caller vouches; a head is whole vectors.
        unsafe {
            let out = self.base.add(first * CELL);
            for d in (0..self.head_dim).step_by(LANES) {
                match self.element {
                    Element::Bf16 => {
                        let mut pairs = [0u32; LANES / 2];
                        S::store_bf16(pairs.as_mut_ptr().cast(), S::load(key.add(d)));
                        scatter(out.cast::<u32>().add(d / 2 * LANES), &pairs, LANES);
                    }
                    Element::F32 => {
                        let lanes = &*key.add(d).cast::<[f32; LANES]>();
                        scatter(out.cast::<f32>().add(d * LANES), lanes, LANES);
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
        // SAFETY: as the caller vouches; a head is whole vectors.
        unsafe {
            let out = self.base.add(self.value(block, head, offset) * CELL);
            for d in (0..self.head_dim).step_by(LANES) {
                let lanes = S::load(value.add(d));
                match self.element {
                    Element::Bf16 => {
                        let mut halves = [0u16; LANES];
                        S::store_bf16(halves.as_mut_ptr(), lanes);
                        scatter(out.cast::<u16>().add(d * 2 + offset % 2), &halves, 2);
                    }
                    Element::F32 => S::store(out.cast::<f32>().add(d), lanes),
                }
            }
        }
    }
}

/// Writes `values`, `stride` apart.
#[inline(always)]
unsafe fn scatter<T: Copy, const N: usize>(out: *mut T, values: &[T; N], stride: usize) {
    for (idx, &value) in values.iter().enumerate() {
        // SAFETY: the head has as many.
        unsafe { out.add(idx * stride).write(value) };
    }
}
