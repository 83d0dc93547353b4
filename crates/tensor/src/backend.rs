//! A device at the grain of a language model: about fifteen fused operations, all enqueueing, none allocating.
//!
//! The backend owns activation encodings and the scope of a step. It implements each op by one written reduction
//! schedule, a function of weight shape and absolute position and never of the number of rows, so that a row's bits
//! do not depend on its neighbours.

use quant::Stored;
use sampler::{Row, Sampled};
use thiserror::Error;

use crate::{Act, ActSet, RouteSpec, Routing, StepInputs};

/// A device. Ops run inside [`Backend::step`]; an op that fails latches its error, and `step` returns it.
pub trait Backend: Sized + 'static {
    /// Arena or resident memory. Pointers to it exist inside kernels only. Clones share the memory.
    type Buf: Clone;
    /// One matrix, fused parts of one (qkv; gate and up), or a stack of experts, in the backend's own packing.
    type Weight;
    /// The paged K and V of one group's layers.
    type Cache;

    // ---- loading

    /// Packs `parts`, stacked along the output dimension, or as `role` says; all have the same number of columns.
    fn pack(&mut self, parts: &[Stored<'_>], role: Role) -> Result<Self::Weight, LoadError>;

    /// A resident f32 vector: norm gains, biases.
    fn vector(&mut self, values: &[f32]) -> Result<Self::Buf, LoadError>;

    /// Resident cos and sin tables.
    fn rope_table(&mut self, table: &RopeTable) -> Result<Self::Buf, LoadError>;

    /// The encodings of activations that `linear` with this weight reads.
    fn wants(weight: &Self::Weight) -> ActSet;

    /// What is free now, and what packed weights and resident vectors take.
    fn memory(&self) -> Memory;

    /// Bytes that one block of this cache takes over all its layers.
    fn block_bytes(&self, spec: &CacheSpec) -> u64;

    /// Memory for `spec.blocks` blocks. Contents are undefined: attention selects, it never multiplies by zero.
    fn new_cache(&mut self, spec: &CacheSpec) -> Result<Self::Cache, DeviceError>;

    // ---- a step

    /// Runs `body`, which enqueues one forward and returns the logits buffer `[R, V]`, over `inputs`. `rows` are those that
    /// [`Backend::sample`] will be given, so that a backend can bring them up with the inputs; of their masks it only matters which
    /// rows have one.
    ///
    /// `body` depends on `key` only: a backend may record it once per key and then replay the record without calling
    /// it. Under [`StepKey::Plan`] nothing is computed, but the workspace may grow to what the step would take.
    fn step(
        &mut self,
        key: StepKey,
        inputs: &StepInputs,
        rows: &[Row<'_>],
        body: &mut dyn FnMut(&mut Self) -> Self::Buf,
    ) -> Result<Self::Buf, DeviceError>;

    /// How many sequences a step that decodes `num_seqs` of them is filled up to, to run as [`StepKey::Decode`]; `None` for a
    /// backend that records nothing.
    fn decode_bucket(&self, num_seqs: usize) -> Option<u32> {
        let _ = num_seqs;
        None
    }

    /// Bytes of arena that the largest step planned so far takes.
    fn workspace_bytes(&self) -> u64;

    /// Rows of the embedding for the step's tokens, times `scale`: `[T, E]`, the start of the residual stream.
    fn embed(&mut self, table: &Self::Weight, scale: f32) -> Self::Buf;

    /// RMSNorm of each row of `x`, emitted in every encoding in `emit`.
    fn norm(&mut self, x: &Self::Buf, spec: &NormSpec<Self>, emit: ActSet) -> Act<Self>;

    /// `a * w^T (+ bias)`: `[rows, N]` f32 or the backend's own wide type.
    fn linear(&mut self, a: &Act<Self>, w: &Self::Weight, bias: Option<&Self::Buf>) -> Self::Buf;

    /// `onto += a * w^T (+ bias)`.
    fn linear_add(&mut self, a: &Act<Self>, w: &Self::Weight, bias: Option<&Self::Buf>, onto: &Self::Buf);

    /// `f(a * gate^T) * (a * up^T)` for a weight packed with [`Role::Glu`]: `[rows, N / 2]`.
    fn linear_glu(&mut self, a: &Act<Self>, w: &Self::Weight, f: Activation, emit: ActSet) -> Act<Self>;

    /// Picks experts by a router's `logits [T, num_experts]`.
    fn route(&mut self, logits: &Self::Buf, spec: &RouteSpec) -> Routing<Self>;

    /// [`Backend::linear_glu`] of each token by each of its experts, for a stack packed with [`Role::ExpertsGlu`]:
    /// `[T * top_k, N / 2]`, in an order that [`Backend::experts_add`] knows.
    fn experts_glu(
        &mut self,
        a: &Act<Self>,
        w: &Self::Weight,
        routing: &Routing<Self>,
        f: Activation,
        emit: ActSet,
    ) -> Act<Self>;

    /// `onto [T, N] +=` the sum of `weight * (a * w^T)` over a token's experts, slot by slot; `a` is what
    /// [`Backend::experts_glu`] made with the same routing, `w` was packed with [`Role::Experts`].
    fn experts_add(&mut self, a: &Act<Self>, w: &Self::Weight, routing: &Routing<Self>, onto: &Self::Buf);

    /// Splits `qkv [T, (Hq + 2 Hkv) * D]`, normalizes and rotates q and k, writes k and v to layer `layer` of `cache`
    /// through the slot mapping, and returns q `[T, Hq * D]`.
    fn rope_write(&mut self, qkv: &Self::Buf, spec: &QkvSpec<Self>, cache: &mut Self::Cache, layer: usize)
    -> Self::Buf;

    /// Causal attention of each token over its own sequence, read through the block table: `[T, Hq * D]`.
    fn attend(
        &mut self,
        q: &Self::Buf,
        spec: &AttnSpec<Self>,
        cache: &Self::Cache,
        layer: usize,
        emit: ActSet,
    ) -> Act<Self>;

    /// Both, as a layer calls them: the same bits as one after the other. A backend may fuse them.
    fn rope_attend(
        &mut self,
        qkv: &Self::Buf,
        qkv_spec: &QkvSpec<Self>,
        attn_spec: &AttnSpec<Self>,
        cache: &mut Self::Cache,
        layer: usize,
        emit: ActSet,
    ) -> Act<Self> {
        let q = self.rope_write(qkv, qkv_spec, cache, layer);
        self.attend(&q, attn_spec, cache, layer, emit)
    }

    /// The rows of `x` that `StepInputs::logit_tokens` names: `[R, E]`.
    fn gather(&mut self, x: &Self::Buf) -> Self::Buf;

    /// Picks tokens from `logits [R, V]` for the rows that the step was given, which have their masks now. Row `i` of `rows` reads
    /// the logits row `rows[i].logits`; logits may be overwritten. Appends one result per row to `out`.
    fn sample(&mut self, logits: &Self::Buf, rows: &mut [Row<'_>], out: &mut Sampled) -> Result<(), DeviceError>;

    /// Copies whole blocks `(from, to)` in all layers.
    fn copy_blocks(&mut self, cache: &mut Self::Cache, pairs: &[(u32, u32)]) -> Result<(), DeviceError>;

    /// Reads f32 values back to the host, for pooling, prompt logprobs and tests.
    fn read(&mut self, buf: &Self::Buf, out: &mut Vec<f32>) -> Result<(), DeviceError>;
}

/// Bytes of device memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub free: u64,
    pub resident: u64,
    /// Whether it is there for this alone, as a GPU's is; a machine's memory is shared with whatever else runs.
    pub dedicated: bool,
}

/// What `body` may depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StepKey {
    /// Sizes the workspace; computes nothing.
    Plan,
    /// Any mix of prefill and decode.
    Eager,
    /// One token a sequence, padded to this many.
    Decode { bucket: u32 },
}

/// What a weight is for; a backend may pack by it, and a parallel one shards by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sharded along the output.
    Column,
    /// Two column parts, gate then up, read together.
    Glu,
    /// Sharded along the input.
    Row,
    /// A stack of [`Role::Row`], one part an expert; all have one shape.
    Experts,
    /// A stack of [`Role::Glu`], two parts an expert.
    ExpertsGlu,
    /// Looked up by token.
    Embed,
    /// Projects to the vocabulary; may serve as the embedding too.
    Head,
}

/// RMSNorm: `x / sqrt(mean(x^2) + eps) * gain`.
pub struct NormSpec<B: Backend> {
    pub gain: B::Buf,
    pub eps: f32,
    /// Columns of `x`.
    pub size: usize,
}

/// How a fused qkv row is split, normalized and rotated.
pub struct QkvSpec<B: Backend> {
    pub num_heads: usize,
    pub num_kv_heads: usize,
    pub head_dim: usize,
    /// Per-head RMSNorm of q and of k.
    pub q_norm: Option<NormSpec<B>>,
    pub k_norm: Option<NormSpec<B>>,
    /// From [`Backend::rope_table`]; `rotary_dim` leading dimensions of a head rotate as (i, i + rotary_dim / 2).
    pub rope: B::Buf,
    pub rotary_dim: usize,
    pub kv_scales: KvScales,
}

/// What one layer's K and V are divided by where the cache keeps 8 bits, and multiplied by when they are read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KvScales {
    pub k: f32,
    pub v: f32,
}

impl Default for KvScales {
    fn default() -> Self {
        Self { k: 1.0, v: 1.0 }
    }
}

/// cos and sin by position, host side: `[max_len, rotary_dim / 2]` each, row-major.
pub struct RopeTable {
    pub cos: Vec<f32>,
    pub sin: Vec<f32>,
    pub rotary_dim: usize,
}

/// Attention of one layer.
#[derive(Clone)]
pub struct AttnSpec<B: Backend> {
    pub num_heads: usize,
    pub num_kv_heads: usize,
    pub head_dim: usize,
    /// Multiplies q k^T.
    pub scale: f32,
    /// Tokens visible, itself included; all when `None`.
    pub window: Option<usize>,
    /// `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
    /// `[Hq]`: a logit per head that joins the softmax's denominator and nothing else, neither scaled nor capped.
    pub sinks: Option<B::Buf>,
    pub kv_scales: KvScales,
}

/// The gate of a gated linear unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    Silu,
    /// The tanh approximation.
    GeluTanh,
}

/// One KV group's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheSpec {
    /// Index into `StepInputs::groups`.
    pub group: usize,
    pub layers: usize,
    pub num_kv_heads: usize,
    pub head_dim: usize,
    pub block_size: usize,
    pub blocks: usize,
    pub dtype: KvDtype,
}

/// Element type of the KV cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvDtype {
    /// The backend's choice.
    #[default]
    Auto,
    F32,
    Bf16,
    Fp8,
    Int8,
}

/// A weight that this backend cannot take.
#[derive(Debug, Error)]
pub enum LoadError {
    #[error("{0}")]
    Shape(String),
    #[error("{0}")]
    Unsupported(String),
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// A device failure.
#[derive(Clone, Debug, Error)]
#[error("{message}")]
pub struct DeviceError {
    pub message: String,
    /// The device's state is gone; nothing but a restart helps.
    pub sticky: bool,
}
