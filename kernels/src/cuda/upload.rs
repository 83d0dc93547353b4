//! What a step takes to the device: the inputs' arrays and, behind them, the rows to sample, all in one buffer and brought there by one
//! copy that nobody waits for.
//!
//! The arrays end where the rows begin, which is the same place in every step: where an array lies follows from the step's shape
//! alone, so that a recorded step finds the next one's inputs.

use std::rc::Rc;

use tensor::{DeviceError, StepInputs};

use super::device::{Address, Device, refused};
use super::shape::{Shape, spans};
use super::staging::Staging;

/// Arrays start at multiples of this many words, as wide loads want it.
const ALIGN: usize = 4;

/// Where each array of the step lies.
#[derive(Default)]
pub(super) struct Uploaded {
    staging: Option<Staging>,
    /// Holds every step that was planned.
    planned: Shape,
    pub token_ids: Address,
    pub positions: Address,
    pub cu_seqlens: Address,
    pub cu_spans: Address,
    pub logit_tokens: Address,
    groups: Address,
    shape: Shape,
}

/// One KV group's arrays.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    pub slots: Address,
    pub block_tables: Address,
}

impl Uploaded {
    /// Makes room for steps as large as `shape`.
    pub fn plan(&mut self, shape: Shape) {
        self.planned = self.planned.cover(shape);
    }

    /// The largest step that there is room for.
    pub fn planned(&self) -> Shape {
        self.planned
    }

    /// Bytes of arrays on the device.
    pub fn bytes(&self) -> usize {
        words(&self.planned) * 4
    }

    /// Ends planning, with so many words of rows behind the arrays; returns where they are.
    pub fn commit(&mut self, device: &Rc<Device>, row_words: usize) -> Result<Address, DeviceError> {
        let staging = match &mut self.staging {
            Some(staging) => staging,
            empty => empty.insert(Staging::new(device, words(&self.planned) + row_words)?),
        };
        Ok(staging.address() + self.bytes() as Address)
    }

    pub fn group(&self, idx: usize) -> Group {
        assert!(idx < self.shape.groups, "the step has KV group {idx}");
        let [slots, tables] = group_sizes(&self.shape);
        let first = self.groups + (idx * (slots + tables) * 4) as Address;
        Group { slots: first, block_tables: first + (slots * 4) as Address }
    }

    /// Enqueues the copy of `inputs`, laid out as `shape` says, and of `rows`.
    pub fn set(&mut self, inputs: &StepInputs, shape: Shape, rows: &[u32]) -> Result<(), DeviceError> {
        let (len, room) = (words(&shape), words(&self.planned));
        if len > room {
            return Err(refused(format!(
                "a step of {shape:?} is larger than any that was planned: {:?}",
                self.planned
            )));
        }
        let staging = self.staging.as_mut().expect(COMMITTED);
        let (starts, first) = (starts(&shape), room - len);
        let [token_ids, positions, cu_seqlens, logit_tokens, cu_spans, groups] =
            starts.map(|start| staging.address() + ((first + start) * 4) as Address);
        (self.token_ids, self.positions, self.cu_seqlens) = (token_ids, positions, cu_seqlens);
        (self.logit_tokens, self.cu_spans, self.groups, self.shape) = (logit_tokens, cu_spans, groups, shape);
        staging.send(first, len + rows.len(), |words| {
            let (arrays, behind) = words.split_at_mut(len);
            write(arrays, &starts, inputs, &shape);
            behind.copy_from_slice(rows);
        })
    }

    /// Lets `fill` write `words` more, and enqueues their copy to word `at` of the rows.
    pub fn send(&mut self, at: usize, words: usize, fill: impl FnOnce(&mut [u32])) -> Result<(), DeviceError> {
        let first = self.bytes() / 4;
        self.staging.as_mut().expect(COMMITTED).send(first + at, words, fill)
    }
}

const COMMITTED: &str = "committed before the first step";

/// Words of tokens, positions, starts of sequences, tokens whose logits are wanted, and starts of sequences' spans.
fn sizes(shape: &Shape) -> [usize; 5] {
    [shape.tokens, shape.tokens, shape.seqs + 1, shape.logit_rows, shape.seqs + 1]
        .map(|words| words.next_multiple_of(ALIGN))
}

/// Words of a group's slots and block tables.
fn group_sizes(shape: &Shape) -> [usize; 2] {
    [shape.tokens, shape.seqs * shape.stride].map(|words| words.next_multiple_of(ALIGN))
}

/// Where the arrays start, in the order of `sizes`, and where the groups do.
fn starts(shape: &Shape) -> [usize; 6] {
    let mut starts = [0; 6];
    for (idx, size) in sizes(shape).into_iter().enumerate() {
        starts[idx + 1] = starts[idx] + size;
    }
    starts
}

fn words(shape: &Shape) -> usize {
    starts(shape)[5] + shape.groups * group_sizes(shape).iter().sum::<usize>()
}

fn write(words: &mut [u32], starts: &[usize; 6], inputs: &StepInputs, shape: &Shape) {
    let arrays = [&inputs.token_ids, &inputs.positions, &inputs.cu_seqlens_q, &inputs.logit_tokens];
    for (values, bounds) in arrays.into_iter().zip(starts.windows(2)) {
        copy(&mut words[bounds[0]..bounds[1]], values);
    }
    let mut end = 0;
    for (to, spans) in words[starts[4]..].iter_mut().zip([0].into_iter().chain(spans(inputs))) {
        end += spans;
        *to = end;
    }
    let [slots, tables] = group_sizes(shape);
    for (group, words) in inputs.groups.iter().zip(words[starts[5]..].chunks_exact_mut((slots + tables).max(1))) {
        let (to_slots, to_tables) = words.split_at_mut(slots);
        copy(to_slots, &group.slot_mapping);
        copy_tables(to_tables, &group.block_tables, group.stride, shape.stride);
    }
}

/// As far as there is room: arrays of wrong lengths are refused by the ops that read them.
fn copy(to: &mut [u32], from: &[u32]) {
    let len = to.len().min(from.len());
    to[..len].copy_from_slice(&from[..len]);
}

/// Rows of `stride` become rows of `wider`.
fn copy_tables(to: &mut [u32], tables: &[u32], stride: usize, wider: usize) {
    if stride == 0 {
        return;
    }
    for (row, table) in to.chunks_exact_mut(wider).zip(tables.chunks_exact(stride)) {
        let (used, rest) = row.split_at_mut(stride);
        used.copy_from_slice(table);
        rest.fill(0);
    }
}
