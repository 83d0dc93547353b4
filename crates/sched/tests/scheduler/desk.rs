//! A scheduler on a desk: steps are planned and finished by hand, over a device that samples what the test says.

use std::sync::Arc;

use contract::{
    Group, Kind, KvCapacity, ModelRunnerOutput, Outcome, Pool, PoolId, RowOut, SamplingParams, SchedulerOutput, Span,
    TokenId,
};
use sched::{Chains, Layout, Limits, NewRequest, Policy, Progress, Scheduler, SequenceId, StepBudget};

pub const BLOCK: u32 = 4;

/// Everything roomy; each test narrows what it is about.
pub fn capacity() -> KvCapacity {
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
pub struct Desk {
    pub scheduler: Scheduler,
    layout: Layout,
    pub budget: StepBudget,
    pub progress: Vec<Progress>,
    requests: u64,
}

#[derive(Clone)]
pub struct Ask {
    pub prompt: Vec<TokenId>,
    pub max_tokens: u32,
    pub n: usize,
    pub priority: i32,
    pub sampling: SamplingParams,
}

pub fn ask(prompt: impl IntoIterator<Item = TokenId>) -> Ask {
    let prompt = prompt.into_iter().collect();
    Ask { prompt, max_tokens: 8, n: 1, priority: 0, sampling: SamplingParams::default() }
}

impl Desk {
    pub fn new(capacity: KvCapacity) -> Self {
        Self::with_policy(capacity, Policy::Fcfs)
    }

    pub fn with_policy(capacity: KvCapacity, policy: Policy) -> Self {
        let limits = Limits { policy, max_rows: u32::MAX, max_tokens: u32::MAX };
        Self {
            scheduler: Scheduler::new(&capacity, limits, 0).expect("a valid capacity"),
            layout: Layout::new(&capacity).expect("a valid capacity"),
            budget: StepBudget::of_tokens(u32::MAX),
            progress: Vec::new(),
            requests: 0,
        }
    }

    pub fn add(&mut self, ask: Ask) -> SequenceId {
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
    pub fn plan(&mut self) -> SchedulerOutput {
        let mut plan = SchedulerOutput::default();
        self.scheduler.schedule(&self.budget, &mut plan, &mut self.progress);
        self.scheduler.audit().expect("the books are right");
        plan
    }

    /// The result of a plan in which every row samples `token`.
    pub fn result(plan: &SchedulerOutput, token: TokenId, outcome: Outcome) -> ModelRunnerOutput {
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

    pub fn done(&mut self, plan: &SchedulerOutput, token: TokenId) -> Vec<Progress> {
        self.progress.clear();
        self.scheduler.update(&Self::result(plan, token, Outcome::Ok), &mut self.progress);
        self.scheduler.audit().expect("the books are right");
        std::mem::take(&mut self.progress)
    }

    /// Plans a step and finishes it.
    pub fn step(&mut self, token: TokenId) -> SchedulerOutput {
        let plan = self.plan();
        self.done(&plan, token);
        plan
    }
}

/// `(row, start, len)` of a plan's work.
pub fn work(plan: &SchedulerOutput) -> Vec<(u32, u32, u32)> {
    plan.work.iter().map(|work| (work.row.0, work.start, work.len)).collect()
}

pub fn added(plan: &SchedulerOutput) -> Vec<(u32, u32)> {
    plan.add.iter().map(|add| (add.row.0, add.computed)).collect()
}
