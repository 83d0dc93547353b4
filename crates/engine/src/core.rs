//! EngineCore: the central loop. Owns scheduler, executor and ledger; knows no thread, no clock and no text, so that the
//! simulator can drive it: the inbox and the time are arguments.

mod recovery;

use std::collections::VecDeque;
use std::time::Duration;

use contract::{Executor, ExecutorError, Masks, ModelRunnerOutput, SchedulerOutput};
use sched::{KvError, Limits, Progress, Scheduler, SequenceId, StepBudget};

use crate::cost::{CostModel, Load};
use crate::inbox::{Message, Submission, Update};
use crate::ledger::{Account, Ledger};
use crate::{EngineConfig, RequestError, Stats};

/// A prefill chunk beside decodes has at least this many tokens, whatever a step's target.
const MIN_CHUNK: u32 = 16;

/// See the [module](self).
pub struct EngineCore {
    config: EngineConfig,
    scheduler: Scheduler,
    executor: Box<dyn Executor>,
    /// Steps in flight, 1 or 2.
    depth: u32,
    ledger: Ledger,
    cost: CostModel,
    /// What each step in flight computes.
    loads: VecDeque<Load>,
    stats: Stats,
    losses_in_a_row: u32,
    // Kept from step to step for their memory.
    plan: SchedulerOutput,
    masks: Masks,
    out: ModelRunnerOutput,
    progress: Vec<Progress>,
}

/// Whether another step is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    Idle,
    Busy,
}

/// The executor cannot be used any more; every request has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fatal(pub String);

impl EngineCore {
    pub fn new(config: EngineConfig, executor: Box<dyn Executor>) -> Result<Self, KvError> {
        let capacity = executor.capacity();
        let depth = capacity.depth.min(2);
        let scheduler = Scheduler::new(capacity, limits(&config), 0)?;
        let mut core = Self {
            config,
            scheduler,
            executor,
            depth,
            ledger: Ledger::default(),
            cost: CostModel::default(),
            loads: VecDeque::new(),
            stats: Stats::default(),
            losses_in_a_row: 0,
            plan: SchedulerOutput::default(),
            masks: Masks::default(),
            out: ModelRunnerOutput::default(),
            progress: Vec::new(),
        };
        core.update_stats();
        Ok(core)
    }

    /// One turn of the loop, at `now` on the engine's clock.
    pub fn step(&mut self, inbox: impl IntoIterator<Item = Message>, now: Duration) -> Result<Activity, Fatal> {
        inbox.into_iter().for_each(|message| self.take_in(message));
        let outcome = self.advance().or_else(|error| self.recover(error));
        self.record(now);
        self.update_stats();
        outcome.inspect_err(|fatal| self.fail_all(&fatal.0))?;
        Ok(if self.scheduler.has_work() { Activity::Busy } else { Activity::Idle })
    }

    /// Submits step t, then waits for step t - 1 while the device works on t. At depth 1 there is nothing to overlap with,
    /// and t itself is waited for.
    fn advance(&mut self) -> Result<(), ExecutorError> {
        let submitted = self.submit()?;
        if self.scheduler.steps_in_flight() > usize::from(submitted) {
            self.collect()?;
        }
        if submitted {
            self.sample()?;
        }
        if submitted && self.depth == 1 {
            self.collect()?;
        }
        Ok(())
    }

    fn submit(&mut self) -> Result<bool, ExecutorError> {
        if !self.scheduler.schedule(&self.budget(), &mut self.plan, &mut self.progress) {
            return Ok(false);
        }
        match self.executor.submit(&self.plan) {
            Ok(()) => {
                let load = Load::of(&self.plan);
                self.stats.count_step(load.tokens);
                self.loads.push_back(load);
                Ok(true)
            }
            Err(ExecutorError::Refused(reason)) => {
                tracing::error!(step = self.plan.step, reason, "the executor refused a step; its requests fail");
                self.scheduler.refused(&self.plan, &mut self.progress);
                Ok(false)
            }
            Err(lost) => Err(lost),
        }
    }

    fn budget(&self) -> StepBudget {
        StepBudget {
            tokens: self.config.max_num_batched_tokens,
            cost: self.config.target_step.as_nanos() as u64,
            prices: self.cost.prices(),
            min_chunk: MIN_CHUNK,
        }
    }

    /// A refusal here leaves the step half done; only a restart makes sure of what the device holds.
    fn sample(&mut self) -> Result<(), ExecutorError> {
        self.executor.sample(&self.masks).map_err(|error| match error {
            ExecutorError::Refused(reason) | ExecutorError::Lost(reason) => ExecutorError::Lost(reason),
        })
    }

    fn collect(&mut self) -> Result<(), ExecutorError> {
        let result = self.executor.wait(&mut self.out);
        let load = self.loads.pop_front().expect("a step in flight has a load");
        match result {
            Ok(()) => {
                self.cost.observe(load, self.out.elapsed_us);
                self.losses_in_a_row = 0;
                self.scheduler.update(&self.out, &mut self.progress);
                Ok(())
            }
            Err(ExecutorError::Refused(reason)) => {
                tracing::error!(reason, "the executor gave no result for a step; its requests fail");
                self.scheduler.failed(&mut self.progress);
                Ok(())
            }
            Err(lost) => Err(lost),
        }
    }

    fn take_in(&mut self, message: Message) {
        match message {
            Message::Submit(submission) => self.open(*submission),
            Message::Abort { request } => self.abort(request),
            Message::AbortChoice { request, index } => self.abort_choice(request, index),
            Message::Stop { .. } => {}
        }
    }

    fn open(&mut self, submission: Submission) {
        let Submission { request, updates, ticket } = submission;
        let (prompt_tokens, choices) = (request.prompt.len() as u32, request.sampling.len());
        let leader = self.scheduler.add(request);
        self.ledger.open(Account::new(leader, prompt_tokens, choices, updates, ticket));
    }

    fn abort(&mut self, request: u64) {
        if let Some(account) = self.ledger.take(request) {
            self.stats.requests_aborted += 1;
            account.open_choices().for_each(|id| self.scheduler.abort(id));
        }
    }

    fn abort_choice(&mut self, request: u64, index: u32) {
        if let Some(account) = self.ledger.account(request) {
            let id = SequenceId { index, ..account.leader };
            self.scheduler.abort(id);
            self.end_choice(id);
        }
    }

    fn end_choice(&mut self, id: SequenceId) {
        if self.ledger.end_choice(id.request, id.index) {
            self.stats.requests_finished += 1;
        }
    }

    fn fail(&mut self, request: u64, message: &str) {
        if let Some(account) = self.ledger.take(request) {
            self.stats.requests_failed += 1;
            account.open_choices().for_each(|id| self.scheduler.abort(id));
            account.fail(RequestError { message: message.to_owned() });
        }
    }

    /// Ends every open request with `message`.
    pub fn fail_all(&mut self, message: &str) {
        while let Some(account) = self.ledger.take_first() {
            self.stats.requests_failed += 1;
            account.open_choices().for_each(|id| self.scheduler.abort(id));
            account.fail(RequestError { message: message.to_owned() });
        }
    }

    /// Tells the clients what the step brought.
    fn record(&mut self, now: Duration) {
        let mut progress = std::mem::take(&mut self.progress);
        progress.drain(..).for_each(|event| self.record_one(event, now));
        self.progress = progress;
    }

    fn record_one(&mut self, event: Progress, at: Duration) {
        match event {
            Progress::Started { id, .. } if id.index > 0 => {}
            Progress::Started { id, cached } => {
                if let Some(account) = self.ledger.account(id.request) {
                    account.start();
                    self.stats.requests_started += 1;
                    self.stats.prompt_tokens += u64::from(account.prompt_tokens);
                }
                self.tell(id, Update::Started { at, cached_tokens: cached });
            }
            Progress::Prompt { id, logprobs } => {
                let update = Update::Prompt(logprobs.of(&self.out.logprobs).into());
                self.tell(id, update);
            }
            Progress::Token { id, token, logprobs, end } => {
                self.stats.generation_tokens += 1;
                let logprobs = logprobs.of(&self.out.logprobs).into();
                self.tell(id, Update::Token { at, index: id.index, token, logprobs, end });
                if end.is_some() {
                    self.end_choice(id);
                }
            }
            Progress::Ended { id, end } => {
                self.tell(id, Update::Ended { at, index: id.index, end });
                self.end_choice(id);
            }
            Progress::Failed { id, why } => self.fail(id.request, recovery::sentence(why)),
        }
    }

    fn tell(&mut self, id: SequenceId, update: Update) {
        if let Some(account) = self.ledger.account(id.request) {
            account.tell(update);
        }
    }

    fn update_stats(&mut self) {
        let counters = self.scheduler.counters();
        let stats = &mut self.stats;
        stats.running = self.scheduler.num_running() as u32;
        stats.waiting = self.scheduler.num_waiting() as u32;
        (stats.kv_blocks_total, stats.kv_blocks_used) = self.scheduler.kv_usage();
        stats.preemptions = counters.preemptions;
        stats.prefix_cache_queries = counters.prefix_queries;
        stats.prefix_cache_hits = counters.prefix_hits;
    }

    /// As of the last step.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// The plan made last.
    pub fn plan(&self) -> &SchedulerOutput {
        &self.plan
    }

    /// Requests that have not ended.
    pub fn num_open(&self) -> usize {
        self.ledger.len()
    }
}

fn limits(config: &EngineConfig) -> Limits {
    Limits { policy: config.policy, max_rows: config.max_num_seqs, max_tokens: config.max_num_batched_tokens }
}
