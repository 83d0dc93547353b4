//! Sampling on the device: rows are described behind the step's inputs, two kernels at most pick their tokens (one where all are
//! greedy), and one download brings back what they found. One more kernel runs where tokens are biased, penalized or out, and one where
//! log probabilities are wanted. Where a step is replayed, so are these kernels, as a graph of their own: a grammar's mask may arrive
//! after the forward was enqueued, and then comes up by itself.
//!
//! The host samples, from a row that it downloads, what asks for more than the kernels do: more than 512 likeliest tokens or two biases
//! of one token, and lists beyond what a step has room for.

mod described;
mod launches;
mod places;

use std::rc::Rc;

use sampler::{Candidate, Judged, Row, Sampled, Scratch};
use tensor::DeviceError;

use super::device::{Address, Device, refused};
use super::graphs::{Graphs, Known, Recorded};
use super::params::SampleResult;
use super::shape::bucket;
use super::upload::Uploaded;
use described::{Answer, Capacity, Described};
use launches::Launches;
use places::{Found, Places};

/// Tokens of a tile, as `logits.cu` has it.
const TILE: usize = 8192;
/// The candidate of a row that cannot be sampled.
const FAULT: u64 = 0;

/// Logits to sample from, `[rows, vocab]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Logits {
    pub at: Address,
    pub rows: usize,
    pub vocab: usize,
}

/// What sampling keeps between steps.
#[derive(Default)]
pub(super) struct Sampler {
    planned: Capacity,
    places: Option<Places>,
    graphs: Graphs<Launches, ()>,
    described: Described,
    /// Whether the step's launches are recorded and replayed.
    replays: bool,
    host: Host,
}

/// What the host takes to finish rows, or to sample them.
#[derive(Default)]
struct Host {
    best: Vec<Candidate>,
    /// Of one row.
    logits: Vec<f32>,
    scratch: Scratch,
}

impl Sampler {
    /// Makes room for steps of this many rows of logits.
    pub fn plan(&mut self, rows: usize, vocab: usize) {
        self.planned = self.planned.cover(Capacity { rows, vocab });
    }

    /// Bytes on the device, described rows among them.
    pub fn bytes(&self) -> usize {
        self.described_words() * 4 + places::bytes(&self.planned)
    }

    /// The most words that rows are described in.
    pub fn described_words(&self) -> usize {
        self.planned.words()
    }

    /// Ends planning; described rows will be at `rows`.
    pub fn commit(&mut self, device: &Rc<Device>, rows: Address) -> Result<(), DeviceError> {
        if self.places.is_none() {
            self.places = Some(Places::new(device, self.planned, rows)?);
        }
        Ok(())
    }

    /// Records nothing from here on.
    pub fn disable_graphs(&mut self) {
        self.graphs.disable();
    }

    /// What each row of the logits sampled last, for whoever runs next on the device.
    #[cfg(test)]
    pub fn tokens(&self) -> Option<Address> {
        self.places.as_ref().map(Places::tokens)
    }

    #[cfg(test)]
    pub fn num_recorded(&self) -> usize {
        self.graphs.num_recorded()
    }

    /// What to take to the device for `rows` of the coming step, and for idle ones behind them where steps are replayed.
    pub fn describe(&mut self, rows: &[Row<'_>], replays: bool) -> &[u32] {
        let Self { planned, described, .. } = self;
        self.replays = replays && self.graphs.is_enabled();
        let num_rows = if self.replays { planned.rows.min(bucket(rows.len()) as usize) } else { rows.len() };
        described.clear(*planned, num_rows);
        rows.iter().for_each(|row| described.push(row));
        &described.words
    }

    /// Samples the `rows` that were described, each from its own row of `logits`, and appends the results.
    pub fn run(
        &mut self,
        device: &Rc<Device>,
        uploaded: &mut Uploaded,
        logits: Logits,
        rows: &[Row<'_>],
        out: &mut Sampled,
    ) -> Result<(), DeviceError> {
        if !self.described.is_of(rows) {
            return Err(refused("the rows to sample are not those that the step was given"));
        }
        if rows.is_empty() {
            return Ok(());
        }
        assert_eq!(logits.vocab, self.planned.vocab, "all steps have one vocabulary");
        self.send_masks(uploaded, rows)?;
        let Described { num_rows, has_edits, has_draws, .. } = self.described;
        let has_log_probs = self.described.has_log_probs();
        let launches = Launches { logits, rows: num_rows, has_edits, has_draws, has_log_probs };
        self.launch(device, launches)?;
        self.finish(device, launches, rows, out)
    }

    /// Brings the grammars' masks to the device, where there are any.
    fn send_masks(&self, uploaded: &mut Uploaded, rows: &[Row<'_>]) -> Result<(), DeviceError> {
        let masks = self.described.masks();
        if masks.is_empty() {
            return Ok(());
        }
        uploaded.send(masks.start, masks.len(), |words| self.described.write_masks(words, rows))
    }

    fn launch(&mut self, device: &Device, launches: Launches) -> Result<(), DeviceError> {
        let params = self.places.as_ref().expect(MADE).sampling(launches.rows, launches.logits);
        let launch = || launches.enqueue(device, &params);
        if !self.replays {
            return launch();
        }
        match self.graphs.meet(launches) {
            Known::Nothing => launch(),
            Known::Seen => self.graphs.record(device, launches, launch),
            Known::Recorded(Recorded { graph, .. }) => device.said(graph.launch(), "recorded sampling"),
        }
    }

    /// Waits for what the device found, and appends it.
    fn finish(
        &mut self,
        device: &Device,
        Launches { logits, rows: num_rows, .. }: Launches,
        rows: &[Row<'_>],
        out: &mut Sampled,
    ) -> Result<(), DeviceError> {
        let Self { places, described, host, .. } = self;
        let found = places.as_mut().expect(MADE).receive(num_rows, described.num_best)?;
        for (idx, (row, answer)) in rows.iter().zip(&described.answers).enumerate() {
            match answer {
                Answer::OnHost => host.sample(device, logits, row, out)?,
                answer => host.push(&found, idx, answer, out),
            }
        }
        Ok(())
    }
}

const MADE: &str = "places were made when the first step began";

impl Host {
    /// Samples `row` from the logits that it brings here.
    fn sample(
        &mut self,
        device: &Device,
        Logits { at, vocab, .. }: Logits,
        row: &Row<'_>,
        out: &mut Sampled,
    ) -> Result<(), DeviceError> {
        self.logits.resize(vocab, 0.0);
        device.download(at + (row.logits * vocab * 4) as Address, &mut self.logits)?;
        sampler::sample(&mut self.logits, row, &mut self.scratch, out);
        Ok(())
    }

    /// Appends what the device found of row `idx`, with its log probabilities where they are the answer.
    fn push(&mut self, found: &Found<'_>, idx: usize, answer: &Answer, out: &mut Sampled) {
        let SampleResult { best, sum, token, rank, logit, peak } = found.result(idx);
        let (start, is_sound) = (out.logprobs.len(), best != FAULT);
        if let (true, Answer::LogProbs(places)) = (is_sound, answer) {
            self.best.clear();
            self.best.extend(found.bests(places.clone()));
            Judged { token, logit, rank, peak, sum, best: &self.best }.push(&mut out.logprobs);
        }
        out.push(is_sound.then_some(token), start);
    }
}
