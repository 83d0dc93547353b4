//! Sampling on the device: rows are described in one upload, two kernels at most pick their tokens (one where all are greedy), and
//! one download brings back what they found. One more kernel runs where tokens are biased, penalized or out, and one where log
//! probabilities are wanted.
//!
//! The host samples, from a row that it downloads, what asks for more than the kernels do: more than 512 likeliest tokens or two biases
//! of one token, and lists beyond what a step has room for.

mod described;

use std::ops::Range;
use std::rc::Rc;

use sampler::{Candidate, Judged, Row, Sampled, Scratch};
use tensor::DeviceError;

use super::device::{Address, Device};
use super::int;
use super::memory::Memory;
use super::params::{SampleResult, Sampling};
use described::{Answer, Capacity, Described, ROW_WORDS};

/// Tokens of a tile, threads that scan it, and threads that draw: as `logits.cu` and `select.cuh` have them.
const TILE: usize = 8192;
const SCAN_THREADS: usize = 256;
const SELECT_THREADS: usize = 512;
/// The candidate of a row that cannot be sampled.
const FAULT: u64 = 0;
/// Double words of a result.
const RESULT_WORDS: usize = size_of::<SampleResult>() / 8;

/// What sampling keeps between steps.
#[derive(Default)]
pub(super) struct Sampler {
    planned: Capacity,
    places: Option<Places>,
    described: Described,
    /// Results, then likeliest tokens, as the device wrote them.
    results: Vec<u64>,
    best: Vec<Candidate>,
    /// One row's logits, and what the host samples them with.
    logits: Vec<f32>,
    scratch: Scratch,
}

/// Where everything lies on the device. Addresses stay the same from step to step.
struct Places {
    capacity: Capacity,
    sampling: Sampling,
    /// All of it.
    _memory: Memory,
}

impl Places {
    fn new(device: &Rc<Device>, capacity: Capacity) -> Result<Self, DeviceError> {
        let (rows, tiles) = (capacity.rows, capacity.vocab.div_ceil(TILE));
        let sizes = sizes(&capacity);
        let memory = device.alloc(sizes.iter().sum())?;
        let mut next = memory.address();
        let [results, bests, partials, rows_at, lists, saved, arrived, tokens] = sizes.map(|size| {
            next += size as Address;
            next - size as Address
        });
        device.zero(arrived, rows * 4)?;
        let (logits, vocab, tiles) = (0, int(capacity.vocab), int(tiles));
        let sampling =
            Sampling { rows: rows_at, lists, logits, saved, partials, arrived, results, bests, tokens, vocab, tiles };
        Ok(Self { capacity, sampling, _memory: memory })
    }
}

/// Bytes of results, likeliest tokens, candidates of tiles, rows, lists, what edits replaced, counters and tokens.
fn sizes(capacity: &Capacity) -> [usize; 8] {
    let Capacity { rows, vocab } = *capacity;
    let lists = capacity.list_words() * 4;
    let partials = rows * (vocab.div_ceil(TILE) + 1) * 8;
    [rows * RESULT_WORDS * 8, capacity.num_best() * 8, partials, rows * ROW_WORDS * 4, lists, lists, rows * 4, rows * 4]
        .map(|size| size.next_multiple_of(16))
}

impl Sampler {
    /// Makes room for steps of this many rows of logits.
    pub fn plan(&mut self, rows: usize, vocab: usize) {
        self.planned = self.planned.cover(Capacity { rows, vocab });
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> usize {
        sizes(&self.planned).iter().sum()
    }

    /// What each row of the logits sampled last, for whoever runs next on the device.
    #[cfg(test)]
    pub fn tokens(&self) -> Option<Address> {
        self.places.as_ref().map(|places| places.sampling.tokens)
    }

    /// Samples `rows`, each from its own row of `logits [num_rows, vocab]`, and appends the results.
    pub fn run(
        &mut self,
        device: &Rc<Device>,
        (logits, num_rows, vocab): (Address, usize, usize),
        rows: &[Row<'_>],
        out: &mut Sampled,
    ) -> Result<(), DeviceError> {
        self.plan(num_rows, vocab);
        let params = Sampling { logits, ..self.describe(device, rows, vocab)? };
        self.launch(device, rows.len(), &params)?;
        self.results.resize(self.planned.rows * RESULT_WORDS + self.described.num_best, 0);
        device.download(params.results, &mut self.results)?;
        for (idx, row) in rows.iter().enumerate() {
            match self.described.answers[idx].clone() {
                Answer::OnHost => {
                    let logits = logits + (row.logits * vocab * 4) as Address;
                    self.logits.resize(vocab, 0.0);
                    device.download(logits, &mut self.logits)?;
                    sampler::sample(&mut self.logits, row, &mut self.scratch, out);
                }
                Answer::Token => self.push(idx, None, out),
                Answer::LogProbs(best) => self.push(idx, Some(best), out),
            }
        }
        Ok(())
    }

    /// Brings `rows` to the device, and returns what the kernels are told.
    fn describe(&mut self, device: &Rc<Device>, rows: &[Row<'_>], vocab: usize) -> Result<Sampling, DeviceError> {
        if self.places.as_ref().is_none_or(|places| places.capacity != self.planned) {
            self.places = None;
            self.places = Some(Places::new(device, self.planned)?);
        }
        let places = self.places.as_ref().expect("made above");
        self.described.clear(places.capacity, vocab);
        rows.iter().for_each(|row| self.described.push(row));
        device.enqueue_upload(places.sampling.rows, &self.described.words)?;
        Ok(Sampling { vocab: int(vocab), tiles: int(vocab.div_ceil(TILE)), ..places.sampling })
    }

    fn launch(&self, device: &Device, rows: usize, params: &Sampling) -> Result<(), DeviceError> {
        if self.described.has_edits {
            device.launch("edit_logits", [rows, 1, 1], SCAN_THREADS, 0, params)?;
        }
        device.launch("scan_logits", [params.tiles as usize, rows, 1], SCAN_THREADS, 0, params)?;
        if self.described.has_draws {
            device.launch("sample_tokens", [rows, 1, 1], SELECT_THREADS, 0, params)?;
        }
        if self.described.has_log_probs() {
            device.launch("log_probs", [rows, 1, 1], SELECT_THREADS, 0, params)?;
        }
        Ok(())
    }

    /// Appends what the device found of row `idx`; its log probabilities where there is a place of them.
    fn push(&mut self, idx: usize, best: Option<Range<usize>>, out: &mut Sampled) {
        let (results, bests) = self.results.split_at(self.planned.rows * RESULT_WORDS);
        let words = results[idx * RESULT_WORDS..][..RESULT_WORDS].try_into().expect("a slice of this length");
        // SAFETY: numbers without padding, and of this size; any bits are some number.
        let found = unsafe { std::mem::transmute::<[u64; RESULT_WORDS], SampleResult>(words) };
        let (start, is_sound) = (out.logprobs.len(), found.best != FAULT);
        if let (true, Some(best)) = (is_sound, best) {
            self.best.clear();
            self.best.extend(bests[best].iter().map(|&bits| Candidate::from_bits(bits)));
            let SampleResult { token, logit, rank, peak, sum, .. } = found;
            Judged { token, logit, rank, peak, sum, best: &self.best }.push(&mut out.logprobs);
        }
        out.push(is_sound.then_some(found.token), start);
    }
}
