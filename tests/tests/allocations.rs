//! A step in the steady state allocates nothing, on any thread.

use std::alloc::System;
use std::sync::Arc;

use contract::{
    AddRow, BlockId, Executor, GroupId, Masks, ModelRunnerOutput, RowId, RowWork, SamplingParams, SchedulerOutput,
    Span, Want,
};
use runner::RunnerOptions;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tests::Device;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const ROWS: u32 = 5;
const PROMPT: u32 = 20;

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

fn work(row: u32, start: u32, len: u32) -> RowWork {
    let none = Span::default();
    let want = Want { sample: true, ..Want::default() };
    RowWork { row: RowId(row), start, len, forced: none, drafts: none, new_blocks: none, want }
}

/// All rows arrive with their prompts and all the blocks that they will need.
fn prefill() -> SchedulerOutput {
    let mut plan = SchedulerOutput::default();
    for row in 0..ROWS {
        plan.add.push(AddRow {
            row: RowId(row),
            tokens: Span::push(&mut plan.tokens, (0..PROMPT).map(|idx| 5 + row + idx)),
            prompt_len: PROMPT,
            computed: 0,
            blocks: Span::push(&mut plan.blocks, (0..4).map(|idx| (GroupId(0), BlockId(1 + row * 4 + idx)))),
            sampling: sampling(row),
            adapter: None,
        });
        plan.work.push(work(row, 0, PROMPT));
    }
    plan
}

fn decode(step: u32) -> SchedulerOutput {
    let work = (0..ROWS).map(|row| work(row, PROMPT + step, 1)).collect();
    SchedulerOutput { step: u64::from(step) + 1, work, ..SchedulerOutput::default() }
}

fn run(executor: &mut dyn Executor, plan: &SchedulerOutput, out: &mut ModelRunnerOutput) {
    executor.submit(plan).expect("the plan is taken");
    executor.sample(&Masks::default()).expect("the rows are sampled");
    executor.wait(out).expect("the step ends");
}

/// One test for all devices: the counters are the process's.
#[test]
fn a_decode_step_allocates_nothing() {
    for family in ["llama", "qwen3_moe"] {
        check(Device::Cpu, family);
        if Device::gpu("a_decode_step_allocates_nothing").is_some() {
            check(Device::Cuda, family);
            check(Device::CudaEager, family);
        }
    }
}

fn check(device: Device, family: &str) {
    let options = RunnerOptions { kv_cache_memory: Some(4 << 20), ..RunnerOptions::default() };
    let mut executor = device.load(&testkit::tiny(family), options);
    let mut out = ModelRunnerOutput::default();
    run(executor.as_mut(), &prefill(), &mut out);
    let plans: Vec<SchedulerOutput> = (0..40).map(decode).collect();
    let (warm, steady) = plans.split_at(4);
    warm.iter().for_each(|plan| run(executor.as_mut(), plan, &mut out));
    let region = Region::new(ALLOCATOR);
    steady.iter().for_each(|plan| run(executor.as_mut(), plan, &mut out));
    let change = region.change();
    let none = (change.allocations, change.reallocations) == (0, 0);
    assert!(none, "{family} on {device:?}: {change:?} in {} steps", steady.len());
}
