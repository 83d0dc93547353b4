//! One GPU: its context, one stream, the kernels loaded from the binary, and what the driver says, in words.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUdevice_attribute, CUevent_flags, CUfunction_attribute, CUresult};
use cudarc::driver::{CudaContext, CudaEvent, CudaFunction, CudaStream, DriverError};
use cudarc::nvrtc::Ptx;
use tensor::DeviceError;

use super::modules::MODULES;

/// An address on the device.
pub(super) type Address = u64;

const NO_KERNELS: &str = "this binary was built without CUDA kernels; run `cargo xtask kernels` and build again";
/// The oldest architecture that the kernels are compiled for.
const OLDEST: (i32, i32) = (8, 0);
/// Dynamic shared memory that a launch may ask for as it is.
const SHARED_BYTES: usize = 48 << 10;
/// The CUDA version that the kernels are compiled with: older drivers do not know its images.
const CUDA_VERSION: i32 = 13_000;
/// The oldest that starts a kernel while the one before it ends.
const OVERLAPPING: (i32, i32) = (9, 0);

/// A device that is ready to launch.
pub(super) struct Device {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    kernels: HashMap<&'static str, Kernel>,
    sms: usize,
    overlaps: bool,
}

/// One kernel, and the dynamic shared memory that its launches may ask for.
struct Kernel {
    function: CudaFunction,
    shared_bytes: Cell<usize>,
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
        check_ordinal(ordinal)?;
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
        let sms = context.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT).map_err(opened)?;
        let sms = usize::try_from(sms).expect("a card has no fewer multiprocessors than none");
        Ok(Rc::new(Self { context, stream, kernels, sms, overlaps: capability >= OVERLAPPING }))
    }

    /// One line for people.
    pub fn describe(&self) -> String {
        let name = self.context.name().unwrap_or_else(|_| "unnamed".to_owned());
        let (major, minor) = self.context.compute_capability().unwrap_or_default();
        format!("cuda, {name}, compute capability {major}.{minor}")
    }

    pub fn free_bytes(&self) -> u64 {
        self.context.mem_get_info().map_or(0, |(free, _)| free as u64)
    }

    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// Multiprocessors.
    pub fn sms(&self) -> usize {
        self.sms
    }

    /// A mark for the stream.
    pub fn event(&self) -> Result<CudaEvent, DeviceError> {
        self.said(self.context.new_event(None), "an event")
    }

    /// A mark that knows when it was reached.
    pub fn timed_event(&self) -> Result<CudaEvent, DeviceError> {
        self.said(self.context.new_event(Some(CUevent_flags::CU_EVENT_DEFAULT)), "an event")
    }

    /// Puts `event` behind everything that was enqueued so far.
    pub fn mark(&self, event: &CudaEvent) -> Result<(), DeviceError> {
        self.said(event.record(&self.stream), "an event")
    }

    /// Whether a kernel may start before the one before it has ended.
    pub fn overlaps(&self) -> bool {
        self.overlaps
    }

    /// The kernel called `name`, ready for launches with `shared_bytes` of dynamic shared memory. It is allowed no more than it asks
    /// for: on consumer cards a block has 99 KiB, the kernel's static arrays among them.
    pub fn kernel(&self, name: &str, shared_bytes: usize) -> Result<&CudaFunction, DeviceError> {
        let Kernel { function, shared_bytes: allowed } =
            self.kernels.get(name).unwrap_or_else(|| panic!("no kernel is called {name}"));
        if shared_bytes > allowed.get() {
            let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let bytes = i32::try_from(shared_bytes).expect("a block has less than 2 GiB");
            self.said(function.set_attribute(attribute, bytes), name)?;
            allowed.set(shared_bytes);
        }
        Ok(function)
    }

    /// The driver's answer to `what`, as a sentence where it is an error.
    pub fn said<T>(&self, answer: Result<T, DriverError>, what: &str) -> Result<T, DeviceError> {
        answer.map_err(|error| failed(error, what))
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

/// Names the GPUs that there are where the one that was asked for is none of them.
fn check_ordinal(ordinal: usize) -> Result<(), DeviceError> {
    let count = match CudaContext::device_count() {
        Ok(count) => usize::try_from(count).unwrap_or(0),
        Err(error) if error.0 == CUresult::CUDA_ERROR_NO_DEVICE => 0,
        Err(error) => return Err(refused(format!("the NVIDIA driver cannot count its GPUs: {}", name(error.0)))),
    };
    match count {
        0 => {
            Err(refused("the NVIDIA driver finds no GPU; is one in this machine, and CUDA_VISIBLE_DEVICES not empty?"))
        }
        _ if ordinal < count => Ok(()),
        1 => Err(refused(format!("there is no GPU {ordinal}: the only one is cuda:0"))),
        _ => Err(refused(format!("there is no GPU {ordinal}: they are cuda:0 to cuda:{}", count - 1))),
    }
}

fn load(context: &Arc<CudaContext>) -> Result<HashMap<&'static str, Kernel>, DeviceError> {
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
            kernels.insert(name, Kernel { function, shared_bytes: Cell::new(SHARED_BYTES) });
        }
    }
    Ok(kernels)
}

pub(super) fn refused(message: impl Into<String>) -> DeviceError {
    DeviceError { message: message.into(), sticky: false }
}

/// A refusal with what the user can do about it; a failure stays as it is.
pub(super) fn advised(error: DeviceError, advice: &str) -> DeviceError {
    if error.sticky { error } else { refused(format!("{}; {advice}", error.message)) }
}

/// What the driver said of `what`.
fn failed(error: DriverError, what: &str) -> DeviceError {
    use CUresult::*;
    let passing = matches!(error.0, CUDA_ERROR_OUT_OF_MEMORY | CUDA_ERROR_INVALID_VALUE | CUDA_ERROR_NOT_FOUND);
    DeviceError { message: format!("the GPU failed at {what}: {}", name(error.0)), sticky: !passing }
}

fn name(result: CUresult) -> String {
    if result == CUresult::CUDA_ERROR_OUT_OF_MEMORY {
        return "out of memory (nvidia-smi shows which programs hold it)".to_owned();
    }
    format!("{result:?}").trim_start_matches("CUDA_ERROR_").replace('_', " ").to_lowercase()
}
