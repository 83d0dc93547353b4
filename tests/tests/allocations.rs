//! A step in the steady state allocates nothing, on any thread.

use std::alloc::System;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use contract::{
    AddRow, BlockId, Executor, GroupId, Masks, ModelRunnerOutput, RowId, RowWork, SamplingParams, SchedulerOutput,
    Span, Want,
};
use engine::EngineConfig;
use engine::driver::{EngineCore, Message, Queue, Submission, Update};
use runner::RunnerOptions;
use sched::{Chains, Layout, NewRequest};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, Stats, StatsAlloc};
use tests::Device;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use weights::Checkpoint;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Prompts that come at once and are computed in chunks; then everything decodes.
struct Mix {
    prompts: &'static [u32],
    chunk: u32,
    steps: u32,
    /// Steps that must allocate nothing.
    steady: [Range<usize>; 2],
}

/// A prompt of ten chunks beside four that decode, then five that do.
const SHORT: Mix = Mix { prompts: &[20, 20, 20, 20, 300], chunk: 32, steps: 54, steady: [0..10, 14..54] };
/// The same for the emulator, which is slow: what is recorded was recorded after four steps that decode.
const ON_GPU: Mix = Mix { prompts: &[20, 20, 60], chunk: 16, steps: 24, steady: [0..4, 8..24] };
/// Contexts of more than one partition of attention.
const LONG: Mix = Mix { prompts: &[900, 20], chunk: 96, steps: 40, steady: [0..10, 14..40] };

/// Mixed sampling: greedy, seeded with penalties, with log probabilities.
fn sampling(row: u32) -> Arc<SamplingParams> {
    let seeded =
        SamplingParams { seed: 3, top_p: 0.9, top_k: 50, repetition_penalty: 1.1, ..SamplingParams::default() };
    Arc::new(match row % 3 {
        0 => SamplingParams::greedy(),
        1 => seeded,
        _ => SamplingParams { logprobs: Some(5), ..SamplingParams::default() },
    })
}

impl Mix {
    fn plans(&self) -> Vec<SchedulerOutput> {
        let mut computed = vec![0; self.prompts.len()];
        (0..self.steps).map(|step| self.plan(step, &mut computed)).collect()
    }

    fn plan(&self, step: u32, computed: &mut [u32]) -> SchedulerOutput {
        let mut plan = SchedulerOutput { step: u64::from(step), ..SchedulerOutput::default() };
        for ((row, &prompt_len), computed) in (0..).zip(self.prompts).zip(computed) {
            if step == 0 {
                self.add(row, prompt_len, &mut plan);
            }
            let len = prompt_len.saturating_sub(*computed).clamp(1, self.chunk);
            let want = Want { sample: *computed + len >= prompt_len, ..Want::default() };
            let (start, none) = (*computed, Span::default());
            plan.work.push(RowWork { row: RowId(row), start, len, forced: none, drafts: none, new_blocks: none, want });
            *computed += len;
        }
        plan
    }

    /// A row with all the blocks that it will need.
    fn add(&self, row: u32, prompt_len: u32, plan: &mut SchedulerOutput) {
        let blocks = |row: usize| (self.prompts[row] + self.steps).div_ceil(16);
        let first = 1 + (0..row as usize).map(blocks).sum::<u32>();
        let blocks = (first..first + blocks(row as usize)).map(|block| (GroupId(0), BlockId(block)));
        plan.add.push(AddRow {
            row: RowId(row),
            tokens: Span::push(&mut plan.tokens, (0..prompt_len).map(|idx| 5 + row + idx % 200)),
            prompt_len,
            computed: 0,
            blocks: Span::push(&mut plan.blocks, blocks),
            sampling: sampling(row),
            adapter: None,
        });
    }
}

fn run(executor: &mut dyn Executor, plan: &SchedulerOutput, out: &mut ModelRunnerOutput) {
    executor.submit(plan).expect("the plan is taken");
    executor.sample(&Masks::default()).expect("the rows are sampled");
    executor.wait(out).expect("the step ends");
}

fn options() -> RunnerOptions {
    RunnerOptions { kv_cache_memory: Some(4 << 20), ..RunnerOptions::default() }
}

/// One test for everything: the counters are the process's.
#[test]
fn a_step_allocates_nothing() {
    let gpu = Device::gpu("a_step_allocates_nothing").map(|gpu| [(gpu, &ON_GPU), (Device::CudaEager, &ON_GPU)]);
    let cpu = [(Device::Cpu, &SHORT), (Device::CpuInt8, &SHORT)];
    let quantized = ["W4A16", "W8A8"].map(testkit::quantized);
    for folder in ["llama", "qwen3_moe"].map(testkit::tiny).iter().chain(&quantized) {
        for (device, mix) in cpu.into_iter().chain(gpu.into_iter().flatten()) {
            let checkpoint = Checkpoint::open(folder).expect("the fixture");
            check(device, &checkpoint, mix, &folder.display().to_string());
        }
    }
    let folder = with_long_contexts();
    for device in [Device::Cpu, Device::CpuInt8] {
        let checkpoint = Checkpoint::dummy(&folder, 0).expect("a config");
        check(device, &checkpoint.with_quantization(quant::Scheme::Int4).expect("it is bf16"), &LONG, "long contexts");
    }
    check_engine(&testkit::quantized("W4A16"));
}

fn check(device: Device, checkpoint: &Checkpoint, mix: &Mix, what: &str) {
    let mut executor = device.run(checkpoint, options());
    let (mut out, mut plans) = (ModelRunnerOutput::default(), mix.plans());
    // Once before, so that threads have started, and buffers are as large as they become.
    plans.iter().for_each(|plan| run(executor.as_mut(), plan, &mut out));
    plans[0].drop = (0..mix.prompts.len() as u32).map(RowId).collect();
    let mut done = 0;
    for steady in &mix.steady {
        plans[done..steady.start].iter().for_each(|plan| run(executor.as_mut(), plan, &mut out));
        let region = Region::new(ALLOCATOR);
        plans[steady.clone()].iter().for_each(|plan| run(executor.as_mut(), plan, &mut out));
        assert_none(region.change(), &format!("{what} on {device:?}, steps {steady:?}"));
        done = steady.end;
    }
}

fn assert_none(change: Stats, what: &str) {
    assert!((change.allocations, change.reallocations) == (0, 0), "{what}: {change:?}");
}

/// The tiny llama with room for 2048 tokens.
fn with_long_contexts() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("long-contexts");
    std::fs::create_dir_all(&folder).expect("a folder for the test");
    let config = std::fs::read_to_string(testkit::tiny("llama").join("config.json")).expect("the fixture");
    let config = config.replace("\"max_position_embeddings\": 512", "\"max_position_embeddings\": 2048");
    std::fs::write(folder.join("config.json"), config).expect("a file for the test");
    folder
}

/// The whole engine: scheduler, ledger and executor, with clients that read what comes.
fn check_engine(folder: &Path) {
    let executor = Device::Cpu.load(folder, options());
    let layout = Layout::new(executor.capacity()).expect("its memory can be scheduled");
    let config = EngineConfig { max_num_batched_tokens: 64, ..EngineConfig::default() };
    let mut core = EngineCore::new(config, executor).expect("as above");
    let queue = Queue::new(8);
    let (messages, mut clients): (Vec<_>, Vec<_>) =
        SHORT.prompts.iter().zip(0..).map(|(len, request)| submission(&layout, &queue, request, *len)).unzip();
    let mut messages = Some(messages);
    // A client's channel takes a second block of memory after 32 messages, and uses the two in turn from then on.
    for step in 0..110 {
        let inbox = messages.take().unwrap_or_default();
        let region = Region::new(ALLOCATOR);
        core.step(inbox, Duration::from_millis(step)).expect("the device works");
        if step >= 48 {
            assert_none(region.change(), &format!("step {step} of the engine"));
        }
        clients.iter_mut().for_each(|client| while client.try_recv().is_ok() {});
    }
    assert_eq!(core.num_open(), SHORT.prompts.len(), "all of them ran to the end of the test");
}

fn submission(layout: &Layout, queue: &Queue, request: u64, len: u32) -> (Message, UnboundedReceiver<Update>) {
    let (updates, client) = unbounded_channel();
    let prompt: Vec<u32> = (0..len).map(|idx| 5 + request as u32 + idx % 200).collect();
    let mut chains = Chains::new(layout, &[]);
    chains.extend(&prompt);
    let sampling = vec![Arc::new(SamplingParams::greedy())];
    let request = NewRequest { request, priority: 0, prompt, chains, max_tokens: 120, sampling, adapter: None };
    let ticket = queue.enter().expect("there is room");
    (Message::Submit(Box::new(Submission { request, updates, ticket })), client)
}
