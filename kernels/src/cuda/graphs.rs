//! Recorded work: one launch of a graph in place of a launch a kernel.
//!
//! What is met for the first time runs kernel by kernel, which loads each of them; the second time it is recorded. A graph holds
//! addresses: its key names those that may change, and whoever moves others forgets the graphs.

use std::collections::HashMap;
use std::hash::Hash;

use cudarc::driver::CudaGraph;
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use tensor::DeviceError;

use super::device::{Device, refused};

/// Graphs kept. Whoever was not used for longest makes room.
const MAX_GRAPHS: usize = 256;

/// Work to be repeated.
pub(super) struct Recorded<T> {
    pub graph: CudaGraph,
    /// What its launches came to.
    pub outcome: T,
}

/// What is known of a key.
pub(super) enum Known<'a, T> {
    Nothing,
    /// It ran once.
    Seen,
    Recorded(&'a Recorded<T>),
}

/// Recorded work by what decides its launches.
pub(super) struct Graphs<K, T> {
    entries: HashMap<K, Entry<T>>,
    /// Counts lookups.
    now: u64,
    enabled: bool,
}

struct Entry<T> {
    recorded: Option<Recorded<T>>,
    used: u64,
}

impl<K, T> Default for Graphs<K, T> {
    fn default() -> Self {
        Self { entries: HashMap::new(), now: 0, enabled: true }
    }
}

impl<K: Copy + Eq + Hash, T: Clone> Graphs<K, T> {
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Records nothing from here on.
    pub fn disable(&mut self) {
        self.enabled = false;
        self.forget();
    }

    /// Starts anew: what was recorded must not run again.
    pub fn forget(&mut self) {
        self.entries.clear();
    }

    /// Looks a key up, and remembers that it was met.
    pub fn meet(&mut self, key: K) -> Known<'_, T> {
        self.now += 1;
        if !self.entries.contains_key(&key) {
            self.make_room();
            self.entries.insert(key, Entry { recorded: None, used: self.now });
            return Known::Nothing;
        }
        let entry = self.entries.get_mut(&key).expect("it was just found");
        entry.used = self.now;
        entry.recorded.as_ref().map_or(Known::Seen, Known::Recorded)
    }

    /// Records what `launch` enqueues, keeps it and launches it. What cannot be recorded runs kernel by kernel, and so does
    /// everything after it.
    ///
    /// # Errors
    /// What `launch` says when nothing is recorded, or the launch of the graph.
    pub fn record(
        &mut self,
        device: &Device,
        key: K,
        mut launch: impl FnMut() -> Result<T, DeviceError>,
    ) -> Result<T, DeviceError> {
        match device.record(&mut launch) {
            Ok(recorded) => {
                device.said(recorded.graph.launch(), "a recorded step")?;
                let outcome = recorded.outcome.clone();
                self.entries.insert(key, Entry { recorded: Some(recorded), used: self.now });
                Ok(outcome)
            }
            Err(error) => {
                let outcome = launch()?;
                self.disable();
                let why = error.message;
                tracing::warn!("a part of each step cannot be recorded, and takes the host longer from here on: {why}");
                Ok(outcome)
            }
        }
    }

    #[cfg(test)]
    pub fn num_recorded(&self) -> usize {
        self.entries.values().filter(|entry| entry.recorded.is_some()).count()
    }

    fn make_room(&mut self) {
        if self.entries.len() < MAX_GRAPHS {
            return;
        }
        let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(&key, _)| key);
        oldest.map(|key| self.entries.remove(&key));
    }
}

impl Device {
    /// What `launch` enqueues, as a graph that has not run yet.
    fn record<T>(&self, launch: impl FnOnce() -> Result<T, DeviceError>) -> Result<Recorded<T>, DeviceError> {
        let (what, stream) = ("the recording of a step", self.stream());
        self.said(stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL), what)?;
        let outcome = launch();
        let graph = self.said(stream.end_capture(CUgraphInstantiate_flags(0)), what);
        let (outcome, graph) = (outcome?, graph?.ok_or_else(|| refused("a step without kernels was recorded"))?);
        self.said(graph.upload(), what)?;
        Ok(Recorded { graph, outcome })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_recorded_runs_kernel_by_kernel_from_then_on() {
        let name = "what_cannot_be_recorded_runs_kernel_by_kernel_from_then_on";
        let device = match Device::open(0) {
            Ok(device) => device,
            Err(error) => return testkit::skip(name, &error.to_string()),
        };
        let (memory, mut graphs, mut found) = (device.alloc(4).unwrap(), Graphs::default(), [0u8; 4]);
        let fill = || device.zero(memory.address(), 4);
        assert!(matches!(graphs.meet(1), Known::Nothing) && matches!(graphs.meet(1), Known::Seen));
        graphs.record(&device, 1, fill).unwrap();
        let Known::Recorded(recorded) = graphs.meet(1) else { panic!("it was recorded") };
        recorded.graph.launch().unwrap();
        // Waiting is what a recording does not take.
        graphs.record(&device, 2, || device.download(memory.address(), &mut found).and_then(|()| fill())).unwrap();
        assert!(!graphs.is_enabled() && graphs.num_recorded() == 0);
    }

    #[test]
    fn the_one_that_was_not_used_for_longest_makes_room() {
        let mut graphs = Graphs::<usize, ()>::default();
        assert!((0..MAX_GRAPHS).all(|key| matches!(graphs.meet(key), Known::Nothing)));
        assert!(matches!(graphs.meet(0), Known::Seen));
        assert!(matches!(graphs.meet(MAX_GRAPHS), Known::Nothing));
        assert!(matches!(graphs.meet(0), Known::Seen) && matches!(graphs.meet(1), Known::Nothing));
    }
}
