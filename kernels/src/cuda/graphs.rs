//! Recorded steps: one launch of a graph in place of a launch a kernel.
//!
//! A shape that is met for the first time runs kernel by kernel, which loads each of them; the second time it is recorded.

use std::collections::HashMap;

use cudarc::driver::CudaGraph;

use super::checks::Check;
use super::shape::Shape;

/// Graphs kept. Whoever was not used for longest makes room.
const MAX_GRAPHS: usize = 256;

/// A step to be repeated.
pub(super) struct Recorded {
    pub graph: CudaGraph,
    /// Where in the arena the logits are: start and bytes.
    pub logits: (usize, usize),
    /// What to be sure of before each replay.
    pub checks: Vec<Check>,
}

/// What is known of a shape.
pub(super) enum Known<'a> {
    Nothing,
    /// It ran once.
    Seen,
    Recorded(&'a Recorded),
}

/// All recorded steps.
pub(super) struct Graphs {
    shapes: HashMap<Shape, Entry>,
    /// Counts steps.
    now: u64,
    enabled: bool,
}

struct Entry {
    recorded: Option<Recorded>,
    used: u64,
}

impl Graphs {
    pub fn new() -> Self {
        Self { shapes: HashMap::with_capacity(MAX_GRAPHS + 1), now: 0, enabled: true }
    }

    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Records nothing from here on.
    pub fn disable(&mut self) {
        self.enabled = false;
        self.shapes.clear();
    }

    /// Looks a shape up, and remembers that it was met.
    pub fn meet(&mut self, shape: Shape) -> Known<'_> {
        self.now += 1;
        if !self.shapes.contains_key(&shape) {
            self.make_room();
            self.shapes.insert(shape, Entry { recorded: None, used: self.now });
            return Known::Nothing;
        }
        let entry = self.shapes.get_mut(&shape).expect("it was just found");
        entry.used = self.now;
        entry.recorded.as_ref().map_or(Known::Seen, Known::Recorded)
    }

    pub fn keep(&mut self, shape: Shape, recorded: Recorded) {
        self.shapes.insert(shape, Entry { recorded: Some(recorded), used: self.now });
    }

    #[cfg(test)]
    pub fn num_recorded(&self) -> usize {
        self.shapes.values().filter(|entry| entry.recorded.is_some()).count()
    }

    fn make_room(&mut self) {
        if self.shapes.len() < MAX_GRAPHS {
            return;
        }
        let oldest = self.shapes.iter().min_by_key(|(_, entry)| entry.used).map(|(&shape, _)| shape);
        oldest.map(|shape| self.shapes.remove(&shape));
    }
}
