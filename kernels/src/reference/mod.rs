//! The reference backend: plain `f32` buffers, one op after the other, matmul by candle. The specification of every op,
//! and the way onto a processor that has no kernels of its own.
//!
//! [`Reference`] allocates as it goes; nothing here is fast or meant to be. Each row is computed by one schedule,
//! whatever stands beside it, so that it is an oracle for batches too.

mod attention;
mod buffer;
mod cache;
mod encode;
mod math;
mod matmul;
mod moe;
mod rope;
#[cfg(test)]
mod tests;

use quant::Stored;
use sampler::{Row, Sampled, Scratch};
use tensor::{
    Act, ActSet, Activation, AttnSpec, Backend, CacheSpec, DeviceError, Encoding, KvDtype, LoadError, Memory, NormSpec,
    QkvSpec, Role, RopeTable, RouteSpec, Routing, StepInputs, StepKey,
};

use buffer::Ledger;

pub use buffer::Buf;
pub use cache::Cache;
pub use matmul::Weight;

/// Plain loops on the caller's thread, matmuls by candle on all cores.
#[derive(Default)]
pub struct Reference {
    inputs: StepInputs,
    planning: bool,
    ledger: Ledger,
    resident: u64,
    scratch: Scratch,
}

impl Reference {
    pub fn new() -> Self {
        Self::default()
    }

    /// A buffer of what `compute` yields, or of `len` zeros while a step is planned.
    fn emit(&self, len: usize, compute: impl FnOnce() -> Vec<f32>) -> Buf {
        let values = if self.planning { vec![0.0; len] } else { compute() };
        assert_eq!(values.len(), len, "an op fills its output");
        self.ledger.buffer(values)
    }

    /// `buf` in each encoding of `set`, as f32 that were rounded to it.
    fn act(&self, rows: usize, cols: usize, set: ActSet, buf: &Buf) -> Act<Self> {
        set.iter().fold(Act::new(rows, cols), |act, encoding| {
            let rounded = match encoding {
                Encoding::F32 => buf.clone(),
                _ => self.emit(buf.len(), || encode::rounded(encoding, cols, &buf.values())),
            };
            act.with(encoding, rounded)
        })
    }

    fn multiply(&self, a: &Act<Self>, w: &Weight, bias: Option<&Buf>) -> Buf {
        self.emit(a.rows * w.rows(), || {
            let mut out = w.multiply(&a.get(w.encoding()).values());
            if let Some(bias) = bias {
                out.chunks_mut(w.rows()).for_each(|row| math::add(row, &bias.values()));
            }
            out
        })
    }

    /// `f(gate) * up` of rows that hold `cols` of each.
    fn gate(&self, both: &Buf, cols: usize, f: Activation, emit: ActSet) -> Act<Self> {
        let rows = both.len() / (2 * cols);
        let gated = self.emit(rows * cols, || {
            let rows = both.values();
            let rows = rows.chunks(2 * cols).map(|row| row.split_at(cols));
            rows.flat_map(|(gate, up)| gate.iter().zip(up)).map(|(&gate, &up)| math::activate(f, gate) * up).collect()
        });
        self.act(rows, cols, emit, &gated)
    }
}

impl Backend for Reference {
    type Buf = Buf;
    type Weight = Weight;
    type Cache = Cache;

    fn pack(&mut self, parts: &[Stored<'_>], role: Role) -> Result<Weight, LoadError> {
        let weight = match role {
            Role::Experts => Weight::experts(parts, 1)?,
            Role::ExpertsGlu => Weight::experts(parts, 2)?,
            _ => Weight::new(parts)?,
        };
        self.resident += weight.bytes();
        Ok(weight)
    }

    fn vector(&mut self, values: &[f32]) -> Result<Buf, LoadError> {
        self.resident += size_of_val(values) as u64;
        Ok(Buf::resident(values.to_vec()))
    }

    fn rope_table(&mut self, table: &RopeTable) -> Result<Buf, LoadError> {
        self.vector(&[table.cos.as_slice(), table.sin.as_slice()].concat())
    }

    fn wants(weight: &Weight) -> ActSet {
        ActSet::of(weight.encoding())
    }

    fn memory(&self) -> Memory {
        Memory { free: crate::free_bytes(), resident: self.resident, dedicated: false }
    }

    fn block_bytes(&self, spec: &CacheSpec) -> u64 {
        (2 * spec.layers * spec.block_size * spec.num_kv_heads * spec.head_dim * size_of::<f32>()) as u64
    }

    fn new_cache(&mut self, spec: &CacheSpec) -> Result<Cache, DeviceError> {
        match spec.dtype {
            KvDtype::Auto | KvDtype::F32 | KvDtype::Fp8 => Ok(Cache::new(spec.clone())),
            other => Err(DeviceError {
                message: format!("the reference device keeps an f32 or fp8 KV cache, not {other:?}"),
                sticky: false,
            }),
        }
    }

    fn step(
        &mut self,
        key: StepKey,
        inputs: &StepInputs,
        _rows: &[Row<'_>],
        body: &mut dyn FnMut(&mut Self) -> Buf,
    ) -> Result<Buf, DeviceError> {
        self.planning = key == StepKey::Plan;
        self.inputs.clone_from(inputs);
        let logits = body(self);
        self.planning = false;
        Ok(logits)
    }

    fn workspace_bytes(&self) -> u64 {
        self.ledger.peak_bytes()
    }

    fn embed(&mut self, table: &Weight, scale: f32) -> Buf {
        let tokens = &self.inputs.token_ids;
        self.emit(tokens.len() * table.cols(), || {
            tokens.iter().flat_map(|&token| table.row(token as usize)).map(|x| x * scale).collect()
        })
    }

    fn norm(&mut self, x: &Buf, spec: &NormSpec<Self>, emit: ActSet) -> Act<Self> {
        let normed = self.emit(x.len(), || {
            let mut out = x.values().to_vec();
            out.chunks_mut(spec.size).for_each(|row| math::norm(row, &spec.gain.values(), spec.eps));
            out
        });
        self.act(x.len() / spec.size, spec.size, emit, &normed)
    }

    fn linear(&mut self, a: &Act<Self>, w: &Weight, bias: Option<&Buf>) -> Buf {
        self.multiply(a, w, bias)
    }

    fn linear_add(&mut self, a: &Act<Self>, w: &Weight, bias: Option<&Buf>, onto: &Buf) {
        let out = self.multiply(a, w, bias);
        math::add(&mut onto.values_mut(), &out.values());
    }

    fn linear_glu(&mut self, a: &Act<Self>, w: &Weight, f: Activation, emit: ActSet) -> Act<Self> {
        let both = self.multiply(a, w, None);
        self.gate(&both, w.rows() / 2, f, emit)
    }

    fn route(&mut self, logits: &Buf, spec: &RouteSpec) -> Routing<Self> {
        let tokens = logits.len() / spec.num_experts;
        let buf = self.emit(tokens * 2 * spec.top_k, || moe::route(&logits.values(), *spec));
        Routing { spec: *spec, tokens, buf }
    }

    fn experts_glu(
        &mut self,
        a: &Act<Self>,
        w: &Weight,
        routing: &Routing<Self>,
        f: Activation,
        emit: ActSet,
    ) -> Act<Self> {
        let both = self.emit(routing.pairs() * w.rows(), || moe::of_tokens(a, w, routing));
        self.gate(&both, w.rows() / 2, f, emit)
    }

    fn experts_add(&mut self, a: &Act<Self>, w: &Weight, routing: &Routing<Self>, onto: &Buf) {
        let out = self.emit(routing.tokens * w.rows(), || moe::of_pairs(a, w, routing));
        math::add(&mut onto.values_mut(), &out.values());
    }

    fn rope_write(&mut self, qkv: &Buf, spec: &QkvSpec<Self>, cache: &mut Cache, layer: usize) -> Buf {
        self.emit(self.inputs.num_tokens() * spec.num_heads * spec.head_dim, || {
            rope::rope_write(&qkv.values(), spec, &self.inputs, cache, layer)
        })
    }

    fn attend(&mut self, q: &Buf, spec: &AttnSpec<Self>, cache: &Cache, layer: usize, emit: ActSet) -> Act<Self> {
        let (tokens, cols) = (self.inputs.num_tokens(), spec.num_heads * spec.head_dim);
        let out = self.emit(tokens * cols, || attention::attend(&q.values(), spec, &self.inputs, cache, layer));
        self.act(tokens, cols, emit, &out)
    }

    fn gather(&mut self, x: &Buf) -> Buf {
        let (wanted, cols) = (&self.inputs.logit_tokens, x.len() / self.inputs.num_tokens());
        self.emit(wanted.len() * cols, || {
            let x = x.values();
            wanted.iter().flat_map(|&token| &x[token as usize * cols..][..cols]).copied().collect()
        })
    }

    fn sample(&mut self, logits: &Buf, rows: &mut [Row<'_>], out: &mut Sampled) -> Result<(), DeviceError> {
        let mut logits = logits.values_mut();
        let vocab = logits.len() / self.inputs.num_logit_rows().max(1);
        for row in rows {
            sampler::sample(&mut logits[row.logits * vocab..][..vocab], row, &mut self.scratch, out);
        }
        Ok(())
    }

    fn copy_blocks(&mut self, cache: &mut Cache, pairs: &[(u32, u32)]) -> Result<(), DeviceError> {
        pairs.iter().for_each(|&(from, to)| cache.copy_block(from as usize, to as usize));
        Ok(())
    }

    fn read(&mut self, buf: &Buf, out: &mut Vec<f32>) -> Result<(), DeviceError> {
        out.extend_from_slice(&buf.values());
        Ok(())
    }
}
