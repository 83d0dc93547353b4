//! Paged attention for any mix of prefill chunks and decodes, read in place through the block table.
//!
//! A job is one sequence, one KV head, and up to twelve queries (token, query head) that share it. The past is cut into
//! partitions of 512 absolute positions, each reduced by itself (`partition`), and partitions are merged in their order.
//! So a query's bits depend on its position and its own past, never on which queries share its job, on how the prompt
//! was cut, or on whether one thread reduced all partitions or each was a task of its own, as for few long sequences.
//!
//! Masked scores are selected away before they are used. Positions past the last query of the job, which a recycled block
//! may hold NaN in, are never read as values.

mod partition;
mod softmax;

use std::mem::MaybeUninit;

use tensor::{AttnSpec, GroupInputs, StepInputs};

use super::Cpu;
use super::act::Encoded;
use super::arena::Shared;
use super::cache::{Element, LayerView};
use super::isa::Isa;
use super::pool::Pool;
use super::rope::MAX_HEAD_DIM;
use super::simd::{LANES, Op, Simd};
use partition::{Queries, Record};

/// Queries in a job.
const MAX_QUERIES: usize = 12;
/// Positions in a partition.
const PARTITION: usize = 512;
/// Where there are fewer jobs than this for each thread, partitions become tasks.
const JOBS_PER_THREAD: usize = 4;
/// Most records of split jobs; beyond, jobs stay whole.
const MAX_RECORDS: usize = 8192;

/// One layer's attention.
pub(super) struct Attention<'a> {
    /// [T, Hq * D]
    pub q: *const f32,
    pub spec: &'a AttnSpec<Cpu>,
    /// [Hq]: a logit a head in the softmax's denominator.
    pub sinks: Option<*const f32>,
    pub cache: LayerView,
    pub inputs: &'a StepInputs,
    pub group: &'a GroupInputs,
    pub emit: Encoded,
}

// SAFETY: jobs write disjoint heads of disjoint rows.
unsafe impl Sync for Attention<'_> {}

/// The jobs of a step, for one KV head; made anew by each op, in memory that is kept.
#[derive(Default)]
pub(super) struct Jobs {
    jobs: Vec<Job>,
    /// Of all jobs, for one KV head.
    num_records: usize,
    /// Of the longest job.
    num_partitions: usize,
}

/// Queries of one sequence that share a KV head; they count (token, head) with the head fastest.
#[derive(Clone, Copy, Debug)]
struct Job {
    seq: usize,
    first_query: usize,
    end_query: usize,
    /// Partitions that any of its queries sees.
    first_partition: usize,
    end_partition: usize,
    /// Its first record, among those of one KV head.
    record: usize,
}

impl Jobs {
    /// Room for the jobs of `tokens` tokens.
    pub fn reserve(&mut self, tokens: usize, spec: &AttnSpec<Cpu>) {
        let shared = spec.num_heads / spec.num_kv_heads;
        self.jobs.clear();
        self.jobs.reserve(tokens * shared.div_ceil(MAX_QUERIES));
    }

    /// Lists the jobs of a step, the longest first, so that the last to end are short ones.
    pub fn list(&mut self, inputs: &StepInputs, spec: &AttnSpec<Cpu>) {
        let shared = spec.num_heads / spec.num_kv_heads;
        self.jobs.clear();
        (self.num_records, self.num_partitions) = (0, 0);
        for (seq, tokens) in inputs.cu_seqlens_q.windows(2).enumerate() {
            let (start, end) = (tokens[0] as usize, tokens[1] as usize);
            let queries = (end - start) * shared;
            for first_query in (0..queries).step_by(MAX_QUERIES) {
                let end_query = queries.min(first_query + MAX_QUERIES);
                let positions = &inputs.positions[start + first_query / shared..start + end_query.div_ceil(shared)];
                self.push(Job { seq, first_query, end_query, ..Job::EMPTY }, positions, spec);
            }
        }
        self.jobs.sort_unstable_by_key(|job| (job.first_partition.wrapping_sub(job.end_partition), job.record));
    }

    fn push(&mut self, job: Job, positions: &[u32], spec: &AttnSpec<Cpu>) {
        let from = positions.iter().map(|&position| first_seen(position as usize, spec.window)).min();
        let to = positions.iter().max().map_or(0, |&position| position as usize + 1);
        let (first_partition, end_partition) = (from.unwrap_or(0) / PARTITION, to.div_ceil(PARTITION));
        self.jobs.push(Job { first_partition, end_partition, record: self.num_records, ..job });
        self.num_records += (job.end_query - job.first_query) * (end_partition - first_partition);
        self.num_partitions = self.num_partitions.max(end_partition - first_partition);
    }

    /// Bytes of records, if the jobs are better split.
    pub fn split_bytes(&self, spec: &AttnSpec<Cpu>, threads: usize) -> Option<usize> {
        let records = self.num_records * spec.num_kv_heads;
        let few = self.jobs.len() * spec.num_kv_heads < JOBS_PER_THREAD * threads;
        (threads > 1 && few && self.num_partitions > 1 && records <= MAX_RECORDS)
            .then(|| records * Record::len(spec.head_dim) * 4)
    }

    /// The most that [`Jobs::split_bytes`] says.
    pub fn max_split_bytes(spec: &AttnSpec<Cpu>, threads: usize) -> usize {
        if threads > 1 { MAX_RECORDS * Record::len(spec.head_dim) * 4 } else { 0 }
    }
}

impl Job {
    const EMPTY: Job = Job { seq: 0, first_query: 0, end_query: 0, first_partition: 0, end_partition: 0, record: 0 };
}

/// The first position that a query at `position` sees.
fn first_seen(position: usize, window: Option<usize>) -> usize {
    (position + 1).saturating_sub(window.unwrap_or(usize::MAX))
}

impl Attention<'_> {
    /// Runs `jobs`, split over `records` where there are some.
    pub fn run(&self, pool: &Pool, isa: Isa, jobs: &Jobs, records: Option<*mut f32>) {
        let kv_heads = self.spec.num_kv_heads;
        let work = |idx: usize| Work { attention: self, job: jobs.jobs[idx / kv_heads], kv_head: idx % kv_heads };
        let Some(records) = records else {
            return pool.run(jobs.jobs.len() * kv_heads, &|idx| {
                // SAFETY: `isa` is available; the jobs' queries exist.
                unsafe { isa.run(Whole(work(idx))) }
            });
        };
        let (records, per_head) = (Shared(records), jobs.num_records * Record::len(self.spec.head_dim));
        let partitions = jobs.num_partitions;
        pool.run(jobs.jobs.len() * kv_heads * partitions, &|idx| {
            let work = work(idx / partitions);
            let partition = work.job.first_partition + idx % partitions;
            if partition < work.job.end_partition {
                // SAFETY: each KV head has records of its own.
                let records = unsafe { work.records(records.get().add(work.kv_head * per_head), partition) };
                // SAFETY: as above.
                unsafe { isa.run(Part { work, partition, records }) };
            }
        });
        pool.run(jobs.jobs.len() * kv_heads, &|idx| {
            let work = work(idx);
            // SAFETY: as above.
            unsafe { isa.run(Merge { records: records.get().add(work.kv_head * per_head), work }) };
        });
    }
}

/// A job of one KV head.
#[derive(Clone, Copy)]
struct Work<'a> {
    attention: &'a Attention<'a>,
    job: Job,
    kv_head: usize,
}

/// All partitions of a job, one after the other.
struct Whole<'a>(Work<'a>);

/// One partition of a job, to a record for each of its queries.
struct Part<'a> {
    work: Work<'a>,
    partition: usize,
    records: *mut f32,
}

/// The end of a split job.
struct Merge<'a> {
    work: Work<'a>,
    records: *mut f32,
}

/// Floats of the records of a job's one partition.
const JOB_RECORDS: usize = MAX_QUERIES * Record::len(MAX_HEAD_DIM);

impl Op for Whole<'_> {
    const PAIRS: bool = true;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self(work) = self;
        let (job, len) = (work.job, Record::len(work.attention.spec.head_dim));
        let mut totals = [const { MaybeUninit::<f32>::uninit() }; JOB_RECORDS];
        let mut parts = [const { MaybeUninit::<f32>::uninit() }; JOB_RECORDS];
        let (totals, parts) = (totals.as_mut_ptr().cast::<f32>(), parts.as_mut_ptr().cast::<f32>());
        // SAFETY: both hold a record for each of the job's queries.
        unsafe {
            S::call(Part { work, partition: job.first_partition, records: totals });
            for partition in job.first_partition + 1..job.end_partition {
                S::call(Part { work, partition, records: parts });
                for idx in 0..job.end_query - job.first_query {
                    Record(totals.add(idx * len)).merge::<S>(Record(parts.add(idx * len)), len);
                }
            }
            for idx in 0..job.end_query - job.first_query {
                work.emit::<S>(job.first_query + idx, Record(totals.add(idx * len)));
            }
        }
    }
}

impl Op for Part<'_> {
    const PAIRS: bool = true;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { work, partition, records } = self;
        // SAFETY: as whoever made it vouches.
        unsafe {
            match work.attention.cache.element {
                Element::Bf16 => work.reduce::<S, true>(partition, records),
                Element::F32 => work.reduce::<S, false>(partition, records),
            }
        }
    }
}

impl Op for Merge<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (work, job, len) = (self.work, self.work.job, Record::len(self.work.attention.spec.head_dim));
        // SAFETY: the job's partitions left their records.
        unsafe {
            let totals = work.records(self.records, job.first_partition);
            for idx in 0..job.end_query - job.first_query {
                let total = Record(totals.add(idx * len));
                for partition in job.first_partition + 1..job.end_partition {
                    total.merge::<S>(Record(work.records(self.records, partition).add(idx * len)), len);
                }
                work.emit::<S>(job.first_query + idx, total);
            }
        }
    }
}

impl Work<'_> {
    /// The records of one partition among those of the KV head.
    unsafe fn records(&self, records: *mut f32, partition: usize) -> *mut f32 {
        let Job { first_query, end_query, first_partition, record, .. } = self.job;
        let idx = record + (partition - first_partition) * (end_query - first_query);
        // SAFETY: `Jobs` counted a record for each partition and query.
        unsafe { records.add(idx * Record::len(self.attention.spec.head_dim)) }
    }

    /// Reduces one partition to a record for each query of the job, in blocks of queries times tiles, as large as the registers allow
    /// and with enough chains to hide latency.
    #[inline(always)]
    unsafe fn reduce<S: Simd, const BF16: bool>(self, partition: usize, records: *mut f32) {
        let (first, len) = (self.job.first_query, Record::len(self.attention.spec.head_dim));
        let mut query = first;
        while query < self.job.end_query {
            // SAFETY: queries stay below `end_query`, and each has a record.
            unsafe {
                let out = records.add((query - first) * len);
                query += match self.job.end_query - query {
                    12.. if S::WIDE => self.queries::<S, BF16, 12, 2>(query, partition, out),
                    6.. if S::WIDE => self.queries::<S, BF16, 6, 4>(query, partition, out),
                    4.. => self.queries::<S, BF16, 4, 1>(query, partition, out),
                    3.. if S::WIDE => self.queries::<S, BF16, 3, 4>(query, partition, out),
                    3.. => self.queries::<S, BF16, 3, 2>(query, partition, out),
                    _ => self.queries::<S, BF16, 1, 4>(query, partition, out),
                };
            }
        }
    }

    /// Reduces it for `Q` queries from `first` on; returns `Q`.
    #[inline(always)]
    unsafe fn queries<S: Simd, const BF16: bool, const Q: usize, const T: usize>(
        self,
        first: usize,
        partition: usize,
        records: *mut f32,
    ) -> usize {
        // SAFETY: as the caller vouches.
        unsafe { S::call(Queries::<BF16, Q, T> { work: self, first, partition, records }) };
        Q
    }

    /// Token index in the step, and query head.
    #[inline(always)]
    fn place(&self, query: usize) -> (usize, usize) {
        let shared = self.attention.spec.num_heads / self.attention.spec.num_kv_heads;
        let token = self.attention.inputs.cu_seqlens_q[self.job.seq] as usize + query / shared;
        (token, self.kv_head * shared + query % shared)
    }

    /// What a query's values are multiplied by: one over its weights, and the sink's where there is one.
    #[inline(always)]
    unsafe fn inverse<S: Simd>(&self, head: usize, record: Record) -> f32 {
        // SAFETY: the record and the head exist.
        unsafe {
            let sum = S::sum(record.sums::<S>());
            let Some(sinks) = self.attention.sinks else { return 1.0 / sum };
            let (max, sink) = (record.max(), *sinks.add(head));
            let peak = max.max(sink);
            let fade = (max - peak).exp();
            fade / (sum * fade + (sink - peak).exp())
        }
    }

    /// The weighted mean of the values that a query saw.
    #[inline(always)]
    unsafe fn emit<S: Simd>(&self, query: usize, record: Record) {
        let (emit, dim) = (&self.attention.emit, self.attention.spec.head_dim);
        let (token, head) = self.place(query);
        // SAFETY: the token, the head and its columns exist.
        unsafe {
            let inverse = S::splat(self.inverse::<S>(head, record));
            for col in (0..dim).step_by(2 * LANES) {
                let first = S::mul(S::load(record.values().add(col)), inverse);
                if col + 2 * LANES <= dim {
                    let second = S::mul(S::load(record.values().add(col + LANES)), inverse);
                    emit.put32::<S>(token, head * dim + col, first, second);
                } else {
                    emit.put16::<S>(token, head * dim + col, first);
                }
            }
        }
    }
}
