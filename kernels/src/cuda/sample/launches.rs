//! The kernels that sample a step: which ones, and how large.

use tensor::DeviceError;

use super::Logits;
use crate::cuda::device::Device;
use crate::cuda::params::Sampling;

/// Threads that scan a tile, and threads that draw: as `logits.cu` and `select.cuh` have them.
const SCAN_THREADS: usize = 256;
const SELECT_THREADS: usize = 512;

/// What decides a step's launches, all of it but the places of sampling's own arrays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Launches {
    pub logits: Logits,
    /// Those to sample, and idle ones that fill up.
    pub rows: usize,
    pub has_edits: bool,
    pub has_draws: bool,
    pub has_log_probs: bool,
}

impl Launches {
    pub fn enqueue(&self, device: &Device, params: &Sampling) -> Result<(), DeviceError> {
        let a_row = [self.rows, 1, 1];
        if self.has_edits {
            device.launch("edit_logits", a_row, SCAN_THREADS, 0, params)?;
        }
        device.launch("scan_logits", [params.tiles as usize, self.rows, 1], SCAN_THREADS, 0, params)?;
        if self.has_draws {
            device.launch("sample_tokens", a_row, SELECT_THREADS, 0, params)?;
        }
        if self.has_log_probs {
            device.launch("log_probs", a_row, SELECT_THREADS, 0, params)?;
        }
        Ok(())
    }
}
