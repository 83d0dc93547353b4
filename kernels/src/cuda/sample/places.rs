//! Where sampling's arrays lie, on the device and on the host: addresses stay the same from step to step.

use std::ops::Range;
use std::rc::Rc;

use sampler::Candidate;
use tensor::DeviceError;

use super::described::{Capacity, ROW_WORDS};
use super::{Logits, TILE};
use crate::cuda::device::{Address, Device};
use crate::cuda::int;
use crate::cuda::memory::Memory;
use crate::cuda::params::{SampleResult, Sampling};
use crate::cuda::pinned::Pinned;

/// Words of a result, and of a likeliest token.
const RESULT_WORDS: usize = size_of::<SampleResult>() / 4;
const BEST_WORDS: usize = 2;

/// Room for steps of some capacity.
pub(super) struct Places {
    /// Results, then likeliest tokens, as the device found them.
    found: Pinned,
    /// Of a step of no rows.
    sampling: Sampling,
    /// All that comes up from no host.
    _memory: Memory,
}

impl Places {
    /// Rows are described at `rows`.
    pub fn new(device: &Rc<Device>, capacity: Capacity, rows: Address) -> Result<Self, DeviceError> {
        let sizes = sizes(&capacity);
        let memory = device.alloc(sizes.iter().sum())?;
        let mut next = memory.address();
        let [results, partials, saved, arrived, tokens] = sizes.map(|size| {
            next += size as Address;
            next - size as Address
        });
        device.zero(arrived, capacity.rows * 4)?;
        let (lists, bests, logits, vocab, tiles) = (rows, results, 0, 0, 0);
        let sampling = Sampling { rows, lists, logits, saved, partials, arrived, results, bests, tokens, vocab, tiles };
        Ok(Self { found: Pinned::new(device, sizes[0] / 4)?, sampling, _memory: memory })
    }

    /// What each row of the logits sampled last.
    #[cfg(test)]
    pub fn tokens(&self) -> Address {
        self.sampling.tokens
    }

    /// What the kernels are told of a step of this many `rows`.
    pub fn sampling(&self, rows: usize, logits: Logits) -> Sampling {
        Sampling {
            lists: self.sampling.rows + (rows * ROW_WORDS * 4) as Address,
            bests: self.sampling.results + (rows * RESULT_WORDS * 4) as Address,
            logits: logits.at,
            vocab: int(logits.vocab),
            tiles: int(logits.vocab.div_ceil(TILE)),
            ..self.sampling
        }
    }

    /// Waits for what the device found of `rows` and `num_best` likeliest tokens.
    pub fn receive(&mut self, rows: usize, num_best: usize) -> Result<Found<'_>, DeviceError> {
        let words = rows * RESULT_WORDS + num_best * BEST_WORDS;
        self.found.receive(words * 4, self.sampling.results)?;
        let (results, bests) = self.found.words()?[..words].split_at(rows * RESULT_WORDS);
        Ok(Found { results: results.as_chunks().0, bests: bests.as_chunks().0 })
    }
}

/// What the device found, on the host.
pub(super) struct Found<'a> {
    results: &'a [[u32; RESULT_WORDS]],
    bests: &'a [[u32; BEST_WORDS]],
}

impl Found<'_> {
    pub fn result(&self, idx: usize) -> SampleResult {
        // SAFETY: numbers without padding, and of this size; any bits are some number.
        unsafe { std::mem::transmute::<[u32; RESULT_WORDS], SampleResult>(self.results[idx]) }
    }

    pub fn bests(&self, places: Range<usize>) -> impl Iterator<Item = Candidate> {
        self.bests[places].iter().map(|[low, high]| Candidate::from_bits(u64::from(*high) << 32 | u64::from(*low)))
    }
}

/// Bytes of results with likeliest tokens, candidates of tiles, what edits replaced, counters and tokens.
fn sizes(capacity: &Capacity) -> [usize; 5] {
    let Capacity { rows, vocab } = *capacity;
    let found = rows * RESULT_WORDS + capacity.num_best() * BEST_WORDS;
    let partials = rows * (vocab.div_ceil(TILE) + 1) * 8;
    [found * 4, partials, capacity.list_words() * 4, rows * 4, rows * 4].map(|size| size.next_multiple_of(16))
}

/// Bytes on the device, beside described rows.
pub(super) fn bytes(capacity: &Capacity) -> usize {
    sizes(capacity).iter().sum()
}
