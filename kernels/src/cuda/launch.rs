//! Launches of kernels, each as soon as the one before it allows.
//!
//! A kernel that waits by itself for what the one before it wrote (`after_former_kernel`) starts while that one ends: its
//! blocks are in place when the last result is. Programmatic dependent launch, from compute capability 9.0 on.

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
        let kernel = self.kernel(name);
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
            numAttrs: u32::from(kernel.overlaps),
        };
        let mut params = ptr::from_ref(params).cast_mut().cast();
        // SAFETY: the driver copies parameters and attributes before it returns; each caller fills `params` as the kernel's
        // header asks, with addresses that outlive the stream's work.
        let result = unsafe {
            sys::cuLaunchKernelEx(&raw const config, kernel.function.cu_function(), &raw mut params, ptr::null_mut())
        };
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
