//! Puts an engine together: files, weights, text side, device, engine thread.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use contract::Executor;
use engine::{EngineConfig, EngineHandle};
use hub::ModelFiles;
use kernels::cpu::{Cpu, CpuOptions};
use kernels::cuda::{Cuda, Meter};
use kernels::reference::Reference;
use runner::{MemoryPlan, ModelRunner, Restarting, RunnerOptions};
use tensor::{Backend, DeviceError, KvDtype};
use weights::Checkpoint;

use crate::args::{Device, KvCacheDtype, LoadFormat, ModelArgs, SchedulingPolicy};
use crate::progress::Bar;
use crate::text_side::text_model;

/// A running engine and what there is to tell about it.
pub struct Assembled {
    pub engine: EngineHandle,
    pub files: ModelFiles,
    pub device: String,
    pub plan: MemoryPlan,
    pub load_time: Duration,
    /// Of a GPU.
    pub meter: Arc<Meter>,
}

/// How an executor is built: all but the checkpoint.
#[derive(Clone)]
struct Recipe {
    device: Device,
    cpu: CpuOptions,
    /// GPUs launch every kernel of every step.
    enforce_eager: bool,
    batch_invariant: bool,
    options: RunnerOptions,
    /// Where GPUs count their time, which takes a little of it.
    meter: Option<Arc<Meter>>,
}

/// What the engine thread reports once the executor is built there.
struct Built {
    device: String,
    plan: MemoryPlan,
    /// What builds the same again: where the device and the memory were left open, they are named.
    again: Recipe,
}

/// Finds the model (fetching it if need be), loads it, and starts the engine thread.
pub fn assemble(args: &ModelArgs, max_num_queued_reqs: u32) -> Result<Assembled> {
    assemble_with(Recipe::new(args), args, max_num_queued_reqs)
}

/// The same, for measurements: a GPU counts its time.
pub fn assemble_metered(args: &ModelArgs, max_num_queued_reqs: u32) -> Result<Assembled> {
    assemble_with(Recipe { meter: Some(Arc::default()), ..Recipe::new(args) }, args, max_num_queued_reqs)
}

fn assemble_with(recipe: Recipe, args: &ModelArgs, max_num_queued_reqs: u32) -> Result<Assembled> {
    let files = find(args.model.as_deref())?;
    let started = Instant::now();
    let checkpoint = open(&files.path, args)?;
    let text = Arc::new(text_model(&checkpoint)?);
    let config = engine_config(args, max_num_queued_reqs);
    let meter = recipe.meter.clone().unwrap_or_default();
    let (tell, told) = std::sync::mpsc::channel();
    let engine = engine::start(config, text, move || {
        let build = move |recipe: &Recipe| recipe.executor(&checkpoint).map_err(|error| format!("{error:#}"));
        let (executor, built) = build(&recipe)?;
        let again = built.again.clone();
        tell.send(built).map_err(|_| "the start was given up".to_owned())?;
        let executor = Restarting::new(executor, Box::new(move || build(&again).map(|(executor, _)| executor)));
        Ok(Box::new(executor) as Box<dyn Executor>)
    })?;
    let Built { device, plan, .. } = told.recv().context("the engine started without its memory plan")?;
    Ok(Assembled { engine, files, device, plan, load_time: started.elapsed(), meter })
}

/// The memory plan alone: loads and sizes, starts nothing.
pub fn plan(args: &ModelArgs) -> Result<(ModelFiles, String, MemoryPlan)> {
    let files = find(args.model.as_deref())?;
    let checkpoint = open(&files.path, args)?;
    let (_, Built { device, plan, .. }) = Recipe::new(args).executor(&checkpoint)?;
    Ok((files, device, plan))
}

fn find(model: Option<&str>) -> Result<ModelFiles> {
    Ok(hub::resolve(model, &hub::HubOptions::from_env()?, &Bar::new())?)
}

fn open(path: &Path, args: &ModelArgs) -> Result<Checkpoint> {
    let checkpoint = match args.load_format {
        LoadFormat::Auto => Checkpoint::open(path)?,
        LoadFormat::Dummy => Checkpoint::dummy(path, args.seed.unwrap_or(0))?,
    };
    Ok(match args.quantization {
        Some(scheme) => checkpoint.with_quantization(scheme)?,
        None => checkpoint,
    })
}

impl Recipe {
    fn new(args: &ModelArgs) -> Self {
        let (cpu, options) = (cpu_options(args), runner_options(args));
        Self {
            device: args.device,
            cpu,
            enforce_eager: args.enforce_eager,
            batch_invariant: !args.no_batch_invariant,
            options,
            meter: None,
        }
    }

    fn executor(&self, checkpoint: &Checkpoint) -> Result<(Box<dyn Executor>, Built)> {
        match self.device {
            Device::Auto => match Cuda::new(0) {
                Ok(cuda) => Self { device: Device::Cuda(0), ..self.clone() }.on_gpu(cuda, checkpoint),
                Err(why) => self.on_cpu(&format!(" ({why})"), checkpoint),
            },
            Device::Cuda(number) => self.on_gpu(Cuda::new(number).map_err(without_gpu)?, checkpoint),
            Device::Cpu => self.on_cpu("", checkpoint),
            Device::Reference => self.on(Reference::new(), "reference, f32".to_owned(), checkpoint),
        }
    }

    fn on_gpu(&self, cuda: Cuda, checkpoint: &Checkpoint) -> Result<(Box<dyn Executor>, Built)> {
        let cuda = if self.enforce_eager { cuda.eager() } else { cuda };
        let cuda = if self.batch_invariant { cuda } else { cuda.with_cublaslt()? };
        let cuda = if let Some(meter) = &self.meter { cuda.with_meter(Arc::clone(meter)) } else { cuda };
        let device = cuda.describe();
        self.on(cuda, device, checkpoint)
    }

    /// `note` goes behind the device's name.
    fn on_cpu(&self, note: &str, checkpoint: &Checkpoint) -> Result<(Box<dyn Executor>, Built)> {
        let cpu = Cpu::new(self.cpu)?;
        let device = format!("{}{note}", cpu.describe());
        self.on(cpu, device, checkpoint)
    }

    fn on<B: Backend>(
        &self,
        backend: B,
        device: String,
        checkpoint: &Checkpoint,
    ) -> Result<(Box<dyn Executor>, Built)> {
        let runner = ModelRunner::new(backend, checkpoint, self.options.clone())?;
        checkpoint.release();
        let plan = runner.plan().clone();
        let options = RunnerOptions { kv_cache_memory: Some(plan.kv_bytes), ..self.options.clone() };
        Ok((Box::new(runner), Built { device, plan, again: Self { options, ..self.clone() } }))
    }
}

fn without_gpu(why: DeviceError) -> anyhow::Error {
    anyhow::anyhow!("{why}; --device cpu does without")
}

fn engine_config(args: &ModelArgs, max_num_queued_reqs: u32) -> EngineConfig {
    EngineConfig {
        max_num_seqs: args.max_num_seqs,
        max_num_batched_tokens: args.max_num_batched_tokens,
        policy: match args.scheduling_policy {
            SchedulingPolicy::Fcfs => sched::Policy::Fcfs,
            SchedulingPolicy::Priority => sched::Policy::Priority,
        },
        enable_prefix_caching: !args.no_enable_prefix_caching,
        max_num_queued_reqs,
        ..EngineConfig::default()
    }
}

fn cpu_options(args: &ModelArgs) -> CpuOptions {
    CpuOptions { threads: args.threads.map(|n| n as usize), isa: args.isa, activations: args.activations }
}

fn runner_options(args: &ModelArgs) -> RunnerOptions {
    RunnerOptions {
        max_num_seqs: args.max_num_seqs,
        max_num_batched_tokens: args.max_num_batched_tokens,
        max_model_len: args.max_model_len,
        block_size: args.block_size,
        kv_cache_memory: args.kv_cache_memory.map(|size| size.0),
        kv_dtype: match args.kv_cache_dtype {
            KvCacheDtype::Auto => KvDtype::Auto,
            KvCacheDtype::F32 => KvDtype::F32,
            KvCacheDtype::Bf16 => KvDtype::Bf16,
            KvCacheDtype::Fp8 => KvDtype::Fp8,
        },
    }
}
