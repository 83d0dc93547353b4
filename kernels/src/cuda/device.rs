//! One GPU: its context, one stream, the kernels loaded from the binary, and memory by address.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use cudarc::driver::result::{free_sync, malloc_sync, memcpy_dtod_async, memcpy_dtoh_async, memcpy_htod_async};
use cudarc::driver::sys::{self, CUfunction_attribute, CUresult};
use cudarc::driver::{CudaContext, CudaFunction, CudaStream, DeviceRepr, DriverError, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;
use tensor::DeviceError;

use super::modules::MODULES;

/// An address on the device.
pub(super) type Address = u64;

const NO_KERNELS: &str = "this binary was built without CUDA kernels; run `cargo xtask kernels` and build again";
/// The oldest architecture that the kernels are compiled for.
const OLDEST: (i32, i32) = (8, 0);
/// Shared memory that a launch may ask for: every architecture since the oldest grants a block this much.
const SHARED_BYTES: i32 = 96 << 10;
/// The CUDA version that the kernels are compiled with: older drivers do not know its images.
const CUDA_VERSION: i32 = 13_000;

/// A device that is ready to launch.
pub(super) struct Device {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    kernels: HashMap<&'static str, CudaFunction>,
}

impl Device {
    /// Opens GPU `ordinal`.
    ///
    /// # Errors
    /// A sentence that says what is missing: the driver, the GPU, its generation, or kernels in this binary.
    pub fn open(ordinal: usize) -> Result<Rc<Self>, DeviceError> {
        // SAFETY: only looks for the library.
        if !unsafe { sys::is_culib_present() } {
            return Err(refused("no NVIDIA driver (libcuda.so.1) is on this machine"));
        }
        check_driver()?;
        let opened = |error: DriverError| refused(format!("GPU {ordinal} cannot be opened: {}", name(error.0)));
        let context = CudaContext::new(ordinal).map_err(opened)?;
        let capability = context.compute_capability().map_err(opened)?;
        if capability < OLDEST {
            return Err(refused(format!(
                "GPU {ordinal} has compute capability {}.{}; the kernels need 8.0 (Ampere) or newer",
                capability.0, capability.1
            )));
        }
        // SAFETY: one stream orders everything; nothing else of cudarc's touches the memory.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream().map_err(opened)?;
        let kernels = load(&context)?;
        Ok(Rc::new(Self { context, stream, kernels }))
    }

    /// One line for people.
    pub fn describe(&self) -> String {
        let name = self.context.name().unwrap_or_else(|_| "unnamed".to_owned());
        let (major, minor) = self.context.compute_capability().unwrap_or_default();
        format!("cuda, {name}, compute capability {major}.{minor}")
    }

    /// The stream, for libraries.
    pub fn stream(&self) -> sys::CUstream {
        self.stream.cu_stream()
    }

    pub fn free_bytes(&self) -> u64 {
        self.context.mem_get_info().map_or(0, |(free, _)| free as u64)
    }

    /// Memory whose contents are undefined.
    pub fn alloc(self: &Rc<Self>, bytes: usize) -> Result<Memory, DeviceError> {
        let bytes = bytes.max(1);
        // SAFETY: the memory is handed out by address, and freed once.
        let address = unsafe { malloc_sync(bytes) }.map_err(|error| match error.0 {
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => refused(format!(
                "the GPU has {} MiB free and {} more are wanted; see `tokenmill plan`",
                self.free_bytes() >> 20,
                bytes.div_ceil(1 << 20)
            )),
            _ => failed(error, "memory"),
        })?;
        Ok(Memory { device: Rc::clone(self), address, bytes })
    }

    /// Enqueues `params` as the only parameter of kernel `name`.
    pub fn launch<P: DeviceRepr>(
        &self,
        name: &'static str,
        grid: [usize; 3],
        threads: usize,
        shared_bytes: usize,
        params: &P,
    ) -> Result<(), DeviceError> {
        let function = self.kernels.get(name).unwrap_or_else(|| panic!("no kernel is called {name}"));
        let size = |n: usize| u32::try_from(n).expect("a launch is smaller than 2^32 in each direction");
        let [x, y, z] = grid.map(size);
        if x == 0 || y == 0 || z == 0 {
            return Ok(());
        }
        let config = LaunchConfig {
            grid_dim: (x, y, z),
            block_dim: (size(threads), 1, 1),
            shared_mem_bytes: size(shared_bytes),
        };
        let mut launch = self.stream.launch_builder(function);
        launch.arg(params);
        // SAFETY: each caller fills `params` as the kernel's header asks, with addresses that outlive the stream's work.
        unsafe { launch.launch(config) }.map(drop).map_err(|error| failed(error, name))
    }

    /// Copies `values` to `to`, in the stream's order; they may be reused at once.
    pub fn upload<T>(&self, to: Address, values: &[T]) -> Result<(), DeviceError> {
        // SAFETY: the caller's memory at `to` is large enough; the copy ends before this returns.
        unsafe { memcpy_htod_async(to, values, self.stream.cu_stream()) }
            .and_then(|()| self.stream.synchronize())
            .map_err(|error| failed(error, "an upload"))
    }

    /// Fills `values` from `from`, once all work before is done.
    pub fn download<T>(&self, from: Address, values: &mut [T]) -> Result<(), DeviceError> {
        // SAFETY: as above.
        unsafe { memcpy_dtoh_async(values, from, self.stream.cu_stream()) }
            .and_then(|()| self.stream.synchronize())
            .map_err(|error| failed(error, "a download"))
    }

    pub fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<(), DeviceError> {
        // SAFETY: as above, in the stream's order.
        unsafe { memcpy_dtod_async(to, from, bytes, self.stream.cu_stream()) }.map_err(|error| failed(error, "a copy"))
    }
}

fn check_driver() -> Result<(), DeviceError> {
    let mut version = 0;
    // SAFETY: the driver writes one number, and may be asked before anything else.
    let asked = unsafe { sys::cuDriverGetVersion(&mut version) };
    if asked != CUresult::CUDA_SUCCESS || version < CUDA_VERSION {
        let (major, minor) = (version / 1000, version % 1000 / 10);
        return Err(refused(format!(
            "the NVIDIA driver knows CUDA {major}.{minor}; the kernels need 13.0 (driver 580) or newer"
        )));
    }
    Ok(())
}

fn load(context: &Arc<CudaContext>) -> Result<HashMap<&'static str, CudaFunction>, DeviceError> {
    if MODULES.is_empty() {
        return Err(refused(NO_KERNELS));
    }
    let mut kernels = HashMap::new();
    for &(module, image, names) in MODULES {
        let missing = |error: DriverError| match error.0 {
            CUresult::CUDA_ERROR_INVALID_IMAGE => refused(NO_KERNELS),
            _ => failed(error, module),
        };
        let loaded = context.load_module(Ptx::from_binary(image.to_vec())).map_err(missing)?;
        for &name in names {
            let function = loaded.load_function(name).map_err(missing)?;
            let shared = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(shared, SHARED_BYTES).map_err(missing)?;
            kernels.insert(name, function);
        }
    }
    Ok(kernels)
}

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
        self.device.stream.synchronize().and_then(|()| unsafe { free_sync(self.address) }).ok();
    }
}

pub(super) fn refused(message: impl Into<String>) -> DeviceError {
    DeviceError { message: message.into(), sticky: false }
}

/// What the driver said of `what`.
fn failed(error: DriverError, what: &str) -> DeviceError {
    use CUresult::*;
    let passing = matches!(error.0, CUDA_ERROR_OUT_OF_MEMORY | CUDA_ERROR_INVALID_VALUE | CUDA_ERROR_NOT_FOUND);
    DeviceError { message: format!("the GPU failed at {what}: {}", name(error.0)), sticky: !passing }
}

fn name(result: CUresult) -> String {
    format!("{result:?}").trim_start_matches("CUDA_ERROR_").replace('_', " ").to_lowercase()
}
