//! How long the device works on steps: marks before a step's first copy and behind its last kernel. What is left of the time is
//! the host's. Picking tokens is not counted, so the host's part is an upper bound.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cudarc::driver::CudaEvent;
use tensor::DeviceError;

use super::device::Device;

/// The device's time so far; whoever measures shares it with the backend.
#[derive(Debug, Default)]
pub struct Meter {
    nanoseconds: AtomicU64,
}

impl Meter {
    /// Spent on the steps that have ended and were looked at: the last one or two are not.
    pub fn device_time(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed))
    }
}

/// Steps under way, each between two marks.
pub(super) struct Metered {
    meter: Arc<Meter>,
    steps: VecDeque<(CudaEvent, CudaEvent)>,
}

impl Metered {
    pub fn new(meter: Arc<Meter>) -> Self {
        Self { meter, steps: VecDeque::new() }
    }

    /// Marks the beginning of a step, and counts those that have ended.
    pub fn begin(&mut self, device: &Device) -> Result<(), DeviceError> {
        while let Some((start, end)) = self.steps.front().filter(|(_, end)| end.is_complete()) {
            let milliseconds = device.said(start.elapsed_ms(end), "an event")?;
            self.meter.nanoseconds.fetch_add((f64::from(milliseconds) * 1e6) as u64, Ordering::Relaxed);
            self.steps.pop_front();
        }
        let (start, end) = (device.timed_event()?, device.timed_event()?);
        device.mark(&start)?;
        self.steps.push_back((start, end));
        Ok(())
    }

    /// Marks the end of the step that began last.
    pub fn end(&self, device: &Device) -> Result<(), DeviceError> {
        self.steps.back().map_or(Ok(()), |(_, end)| device.mark(end))
    }
}
