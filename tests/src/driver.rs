//! Drives an executor by hand-made plans: no scheduler, so that a test says itself what is batched with what.

use std::sync::Arc;

use contract::{
    AddRow, BlockId, Executor, GroupId, Logprob, Masks, ModelRunnerOutput, Outcome, RowId, RowWork, SamplingParams,
    SchedulerOutput, SlotMapping, Span, TokenId, Want,
};

/// One sequence to run.
#[derive(Clone, Debug)]
pub struct Request {
    pub prompt: Vec<TokenId>,
    pub sampling: Arc<SamplingParams>,
    /// Output tokens.
    pub output: usize,
    /// Most prompt tokens in one step.
    pub chunk: usize,
    /// Taken off the device and added again, with nothing computed, after this many output tokens.
    pub preempt_after: Option<usize>,
    /// The step at which it arrives.
    pub arrival: usize,
}

impl Request {
    pub fn greedy(prompt: Vec<TokenId>, output: usize) -> Self {
        let sampling = Arc::new(SamplingParams::greedy());
        Self { prompt, sampling, output, chunk: usize::MAX, preempt_after: None, arrival: 0 }
    }
}

/// An executor and its blocks, handed out in order; each run starts over on blocks that hold older runs' leftovers.
pub struct Driver<'a> {
    executor: &'a mut dyn Executor,
    next_block: u32,
    step: u64,
}

struct Running {
    row: RowId,
    tokens: Vec<TokenId>,
    computed: usize,
    blocks: Vec<BlockId>,
    new_blocks: Vec<BlockId>,
    added: bool,
    preempt_after: Option<usize>,
    logprobs: Vec<Logprob>,
}

impl<'a> Driver<'a> {
    pub fn new(executor: &'a mut dyn Executor) -> Self {
        Self { executor, next_block: 1, step: 0 }
    }

    /// Output tokens of each request, all run together from their arrival on.
    ///
    /// # Panics
    /// If the executor fails, or its pool is too small.
    pub fn generate(&mut self, requests: &[Request]) -> Vec<Vec<TokenId>> {
        self.run(requests)
            .into_iter()
            .zip(requests)
            .map(|(row, request)| row.tokens[request.prompt.len()..].to_vec())
            .collect()
    }

    /// The same, with the log probabilities that each request asked for.
    pub fn generate_with_logprobs(&mut self, requests: &[Request]) -> Vec<(Vec<TokenId>, Vec<Logprob>)> {
        let output = |(row, request): (Running, &Request)| (row.tokens[request.prompt.len()..].to_vec(), row.logprobs);
        self.run(requests).into_iter().zip(requests).map(output).collect()
    }

    /// Of each prompt token but the first: its log probability and those of the `num` best tokens.
    pub fn prompt_logprobs(&mut self, prompt: &[TokenId], num: u32) -> Vec<Vec<Logprob>> {
        let sampling = SamplingParams { prompt_logprobs: Some(num), ..SamplingParams::greedy() };
        let chunk = self.executor.capacity().max_logit_rows as usize - 1;
        let request = Request { sampling: Arc::new(sampling), chunk, ..Request::greedy(prompt.to_vec(), 1) };
        let logprobs = self.run(&[request]).remove(0).logprobs;
        logprobs.chunks(num as usize + 1).map(<[_]>::to_vec).collect()
    }

    fn run(&mut self, requests: &[Request]) -> Vec<Running> {
        self.next_block = 1;
        let mut rows: Vec<Running> =
            requests.iter().enumerate().map(|(idx, request)| Running::new(idx, request)).collect();
        let mut out = ModelRunnerOutput::default();
        for step in 0.. {
            if rows.iter().zip(requests).all(|(row, request)| row.is_done(request)) {
                break;
            }
            let plan = self.plan(&mut rows, requests, step);
            self.executor.submit(&plan).expect("the executor takes the plan");
            self.executor.sample(&Masks::default()).expect("the executor samples");
            self.executor.wait(&mut out).expect("the executor finishes the step");
            record(&mut rows, &plan, &out);
        }
        rows.iter().for_each(|row| self.drop_row(row.row));
        rows
    }

    fn plan(&mut self, rows: &mut [Running], requests: &[Request], step: usize) -> SchedulerOutput {
        let mut plan = SchedulerOutput { step: self.step, ..SchedulerOutput::default() };
        self.step += 1;
        let mut budget = self.executor.capacity().max_tokens as usize;
        for (row, request) in rows.iter_mut().zip(requests) {
            if request.arrival > step || row.is_done(request) {
                continue;
            }
            row.maybe_preempt(request, &mut plan);
            let len = (row.tokens.len() - row.computed).min(request.chunk).min(budget);
            if len > 0 {
                budget -= len;
                self.grow(row, len);
                row.push_work(request, len, &mut plan);
            }
        }
        plan
    }

    fn grow(&mut self, row: &mut Running, len: usize) {
        let capacity = self.executor.capacity();
        let mapping = SlotMapping::new(capacity.groups[0].block_size);
        while (row.blocks.len() as u32) < mapping.num_blocks((row.computed + len) as u32) {
            assert!(self.next_block < capacity.pools[0].blocks, "the test's KV pool is too small");
            row.blocks.push(BlockId(self.next_block));
            row.new_blocks.push(BlockId(self.next_block));
            self.next_block += 1;
        }
    }

    fn drop_row(&mut self, row: RowId) {
        let plan = SchedulerOutput { drop: vec![row], step: self.step, ..SchedulerOutput::default() };
        self.step += 1;
        self.executor.submit(&plan).expect("a row can be dropped");
        self.executor.sample(&Masks::default()).expect("an empty step samples nothing");
        self.executor.wait(&mut ModelRunnerOutput::default()).expect("an empty step ends");
    }
}

impl Running {
    fn new(idx: usize, request: &Request) -> Self {
        Self {
            row: RowId(idx as u32),
            tokens: request.prompt.clone(),
            computed: 0,
            blocks: Vec::new(),
            new_blocks: Vec::new(),
            added: false,
            preempt_after: request.preempt_after,
            logprobs: Vec::new(),
        }
    }

    fn is_done(&self, request: &Request) -> bool {
        self.tokens.len() >= request.prompt.len() + request.output
    }

    fn maybe_preempt(&mut self, request: &Request, plan: &mut SchedulerOutput) {
        if self.preempt_after.is_some_and(|after| self.tokens.len() - request.prompt.len() >= after) {
            plan.drop.push(self.row);
            self.preempt_after = None;
            (self.computed, self.added) = (0, false);
            self.blocks.clear();
        }
    }

    fn push_work(&mut self, request: &Request, len: usize, plan: &mut SchedulerOutput) {
        if !self.added {
            plan.add.push(AddRow {
                row: self.row,
                tokens: Span::push(&mut plan.tokens, self.tokens.iter().copied()),
                prompt_len: request.prompt.len() as u32,
                computed: self.computed as u32,
                blocks: Span::default(),
                sampling: Arc::clone(&request.sampling),
                adapter: None,
            });
            self.added = true;
        }
        let new_blocks = Span::push(&mut plan.blocks, self.new_blocks.drain(..).map(|block| (GroupId(0), block)));
        let prompt_logprobs = request.sampling.prompt_logprobs.is_some() && self.computed < request.prompt.len();
        plan.work.push(RowWork {
            row: self.row,
            start: self.computed as u32,
            len: len as u32,
            forced: Span::default(),
            drafts: Span::default(),
            new_blocks,
            want: Want { sample: self.computed + len == self.tokens.len(), prompt_logprobs, ..Want::default() },
        });
    }
}

fn record(rows: &mut [Running], plan: &SchedulerOutput, out: &ModelRunnerOutput) {
    for work in &plan.work {
        rows[work.row.idx()].computed += work.len as usize;
    }
    for result in &out.rows {
        let row = &mut rows[result.row.idx()];
        assert_eq!(result.outcome, Outcome::Ok, "row {} has finite logits", result.row.0);
        row.tokens.extend(result.tokens.of(&out.tokens));
        row.logprobs.extend(result.logprobs.of(&out.logprobs));
    }
}
