//! Device memory by address, and the copies from and to it.

use std::ptr;
use std::rc::Rc;

use cudarc::driver::result::{
    free_sync, malloc_sync, memcpy_dtod_async, memcpy_dtoh_async, memcpy_htod_async, memset_d8_async,
};
use cudarc::driver::sys::{self, CUDA_MEMCPY2D, CUmemorytype, CUresult};
use tensor::DeviceError;

use super::device::{Address, Device, refused};

/// Device memory, freed when dropped.
pub(super) struct Memory {
    device: Rc<Device>,
    address: Address,
    bytes: usize,
}

impl Memory {
    pub fn address(&self) -> Address {
        self.address
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // After an error that ended the context nothing can be freed any more, and nothing needs to be.
        // SAFETY: allocated by `Device::alloc`, and freed only here.
        self.device.stream().synchronize().and_then(|()| unsafe { free_sync(self.address) }).ok();
    }
}

impl Device {
    /// Memory whose contents are undefined.
    pub fn alloc(self: &Rc<Self>, bytes: usize) -> Result<Memory, DeviceError> {
        let bytes = bytes.max(1);
        // SAFETY: the memory is handed out by address, and freed once.
        let address = match unsafe { malloc_sync(bytes) } {
            Err(error) if error.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                return Err(refused(format!(
                    "the GPU has {} MiB free and {} more are wanted",
                    self.free_bytes() >> 20,
                    bytes.div_ceil(1 << 20)
                )));
            }
            answer => self.said(answer, "memory")?,
        };
        Ok(Memory { device: Rc::clone(self), address, bytes })
    }

    /// Enqueues a copy of `values` to `to`. Pageable values may be reused at once, page-locked ones when the copy is over.
    pub fn enqueue_upload<T>(&self, to: Address, values: &[T]) -> Result<(), DeviceError> {
        // SAFETY: the caller's memory at `to` is large enough, and it leaves page-locked values alone.
        self.said(unsafe { memcpy_htod_async(to, values, self.stream().cu_stream()) }, "an upload")
    }

    /// The same of runs of `width` values to places `pitch` bytes apart.
    pub fn enqueue_strided_upload(
        &self,
        to: Address,
        values: &[u8],
        width: usize,
        pitch: usize,
    ) -> Result<(), DeviceError> {
        if values.len() <= width || width == pitch {
            return self.enqueue_upload(to, values);
        }
        let copy = CUDA_MEMCPY2D {
            srcXInBytes: 0,
            srcY: 0,
            srcMemoryType: CUmemorytype::CU_MEMORYTYPE_HOST,
            srcHost: values.as_ptr().cast(),
            srcDevice: 0,
            srcArray: ptr::null_mut(),
            srcPitch: width,
            dstXInBytes: 0,
            dstY: 0,
            dstMemoryType: CUmemorytype::CU_MEMORYTYPE_DEVICE,
            dstHost: ptr::null_mut(),
            dstDevice: to,
            dstArray: ptr::null_mut(),
            dstPitch: pitch,
            WidthInBytes: width,
            Height: values.len() / width,
        };
        // SAFETY: the driver reads the description before it returns; the rest as above.
        let answer = unsafe { sys::cuMemcpy2DAsync_v2(&raw const copy, self.stream().cu_stream()) };
        self.said(answer.result(), "an upload")
    }

    /// Enqueues a copy from `from` to `values`. Pageable values are there at once, page-locked ones when the copy is over.
    pub fn enqueue_download<T>(&self, from: Address, values: &mut [T]) -> Result<(), DeviceError> {
        // SAFETY: the caller's memory at `from` is large enough, and it leaves page-locked values alone.
        self.said(unsafe { memcpy_dtoh_async(values, from, self.stream().cu_stream()) }, "a download")
    }

    /// Fills `values` from `from`, once all work before is done.
    pub fn download<T>(&self, from: Address, values: &mut [T]) -> Result<(), DeviceError> {
        self.enqueue_download(from, values)?;
        self.said(self.stream().synchronize(), "a download")
    }

    pub fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<(), DeviceError> {
        // SAFETY: the caller's memory at both ends is large enough; the stream's order is the copies'.
        self.said(unsafe { memcpy_dtod_async(to, from, bytes, self.stream().cu_stream()) }, "a copy")
    }

    pub fn zero(&self, at: Address, bytes: usize) -> Result<(), DeviceError> {
        // SAFETY: the caller's memory at `at` is large enough.
        self.said(unsafe { memset_d8_async(at, 0, bytes, self.stream().cu_stream()) }, "a fill")
    }
}
