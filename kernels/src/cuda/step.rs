//! A step's life: its inputs are enqueued, then its kernels, one by one or as the graph that an earlier step was recorded to.
//!
//! Nothing here waits for the device; who reads results does.

use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaGraph, DriverError};
use tensor::{DeviceError, StepInputs, StepKey};

use super::checks::Check;
use super::device::refused;
use super::graphs::{Known, Recorded};
use super::shape::Shape;
use super::{Buf, Cuda};

/// Enqueues one forward.
type Body<'a> = &'a mut dyn FnMut(&mut Cuda) -> Buf;

impl Cuda {
    pub(super) fn run_step(&mut self, key: StepKey, inputs: &StepInputs, body: Body<'_>) -> Result<Buf, DeviceError> {
        let set = self.inputs.set(inputs);
        self.shape = Shape::of(&self.inputs.step);
        if key == StepKey::Plan {
            return Ok(self.plan(body));
        }
        set.map_err(refused)?;
        self.arena.commit(&self.device)?;
        self.uploaded.commit(&self.device)?;
        self.loader = None;
        let decodes = matches!(key, StepKey::Decode { .. }) && self.graphs.is_enabled();
        if decodes {
            self.shape = self.shape.rounded(self.uploaded.planned().stride);
        }
        self.uploaded.set(&self.inputs.step, self.shape)?;
        if decodes { self.decode(body) } else { self.launch_all(body) }
    }

    fn plan(&mut self, body: Body<'_>) -> Buf {
        self.uploaded.plan(self.shape);
        self.planning = true;
        let logits = body(self);
        self.planning = false;
        let rows = self.shape.logit_rows;
        self.sampler.plan(rows, logits.len().checked_div(rows).unwrap_or(0));
        logits
    }

    fn launch_all(&mut self, body: Body<'_>) -> Result<Buf, DeviceError> {
        self.failed = None;
        self.checked.clear();
        let logits = body(self);
        self.failed.take().map_or(Ok(logits), Err)
    }

    fn decode(&mut self, body: Body<'_>) -> Result<Buf, DeviceError> {
        match self.graphs.meet(self.shape) {
            Known::Nothing => self.launch_all(body),
            Known::Seen => self.record(body),
            Known::Recorded(Recorded { graph, logits, checks }) => {
                checks.iter().try_for_each(|check| check.run(&self.inputs)).map_err(refused)?;
                self.device.said(graph.launch(), "a recorded step")?;
                Ok(self.arena.claim(*logits))
            }
        }
    }

    /// Records the step and launches what was recorded. Where a step cannot be recorded, this one and all that follow run
    /// kernel by kernel.
    fn record(&mut self, body: Body<'_>) -> Result<Buf, DeviceError> {
        let recorded = match self.begin_recording() {
            Ok(()) => {
                let launched = self.launch_all(body);
                let graph = self.end_recording();
                launched.and_then(|logits| Ok((logits, self.device.said(graph, "the recording of a step")?)))
            }
            Err(error) => self.device.said(Err(error), "the recording of a step"),
        };
        match recorded {
            Ok((logits, Some(graph))) => self.keep(logits, graph),
            Ok((logits, None)) => {
                drop(logits);
                self.launch_all(body)
            }
            Err(_) => {
                let logits = self.launch_all(body)?;
                self.graphs.disable();
                Ok(logits)
            }
        }
    }

    fn keep(&mut self, logits: Buf, graph: CudaGraph) -> Result<Buf, DeviceError> {
        self.device.said(graph.launch(), "a recorded step")?;
        let place = logits.place().expect("the logits are the step's, and so in the arena");
        self.graphs.keep(self.shape, Recorded { graph, logits: place, checks: self.checked.clone() });
        Ok(logits)
    }

    fn begin_recording(&self) -> Result<(), DriverError> {
        self.device.stream().begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
    }

    /// `None` for a step without kernels.
    fn end_recording(&self) -> Result<Option<CudaGraph>, DriverError> {
        let graph = self.device.stream().end_capture(CUgraphInstantiate_flags(0))?;
        graph.iter().try_for_each(CudaGraph::upload)?;
        Ok(graph)
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
