//! A step's life: its inputs are enqueued, then its kernels, one by one or as the graph that an earlier step was recorded to.
//!
//! Nothing here waits for the device; who reads results does.

use std::rc::Rc;

use sampler::Row;
use tensor::{DeviceError, StepInputs, StepKey};

use super::checks::Check;
use super::device::{advised, refused};
use super::graphs::{Known, Recorded};
use super::shape::Shape;
use super::{Buf, Cuda};

/// What a recorded forward leaves behind, and asks for.
#[derive(Clone)]
pub(super) struct Forward {
    /// Where in the arena the logits are: start and bytes.
    logits: (usize, usize),
    /// What to be sure of before each replay.
    checks: Vec<Check>,
}

/// Enqueues one forward.
type Body<'a> = &'a mut dyn FnMut(&mut Cuda) -> Buf;

impl Cuda {
    pub(super) fn run_step(
        &mut self,
        key: StepKey,
        inputs: &StepInputs,
        rows: &[Row<'_>],
        body: Body<'_>,
    ) -> Result<Buf, DeviceError> {
        let set = self.inputs.set(inputs);
        self.shape = Shape::of(&self.inputs.step);
        if key == StepKey::Plan {
            return Ok(self.plan(body));
        }
        set.map_err(refused)?;
        self.check_rows(rows)?;
        self.commit().map_err(|error| {
            advised(error, "a step's workspace shrinks with --max-num-batched-tokens and --max-num-seqs")
        })?;
        self.loader = None;
        self.replays = matches!(key, StepKey::Decode { .. }) && self.graphs.is_enabled();
        if self.replays {
            self.shape = self.shape.rounded(self.uploaded.planned().stride);
        }
        if let Some(metered) = &mut self.metered {
            metered.begin(&self.device)?;
        }
        let described = self.sampler.describe(rows, self.replays);
        self.uploaded.set(&self.inputs.step, self.shape, described)?;
        let logits = if self.replays { self.decode(body) } else { self.launch_all(body) }?;
        if let Some(metered) = &self.metered {
            metered.end(&self.device)?;
        }
        Ok(logits)
    }

    fn plan(&mut self, body: Body<'_>) -> Buf {
        self.uploaded.plan(self.shape);
        self.planning = true;
        let logits = self.forward(body);
        self.planning = false;
        let rows = self.shape.logit_rows;
        self.sampler.plan(rows, logits.len().checked_div(rows).unwrap_or(0));
        logits
    }

    /// Ends planning: takes the memory that the planned steps need.
    fn commit(&mut self) -> Result<(), DeviceError> {
        self.arena.commit(&self.device)?;
        let rows = self.uploaded.commit(&self.device, self.sampler.described_words())?;
        self.sampler.commit(&self.device, rows)
    }

    /// Rows to sample are within the step's logits, each once.
    pub(super) fn check_rows(&self, rows: &[Row<'_>]) -> Result<(), DeviceError> {
        let num_rows = self.shape.logit_rows;
        if rows.is_sorted_by(|a, b| a.logits < b.logits) && rows.last().is_none_or(|row| row.logits < num_rows) {
            return Ok(());
        }
        Err(refused(format!("rows to sample must name ascending rows of the {num_rows} of the logits")))
    }

    fn launch_all(&mut self, body: Body<'_>) -> Result<Buf, DeviceError> {
        self.failed = None;
        self.checked.clear();
        let logits = self.forward(body);
        self.failed.take().map_or(Ok(logits), Err)
    }

    fn forward(&mut self, body: Body<'_>) -> Buf {
        let out = body(self);
        self.peaks = None;
        out
    }

    fn decode(&mut self, body: Body<'_>) -> Result<Buf, DeviceError> {
        match self.graphs.meet(self.shape) {
            Known::Nothing => self.launch_all(body),
            Known::Seen => self.record(body),
            Known::Recorded(Recorded { graph, outcome: Forward { logits, checks } }) => {
                checks.iter().try_for_each(|check| check.run(&self.inputs)).map_err(refused)?;
                self.device.said(graph.launch(), "a recorded step")?;
                Ok(self.arena.claim(*logits))
            }
        }
    }

    fn record(&mut self, body: Body<'_>) -> Result<Buf, DeviceError> {
        let (device, shape, mut graphs) = (Rc::clone(&self.device), self.shape, std::mem::take(&mut self.graphs));
        let forward = graphs.record(&device, shape, || {
            let logits = self.launch_all(body)?.place().expect("the logits are the step's, and so in the arena");
            Ok(Forward { logits, checks: self.checked.clone() })
        });
        self.graphs = graphs;
        Ok(self.arena.claim(forward?.logits))
    }

    /// Whether an op launches what `check` vouches for. Looked at once a step, whatever the number of layers.
    pub(super) fn admits(&mut self, check: Check) -> bool {
        if self.launches() && !self.checked.contains(&check) {
            match check.run(&self.inputs) {
                Ok(()) => self.checked.push(check),
                Err(message) => self.failed = Some(refused(message)),
            }
        }
        self.launches()
    }

    /// Whether an op launches: not while planning, not after a failure.
    pub(super) fn launches(&self) -> bool {
        !self.planning && self.failed.is_none()
    }
}
