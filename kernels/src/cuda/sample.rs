//! Sampling on the device: rows are described in one upload, two kernels at most pick their tokens (one where all are greedy), and
//! one download brings back what they found. One more kernel runs where tokens are biased, penalized or out, and one where log
//! probabilities are wanted. Where a step is replayed, so are these kernels, as a graph of their own: a grammar's mask may arrive
//! after the forward was enqueued.
//!
//! The host samples, from a row that it downloads, what asks for more than the kernels do: more than 512 likeliest tokens or two biases
//! of one token, and lists beyond what a step has room for.

mod described;
mod launches;
mod places;

use std::rc::Rc;

use sampler::{Candidate, Judged, Row, Sampled, Scratch};
use tensor::DeviceError;

use super::device::{Address, Device};
use super::graphs::{Graphs, Known, Recorded};
use super::params::SampleResult;
use super::shape::bucket;
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

    /// Bytes on the device.
    pub fn bytes(&self) -> usize {
        places::bytes(&self.planned)
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

    /// Samples `rows`, each from its own row of `logits`, and appends the results; `replays` what was recorded before.
    pub fn run(
        &mut self,
        device: &Rc<Device>,
        logits: Logits,
        replays: bool,
        rows: &[Row<'_>],
        out: &mut Sampled,
    ) -> Result<(), DeviceError> {
        if rows.is_empty() {
            return Ok(());
        }
        self.plan(logits.rows, logits.vocab);
        self.make_places(device)?;
        let replays = replays && self.graphs.is_enabled();
        let launches = self.describe(logits, replays, rows)?;
        self.launch(device, launches, replays)?;
        self.finish(device, launches, rows, out)
    }

    fn make_places(&mut self, device: &Rc<Device>) -> Result<(), DeviceError> {
        if self.places.as_ref().is_none_or(|places| places.capacity != self.planned) {
            self.graphs.forget();
            self.places = None;
            self.places = Some(Places::new(device, self.planned)?);
        }
        Ok(())
    }

    /// Brings `rows` to the device, and idle ones behind them where steps are replayed.
    fn describe(&mut self, logits: Logits, replays: bool, rows: &[Row<'_>]) -> Result<Launches, DeviceError> {
        let Self { planned, places, described, .. } = self;
        let num_rows = if replays { planned.rows.min(bucket(rows.len()) as usize) } else { rows.len() };
        described.clear(*planned, num_rows, logits.vocab);
        rows.iter().for_each(|row| described.push(row));
        places.as_mut().expect(MADE).send(&described.words)?;
        let Described { has_edits, has_draws, .. } = *described;
        Ok(Launches { logits, rows: num_rows, has_edits, has_draws, has_log_probs: described.has_log_probs() })
    }

    fn launch(&mut self, device: &Device, launches: Launches, replays: bool) -> Result<(), DeviceError> {
        let params = self.places.as_ref().expect(MADE).sampling(launches.rows, launches.logits);
        let launch = || launches.enqueue(device, &params);
        if !replays {
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

const MADE: &str = "places were made when the step began";

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
