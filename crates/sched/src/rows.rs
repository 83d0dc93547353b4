//! The running sequences: by row, and in rank order.

use contract::RowId;

use crate::sequence::{Running, SequenceId};

/// Rows of the device and who has them.
pub(crate) struct Rows {
    slots: Vec<Option<Running>>,
    free: Vec<RowId>,
    /// Sorted; the last is preempted first.
    order: Vec<(SequenceId, RowId)>,
}

impl Rows {
    pub fn new(max_rows: u32) -> Self {
        Self {
            slots: (0..max_rows).map(|_| None).collect(),
            free: (0..max_rows).rev().map(RowId).collect(),
            order: Vec::with_capacity(max_rows as usize),
        }
    }

    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// The row that the next sequence gets.
    pub fn vacancy(&self) -> Option<RowId> {
        self.free.last().copied()
    }

    pub fn insert(&mut self, running: Running) {
        let row = self.free.pop().expect("a vacancy was offered");
        assert_eq!(row, running.row, "the vacancy that was offered is taken");
        let id = running.stream.id;
        let at = self.order.binary_search(&(id, row)).expect_err("a sequence runs once");
        self.order.insert(at, (id, row));
        self.slots[row.idx()] = Some(running);
    }

    pub fn remove(&mut self, row: RowId) -> Running {
        let running = self.slots[row.idx()].take().expect("the row is taken");
        let at = self.order.binary_search(&(running.stream.id, row)).expect("a taken row has a rank");
        self.order.remove(at);
        self.free.push(row);
        running
    }

    pub fn get(&self, row: RowId) -> Option<&Running> {
        self.slots[row.idx()].as_ref()
    }

    pub fn get_mut(&mut self, row: RowId) -> Option<&mut Running> {
        self.slots[row.idx()].as_mut()
    }

    pub fn find(&self, id: SequenceId) -> Option<RowId> {
        let at = self.order.partition_point(|&(other, _)| other < id);
        self.order.get(at).filter(|&&(found, _)| found == id).map(|&(_, row)| row)
    }

    /// The row at a rank, best first.
    pub fn ranked(&self, rank: usize) -> Option<RowId> {
        self.order.get(rank).map(|&(_, row)| row)
    }

    /// All running sequences, best rank first.
    pub fn iter(&self) -> impl Iterator<Item = &Running> {
        self.order.iter().map(|&(_, row)| self.slots[row.idx()].as_ref().expect("a ranked row is taken"))
    }
}
