//! Puts an engine together: files, weights, text side, device, engine thread.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use contract::Executor;
use engine::{EngineConfig, EngineHandle};
use hub::ModelFiles;
use kernels::cpu::{Cpu, CpuOptions};
use kernels::cuda::Cuda;
use kernels::reference::Reference;
use runner::{MemoryPlan, ModelRunner, RunnerOptions};
use tensor::{Backend, KvDtype};
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
}

/// What the engine thread reports once the executor is built there.
struct Built {
    device: String,
    plan: MemoryPlan,
}

/// Finds the model (fetching it if need be), loads it, and starts the engine thread.
pub fn assemble(args: &ModelArgs, max_num_queued_reqs: u32) -> Result<Assembled> {
    let files = find(args.model.as_deref())?;
    let started = Instant::now();
    let checkpoint = open(&files.path, args)?;
    let text = Arc::new(text_model(&checkpoint)?);
    let config = engine_config(args, max_num_queued_reqs);
    let (device, batch_invariant) = (args.device, !args.no_batch_invariant);
    let (cpu, options) = (cpu_options(args), runner_options(args));
    let (tell, told) = std::sync::mpsc::channel();
    let engine = engine::start(config, text, move || {
        let built = executor(device, batch_invariant, &checkpoint, cpu, options);
        let (executor, built) = built.map_err(|error| format!("{error:#}"))?;
        tell.send(built).map_err(|_| "the start was given up".to_owned())?;
        Ok(executor)
    })?;
    let Built { device, plan } = told.recv().context("the engine started without its memory plan")?;
    Ok(Assembled { engine, files, device, plan, load_time: started.elapsed() })
}

/// The memory plan alone: loads and sizes, starts nothing.
pub fn plan(args: &ModelArgs) -> Result<(ModelFiles, String, MemoryPlan)> {
    let files = find(args.model.as_deref())?;
    let checkpoint = open(&files.path, args)?;
    let (cpu, options) = (cpu_options(args), runner_options(args));
    let (_, Built { device, plan }) = executor(args.device, !args.no_batch_invariant, &checkpoint, cpu, options)?;
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

fn executor(
    device: Device,
    batch_invariant: bool,
    checkpoint: &Checkpoint,
    cpu: CpuOptions,
    options: RunnerOptions,
) -> Result<(Box<dyn Executor>, Built)> {
    match device {
        Device::Auto => match Cuda::new(0) {
            Ok(cuda) => on_gpu(cuda, batch_invariant, checkpoint, options),
            Err(why) => on_cpu(cpu, &format!(" ({why})"), checkpoint, options),
        },
        Device::Cuda(number) => on_gpu(Cuda::new(number)?, batch_invariant, checkpoint, options),
        Device::Cpu => on_cpu(cpu, "", checkpoint, options),
        Device::Reference => on(Reference::new(), "reference, f32".to_owned(), checkpoint, options),
    }
}

fn on_gpu(
    cuda: Cuda,
    batch_invariant: bool,
    checkpoint: &Checkpoint,
    options: RunnerOptions,
) -> Result<(Box<dyn Executor>, Built)> {
    let cuda = if batch_invariant { cuda } else { cuda.with_cublaslt()? };
    let device = cuda.describe();
    on(cuda, device, checkpoint, options)
}

/// `note` goes behind the device's name.
fn on_cpu(
    cpu: CpuOptions,
    note: &str,
    checkpoint: &Checkpoint,
    options: RunnerOptions,
) -> Result<(Box<dyn Executor>, Built)> {
    let cpu = Cpu::new(cpu)?;
    let device = format!("{}{note}", cpu.describe());
    on(cpu, device, checkpoint, options)
}

fn on<B: Backend>(
    backend: B,
    device: String,
    checkpoint: &Checkpoint,
    options: RunnerOptions,
) -> Result<(Box<dyn Executor>, Built)> {
    let runner = ModelRunner::new(backend, checkpoint, options)?;
    checkpoint.release();
    let plan = runner.plan().clone();
    Ok((Box::new(runner), Built { device, plan }))
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
