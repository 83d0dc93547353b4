//! SimExecutor: an executor whose KV is one integer per slot. It computes what the plan says through the block tables it
//! was told, and checks that the plan keeps every rule of the seam.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use contract::{
    Control, Executor, ExecutorError, KvCapacity, Masks, ModelRunnerOutput, Outcome, RowId, RowOut, RowWork,
    SchedulerOutput, Span,
};
use sched::Prices;

use crate::chaos::{Chaos, Journal, Misfortune};
use crate::device::Device;
use crate::model;

/// What to pretend.
#[derive(Clone, Debug)]
pub struct SimConfig {
    pub capacity: KvCapacity,
    pub vocab_size: u32,
    /// What a step takes, in microseconds; reported, never waited for.
    pub prices: Prices,
    /// Really waited for in each step; zero in simulations.
    pub delay: Duration,
    pub chaos: Chaos,
    /// Sampling seeds carry a [`Tag`].
    pub tagged: bool,
}

impl SimConfig {
    /// A small device that never fails, for tests of what is above the engine.
    pub fn plain(vocab_size: u32, max_model_len: u32) -> Self {
        let group = contract::Group { pool: contract::PoolId(0), block_size: 16, kind: contract::Kind::Full };
        Self {
            capacity: KvCapacity {
                pools: vec![contract::Pool {
                    blocks: 1 + 8 * max_model_len.div_ceil(16),
                    host_blocks: 0,
                    block_bytes: 1,
                }],
                groups: vec![group],
                max_rows: 32,
                max_tokens: 512,
                max_logit_rows: 64,
                max_drafts: 0,
                max_model_len,
                depth: 1,
            },
            vocab_size,
            prices: Prices::default(),
            delay: Duration::ZERO,
            chaos: Chaos::default(),
            tagged: false,
        }
    }
}

/// See the [module](self).
///
/// # Panics
/// Its methods panic where the plan breaks a rule: that is what it is for.
pub struct SimExecutor {
    config: SimConfig,
    device: Device,
    results: VecDeque<StepResult>,
    misfortune: Misfortune,
    journal: Arc<Mutex<Journal>>,
    epoch: u32,
    /// Known after the first step of an epoch.
    next_step: Option<u64>,
    is_lost: bool,
}

/// A step between `submit` and `wait`.
struct StepResult {
    out: ModelRunnerOutput,
    /// For `sample`: the row, its index in `out.rows`, what it has read.
    to_sample: Vec<(RowId, usize, u64)>,
    seeds: Vec<u64>,
    is_sampled: bool,
}

impl SimExecutor {
    pub fn new(config: SimConfig) -> Self {
        Self {
            device: Device::new(&config.capacity, config.tagged),
            results: VecDeque::new(),
            misfortune: Misfortune::new(config.chaos),
            journal: Arc::default(),
            epoch: 0,
            next_step: None,
            is_lost: false,
            config,
        }
    }

    pub(crate) fn journal(&self) -> Arc<Mutex<Journal>> {
        Arc::clone(&self.journal)
    }

    /// Fails this call if it is its turn. A refusal hits the step of `seeds`, a loss that and all steps in flight.
    fn strike(&mut self, may_refuse: bool, seeds: &[u64]) -> Result<(), ExecutorError> {
        assert!(!self.is_lost, "a lost executor is restarted before anything else");
        self.misfortune.strike(may_refuse).inspect_err(|error| {
            let mut journal = self.journal.lock().expect("nothing panics while it holds the journal");
            self.is_lost = matches!(error, ExecutorError::Lost(_));
            let in_flight = self.results.iter().flat_map(|result| &result.seeds).filter(|_| self.is_lost);
            let hit: BTreeSet<u64> = seeds.iter().chain(in_flight).copied().collect();
            let book = if self.is_lost { &mut journal.lost } else { &mut journal.refused };
            hit.into_iter().for_each(|seed| *book.entry(seed).or_default() += 1);
        })
    }

    fn seeds(&self, plan: &SchedulerOutput) -> Vec<u64> {
        let added = |row| plan.add.iter().find(|add| add.row == row).map(|add| add.sampling.seed);
        let present = |row: RowId| self.device.row(row).map(|row| row.sampling.seed);
        plan.work.iter().filter_map(|work| added(work.row).or_else(|| present(work.row))).collect()
    }

    fn check_plan(&mut self, plan: &SchedulerOutput) {
        let capacity = &self.config.capacity;
        assert_eq!(plan.epoch, self.epoch, "a plan carries the epoch of the last restart");
        assert!(self.next_step.is_none_or(|step| step == plan.step), "steps are numbered without gaps");
        assert!(!plan.work.is_empty(), "a plan without work is not submitted");
        assert!(plan.num_tokens() <= capacity.max_tokens, "{} tokens exceed the capacity", plan.num_tokens());
        let logit_rows = |work: &RowWork| match work.want {
            want if want.prompt_logprobs => work.len,
            want => u32::from(want.sample),
        };
        let logit_rows: u32 = plan.work.iter().map(logit_rows).sum();
        assert!(logit_rows <= capacity.max_logit_rows, "{logit_rows} rows of logits exceed the capacity");
        assert!((self.results.len() as u32) < capacity.depth, "more steps in flight than the depth");
        assert!(self.results.iter().all(|result| result.is_sampled), "sample comes once per submit");
        self.next_step = Some(plan.step + 1);
    }

    /// Writes the KV of the row's share, then reads everything back for each position whose logits are wanted.
    fn forward(&mut self, work: &RowWork, plan: &SchedulerOutput, result: &mut StepResult) {
        self.device.grow(work.row, work.new_blocks.of(&plan.blocks));
        let end = work.start + work.len;
        let row = self.device.row_mut(work.row);
        assert_eq!(work.start, row.computed, "{:?} goes on where it was", work.row);
        assert!(work.len > 0 && end <= row.tokens.len() as u32, "{:?} computes a token that nobody knows", work.row);
        row.computed = end;
        self.device.write(work);
        if !work.want.sample && !work.want.prompt_logprobs {
            return;
        }
        let row = self.device.row(work.row).expect("the row was just written");
        let first = if work.want.prompt_logprobs { work.start } else { end - 1 };
        let states = self.device.read(row, first, end);
        let out = &mut result.out;
        let mut logprobs = Span { start: out.logprobs.len() as u32, len: 0 };
        if work.want.prompt_logprobs {
            let top = row.sampling.prompt_logprobs.expect("prompt log probabilities were asked for");
            for position in work.start..end.min(row.prompt_len - 1) {
                let state = states[(position - first) as usize];
                let token = row.tokens[position as usize + 1];
                out.logprobs.extend(model::logprobs(state, token, top, self.config.vocab_size));
            }
            logprobs.len = out.logprobs.len() as u32 - logprobs.start;
        }
        let is_finite = !row.tag.is_poisoned_at(end - 1);
        if work.want.sample {
            assert_eq!(end, row.tokens.len() as u32, "{:?} samples after its last token", work.row);
            let state = *states.last().expect("the last position was read");
            result.to_sample.push((work.row, out.rows.len(), state));
        }
        out.rows.push(RowOut {
            row: work.row,
            outcome: if is_finite { Outcome::Ok } else { Outcome::NonFinite },
            tokens: Span::default(),
            drafts: Span::default(),
            logprobs,
            pooled: Span::default(),
        });
    }

    fn elapsed_us(&self, plan: &SchedulerOutput) -> u32 {
        let prices = self.config.prices;
        let work = plan.work.iter().map(|work| prices.chunk(work.start, work.len)).sum::<u64>();
        (prices.per_step + work).min(u64::from(u32::MAX)) as u32
    }
}

impl Executor for SimExecutor {
    fn capacity(&self) -> &KvCapacity {
        &self.config.capacity
    }

    fn submit(&mut self, plan: &SchedulerOutput) -> Result<(), ExecutorError> {
        let seeds = self.seeds(plan);
        self.check_plan(plan);
        self.strike(true, &seeds)?;
        plan.drop.iter().for_each(|&row| self.device.drop_row(row));
        plan.add.iter().for_each(|add| self.device.add_row(add, plan));
        let out = ModelRunnerOutput {
            epoch: plan.epoch,
            step: plan.step,
            elapsed_us: self.elapsed_us(plan),
            ..ModelRunnerOutput::default()
        };
        let mut result = StepResult { out, to_sample: Vec::new(), seeds, is_sampled: false };
        plan.work.iter().for_each(|work| self.forward(work, plan, &mut result));
        self.results.push_back(result);
        Ok(())
    }

    fn sample(&mut self, masks: &Masks) -> Result<(), ExecutorError> {
        assert!(masks.rows.is_empty(), "the simulator knows no grammars");
        self.strike(false, &[])?;
        let mut result = self.results.pop_back().expect("sample comes after submit");
        assert!(!std::mem::replace(&mut result.is_sampled, true), "sample comes once per submit");
        let vocab = self.config.vocab_size;
        for (row, idx, state) in std::mem::take(&mut result.to_sample) {
            let row = self.device.row_mut(row);
            let len = row.tokens.len() as u32;
            let token = model::sample(state, len, len - row.prompt_len, &row.sampling, vocab);
            row.tokens.push(token);
            let out = &mut result.out;
            if out.rows[idx].outcome == Outcome::Ok {
                out.rows[idx].tokens = Span::push(&mut out.tokens, [token]);
                if let Some(top) = row.sampling.logprobs {
                    // A row's log probabilities are one span: the prompt's part moves behind those of earlier rows.
                    let prompt = out.rows[idx].logprobs.of(&out.logprobs).to_vec();
                    let sampled = model::logprobs(state, token, top, vocab);
                    out.rows[idx].logprobs = Span::push(&mut out.logprobs, prompt.into_iter().chain(sampled));
                }
            }
        }
        self.results.push_back(result);
        Ok(())
    }

    fn wait(&mut self, out: &mut ModelRunnerOutput) -> Result<(), ExecutorError> {
        let result = self.results.pop_front().expect("wait comes after submit");
        assert!(result.is_sampled, "wait comes after sample");
        self.strike(true, &result.seeds)?;
        std::thread::sleep(self.config.delay);
        *out = result.out;
        Ok(())
    }

    fn control(&mut self, control: &Control) -> Result<(), ExecutorError> {
        match control {
            Control::Restart { epoch } => {
                assert!(*epoch > self.epoch, "epochs only grow");
                self.epoch = *epoch;
                self.is_lost = false;
                self.device = Device::new(&self.config.capacity, self.config.tagged);
                self.results.clear();
                self.next_step = None;
                Ok(())
            }
            _ => Err(ExecutorError::Refused("the simulator only restarts".to_owned())),
        }
    }
}
