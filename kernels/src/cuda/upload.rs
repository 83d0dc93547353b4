//! The step's inputs on the device: all arrays in one buffer, brought there by one copy.

use std::rc::Rc;

use tensor::{DeviceError, StepInputs};

use super::device::{Address, Device, Memory};

/// Where each array of the step lies.
#[derive(Default)]
pub(super) struct Uploaded {
    staging: Vec<u32>,
    memory: Option<Memory>,
    planned: usize,
    pub token_ids: Address,
    pub positions: Address,
    pub cu_seqlens: Address,
    pub logit_tokens: Address,
    groups: Vec<Group>,
}

/// One KV group's arrays.
#[derive(Clone, Copy, Default)]
pub(super) struct Group {
    pub slots: Address,
    pub block_tables: Address,
}

impl Uploaded {
    /// Makes room for steps as large as `inputs`.
    pub fn plan(&mut self, inputs: &StepInputs) {
        self.stage(inputs);
        self.planned = self.planned.max(self.staging.len());
    }

    pub fn group(&self, idx: usize) -> Group {
        self.groups[idx]
    }

    /// Brings `inputs` to the device.
    pub fn set(&mut self, device: &Rc<Device>, inputs: &StepInputs) -> Result<(), DeviceError> {
        let offsets = self.stage(inputs);
        if self.memory.as_ref().is_none_or(|memory| memory.bytes() < self.staging.len() * 4) {
            self.memory = None;
            self.memory = Some(device.alloc(self.planned.max(self.staging.len()) * 4)?);
        }
        let base = self.memory.as_ref().expect("made above").address();
        let at = |offset: usize| base + offset as Address * 4;
        let [token_ids, positions, cu_seqlens, logit_tokens] = offsets.map(at);
        (self.token_ids, self.positions, self.cu_seqlens, self.logit_tokens) =
            (token_ids, positions, cu_seqlens, logit_tokens);
        for group in &mut self.groups {
            *group = Group { slots: at(group.slots as usize), block_tables: at(group.block_tables as usize) };
        }
        device.upload(base, &self.staging)
    }

    /// Lines the arrays up, and returns where they start; groups keep theirs.
    fn stage(&mut self, inputs: &StepInputs) -> [usize; 4] {
        self.staging.clear();
        let staging = &mut self.staging;
        let mut put = |values: &[u32]| {
            let start = staging.len();
            staging.extend_from_slice(values);
            start
        };
        let offsets = [&inputs.token_ids, &inputs.positions, &inputs.cu_seqlens_q, &inputs.logit_tokens];
        let offsets = offsets.map(|values| put(values));
        self.groups.clear();
        self.groups.extend(inputs.groups.iter().map(|group| Group {
            slots: put(&group.slot_mapping) as Address,
            block_tables: put(&group.block_tables) as Address,
        }));
        offsets
    }
}
