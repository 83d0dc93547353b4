//! The scheduler's hard cases, played by hand: what the simulator finds by chance is pinned here by name.

use std::sync::Arc;

use contract::{
    Group, Kind, KvCapacity, ModelRunnerOutput, Outcome, Pool, PoolId, RowId, RowOut, SamplingParams, SchedulerOutput,
    Span, TokenId,
};
use sched::{
    Chains, End, Layout, Limits, NewRequest, Policy, Prices, Progress, Scheduler, SequenceId, StepBudget, Why,
};

const BLOCK: u32 = 4;

/// Everything roomy; each test narrows what it is about.
fn capacity() -> KvCapacity {
    KvCapacity {
        pools: vec![Pool { blocks: 101, host_blocks: 0, block_bytes: 1 }],
        groups: vec![Group { pool: PoolId(0), block_size: BLOCK, kind: Kind::Full }],
        max_rows: 8,
        max_tokens: 64,
        max_logit_rows: 16,
        max_drafts: 0,
        max_model_len: 64,
        depth: 2,
    }
}

/// A scheduler and the device that it believes in: one that samples whatever the test says.
struct Desk {
    scheduler: Scheduler,
    layout: Layout,
    budget: StepBudget,
    progress: Vec<Progress>,
    requests: u64,
}

#[derive(Clone)]
struct Ask {
    prompt: Vec<TokenId>,
    max_tokens: u32,
    n: usize,
    priority: i32,
    sampling: SamplingParams,
}

fn ask(prompt: impl IntoIterator<Item = TokenId>) -> Ask {
    let prompt = prompt.into_iter().collect();
    Ask { prompt, max_tokens: 8, n: 1, priority: 0, sampling: SamplingParams::default() }
}

impl Desk {
    fn new(capacity: KvCapacity) -> Self {
        Self::with_policy(capacity, Policy::Fcfs)
    }

    fn with_policy(capacity: KvCapacity, policy: Policy) -> Self {
        let limits = Limits { policy, max_rows: u32::MAX, max_tokens: u32::MAX };
        Self {
            scheduler: Scheduler::new(&capacity, limits, 0).expect("a valid capacity"),
            layout: Layout::new(&capacity).expect("a valid capacity"),
            budget: StepBudget::of_tokens(u32::MAX),
            progress: Vec::new(),
            requests: 0,
        }
    }

    fn add(&mut self, ask: Ask) -> SequenceId {
        let mut chains = Chains::new(&self.layout, b"");
        chains.extend(&ask.prompt);
        self.requests += 1;
        self.scheduler.add(NewRequest {
            request: self.requests,
            priority: ask.priority,
            prompt: ask.prompt,
            chains,
            max_tokens: ask.max_tokens,
            sampling: (0..ask.n).map(|_| Arc::new(ask.sampling.clone())).collect(),
            adapter: None,
        })
    }

    /// Plans a step and leaves it in flight.
    fn plan(&mut self) -> SchedulerOutput {
        let mut plan = SchedulerOutput::default();
        self.scheduler.schedule(&self.budget, &mut plan, &mut self.progress);
        self.scheduler.audit().expect("the books are right");
        plan
    }

    /// The result of a plan in which every row samples `token`.
    fn result(plan: &SchedulerOutput, token: TokenId, outcome: Outcome) -> ModelRunnerOutput {
        let wants = plan.work.iter().filter(|work| work.want.sample || work.want.prompt_logprobs);
        let row = |work: &contract::RowWork| RowOut {
            row: work.row,
            outcome,
            tokens: Span { start: 0, len: u32::from(work.want.sample) },
            drafts: Span::default(),
            logprobs: Span { start: 0, len: if work.want.prompt_logprobs { work.len } else { 0 } },
            pooled: Span::default(),
        };
        let rows = wants.map(row).collect();
        ModelRunnerOutput { epoch: plan.epoch, step: plan.step, rows, tokens: vec![token], ..Default::default() }
    }

    fn done(&mut self, plan: &SchedulerOutput, token: TokenId) -> Vec<Progress> {
        self.progress.clear();
        self.scheduler.update(&Self::result(plan, token, Outcome::Ok), &mut self.progress);
        self.scheduler.audit().expect("the books are right");
        std::mem::take(&mut self.progress)
    }

    /// Plans a step and finishes it.
    fn step(&mut self, token: TokenId) -> SchedulerOutput {
        let plan = self.plan();
        self.done(&plan, token);
        plan
    }
}

/// `(row, start, len)` of a plan's work.
fn work(plan: &SchedulerOutput) -> Vec<(u32, u32, u32)> {
    plan.work.iter().map(|work| (work.row.0, work.start, work.len)).collect()
}

fn added(plan: &SchedulerOutput) -> Vec<(u32, u32)> {
    plan.add.iter().map(|add| (add.row.0, add.computed)).collect()
}

#[test]
fn a_prompt_is_prefilled_beside_a_decode_in_chunks_of_what_is_left() {
    let mut desk = Desk::new(capacity());
    desk.add(ask(0..5));
    desk.step(9);
    desk.budget.tokens = 4;
    desk.add(ask(100..107));
    assert_eq!(work(&desk.step(9)), [(0, 5, 1), (1, 0, 3)]);
    assert_eq!(work(&desk.step(9)), [(0, 6, 1), (1, 3, 3)]);
    assert_eq!(work(&desk.step(9)), [(0, 7, 1), (1, 6, 1)]);
    assert_eq!(work(&desk.step(9)), [(0, 8, 1), (1, 7, 1)]);
}

#[test]
fn a_late_prompt_is_cut_by_cost_and_an_early_one_leaves_tokens_to_decodes() {
    let prices = Prices { per_step: 10, per_token: 10, per_attended: 0 };
    for (what, cost, min_chunk, chunk) in [
        ("room for five tokens beside the decode", 70, 1, 5),
        ("no room", 0, 1, 1),
        ("no room, but a minimum", 0, 3, 3),
    ] {
        let mut desk = Desk::new(capacity());
        desk.add(ask(0..5));
        desk.step(9);
        desk.budget = StepBudget { tokens: 64, cost, prices, min_chunk };
        desk.add(ask(100..140));
        assert_eq!(work(&desk.step(9)), [(0, 5, 1), (1, 0, chunk)], "{what}");
    }
}

#[test]
fn the_next_token_is_scheduled_before_the_last_one_is_known() {
    let mut desk = Desk::new(capacity());
    desk.add(Ask { max_tokens: 3, ..ask(0..4) });
    let (first, second, third) = (desk.plan(), desk.plan(), desk.plan());
    assert_eq!((work(&first), work(&second), work(&third)), (vec![(0, 0, 4)], vec![(0, 4, 1)], vec![(0, 5, 1)]));
    assert!(desk.plan().work.is_empty(), "the token in flight is the last one");
    desk.done(&first, 1);
    desk.done(&second, 2);
    let ended = desk.done(&third, 3);
    assert!(matches!(ended[..], [Progress::Token { token: 3, end: Some(End::Length), .. }]), "{ended:?}");
    assert!(!desk.scheduler.has_work());
}

#[test]
fn the_overshoot_after_a_stop_is_ignored_and_the_row_dropped() {
    let mut desk = Desk::new(capacity());
    let sampling = SamplingParams { stop_token_ids: vec![7], ..Default::default() };
    let id = desk.add(Ask { sampling, ..ask(0..4) });
    let (first, overshoot) = (desk.plan(), desk.plan());
    let ended = desk.done(&first, 7);
    assert!(matches!(ended[..], [Progress::Token { id: of, end: Some(End::Stop), .. }] if of == id), "{ended:?}");
    desk.add(ask(50..53));
    let next = desk.plan();
    assert_eq!((next.drop.clone(), added(&next)), (vec![RowId(0)], vec![(0, 0)]), "the row has a new tenant");
    assert_eq!(desk.done(&overshoot, 8), [], "which gets nothing of what the old one sampled");
    assert_eq!(desk.done(&next, 8).len(), 1);
}

#[test]
fn ends_come_in_time() {
    let stops = |min_tokens| SamplingParams { stop_token_ids: vec![7], min_tokens, ..Default::default() };
    for (what, prompt_len, max_tokens, sampling, tokens, last) in [
        ("one token", 4, 1, SamplingParams::default(), 1, End::Length),
        ("the model's length", 62, 8, SamplingParams::default(), 2, End::Length),
        ("a stop", 4, 5, stops(0), 1, End::Stop),
        ("a stop that is too early twice", 4, 5, stops(2), 3, End::Stop),
        ("stop and length at once", 4, 1, stops(0), 1, End::Stop),
    ] {
        let mut desk = Desk::new(capacity());
        desk.add(Ask { max_tokens, sampling, ..ask(0..prompt_len) });
        let mut came = Vec::new();
        while desk.scheduler.has_work() {
            let plan = desk.plan();
            came.extend(desk.done(&plan, 7));
        }
        let ends: Vec<_> =
            came.iter().map(|event| matches!(event, Progress::Token { end: Some(end), .. } if *end == last)).collect();
        let expected: Vec<_> = (1..=tokens).map(|token| token == tokens).collect();
        assert_eq!(ends, expected, "{what}: {came:?}");
    }
}

#[test]
fn no_output_is_an_answer_too() {
    let mut desk = Desk::new(capacity());
    let id = desk.add(Ask { max_tokens: 0, ..ask(0..64) });
    let plan = desk.plan();
    assert!(desk.plan().work.is_empty(), "nothing follows");
    assert_eq!(desk.done(&plan, 1), [Progress::Ended { id, end: End::Length }]);
}

#[test]
fn a_known_prompt_is_not_computed_again_except_for_its_last_tokens() {
    for (len, computed) in [(3, 0), (4, 0), (5, 4), (8, 4), (9, 8)] {
        let mut desk = Desk::new(capacity());
        let first = desk.add(Ask { max_tokens: 1, ..ask(0..len) });
        desk.step(9);
        desk.add(ask(0..len));
        let plan = desk.plan();
        assert_eq!(added(&plan), [(0, computed)], "{len} tokens");
        assert_eq!(desk.progress, [Progress::Started { id: SequenceId { request: 2, ..first }, cached: computed }]);
    }
}

#[test]
fn nothing_is_known_of_a_prompt_before_its_logits_were_finite() {
    let mut desk = Desk::new(capacity());
    desk.budget.tokens = 8;
    desk.add(Ask { max_tokens: 1, ..ask(0..12) });
    desk.step(9);
    let last = desk.plan();
    desk.scheduler.update(&Desk::result(&last, 9, Outcome::NonFinite), &mut desk.progress);
    assert!(matches!(desk.progress[..], [.., Progress::Failed { why: Why::NonFinite, .. }]), "{:?}", desk.progress);
    desk.add(ask(0..12));
    assert_eq!(added(&desk.plan()), [(0, 0)]);
}

#[test]
fn prompt_logprobs_are_computed_for_every_position_once_and_within_the_logit_rows() {
    let mut capacity = capacity();
    capacity.max_logit_rows = 3;
    let sampling = SamplingParams { prompt_logprobs: Some(0), ..Default::default() };
    let mut desk = Desk::new(capacity);
    desk.add(Ask { max_tokens: 1, ..ask(0..8) });
    desk.step(9);
    desk.add(Ask { sampling, ..ask(0..8) });
    let mut chunks = Vec::new();
    for _ in 0..3 {
        let plan = desk.plan();
        chunks.extend(work(&plan).into_iter().map(|(_, start, len)| (start, len)));
        assert!(plan.work[0].want.prompt_logprobs);
        desk.done(&plan, 9);
    }
    assert_eq!(chunks, [(0, 3), (3, 3), (6, 2)], "the cached prefix is not read");
    assert!(!desk.plan().work[0].want.prompt_logprobs);
}

#[test]
fn choices_wait_for_the_first_and_share_its_full_blocks() {
    let mut desk = Desk::new(capacity());
    let leader = desk.add(Ask { n: 3, ..ask(0..10) });
    let first = desk.plan();
    let second = desk.plan();
    assert_eq!((added(&first), added(&second)), (vec![(0, 0)], vec![]), "the others wait");
    desk.done(&first, 5);
    let third = desk.plan();
    assert_eq!(added(&third), [(1, 8), (2, 8)]);
    assert_eq!(third.add[0].blocks.of(&third.blocks), third.add[1].blocks.of(&third.blocks));
    assert_eq!(desk.scheduler.kv_usage().1, 3 + 1 + 1, "two shared blocks and one of its own for each");
    desk.scheduler.abort(leader);
    desk.scheduler.audit().expect("the followers keep the blocks");
}

#[test]
fn choices_do_not_wait_for_a_first_one_that_is_gone() {
    let mut desk = Desk::new(capacity());
    let leader = desk.add(Ask { n: 2, ..ask(0..10) });
    desk.plan();
    desk.scheduler.abort(leader);
    assert_eq!(desk.plan().add.len(), 1);
    for id in [leader, SequenceId { index: 1, ..leader }, SequenceId { index: 9, ..leader }] {
        desk.scheduler.abort(id);
    }
    assert_eq!((desk.scheduler.num_running(), desk.scheduler.num_waiting()), (0, 0));
}

#[test]
fn the_worst_rank_is_preempted_and_computes_everything_again() {
    for (policy, priorities, victim) in [(Policy::Fcfs, [0, 5], 1), (Policy::Priority, [5, 0], 0)] {
        let mut capacity = capacity();
        capacity.pools[0].blocks = 1 + 4;
        let mut desk = Desk::with_policy(capacity, policy);
        let ids = priorities.map(|priority| desk.add(Ask { priority, max_tokens: 9, ..ask([priority as u32; 7]) }));
        desk.step(9);
        desk.step(9);
        let plan = desk.step(9);
        assert_eq!((plan.drop.len(), plan.work.len()), (1, 1), "{policy}: one makes room for the other");
        assert_eq!(desk.scheduler.counters().preemptions, 1);
        let mut finished = Vec::new();
        while desk.scheduler.has_work() {
            let plan = desk.plan();
            let ends = desk.done(&plan, 9);
            finished.extend(ends.iter().filter_map(|event| match event {
                Progress::Token { id, end: Some(_), .. } => Some(*id),
                _ => None,
            }));
        }
        assert_eq!(finished, [ids[1 - victim], ids[victim]], "{policy}");
    }
}

#[test]
fn nobody_starts_on_memory_that_is_promised() {
    let mut capacity = capacity();
    capacity.pools[0].blocks = 1 + 5;
    let mut desk = Desk::new(capacity);
    desk.budget.tokens = 4;
    desk.add(ask(0..16));
    desk.step(9);
    desk.budget.tokens = 64;
    desk.add(ask(100..108));
    assert_eq!(work(&desk.step(9)), [(0, 4, 12)], "two blocks are free now, and one when the first prompt is done");
}

#[test]
fn ranks_decide_who_starts() {
    let mut capacity = capacity();
    capacity.max_rows = 1;
    for (policy, first) in [(Policy::Fcfs, 1), (Policy::Priority, 3)] {
        let mut desk = Desk::with_policy(capacity.clone(), policy);
        for priority in [1, 1, -1] {
            desk.add(Ask { priority, ..ask([3; 3]) });
        }
        desk.plan();
        assert!(matches!(desk.progress[..], [Progress::Started { id, .. }] if id.request == first), "{policy}");
    }
}

#[test]
fn an_abort_in_flight_frees_everything_at_once() {
    let mut desk = Desk::new(capacity());
    let id = desk.add(ask(0..9));
    let (first, second) = (desk.plan(), desk.plan());
    desk.scheduler.abort(id);
    assert_eq!(desk.scheduler.kv_usage().1, 0);
    assert_eq!((desk.done(&first, 1), desk.done(&second, 1)), (vec![], vec![]));
    desk.add(ask(0..9));
    let plan = desk.plan();
    assert_eq!((plan.drop.clone(), added(&plan)), (vec![RowId(0)], vec![(0, 0)]));
}

#[test]
fn a_refused_step_fails_its_own_sequences_and_nobody_else() {
    let mut desk = Desk::new(capacity());
    let done = desk.add(Ask { max_tokens: 1, ..ask(0..4) });
    desk.step(9);
    desk.budget.tokens = 1;
    let (hit, spared) = (desk.add(ask(20..24)), desk.add(ask(40..44)));
    let plan = desk.plan();
    assert_eq!(plan.drop, [RowId(0)]);
    desk.progress.clear();
    desk.scheduler.refused(&plan, &mut desk.progress);
    assert_eq!(desk.progress, [Progress::Failed { id: hit, why: Why::Refused }]);
    assert!(done < hit && hit < spared);
    let next = desk.plan();
    assert_eq!((next.drop.clone(), added(&next)), (vec![RowId(0)], vec![(0, 0)]), "what was refused is said again");
}

#[test]
fn after_a_loss_everything_is_replayed_in_a_new_epoch() {
    let mut desk = Desk::new(capacity());
    desk.add(ask(0..9));
    desk.step(5);
    desk.plan();
    desk.scheduler.lost(&mut desk.progress);
    desk.scheduler.audit().expect("the books are right");
    let replay = desk.plan();
    assert_eq!((replay.epoch, added(&replay)), (1, vec![(0, 0)]), "no prefix outlives the device's memory");
    assert_eq!(replay.add[0].tokens.of(&replay.tokens), [0, 1, 2, 3, 4, 5, 6, 7, 8, 5], "output so far included");
    assert_eq!((replay.add[0].prompt_len, replay.drop.len()), (9, 0));
}

#[test]
fn a_sequence_that_kills_the_device_again_and_again_is_failed() {
    let mut desk = Desk::new(capacity());
    let id = desk.add(ask(0..9));
    for loss in 1..=3 {
        desk.plan();
        desk.plan();
        desk.progress.clear();
        desk.scheduler.lost(&mut desk.progress);
        assert_eq!(desk.progress.contains(&Progress::Failed { id, why: Why::Lost }), loss == 3, "loss {loss}");
    }
    assert!(!desk.scheduler.has_work());
}

#[test]
fn many_rows_are_cheap() {
    let mut capacity = capacity();
    (capacity.max_rows, capacity.max_tokens, capacity.max_logit_rows) = (256, 4096, 256);
    (capacity.pools[0].blocks, capacity.max_model_len) = (40_000, 1024);
    let mut desk = Desk::new(capacity);
    for request in 0..256 {
        desk.add(Ask { max_tokens: 500, ..ask([request; 16]) });
    }
    desk.step(9);
    let mut plan = SchedulerOutput::default();
    let (began, steps) = (std::time::Instant::now(), 100);
    for _ in 0..steps {
        desk.scheduler.schedule(&desk.budget, &mut plan, &mut desk.progress);
        assert_eq!(plan.work.len(), 256);
        let out = Desk::result(&plan, 9, Outcome::Ok);
        desk.progress.clear();
        desk.scheduler.update(&out, &mut desk.progress);
    }
    println!("{} us a step of 256 rows", began.elapsed().as_micros() / steps);
}
