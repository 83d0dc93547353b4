//! Whole steps of the default model through the executor seam, without scheduler, text or HTTP.
//!
//! `TOKENMILL_TEST_MODEL=model.gguf cargo bench -p benches --bench step`; environment as for `cpu`.
//! Prints the mean, the median and the best step, and the tokens a second of the mean.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use contract::{
    AddRow, BlockId, Executor, GroupId, Masks, ModelRunnerOutput, RowId, RowWork, SamplingParams, SchedulerOutput,
    Span, Want,
};
use kernels::cpu::Cpu;
use runner::{ModelRunner, RunnerOptions};
use weights::Checkpoint;

const BLOCK_SIZE: u32 = 16;
/// Blocks a row: contexts up to 1024.
const ROW_BLOCKS: u32 = 64;
const PROMPT: u32 = 128;
const STEPS: usize = 40;

fn main() {
    let Some(model) = testkit::default_model("benches step") else { return };
    let mut executor = load(&model);
    for tokens in [128, 512] {
        let times = (0..8).map(|_| run(&mut executor, &[(0, 0, tokens)], true)).collect();
        report(&format!("prefill {tokens}"), tokens, times);
        drop_rows(&mut executor, 1);
    }
    for rows in [1, 8, 16, 32] {
        for row in 0..rows {
            run(&mut executor, &[(row, 0, PROMPT)], true);
        }
        let decode =
            |step: usize| -> Vec<(u32, u32, u32)> { (0..rows).map(|row| (row, PROMPT + step as u32, 1)).collect() };
        let times = (0..STEPS).map(|step| run(&mut executor, &decode(step), false)).collect();
        report(&format!("decode B={rows}"), rows, times);
        drop_rows(&mut executor, rows);
    }
}

fn load(model: &Path) -> ModelRunner<Cpu> {
    let cpu = benches::cpu();
    println!("{}: {:.0?}", cpu.describe(), cpu.peaks());
    let start = Instant::now();
    let checkpoint = Checkpoint::open(model).expect("the model opens");
    let options = RunnerOptions {
        max_num_seqs: 32,
        max_model_len: Some(ROW_BLOCKS * BLOCK_SIZE),
        kv_cache_memory: Some(2 << 30),
        ..RunnerOptions::default()
    };
    let executor = ModelRunner::new(cpu, &checkpoint, options).expect("the model loads");
    println!("loaded in {:.0?}", start.elapsed());
    executor
}

/// One step of `work`, (row, start, tokens) each; new rows start over.
fn run(executor: &mut ModelRunner<Cpu>, work: &[(u32, u32, u32)], fresh: bool) -> Duration {
    let mut plan = SchedulerOutput::default();
    for &(row, start, len) in work {
        let row = RowId(row);
        if fresh {
            let blocks = (0..ROW_BLOCKS).map(|idx| (GroupId(0), BlockId(1 + row.0 * ROW_BLOCKS + idx)));
            plan.drop.push(row);
            plan.add.push(AddRow {
                row,
                tokens: Span::push(&mut plan.tokens, (0..len).map(|idx| 100 + idx * 7 % 1000)),
                prompt_len: len,
                computed: 0,
                blocks: Span::push(&mut plan.blocks, blocks),
                sampling: Arc::new(SamplingParams::greedy()),
                adapter: None,
            });
        }
        plan.work.push(RowWork {
            row,
            start,
            len,
            forced: Span::default(),
            drafts: Span::default(),
            new_blocks: Span::default(),
            want: Want { sample: true, ..Want::default() },
        });
    }
    let begin = Instant::now();
    executor.submit(&plan).expect("the executor takes the plan");
    executor.sample(&Masks::default()).expect("the executor samples");
    executor.wait(&mut ModelRunnerOutput::default()).expect("the step ends");
    begin.elapsed()
}

fn drop_rows(executor: &mut ModelRunner<Cpu>, rows: u32) {
    let plan = SchedulerOutput { drop: (0..rows).map(RowId).collect(), ..SchedulerOutput::default() };
    executor.submit(&plan).expect("rows can be dropped");
    executor.sample(&Masks::default()).expect("nothing is sampled");
    executor.wait(&mut ModelRunnerOutput::default()).expect("the step ends");
}

fn report(name: &str, tokens: u32, mut times: Vec<Duration>) {
    times.sort_unstable();
    let (best, median) = (times[0], times[times.len() / 2]);
    let mean = times.iter().sum::<Duration>() / times.len() as u32;
    let rate = f64::from(tokens) / mean.as_secs_f64();
    println!("{name:<14} mean {mean:>9.2?} median {median:>9.2?} best {best:>9.2?} {rate:>7.0} tok/s");
}
