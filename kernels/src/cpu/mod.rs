//! The CPU backend: AVX-512 VNNI, AVX2 or plain loops, picked at run time.
//!
//! [`Cpu`] owns the compute threads and the arena; each op is a file of its own that says how its work is cut into tiles.
//! Kernels are written once over [`simd::Simd`]. An op allocates its output, and computes unless the step only plans.

mod act;
mod arena;
mod attention;
mod blocks;
mod cache;
mod embed;
mod isa;
mod matmul;
mod moe;
mod norm;
mod options;
mod pool;
mod roofline;
mod rope;
mod route;
mod sample;
mod simd;
#[cfg(test)]
mod tests;
mod weight;

use std::rc::Rc;

use quant::Stored;
use sampler::{Row, Sampled};
use tensor::{
    Act, ActSet, Activation, AttnSpec, Backend, CacheSpec, DeviceError, Encoding, LoadError, Memory, NormSpec, QkvSpec,
    Role, RopeTable, RouteSpec, Routing, StepInputs, StepKey,
};

use crate::inputs::{self, Inputs, check_heads};
use act::Encoded;
use arena::Arena;
use attention::{Attention, Jobs};
use cache::Element;
use matmul::{Epilogue, Matmul};
use norm::Rows;
use pool::Pool;
use rope::{MAX_HEAD_DIM, RopeWrite};
use sample::Samplers;

pub use arena::Buf;
pub use cache::Cache;
pub use isa::Isa;
pub use options::{Activations, CpuOptions};
pub use roofline::Peaks;
pub use weight::Weight;

/// This machine's processor.
pub struct Cpu {
    isa: Isa,
    activations: Activations,
    pool: Pool,
    arena: Arena,
    inputs: Inputs,
    planning: bool,
    /// What the step's first op that failed said; the ops after it compute nothing.
    failed: Option<DeviceError>,
    resident: u64,
    jobs: Jobs,
    samplers: Samplers,
}

impl Cpu {
    /// # Errors
    /// If the processor lacks the instruction set asked for, or a thread cannot be started.
    pub fn new(options: CpuOptions) -> Result<Self, DeviceError> {
        let isa = options.isa.unwrap_or_else(Isa::detect);
        if !isa.is_available() {
            return Err(refused(format!("this processor has no {isa}; it has {:?}", Isa::available())));
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = options.threads.unwrap_or(cores).max(1);
        let pool = Pool::new(threads).map_err(|error| refused(format!("cannot start compute threads: {error}")))?;
        Ok(Self {
            isa,
            activations: options.activations,
            samplers: Samplers::new(threads),
            pool,
            arena: Arena::new(),
            inputs: Inputs::default(),
            planning: false,
            failed: None,
            resident: 0,
            jobs: Jobs::default(),
        })
    }

    /// The instruction set that runs.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// One line for people.
    pub fn describe(&self) -> String {
        format!("cpu, {}, {} threads", self.isa, self.pool.threads())
    }

    fn computes(&self) -> bool {
        !self.planning && self.failed.is_none()
    }

    /// Whether an op computes: not while planning, not after a failure, not if `checked` is one.
    fn admits(&mut self, checked: Result<(), String>) -> bool {
        if let (true, Err(message)) = (self.computes(), checked) {
            self.failed = Some(refused(message));
        }
        self.computes()
    }

    fn floats(&self, rows: usize, cols: usize) -> Buf {
        self.arena.alloc(rows * cols * 4)
    }

    /// An activation with memory for each encoding in `set`, and where ops put its rows.
    fn emit(&self, rows: usize, cols: usize, set: ActSet) -> (Act<Self>, Encoded) {
        assert!(act::fits(set, cols), "{cols} columns cannot be emitted as {set:?}");
        let mut act = Act::new(rows, cols);
        let mut emit = Encoded::nowhere(cols);
        for encoding in set.iter() {
            let buf = self.arena.alloc(act::bytes(encoding, rows, cols));
            // SAFETY: the buffer was made for this encoding and shape.
            emit = unsafe { emit.with(encoding, buf.ptr(), rows) };
            act = act.with(encoding, buf);
        }
        (act, emit)
    }

    fn matmul(&self, a: &Act<Self>, weight: &Weight, epilogue: Epilogue) {
        assert_eq!(a.cols, weight.cols, "the input has {} columns, the weight wants {}", a.cols, weight.cols);
        let input = self.operands(a, weight);
        if self.computes() {
            Matmul { weight, input, epilogue, rows: a.rows }.run(&self.pool, self.isa);
        }
    }
}

fn refused(message: String) -> DeviceError {
    DeviceError { message, sticky: false }
}

fn bias_ptr(bias: Option<&Buf>, weight: &Weight) -> Option<*const f32> {
    bias.map(|bias| {
        assert_eq!(bias.len(), weight.rows, "a bias has one value an output");
        bias.ptr().cast_const()
    })
}

/// Gain and epsilon of a norm over `size` values.
fn norm_ptr(norm: Option<&NormSpec<Cpu>>, size: usize) -> Option<(*const f32, f32)> {
    norm.map(|norm| {
        assert_eq!((norm.size, norm.gain.len()), (size, size), "a norm has one gain a value");
        (norm.gain.ptr().cast_const(), norm.eps)
    })
}

impl Backend for Cpu {
    type Buf = Buf;
    type Weight = Weight;
    type Cache = Cache;

    fn pack(&mut self, parts: &[Stored<'_>], role: Role) -> Result<Weight, LoadError> {
        let weight = Weight::pack(&self.pool, parts, role, self.activations.encoding())?;
        self.resident += weight.bytes();
        Ok(weight)
    }

    fn vector(&mut self, values: &[f32]) -> Result<Buf, LoadError> {
        self.resident += values.len() as u64 * 4;
        Ok(Buf::Resident(Rc::from(values)))
    }

    fn rope_table(&mut self, table: &RopeTable) -> Result<Buf, LoadError> {
        self.vector(&[table.cos.as_slice(), table.sin.as_slice()].concat())
    }

    fn wants(weight: &Weight) -> ActSet {
        weight.wants()
    }

    fn memory(&self) -> Memory {
        Memory { free: crate::free_bytes(), resident: self.resident, dedicated: false }
    }

    fn block_bytes(&self, spec: &CacheSpec) -> u64 {
        let element = Element::of(spec.dtype).map_or(0, Element::bytes);
        (cache::block_elements(spec) * spec.layers * element) as u64
    }

    fn new_cache(&mut self, spec: &CacheSpec) -> Result<Cache, DeviceError> {
        let element = Element::of(spec.dtype)
            .ok_or_else(|| refused(format!("the CPU kernels have no {:?} KV cache; use bf16 or f32", spec.dtype)))?;
        if !spec.block_size.is_multiple_of(simd::LANES) {
            return Err(refused(format!("--block-size must be a multiple of 16, not {}", spec.block_size)));
        }
        if !spec.head_dim.is_multiple_of(simd::LANES) || spec.head_dim > MAX_HEAD_DIM {
            return Err(refused(format!(
                "the CPU kernels take heads of a multiple of 16 up to {MAX_HEAD_DIM}, not {}; use --device reference",
                spec.head_dim
            )));
        }
        Ok(Cache::new(spec.clone(), element))
    }

    fn step(
        &mut self,
        key: StepKey,
        inputs: &StepInputs,
        _rows: &[Row<'_>],
        body: &mut dyn FnMut(&mut Self) -> Buf,
    ) -> Result<Buf, DeviceError> {
        self.planning = key == StepKey::Plan;
        self.failed = None;
        if !self.planning {
            self.arena.commit();
        }
        let set = self.inputs.set(inputs);
        self.admits(set);
        let logits = body(self);
        self.planning = false;
        self.failed.take().map_or(Ok(logits), Err)
    }

    fn workspace_bytes(&self) -> u64 {
        self.arena.bytes() as u64
    }

    fn embed(&mut self, table: &Weight, scale: f32) -> Buf {
        let out = self.floats(self.inputs.step.num_tokens(), table.cols);
        if self.admits(self.inputs.check_tokens(table.rows)) {
            embed::embed(&self.pool, table, &self.inputs.step.token_ids, scale, out.ptr());
        }
        out
    }

    fn norm(&mut self, x: &Buf, spec: &NormSpec<Self>, emit: ActSet) -> Act<Self> {
        let rows = x.len() / spec.size;
        let (act, emit) = self.emit(rows, spec.size, emit);
        if self.computes() {
            Rows { x: x.ptr(), rows, cols: spec.size, norm: norm_ptr(Some(spec), spec.size), emit }
                .run(&self.pool, self.isa);
        }
        act
    }

    fn linear(&mut self, a: &Act<Self>, w: &Weight, bias: Option<&Buf>) -> Buf {
        let out = self.floats(a.rows, w.rows);
        self.matmul(a, w, Epilogue::Store { out: out.ptr(), bias: bias_ptr(bias, w) });
        out
    }

    fn linear_add(&mut self, a: &Act<Self>, w: &Weight, bias: Option<&Buf>, onto: &Buf) {
        assert_eq!(onto.len(), a.rows * w.rows, "the sum has the output's shape");
        self.matmul(a, w, Epilogue::Add { out: onto.ptr(), bias: bias_ptr(bias, w) });
    }

    fn linear_glu(&mut self, a: &Act<Self>, w: &Weight, f: Activation, emit: ActSet) -> Act<Self> {
        let (act, emit) = self.emit(a.rows, w.rows / 2, emit);
        self.matmul(a, w, Epilogue::Glu { f, emit });
        act
    }

    fn route(&mut self, logits: &Buf, spec: &RouteSpec) -> Routing<Self> {
        self.route_tokens(logits, *spec)
    }

    fn experts_glu(&mut self, a: &Act<Self>, w: &Weight, to: &Routing<Self>, f: Activation, emit: ActSet) -> Act<Self> {
        self.gate_experts(a, w, to, f, emit)
    }

    fn experts_add(&mut self, a: &Act<Self>, w: &Weight, routing: &Routing<Self>, onto: &Buf) {
        self.add_experts(a, w, routing, onto);
    }

    fn rope_write(&mut self, qkv: &Buf, spec: &QkvSpec<Self>, cache: &mut Cache, layer: usize) -> Buf {
        let tokens = self.inputs.step.num_tokens();
        check_heads(&cache.spec, spec.num_heads, spec.num_kv_heads, spec.head_dim);
        assert!(spec.rotary_dim <= spec.head_dim && spec.rotary_dim.is_multiple_of(2), "pairs within a head rotate");
        let heads = spec.num_heads + 2 * spec.num_kv_heads;
        assert_eq!(qkv.len(), tokens * heads * spec.head_dim, "qkv holds every head of every token");
        let q = self.floats(tokens, spec.num_heads * spec.head_dim);
        let max_len = inputs::max_len(spec.rope.len(), spec.rotary_dim);
        if self.admits(self.inputs.check_write(&cache.spec, max_len).map(drop)) {
            let table = spec.rope.ptr().cast_const();
            RopeWrite {
                qkv: qkv.ptr(),
                q: q.ptr(),
                num_heads: spec.num_heads,
                q_norm: norm_ptr(spec.q_norm.as_ref(), spec.head_dim),
                k_norm: norm_ptr(spec.k_norm.as_ref(), spec.head_dim),
                cos: table,
                // SAFETY: the second half of the table.
                sin: unsafe { table.add(spec.rope.len() / 2) },
                rotary_dim: spec.rotary_dim,
                positions: &self.inputs.step.positions,
                slots: &self.inputs.step.groups[cache.spec.group].slot_mapping,
                cache: cache.layer(layer),
            }
            .run(&self.pool, self.isa);
        }
        q
    }

    fn attend(&mut self, q: &Buf, spec: &AttnSpec<Self>, cache: &Cache, layer: usize, emit: ActSet) -> Act<Self> {
        let (tokens, cols) = (self.inputs.step.num_tokens(), spec.num_heads * spec.head_dim);
        check_heads(&cache.spec, spec.num_heads, spec.num_kv_heads, spec.head_dim);
        assert_eq!(q.len(), tokens * cols, "q holds every head of every token");
        // Where a head is no whole number of quantization groups, rows are quantized once they are complete.
        let whole = act::fits(emit, spec.head_dim);
        let (act, into) = self.emit(tokens, cols, if whole { emit } else { ActSet::of(Encoding::F32) });
        if self.planning {
            self.jobs.reserve(tokens, spec);
            self.arena.alloc(Jobs::max_split_bytes(spec, self.pool.threads()));
        }
        if self.admits(self.inputs.check_read(&cache.spec).map(drop)) {
            let inputs = &self.inputs.step;
            self.jobs.list(inputs, spec);
            let records = self.jobs.split_bytes(spec, self.pool.threads()).map(|bytes| self.arena.alloc(bytes));
            let (group, cache) = (&inputs.groups[cache.spec.group], cache.layer(layer));
            let sinks = spec.sinks.as_ref().map(|sinks| {
                assert_eq!(sinks.len(), spec.num_heads, "a sink a head");
                sinks.ptr().cast_const()
            });
            let attention = Attention { q: q.ptr(), spec, sinks, cache, inputs, group, emit: into };
            attention.run(&self.pool, self.isa, &self.jobs, records.as_ref().map(Buf::ptr));
        }
        if whole {
            return act;
        }
        let (encoded, emit) = self.emit(tokens, cols, emit);
        if self.computes() {
            let x = act.get(Encoding::F32).ptr();
            Rows { x, rows: tokens, cols, norm: None, emit }.run(&self.pool, self.isa);
        }
        encoded
    }

    fn gather(&mut self, x: &Buf) -> Buf {
        let cols = x.len().checked_div(self.inputs.step.num_tokens()).unwrap_or(0);
        let out = self.floats(self.inputs.step.num_logit_rows(), cols);
        if self.admits(self.inputs.check_logit_tokens()) {
            embed::gather(x.ptr(), cols, &self.inputs.step.logit_tokens, out.ptr());
        }
        out
    }

    fn sample(&mut self, logits: &Buf, rows: &mut [Row<'_>], out: &mut Sampled) -> Result<(), DeviceError> {
        let num_rows = self.inputs.step.num_logit_rows();
        let vocab = logits.len().checked_div(num_rows).unwrap_or(0);
        if !rows.is_sorted_by(|a, b| a.logits < b.logits) || rows.last().is_some_and(|row| row.logits >= num_rows) {
            return Err(refused(format!("rows to sample must name ascending rows of the {num_rows} of the logits")));
        }
        let first = out.rows.len();
        self.samplers.run(&self.pool, logits.ptr(), vocab, rows, out);
        for (row, sampled) in rows.iter().zip(&out.rows[first..]) {
            if row.known.is_none() && sampled.finite {
                self.inputs.remember(row.logits, sampled.token);
            }
        }
        Ok(())
    }

    fn copy_blocks(&mut self, cache: &mut Cache, pairs: &[(u32, u32)]) -> Result<(), DeviceError> {
        let blocks = cache.spec.blocks;
        if let Some((from, to)) = pairs.iter().find(|pair| pair.0.max(pair.1) as usize >= blocks) {
            return Err(refused(format!("block {from} or {to} is beyond the cache's {blocks}")));
        }
        pairs.iter().for_each(|&(from, to)| cache.copy(from as usize, to as usize));
        Ok(())
    }

    fn read(&mut self, buf: &Buf, out: &mut Vec<f32>) -> Result<(), DeviceError> {
        if !buf.has_memory() {
            return Err(refused("a planned buffer was never computed".to_owned()));
        }
        // SAFETY: the buffer has memory for `len` floats.
        out.extend_from_slice(unsafe { std::slice::from_raw_parts(buf.ptr(), buf.len()) });
        Ok(())
    }
}
