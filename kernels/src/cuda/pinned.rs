//! Page-locked host memory that the device reads by itself, while the host goes on.

use std::ptr::NonNull;
use std::rc::Rc;

use cudarc::driver::CudaEvent;
use cudarc::driver::result::{free_host, malloc_host};
use tensor::DeviceError;

use super::device::{Address, Device};

/// Host memory, and a mark behind the last copy from it: nothing is overwritten that is still to be read.
pub(super) struct Pinned {
    device: Rc<Device>,
    host: NonNull<u32>,
    words: usize,
    sent: CudaEvent,
}

impl Pinned {
    /// `words` zeros.
    pub fn new(device: &Rc<Device>, words: usize) -> Result<Self, DeviceError> {
        let (words, sent) = (words.max(1), device.event()?);
        // SAFETY: asks for memory, which is freed once, by `drop`.
        let host = unsafe { malloc_host(words * 4, 0) };
        let host = device.said(host, "page-locked memory")?.cast::<u32>();
        let host = NonNull::new(host).expect("an allocation that succeeded is somewhere");
        // SAFETY: as many words were just allocated, aligned to a page.
        unsafe { host.write_bytes(0, words) };
        Ok(Self { device: Rc::clone(device), host, words, sent })
    }

    /// The memory, once the device has read what was sent from it.
    pub fn words(&mut self) -> Result<&mut [u32], DeviceError> {
        self.device.said(self.sent.synchronize(), "an upload")?;
        // SAFETY: allocated and filled by `new`; the device reads it only between `send` and its mark.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.host.as_ptr(), self.words) })
    }

    /// The same as bytes.
    pub fn bytes(&mut self) -> Result<&mut [u8], DeviceError> {
        let words = self.words()?;
        // SAFETY: every byte of a word is a byte.
        Ok(unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), words.len() * 4) })
    }

    /// Enqueues a copy of the first `bytes` to `to`.
    pub fn send(&mut self, bytes: usize, to: Address) -> Result<(), DeviceError> {
        assert!(bytes <= self.words * 4, "{bytes} bytes are sent of {}", self.words * 4);
        // SAFETY: initialized by `new`, and written by nobody before the mark below is reached.
        let values = unsafe { std::slice::from_raw_parts(self.host.as_ptr().cast::<u8>(), bytes) };
        self.device.enqueue_upload(to, values)?;
        self.device.mark(&self.sent)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // After an error that ended the context it is gone already.
        self.sent.synchronize().ok();
        // SAFETY: allocated by `new`, freed only here, and read by no copy any more.
        unsafe { free_host(self.host.as_ptr().cast()) }.ok();
    }
}
