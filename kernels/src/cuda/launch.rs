//! Launches of kernels, each as soon as the one before it allows.
//!
//! From compute capability 9.0 on every launch allows programmatic dependent launch: a kernel's blocks are in place, and its weights
//! under way, when the last result of the kernel before it is. The rule that makes this right, and that the emulator holds
//! every kernel to:
//!
//! - Every thread of every kernel comes by `after_former_kernel`, however little it has to do. That lets the next kernel start, and
//!   waits until the former has ended and its writes can be seen. A kernel has ended only when its threads have, each of which has
//!   waited: so behind the wait all earlier kernels have ended, not only the last.
//! - Before the wait none of them need have. The next kernel starts once every block of this one has let it, which each does
//!   before it waits itself; so a whole step's kernels may be waiting in a row. A thread may read there what no kernel ever writes
//!   (weights, scales, gains, tables), though not what the kernel before the former wrote, and it may write nothing: a
//!   buffer of the arena, a counter and a slot of the cache may all still be somebody's.
//! - Behind the wait all is as without overlap: arena buffers may be reused, counters are zero again, the cache holds what was
//!   written. Nothing may be read through the read-only path (`__ldg`, `const __restrict__`), which a compiler may move up across the wait.
//! - Copies, fills, a graph's beginning and other libraries' kernels wait for everything before them, and a kernel behind one of
//!   them for it. So what is uploaded once a step is whole before the step's first kernel starts.
//!
//! Letting the next kernel start early costs this one nothing: it does so when all blocks of this one have their SM, and
//! takes what they leave.

use std::ptr;

use cudarc::driver::DeviceRepr;
use cudarc::driver::sys::{self, CUlaunchAttribute, CUlaunchAttributeID, CUlaunchAttributeValue, CUlaunchConfig};
use tensor::DeviceError;

use super::device::Device;

impl Device {
    /// Enqueues `params` as the only parameter of kernel `name`. A grid without blocks is nothing to do.
    pub fn launch<P: DeviceRepr>(
        &self,
        name: &'static str,
        grid: [usize; 3],
        threads: usize,
        shared_bytes: usize,
        params: &P,
    ) -> Result<(), DeviceError> {
        let kernel = self.kernel(name, shared_bytes)?;
        let size = |n: usize| u32::try_from(n).expect("a launch is smaller than 2^32 in each direction");
        let [x, y, z] = grid.map(size);
        if x == 0 || y == 0 || z == 0 {
            return Ok(());
        }
        let mut overlap = overlap();
        let config = CUlaunchConfig {
            gridDimX: x,
            gridDimY: y,
            gridDimZ: z,
            blockDimX: size(threads),
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: size(shared_bytes),
            hStream: self.stream().cu_stream(),
            attrs: &raw mut overlap,
            numAttrs: u32::from(self.overlaps()),
        };
        let mut params = ptr::from_ref(params).cast_mut().cast();
        // SAFETY: the driver copies parameters and attributes before it returns; each caller fills `params` as the kernel's
        // header asks, with addresses that outlive the stream's work.
        let result =
            unsafe { sys::cuLaunchKernelEx(&raw const config, kernel.cu_function(), &raw mut params, ptr::null_mut()) };
        self.said(result.result(), name)
    }
}

/// The attribute of a launch that need not wait for the kernel before it.
fn overlap() -> CUlaunchAttribute {
    CUlaunchAttribute {
        id: CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
        pad: [0; 4],
        value: CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
    }
}
