//! The largest steps, run without computing, so that the backend knows its workspace.

use models::CausalLm;
use tensor::{Backend, DeviceError, GroupInputs, StepInputs, StepKey};

use crate::RunnerOptions;
use crate::model_runner::max_logit_rows;

/// Plans the step with most tokens, and the one with most sequences.
pub(crate) fn plan_workspace<B: Backend>(
    backend: &mut B,
    model: &dyn CausalLm<B>,
    caches: &mut [B::Cache],
    options: &RunnerOptions,
    longest: u32,
) -> Result<(), DeviceError> {
    let blocks = longest.div_ceil(options.block_size) as usize;
    let tokens = options.max_num_batched_tokens as usize;
    let seqs = max_logit_rows(options) as usize;
    for inputs in [step(1, tokens, seqs, caches.len(), blocks), step(seqs, 1, seqs, caches.len(), blocks)] {
        drop(backend.step(StepKey::Plan, &inputs, &[], &mut |b| model.forward(b, caches))?);
    }
    Ok(())
}

/// A step of `seqs` sequences with `tokens` each, after as much context as `blocks` hold.
fn step(seqs: usize, tokens: usize, logit_rows: usize, groups: usize, blocks: usize) -> StepInputs {
    let num_tokens = seqs * tokens;
    let group =
        || GroupInputs { slot_mapping: vec![0; num_tokens], block_tables: vec![0; seqs * blocks], stride: blocks };
    StepInputs {
        token_ids: vec![0; num_tokens],
        positions: vec![0; num_tokens],
        rows: vec![0; seqs],
        cu_seqlens_q: (0..=seqs).map(|seq| (seq * tokens) as u32).collect(),
        seq_lens: vec![tokens as u32; seqs],
        logit_tokens: vec![0; logit_rows],
        groups: (0..groups).map(|_| group()).collect(),
    }
}
