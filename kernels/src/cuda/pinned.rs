//! Page-locked host memory that the device reads and writes by itself, while the host goes on.

use std::ptr::NonNull;
use std::rc::Rc;

use cudarc::driver::CudaEvent;
use cudarc::driver::result::{free_host, malloc_host};
use tensor::DeviceError;

use super::device::{Address, Device};

/// Host memory, and a mark behind the last copy from or to it: nobody looks at it before that is over.
pub(super) struct Pinned {
    device: Rc<Device>,
    host: NonNull<u32>,
    words: usize,
    copied: CudaEvent,
}

/// A copy of `runs` of `width` bytes, which lie without gaps from byte `from` on, to `to` and each `pitch` bytes after the one before.
pub(super) struct Strided {
    pub from: usize,
    pub to: Address,
    pub width: usize,
    pub runs: usize,
    pub pitch: usize,
}

impl Pinned {
    /// `words` zeros.
    pub fn new(device: &Rc<Device>, words: usize) -> Result<Self, DeviceError> {
        let (words, copied) = (words.max(1), device.event()?);
        // SAFETY: asks for memory, which is freed once, by `drop`.
        let host = unsafe { malloc_host(words * 4, 0) };
        let host = device.said(host, "page-locked memory")?.cast::<u32>();
        let host = NonNull::new(host).expect("an allocation that succeeded is somewhere");
        // SAFETY: as many words were just allocated, aligned to a page.
        unsafe { host.write_bytes(0, words) };
        Ok(Self { device: Rc::clone(device), host, words, copied })
    }

    /// The memory, once the device is done with it.
    pub fn words(&mut self) -> Result<&mut [u32], DeviceError> {
        self.device.said(self.copied.synchronize(), "a copy")?;
        // SAFETY: allocated and filled by `new`; the device uses it only between a copy's call and its mark.
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
        self.device.mark(&self.copied)
    }

    /// Enqueues copies of parts.
    pub fn spread(&mut self, mut copies: impl Iterator<Item = Strided>) -> Result<(), DeviceError> {
        let enqueued = copies.try_for_each(|copy| {
            let bytes = copy.runs * copy.width;
            assert!(copy.from + bytes <= self.words * 4, "{bytes} bytes from {} on are within the memory", copy.from);
            // SAFETY: initialized by `new`, and written by nobody before the mark below is reached.
            let values = unsafe { std::slice::from_raw_parts(self.host.as_ptr().cast::<u8>().add(copy.from), bytes) };
            self.device.enqueue_strided_upload(copy.to, values, copy.width, copy.pitch)
        });
        // Behind those that came to be, whatever became of the others.
        self.device.mark(&self.copied)?;
        enqueued
    }

    /// Enqueues a copy of as many `bytes` from `from`.
    pub fn receive(&mut self, bytes: usize, from: Address) -> Result<(), DeviceError> {
        assert!(bytes <= self.words * 4, "{bytes} bytes are received by {}", self.words * 4);
        // SAFETY: initialized by `new`, and read by nobody before the mark below is reached.
        let values = unsafe { std::slice::from_raw_parts_mut(self.host.as_ptr().cast::<u8>(), bytes) };
        self.device.enqueue_download(from, values)?;
        self.device.mark(&self.copied)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // After an error that ended the context it is gone already.
        self.copied.synchronize().ok();
        // SAFETY: allocated by `new`, freed only here, and used by no copy any more.
        unsafe { free_host(self.host.as_ptr().cast()) }.ok();
    }
}
