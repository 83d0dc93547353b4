//! The CUDA backend: the kernels of `kernels/cuda`, enqueued on one stream of one GPU.
//!
//! The residual stream and what is added to it are f32, activations that a matmul reads are bf16 or e4m3, sums are f32. Each kernel's header
//! says how its work is cut. An op allocates its output, and launches unless the step only plans; tokens are picked on
//! the device too.

mod act;
mod attention;
mod buf;
mod cache;
mod checks;
mod cublaslt;
mod device;
mod gemm;
mod graphs;
mod launch;
mod library;
mod memory;
mod meter;
mod modules;
mod moe;
mod params;
mod pinned;
mod rows;
mod sample;
mod shape;
mod staging;
mod step;
#[cfg(test)]
mod tests;
mod upload;
mod weight;

use std::rc::Rc;
use std::sync::Arc;

use cudarc::driver::DeviceRepr;
use quant::Stored;
use sampler::{Row, Sampled};
use tensor::{
    Act, ActSet, Activation, AttnSpec, Backend, CacheSpec, DeviceError, Encoding, LoadError, Memory, NormSpec, QkvSpec,
    Role, RopeTable, RouteSpec, Routing, StepInputs, StepKey,
};

use crate::inputs::Inputs;
use buf::Arena;
use checks::Check;
use cublaslt::CublasLt;
use device::{Address, Device, advised, refused};
use gemm::{MAX_SPLIT_TILES, Out};
use graphs::Graphs;
use meter::Metered;
use params::{E4m3Rows, Norm};
use sample::{Logits, Sampler};
use shape::{Shape, bucket};
use staging::Loader;
use step::Forward;
use upload::Uploaded;
use weight::{Kind, Stack};

pub use buf::Buf;
pub use cache::Cache;
pub use meter::Meter;
pub use weight::Weight;

/// One NVIDIA GPU.
pub struct Cuda {
    device: Rc<Device>,
    /// Multiprocessors that a matmul of many rows is to fill.
    sms: usize,
    arena: Arena,
    inputs: Inputs,
    uploaded: Uploaded,
    /// Of the step that runs, or ran last.
    shape: Shape,
    graphs: Graphs<Shape, Forward>,
    /// Whether the step is one of those that are recorded and replayed.
    replays: bool,
    planning: bool,
    /// What the step's inputs were found to be good for.
    checked: Vec<Check>,
    /// What the step's first op that failed said; the ops after it launch nothing.
    failed: Option<DeviceError>,
    resident: u64,
    /// For matmuls of many rows, where answers may depend on the batch.
    library: Option<CublasLt>,
    /// Takes weights to the device; gone once steps run.
    loader: Option<Loader>,
    /// Counters of the blocks that share a matmul's tile: zero between kernels.
    arrived: Buf,
    /// Zeros that a norm of this step has left, for the next op that counts its rows' largest magnitudes.
    peaks: Option<Buf>,
    sampler: Sampler,
    metered: Option<Metered>,
}

impl Cuda {
    /// GPU `ordinal`.
    ///
    /// # Errors
    /// One sentence: no driver, no such GPU, one that is too old, or no kernels in this binary.
    pub fn new(ordinal: usize) -> Result<Self, DeviceError> {
        let device = Device::open(ordinal)?;
        let arrived = device.alloc(MAX_SPLIT_TILES * 4)?;
        device.zero(arrived.address(), arrived.bytes())?;
        Ok(Self {
            sms: device.sms(),
            device,
            arena: Arena::new(),
            inputs: Inputs::default(),
            uploaded: Uploaded::default(),
            shape: Shape::default(),
            graphs: Graphs::default(),
            replays: false,
            planning: false,
            checked: Vec::new(),
            failed: None,
            resident: 0,
            library: None,
            loader: None,
            arrived: Buf::resident(arrived),
            peaks: None,
            sampler: Sampler::default(),
            metered: None,
        })
    }

    /// The same without recording: every step launches its kernels one by one.
    pub fn eager(mut self) -> Self {
        self.graphs.disable();
        self.sampler.disable_graphs();
        self
    }

    /// The same, which adds the time of each step to `meter`.
    pub fn with_meter(mut self, meter: Arc<Meter>) -> Self {
        self.metered = Some(Metered::new(meter));
        self
    }

    /// One line for people.
    pub fn describe(&self) -> String {
        let device = self.device.describe();
        self.library.as_ref().map_or(device.clone(), |library| format!("{device}, {}", library.describe()))
    }

    fn floats(&self, rows: usize, cols: usize) -> Buf {
        self.arena.alloc(rows * cols * 4)
    }

    fn launch<P: DeviceRepr>(
        &mut self,
        name: &'static str,
        grid: [usize; 3],
        threads: usize,
        shared_bytes: usize,
        params: &P,
    ) {
        if self.launches()
            && let Err(error) = self.device.launch(name, grid, threads, shared_bytes, params)
        {
            self.failed = Some(error);
        }
    }

    /// Memory for weights.
    fn room(&mut self, bytes: usize) -> Result<Buf, DeviceError> {
        let memory = self.device.alloc(bytes).map_err(|error| {
            let loaded = self.resident >> 20;
            advised(
                error,
                &format!(
                    "that was after {loaded} MiB of weights, with more to come: --quantization fp8 or int4 makes them \
                     smaller, and nvidia-smi shows what else holds memory"
                ),
            )
        })?;
        self.resident += memory.bytes() as u64;
        Ok(Buf::resident(memory))
    }

    fn loader(&mut self) -> Result<&mut Loader, DeviceError> {
        Ok(match &mut self.loader {
            Some(loader) => loader,
            empty => empty.insert(Loader::new(&self.device)?),
        })
    }

    fn resident<T: DeviceRepr>(&mut self, values: &[T]) -> Result<Buf, DeviceError> {
        let buf = self.room(size_of_val(values))?;
        self.loader()?.load(buf.address(), values)?;
        Ok(buf)
    }
}

/// What kernels take as a size.
fn int(n: usize) -> i32 {
    i32::try_from(n).expect("sizes are below 2^31")
}

/// Null where there is none.
fn address(buf: Option<&Buf>) -> Address {
    buf.map_or(0, Buf::address)
}

impl Backend for Cuda {
    type Buf = Buf;
    type Weight = Weight;
    type Cache = Cache;

    fn pack(&mut self, parts: &[Stored<'_>], role: Role) -> Result<Weight, LoadError> {
        let stack = Stack::of(parts, role)?;
        let Stack { rows, cols, kind, .. } = stack;
        let wide_scales = match kind {
            Kind::Fp8(scaling) if self.library.is_some() && scaling.encoding() == Encoding::E4m3G128 => {
                Some(self.resident(&stack.wide_scales(scaling))?)
            }
            _ => None,
        };
        let order = if stack.order.is_empty() { None } else { Some(self.resident(&stack.order)?) };
        let [data_bytes, meta_bytes] = stack.bytes();
        let data = self.room(data_bytes)?;
        let meta = if meta_bytes == 0 { None } else { Some(self.room(meta_bytes)?) };
        stack.load(self.loader()?, data.address(), address(meta.as_ref()))?;
        let (splits, experts) = (gemm::splits(rows, cols), stack.num_experts());
        Ok(Weight { rows, cols, experts, kind, splits, data, meta, wide_scales, order })
    }

    fn vector(&mut self, values: &[f32]) -> Result<Buf, LoadError> {
        Ok(self.resident(values)?)
    }

    fn rope_table(&mut self, table: &RopeTable) -> Result<Buf, LoadError> {
        self.vector(&[table.cos.as_slice(), table.sin.as_slice()].concat())
    }

    fn wants(weight: &Weight) -> ActSet {
        ActSet::of(gemm::encoding(weight.kind))
    }

    fn memory(&self) -> Memory {
        Memory { free: self.device.free_bytes(), resident: self.resident, dedicated: true }
    }

    fn block_bytes(&self, spec: &CacheSpec) -> u64 {
        (cache::block_bytes(spec) * spec.layers) as u64
    }

    fn new_cache(&mut self, spec: &CacheSpec) -> Result<Cache, DeviceError> {
        Cache::new(&self.device, spec)
    }

    fn step(
        &mut self,
        key: StepKey,
        inputs: &StepInputs,
        rows: &[Row<'_>],
        body: &mut dyn FnMut(&mut Self) -> Buf,
    ) -> Result<Buf, DeviceError> {
        self.run_step(key, inputs, rows, body)
    }

    fn decode_bucket(&self, num_seqs: usize) -> Option<u32> {
        self.graphs.is_enabled().then(|| bucket(num_seqs))
    }

    fn workspace_bytes(&self) -> u64 {
        (self.arena.bytes() + self.uploaded.bytes() + self.sampler.bytes()) as u64
    }

    fn embed(&mut self, table: &Weight, scale: f32) -> Buf {
        self.embed_tokens(table, scale)
    }

    fn norm(&mut self, x: &Buf, spec: &NormSpec<Self>, emit: ActSet) -> Act<Self> {
        let rows = x.len() / spec.size;
        let act = self.activations(rows, spec.size, emit);
        let peaks = self.zeroed_peaks(rows);
        if !self.planning {
            assert!(spec.size.is_multiple_of(4), "rows are read four columns at a time");
            let y = if emit.contains(Encoding::Bf16) { act.get(Encoding::Bf16).address() } else { 0 };
            let mut codes = act::e4m3_of(emit).map(|encoding| act::e4m3(&act, encoding));
            let first = codes.next().unwrap_or(E4m3Rows::NONE);
            let (x, gain, cols, eps) = (x.address(), spec.gain.address(), int(spec.size), spec.eps);
            let params = Norm { x, gain, y, codes: first, peaks, cols, eps };
            self.launch("rms_norm", [rows, 1, 1], 256, 0, &params);
            for codes in codes {
                self.launch("rms_norm", [rows, 1, 1], 256, 0, &Norm { y: 0, codes, ..params });
            }
        }
        act
    }

    fn linear(&mut self, a: &Act<Self>, w: &Weight, bias: Option<&Buf>) -> Buf {
        let out = self.floats(a.rows, w.rows);
        self.gemm(Out::Store, a, w, bias, &out);
        out
    }

    fn linear_add(&mut self, a: &Act<Self>, w: &Weight, bias: Option<&Buf>, onto: &Buf) {
        assert_eq!(onto.len(), a.rows * w.rows, "the sum has the output's shape");
        self.gemm(Out::Add, a, w, bias, onto);
    }

    fn linear_glu(&mut self, a: &Act<Self>, w: &Weight, f: Activation, emit: ActSet) -> Act<Self> {
        let emit = self.by_parts(a.rows, emit);
        let act = self.activations(a.rows, w.rows / 2, emit);
        let out = self.bf16(&act, emit);
        self.gemm(Out::Glu { f, peaks: address(act.find(Encoding::Bf16Peaks)) }, a, w, None, &out);
        self.quantize(&out, &act, emit);
        act
    }

    fn route(&mut self, logits: &Buf, spec: &RouteSpec) -> Routing<Self> {
        self.route_tokens(logits, *spec)
    }

    fn experts_glu(
        &mut self,
        a: &Act<Self>,
        w: &Weight,
        routing: &Routing<Self>,
        f: Activation,
        emit: ActSet,
    ) -> Act<Self> {
        let gathered = self.gather_tokens(a, gemm::encoding(w.kind), routing);
        let act = self.activations(gathered.rows, w.rows / 2, emit);
        let out = self.bf16(&act, emit);
        self.gemm_experts(true, &gathered, w, routing, &out, f);
        self.quantize(&out, &act, emit);
        act
    }

    fn experts_add(&mut self, a: &Act<Self>, w: &Weight, routing: &Routing<Self>, onto: &Buf) {
        let y = self.floats(a.rows, w.rows);
        self.gemm_experts(false, a, w, routing, &y, Activation::Silu);
        self.sum_slots(&y, w.rows, routing, onto);
    }

    fn rope_write(&mut self, qkv: &Buf, spec: &QkvSpec<Self>, cache: &mut Cache, layer: usize) -> Buf {
        self.rotate(qkv, spec, cache, layer)
    }

    fn attend(&mut self, q: &Buf, spec: &AttnSpec<Self>, cache: &Cache, layer: usize, emit: ActSet) -> Act<Self> {
        self.attend_rotated(q, spec, cache, layer, emit)
    }

    fn rope_attend(
        &mut self,
        qkv: &Buf,
        qkv_spec: &QkvSpec<Self>,
        attn_spec: &AttnSpec<Self>,
        cache: &mut Cache,
        layer: usize,
        emit: ActSet,
    ) -> Act<Self> {
        self.rotate_and_attend(qkv, qkv_spec, attn_spec, cache, layer, emit)
    }

    fn gather(&mut self, x: &Buf) -> Buf {
        self.gather_rows(x)
    }

    fn sample(&mut self, logits: &Buf, rows: &mut [Row<'_>], out: &mut Sampled) -> Result<(), DeviceError> {
        self.check_rows(rows)?;
        let num_rows = self.shape.logit_rows;
        let vocab = logits.len().checked_div(num_rows).unwrap_or(0);
        let first = out.rows.len();
        let logits = Logits { at: logits.address(), rows: num_rows, vocab };
        self.sampler.run(&self.device, &mut self.uploaded, logits, rows, out)?;
        for (row, sampled) in rows.iter().zip(&out.rows[first..]) {
            if row.known.is_none() && sampled.finite {
                self.inputs.remember(row.logits, sampled.token);
            }
        }
        Ok(())
    }

    fn copy_blocks(&mut self, cache: &mut Cache, pairs: &[(u32, u32)]) -> Result<(), DeviceError> {
        let (blocks, bytes) = (cache.spec.blocks, cache::block_bytes(&cache.spec));
        if let Some((from, to)) = pairs.iter().find(|pair| pair.0.max(pair.1) as usize >= blocks) {
            return Err(refused(format!("block {from} or {to} is beyond the cache's {blocks}")));
        }
        for &(from, to) in pairs.iter().filter(|pair| pair.0 != pair.1) {
            for layer in 0..cache.spec.layers {
                self.device.copy(cache.block(layer, from as usize), cache.block(layer, to as usize), bytes)?;
            }
        }
        Ok(())
    }

    fn read(&mut self, buf: &Buf, out: &mut Vec<f32>) -> Result<(), DeviceError> {
        let start = out.len();
        out.resize(start + buf.len(), 0.0);
        self.device.download(buf.address(), &mut out[start..])
    }
}
