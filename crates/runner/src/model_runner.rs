//! A model on a device, as an [`Executor`]: runs each step at once, one in flight.

use std::sync::Arc;
use std::time::Instant;

use contract::{
    AddRow, BlockId, Control, Executor, ExecutorError, Group, GroupId, Kind, KvCapacity, Masks, ModelRunnerOutput,
    Outcome, Pool, PoolId, RowId, RowOut, RowWork, SamplingParams, SchedulerOutput, Span, Want,
};
use models::{CausalLm, KvGroup, ModelError};
use sampler::{Row as SampleRow, Sampled};
use tensor::{Backend, CacheSpec, DeviceError, Memory, StepKey};
use thiserror::Error;
use weights::Checkpoint;

use crate::batch::{InputBatch, Wanted};
use crate::check::{Check, check_masks};
use crate::memory::{Mebibytes, MemoryPlan, RunnerOptions, Shortage, Sizes};
use crate::rows::Rows;
use crate::workspace::plan_workspace;

/// One device's implementation of the seam.
pub struct ModelRunner<B: Backend> {
    backend: B,
    model: Box<dyn CausalLm<B>>,
    caches: Vec<B::Cache>,
    capacity: KvCapacity,
    plan: MemoryPlan,
    rows: Rows,
    batch: InputBatch,
    /// The forward that waits for its sampling.
    logits: Option<B::Buf>,
    sampled: Sampled,
    /// Empty between steps; kept for its memory.
    sample_rows: Vec<SampleRow<'static>>,
    output: ModelRunnerOutput,
    epoch: u32,
    started: Instant,
}

/// Why a model cannot be run here.
#[derive(Debug, Error)]
pub enum RunnerError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error("the first step failed: {0}")]
    WarmUp(String),
    #[error("the weights take at least {}, and {} are free: {}", Mebibytes(shortage.weights), Mebibytes(shortage.available), advice)]
    TooLarge { shortage: Shortage, advice: String },
    #[error("--max-model-len {asked} is more than the {limit} tokens that the model was made for")]
    TooLong { asked: u32, limit: u32 },
    #[error(
        "nothing is left for the KV cache, as {sizes}: --max-num-batched-tokens and --max-num-seqs make the workspace smaller, \
         --quantization the weights"
    )]
    NoRoom { sizes: Sizes },
    #[error("the KV cache was to take {asked}, but {sizes}: give it less with --kv-cache-memory")]
    OutOfMemory { asked: Mebibytes, sizes: Sizes },
    #[error(
        "a KV cache of {kv} holds {tokens} tokens, and one sequence may need {needed} ({sizes}): give at least \
         --kv-cache-memory {needed_bytes}, a smaller --max-model-len, or more room by --quantization"
    )]
    KvTooSmall { kv: Mebibytes, tokens: u32, needed: u32, needed_bytes: u64, sizes: Sizes },
}

impl RunnerError {
    /// What is wanted of the memory, where there is too little of it.
    pub fn shortage(&self) -> Option<Shortage> {
        let of = |sizes: &Sizes, kv| Shortage {
            weights: sizes.weights,
            workspace: Some(sizes.workspace),
            kv,
            available: sizes.weights + sizes.free,
        };
        let shortage = match self {
            Self::TooLarge { shortage, .. } => *shortage,
            Self::NoRoom { sizes } => of(sizes, 0),
            Self::OutOfMemory { asked, sizes } => of(sizes, asked.0),
            Self::KvTooSmall { needed_bytes, sizes, .. } => of(sizes, *needed_bytes),
            _ => return None,
        };
        (shortage.missing() > 0).then_some(shortage)
    }
}

impl<B: Backend> ModelRunner<B> {
    /// Loads the model, plans the memory and allocates it.
    pub fn new(mut backend: B, checkpoint: &Checkpoint, options: RunnerOptions) -> Result<Self, RunnerError> {
        let wanted_len = wanted_len(checkpoint, &options)?;
        check_room(checkpoint, &options, &backend.memory())?;
        let model = models::load(checkpoint, &mut backend, wanted_len as usize)?;
        let specs = cache_specs(model.kv_groups(), &options);
        let block_bytes = specs.iter().map(|spec| backend.block_bytes(spec)).sum();
        // Planning runs the forward without computing: caches of one block are enough.
        let mut caches = new_caches(&mut backend, &specs, 1)?;
        plan_workspace(&mut backend, model.as_ref(), &mut caches, &options, wanted_len)?;
        let memory = backend.memory();
        let workspace = backend.workspace_bytes();
        let sizes = Sizes { weights: memory.resident, workspace, free: memory.free, dedicated: memory.dedicated };
        let plan = MemoryPlan::divide(&options, wanted_len, block_bytes, sizes)?;
        let caches = new_caches(&mut backend, &specs, plan.kv_blocks as usize + 1)?;
        let capacity = capacity(&specs, &plan, &options, &backend);
        plan.warnings(wanted_len).iter().for_each(|warning| tracing::warn!("{warning}"));
        let mut runner = Self {
            rows: Rows::new(capacity.max_rows, specs.len(), plan.max_model_len, options.block_size),
            batch: batch(&options, specs.len(), plan.max_model_len),
            sampled: Sampled::default(),
            sample_rows: Vec::with_capacity(capacity.max_logit_rows as usize),
            output: ModelRunnerOutput::default(),
            logits: None,
            epoch: 0,
            started: Instant::now(),
            backend,
            model,
            caches,
            capacity,
            plan,
        };
        runner.warm_up()?;
        Ok(runner)
    }

    /// Runs one token that nobody asked for, so that the first request finds memory and threads in place.
    fn warm_up(&mut self) -> Result<(), RunnerError> {
        let plan = SchedulerOutput {
            add: vec![AddRow {
                row: RowId(0),
                tokens: Span { start: 0, len: 1 },
                prompt_len: 1,
                computed: 0,
                blocks: Span { start: 0, len: self.caches.len() as u32 },
                sampling: Arc::new(SamplingParams::default()),
                adapter: None,
            }],
            work: vec![RowWork {
                row: RowId(0),
                start: 0,
                len: 1,
                forced: Span::default(),
                drafts: Span::default(),
                new_blocks: Span::default(),
                want: Want { sample: true, ..Want::default() },
            }],
            tokens: vec![0],
            blocks: (0..self.caches.len() as u32).map(|group| (GroupId(group), BlockId(1))).collect(),
            ..SchedulerOutput::default()
        };
        let warmed = self.submit(&plan).and_then(|()| self.sample(&Masks::default()));
        warmed.map_err(|error| RunnerError::WarmUp(error.to_string()))?;
        self.output.clear();
        self.rows.clear();
        Ok(())
    }

    /// Where the memory goes.
    pub fn plan(&self) -> &MemoryPlan {
        &self.plan
    }

    /// Brings the rows up to the plan.
    fn apply(&mut self, plan: &SchedulerOutput) -> Result<(), ExecutorError> {
        plan.drop.iter().for_each(|&row| self.rows.drop_row(row));
        plan.add.iter().for_each(|add| self.rows.add(add, plan));
        for copy in &plan.copies {
            let cache = &mut self.caches[copy.group.idx()];
            self.backend.copy_blocks(cache, &[(copy.from.0, copy.to.0)]).map_err(executor_error)?;
            self.output.copies_done.push(copy.id);
        }
        for work in &plan.work {
            self.rows.extend_tables(work.row, work.new_blocks, plan);
            self.rows.push_forced(work.row, work.forced.of(&plan.tokens));
        }
        Ok(())
    }

    fn forward(&mut self) -> Result<B::Buf, DeviceError> {
        let (key, masks) = (self.key(), Masks::default());
        let rows = sample_rows(std::mem::take(&mut self.sample_rows), &self.batch.wanted, &self.rows, &masks);
        let (model, caches) = (&self.model, &mut self.caches);
        let logits = self.backend.step(key, &self.batch.inputs, &rows, &mut |b| model.forward(b, caches));
        self.sample_rows = recycle(rows);
        logits
    }

    /// What the step is run as; one that decodes is filled up to its bucket.
    fn key(&mut self) -> StepKey {
        let inputs = &mut self.batch.inputs;
        let bucket = if inputs.is_decode() { self.backend.decode_bucket(inputs.num_seqs()) } else { None };
        let Some(bucket) = bucket else { return StepKey::Eager };
        let bucket = bucket.min(self.capacity.max_logit_rows);
        inputs.pad(bucket as usize);
        StepKey::Decode { bucket }
    }

    /// Turns the sampler's rows, in the order of `wanted`, into the step's result.
    fn record(&mut self) {
        let mut results = self.sampled.rows.iter();
        for wanted in &self.batch.wanted {
            let count = wanted.num_known + usize::from(wanted.sample.is_some());
            let rows = &results.as_slice()[..count];
            results.nth(count - 1).expect("the sampler answers every row");
            let finite = rows.iter().all(|row| row.finite);
            let start = rows[0].logprobs.start;
            let end = rows[count - 1].logprobs.start + rows[count - 1].logprobs.len;
            let token = wanted.sample.is_some().then(|| rows[count - 1].token).filter(|_| finite);
            if let Some(token) = token {
                self.rows.push_output(wanted.row, token);
            }
            self.output.rows.push(RowOut {
                row: wanted.row,
                outcome: if finite { Outcome::Ok } else { Outcome::NonFinite },
                tokens: Span::push(&mut self.output.tokens, token),
                drafts: Span::default(),
                logprobs: Span { start, len: end - start },
                pooled: Span::default(),
            });
        }
        self.output.logprobs.extend_from_slice(&self.sampled.logprobs);
    }
}

impl<B: Backend> Executor for ModelRunner<B> {
    fn capacity(&self) -> &KvCapacity {
        &self.capacity
    }

    fn submit(&mut self, plan: &SchedulerOutput) -> Result<(), ExecutorError> {
        self.started = Instant::now();
        let (rows, capacity, vocab_size) = (&self.rows, &self.capacity, self.model.vocab_size());
        let check = Check { plan, rows, capacity, vocab_size, epoch: self.epoch };
        check.run().map_err(ExecutorError::Refused)?;
        self.output.clear();
        (self.output.epoch, self.output.step) = (plan.epoch, plan.step);
        self.apply(plan)?;
        self.batch.fill(plan, &self.rows);
        self.logits = match plan.work.is_empty() {
            true => None,
            false => Some(self.forward().map_err(executor_error)?),
        };
        Ok(())
    }

    fn sample(&mut self, masks: &Masks) -> Result<(), ExecutorError> {
        let masked = self.batch.wanted.iter().filter(|wanted| wanted.masked).map(|wanted| wanted.row);
        check_masks(masks, masked).map_err(ExecutorError::Refused)?;
        if let Some(logits) = self.logits.take() {
            self.sampled.clear();
            let mut rows = sample_rows(std::mem::take(&mut self.sample_rows), &self.batch.wanted, &self.rows, masks);
            let done = self.backend.sample(&logits, &mut rows, &mut self.sampled);
            self.sample_rows = recycle(rows);
            done.map_err(executor_error)?;
            self.record();
        }
        self.output.elapsed_us = u32::try_from(self.started.elapsed().as_micros()).unwrap_or(u32::MAX);
        Ok(())
    }

    fn wait(&mut self, out: &mut ModelRunnerOutput) -> Result<(), ExecutorError> {
        std::mem::swap(out, &mut self.output);
        Ok(())
    }

    fn control(&mut self, control: &Control) -> Result<(), ExecutorError> {
        match control {
            &Control::Restart { epoch } => {
                self.epoch = epoch;
                self.rows.clear();
                self.batch.wanted.clear();
                self.logits = None;
                Ok(())
            }
            Control::LoadAdapter { .. } | Control::UnloadAdapter { .. } | Control::Sleep => {
                Err(ExecutorError::Refused("this executor has no adapters and does not sleep".to_owned()))
            }
        }
    }
}

/// The rows of a step; a mask that has not arrived yet allows nothing. Takes and gives back a vector for its memory.
fn sample_rows<'a>(
    mut out: Vec<SampleRow<'a>>,
    wanted: &[Wanted],
    rows: &'a Rows,
    masks: &'a Masks,
) -> Vec<SampleRow<'a>> {
    wanted.iter().for_each(|wanted| push_sample_rows(&mut out, wanted, rows, masks));
    out
}

fn push_sample_rows<'a>(out: &mut Vec<SampleRow<'a>>, wanted: &Wanted, rows: &'a Rows, masks: &'a Masks) {
    let row = rows.get(wanted.row);
    let params = row.sampling.as_deref().expect("a row that ran has sampling parameters");
    let sample_row = |logits: usize, position: u32| SampleRow {
        logits,
        params,
        position,
        tokens: &row.tokens,
        prompt_len: row.prompt_len,
        counts: sampler::has_penalties(params).then_some(&row.counts),
        mask: None,
        known: None,
    };
    for idx in 0..wanted.num_known {
        let known = Some(row.tokens[wanted.first_known + idx]);
        out.push(SampleRow { known, ..sample_row(wanted.first_logits + idx, (wanted.first_known + idx) as u32) });
    }
    if let Some(position) = wanted.sample {
        let mask = wanted.masked.then(|| mask_of(masks, wanted.row));
        out.push(SampleRow { mask, ..sample_row(wanted.first_logits + wanted.num_known, position) });
    }
}

fn mask_of(masks: &Masks, row: RowId) -> &[u32] {
    let words = masks.words_per_row as usize;
    let idx = masks.rows.iter().position(|&masked| masked == row);
    idx.map_or(&[], |idx| &masks.bits[idx * words..(idx + 1) * words])
}

/// The memory of a vector of borrowed rows, for the next step. (Collecting an emptied vector keeps its allocation.)
fn recycle(mut rows: Vec<SampleRow<'_>>) -> Vec<SampleRow<'static>> {
    rows.clear();
    rows.into_iter().map(|_| unreachable!("the rows were cleared")).collect()
}

fn executor_error(error: DeviceError) -> ExecutorError {
    if error.sticky { ExecutorError::Lost(error.message) } else { ExecutorError::Refused(error.message) }
}

fn wanted_len(checkpoint: &Checkpoint, options: &RunnerOptions) -> Result<u32, RunnerError> {
    let limit = u32::try_from(checkpoint.config().max_position_embeddings).unwrap_or(u32::MAX);
    match options.max_model_len {
        Some(asked) if asked > limit => Err(RunnerError::TooLong { asked, limit }),
        asked => Ok(asked.unwrap_or(limit)),
    }
}

/// Refuses what cannot fit before any of it is loaded.
fn check_room(checkpoint: &Checkpoint, options: &RunnerOptions, memory: &Memory) -> Result<(), RunnerError> {
    let (weights, available) = (checkpoint.least_bytes(), memory.free);
    if weights <= available {
        return Ok(());
    }
    let brings = |(scheme, bytes)| format!("--quantization {scheme} brings them to {}, ", Mebibytes(bytes));
    let elsewhere = if memory.dedicated { "--device cpu takes the machine's memory, " } else { "" };
    let advice =
        format!("{}{elsewhere}a smaller model takes less", checkpoint.smaller().map(brings).collect::<String>());
    let kv = options.kv_cache_memory.unwrap_or(0);
    Err(RunnerError::TooLarge { shortage: Shortage { weights, workspace: None, kv, available }, advice })
}

fn cache_specs(groups: &[KvGroup], options: &RunnerOptions) -> Vec<CacheSpec> {
    let spec = |(group, layout): (usize, &KvGroup)| CacheSpec {
        group,
        layers: layout.layers,
        num_kv_heads: layout.num_kv_heads,
        head_dim: layout.head_dim,
        block_size: options.block_size as usize,
        blocks: 0,
        dtype: options.kv_dtype,
    };
    groups.iter().enumerate().map(spec).collect()
}

fn new_caches<B: Backend>(backend: &mut B, specs: &[CacheSpec], blocks: usize) -> Result<Vec<B::Cache>, DeviceError> {
    specs.iter().map(|spec| backend.new_cache(&CacheSpec { blocks, ..spec.clone() })).collect()
}

/// A step samples at most one token a row, and judges prompt tokens within the same bound.
pub(crate) fn max_logit_rows(options: &RunnerOptions) -> u32 {
    options.max_num_seqs.min(options.max_num_batched_tokens)
}

fn batch(options: &RunnerOptions, num_groups: usize, max_model_len: u32) -> InputBatch {
    let block_sizes = vec![options.block_size; num_groups];
    let (tokens, seqs) = (options.max_num_batched_tokens as usize, options.max_num_seqs as usize);
    InputBatch::new(&block_sizes, tokens, seqs, max_model_len)
}

/// Every group has a pool of its own, and all have the same number of blocks. A windowed group keeps its whole past: the
/// attention masks what left the window, and a prefix stays shareable at any length.
fn capacity<B: Backend>(specs: &[CacheSpec], plan: &MemoryPlan, options: &RunnerOptions, backend: &B) -> KvCapacity {
    let pool = |spec| Pool { blocks: plan.kv_blocks + 1, host_blocks: 0, block_bytes: backend.block_bytes(spec) };
    let group = |idx| Group { pool: PoolId(idx as u32), block_size: options.block_size, kind: Kind::Full };
    KvCapacity {
        pools: specs.iter().map(pool).collect(),
        groups: (0..specs.len()).map(group).collect(),
        max_rows: options.max_num_seqs,
        max_tokens: options.max_num_batched_tokens,
        max_logit_rows: max_logit_rows(options),
        max_drafts: 0,
        max_model_len: plan.max_model_len,
        depth: 1,
    }
}
