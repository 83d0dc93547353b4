//! The seam itself: plans that are refused, lost epochs, shared and copied blocks, rows that go bad alone.

use std::sync::Arc;

use contract::{
    AddRow, BlockId, Control, Copy, Executor, ExecutorError, GroupId, Masks, ModelRunnerOutput, Outcome, RowId,
    RowWork, SamplingParams, SchedulerOutput, Span, TokenId, Want,
};
use runner::RunnerOptions;
use tests::Device;

const BLOCK: u32 = 16;

fn load(device: Device) -> Box<dyn Executor> {
    let options = RunnerOptions { max_num_seqs: 4, max_num_batched_tokens: 64, ..RunnerOptions::default() };
    device.load(&testkit::tiny("llama"), RunnerOptions { kv_cache_memory: Some(1 << 20), ..options })
}

fn prompt(len: u32) -> Vec<TokenId> {
    (0..len).map(|idx| 7 + idx * 13 % 400).collect()
}

/// Adds a row whose KV exists up to `computed`, and runs the rest of its tokens.
fn add(plan: &mut SchedulerOutput, row: u32, tokens: &[TokenId], computed: u32, blocks: &[u32]) {
    let added = AddRow {
        row: RowId(row),
        tokens: Span::push(&mut plan.tokens, tokens.iter().copied()),
        prompt_len: tokens.len() as u32,
        computed,
        blocks: Span::push(&mut plan.blocks, blocks.iter().map(|&block| (GroupId(0), BlockId(block)))),
        sampling: Arc::new(SamplingParams::greedy()),
        adapter: None,
    };
    plan.add.push(added);
    plan.work.push(work(row, computed, tokens.len() as u32 - computed));
}

fn work(row: u32, start: u32, len: u32) -> RowWork {
    let none = Span::default();
    let want = Want { sample: true, ..Want::default() };
    RowWork { row: RowId(row), start, len, forced: none, drafts: none, new_blocks: none, want }
}

fn run(executor: &mut dyn Executor, plan: &SchedulerOutput) -> ModelRunnerOutput {
    let mut out = ModelRunnerOutput::default();
    executor.submit(plan).expect("the plan is taken");
    executor.sample(&Masks::default()).expect("the rows are sampled");
    executor.wait(&mut out).expect("the step ends");
    assert_eq!((out.epoch, out.step), (plan.epoch, plan.step));
    out
}

/// The row's next tokens, one step each, as if nothing else ran.
fn decode(executor: &mut dyn Executor, row: u32, from: u32, num: u32, epoch: u32) -> Vec<TokenId> {
    let step = |idx| {
        let plan = SchedulerOutput { epoch, work: vec![work(row, from + idx, 1)], ..SchedulerOutput::default() };
        run(executor, &plan).tokens[0]
    };
    (0..num).map(step).collect()
}

/// The prompt's greedy answer, from a row of its own in the blocks 1 to 3.
fn answer(executor: &mut dyn Executor, len: u32, num: u32, epoch: u32) -> Vec<TokenId> {
    let mut plan = SchedulerOutput { epoch, ..SchedulerOutput::default() };
    add(&mut plan, 0, &prompt(len), 0, &[1, 2, 3]);
    let first = run(executor, &plan).tokens[0];
    let rest = decode(executor, 0, len, num - 1, epoch);
    [vec![first], rest].concat()
}

#[test]
fn a_wrong_plan_is_refused_and_leaves_no_trace() {
    type Spoil = fn(&mut SchedulerOutput);
    let wrong: &[(&str, Spoil)] = &[
        ("epoch", |plan| plan.epoch = 1),
        ("beyond the 4", |plan| plan.drop.push(RowId(4))),
        ("beyond the 4", |plan| plan.add[0].row = RowId(9)),
        ("of them prompt", |plan| plan.add[0].prompt_len += 1),
        ("adapters", |plan| plan.add[0].adapter = Some(contract::AdapterId(1))),
        ("beyond the vocabulary", |plan| plan.tokens[3] = 512),
        ("block 5000", |plan| plan.blocks[0].1 = BlockId(5000)),
        ("KV group 1", |plan| plan.blocks[0].0 = GroupId(1)),
        ("block 6000", |plan| {
            plan.copies.push(Copy { id: 1, group: GroupId(0), from: BlockId(6000), to: BlockId(1) });
        }),
        ("no blocks", |plan| plan.add[0].blocks.len = 1),
        ("asked to run", |plan| plan.work[0].len += 1),
        ("asked to run", |plan| plan.work[0].len = 0),
        ("asked to run", |plan| plan.work[0].start = u32::MAX),
        ("last known token", |plan| plan.work[0].len -= 1),
        ("not on the device", |plan| plan.work[0].row = RowId(3)),
        ("not on the device", |plan| {
            plan.drop.push(RowId(0));
            plan.work.push(work(0, 20, 1));
        }),
        ("twice", |plan| plan.work.push(plan.work[0])),
        ("speculate", |plan| plan.work[0].drafts.len = 1),
        ("pooling", |plan| plan.work[0].want.pool = Some(contract::PoolKind::Last)),
        ("rows of logits", |plan| plan.work[0].want.prompt_logprobs = true),
    ];
    for device in Device::all("a_wrong_plan_is_refused_and_leaves_no_trace") {
        let expected = answer(load(device).as_mut(), 20, 12, 0);
        let mut executor = load(device);
        let mut plan = SchedulerOutput::default();
        add(&mut plan, 0, &prompt(20), 0, &[1, 2, 3]);
        let mut tokens = run(executor.as_mut(), &plan).tokens;
        for (why, spoil) in wrong {
            let mut plan = SchedulerOutput::default();
            add(&mut plan, 1, &prompt(18), 0, &[4, 5]);
            spoil(&mut plan);
            match executor.submit(&plan) {
                Err(ExecutorError::Refused(reason)) => assert!(reason.contains(why), "{why}: {reason}"),
                other => panic!("{why}: {other:?}"),
            }
        }
        tokens.extend(decode(executor.as_mut(), 0, 20, 11, 0));
        assert_eq!(tokens, expected, "{device:?}: the row that was there goes on");
    }
}

#[test]
fn too_many_tokens_are_refused() {
    let mut plan = SchedulerOutput::default();
    add(&mut plan, 0, &prompt(65), 0, &[1, 2, 3, 4, 5]);
    assert!(matches!(load(Device::Cpu).submit(&plan), Err(ExecutorError::Refused(_))));
}

#[test]
fn a_missing_mask_is_refused_and_a_mask_rules() {
    let mut executor = load(Device::Cpu);
    let mut plan = SchedulerOutput::default();
    add(&mut plan, 2, &prompt(5), 0, &[1]);
    plan.work[0].want.masked = true;
    executor.submit(&plan).unwrap();
    assert!(matches!(executor.sample(&Masks::default()), Err(ExecutorError::Refused(_))));
    executor.control(&Control::Restart { epoch: 1 }).unwrap();
    plan.epoch = 1;
    executor.submit(&plan).unwrap();
    let mut bits = vec![0; 16];
    bits[3] = 1 << 5;
    executor.sample(&Masks { rows: vec![RowId(2)], bits, words_per_row: 16 }).unwrap();
    let mut out = ModelRunnerOutput::default();
    executor.wait(&mut out).unwrap();
    assert_eq!(out.tokens, [3 * 32 + 5]);
}

#[test]
fn a_restart_forgets_rows_and_answers_again_the_same() {
    for device in Device::all("a_restart_forgets_rows_and_answers_again_the_same") {
        let mut executor = load(device);
        let before = answer(executor.as_mut(), 20, 8, 0);
        executor.control(&Control::Restart { epoch: 1 }).unwrap();
        let stale = SchedulerOutput { work: vec![work(0, 28, 1)], ..SchedulerOutput::default() };
        assert!(matches!(executor.submit(&stale), Err(ExecutorError::Refused(_))), "an old epoch");
        let gone = SchedulerOutput { epoch: 1, ..stale };
        assert!(matches!(executor.submit(&gone), Err(ExecutorError::Refused(_))), "a row that is gone");
        assert_eq!(answer(executor.as_mut(), 20, 8, 1), before, "{device:?}");
    }
}

#[test]
fn rows_that_share_or_copy_blocks_answer_as_if_alone() {
    for device in Device::all("rows_that_share_or_copy_blocks_answer_as_if_alone") {
        let len = 2 * BLOCK + 5;
        let expected = answer(load(device).as_mut(), len, 12, 0);
        let mut executor = load(device);
        let mut plan = SchedulerOutput::default();
        add(&mut plan, 0, &prompt(len), 0, &[1, 2, 3]);
        run(executor.as_mut(), &plan);

        // Row 1 shares the two full blocks and computes the rest; row 2 takes copies of all and computes the last token.
        let mut plan = SchedulerOutput::default();
        let copy = |id, from, to| Copy { id, group: GroupId(0), from: BlockId(from), to: BlockId(to) };
        plan.copies = vec![copy(7, 1, 5), copy(8, 2, 6), copy(9, 3, 7)];
        add(&mut plan, 1, &prompt(len), 2 * BLOCK, &[1, 2, 4]);
        add(&mut plan, 2, &prompt(len), len - 1, &[5, 6, 7]);
        let out = run(executor.as_mut(), &plan);
        assert_eq!(out.copies_done, [7, 8, 9]);
        for (row, &first) in [1, 2].into_iter().zip(&out.tokens) {
            let rest = decode(executor.as_mut(), row, len, 11, 0);
            assert_eq!([vec![first], rest].concat(), expected, "{device:?}: row {row}");
        }
    }
}

/// Row 0 computes a context of two spans of attention; then as many others as the device has rows share its blocks and go on
/// by one token a step each, all at once.
#[test]
fn wide_batches_of_long_contexts_fit_the_workspace() {
    const LEN: u32 = 30 * BLOCK + 1;
    if Device::gpu("wide_batches_of_long_contexts_fit_the_workspace").is_none() {
        return;
    }
    for (device, rows, max_tokens) in [(Device::Cuda, 20, 20), (Device::CudaEager, 20, 20), (Device::Cuda, 140, 140)] {
        let options = RunnerOptions { kv_cache_memory: Some(4 << 20), ..RunnerOptions::default() };
        let options = RunnerOptions { max_num_seqs: rows, max_num_batched_tokens: max_tokens, ..options };
        let mut executor = device.load(&testkit::tiny("llama"), options);
        let mut plan = SchedulerOutput::default();
        add(&mut plan, 0, &prompt(LEN), 0, &(1..=31).collect::<Vec<_>>());
        for start in (0..LEN).step_by(max_tokens as usize) {
            plan.work = vec![work(0, start, max_tokens.min(LEN - start))];
            plan.work[0].want.sample = start + max_tokens >= LEN;
            run(executor.as_mut(), &plan);
            plan.clear();
        }
        let expected = decode(executor.as_mut(), 0, LEN, 3, 0);
        let blocks = |row: u32| (1..=30).chain([31 + row]).collect::<Vec<u32>>();
        (1..rows).for_each(|row| add(&mut plan, row, &prompt(LEN), LEN - 1, &blocks(row)));
        let first = run(executor.as_mut(), &plan).tokens;
        assert!(first.iter().all(|&token| token == first[0]), "{device:?}: {first:?}");
        for (step, &token) in expected.iter().enumerate() {
            let work = (1..rows).map(|row| work(row, LEN + step as u32, 1)).collect();
            let out = run(executor.as_mut(), &SchedulerOutput { work, ..SchedulerOutput::default() });
            assert_eq!(out.tokens, vec![token; rows as usize - 1], "{device:?}: {rows} rows, step {step}");
        }
    }
}

#[test]
fn a_row_that_reads_nonsense_fails_alone() {
    // The reference fills its cache with NaN, and nobody has written block 9.
    let expected = answer(load(Device::Reference).as_mut(), 20, 1, 0);
    let mut executor = load(Device::Reference);
    let mut plan = SchedulerOutput::default();
    add(&mut plan, 0, &prompt(20), 0, &[1, 2]);
    add(&mut plan, 1, &prompt(20), BLOCK, &[9, 10]);
    let out = run(executor.as_mut(), &plan);
    assert_eq!([out.rows[0].outcome, out.rows[1].outcome], [Outcome::Ok, Outcome::NonFinite]);
    assert_eq!((out.rows[0].tokens.of(&out.tokens), out.rows[1].tokens.len), (&expected[..], 0));
}
