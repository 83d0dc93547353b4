//! cublasLt, where the machine has it and answers may depend on the batch: products of many rows.
//!
//! The library is looked for at run time. It is asked once for a weight's shape and a power of two of rows which of its algorithms
//! to take, and that is kept; what it refuses is left to our own kernels. All memory that it uses is taken at the start, and it works
//! in the stream's order, so that its products can be captured.
//!
//! It counts columns first: y [M, N] = x W^T is to it the N x M matrix W^T x, of W^T [K, N] transposed and x^T [K, M].

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr::from_ref;
use std::rc::Rc;

use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys::{self, cublasStatus_t as Status};
use tensor::DeviceError;

use super::device::{Address, Device, refused};
use super::memory::Memory;

/// What NVIDIA advises for Hopper.
const WORKSPACE_BYTES: usize = 32 << 20;

/// cublasOperation_t, which the bindings leave out.
const AS_IT_IS: i32 = 0;
const TRANSPOSED: i32 = 1;

/// An operand's or a result's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Number {
    F32,
    Bf16,
    /// With one scale a row.
    E4m3,
    /// With one a row and 128 inputs.
    E4m3G128,
}

/// y [rows, outputs] = x [rows, inputs] W^T, or added to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Product {
    /// Of x and W.
    pub operands: Number,
    /// Of y.
    pub result: Number,
    pub rows: usize,
    pub outputs: usize,
    pub inputs: usize,
    pub x: Address,
    pub w: Address,
    /// Of e4m3: f32, [rows] and [outputs], or [inputs / 128, rows] and [inputs / 128, outputs].
    pub x_scales: Address,
    pub w_scales: Address,
    pub y: Address,
    pub adds: bool,
}

/// What an algorithm is chosen by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    operands: Number,
    result: Number,
    rows: u64,
    outputs: u64,
    inputs: u64,
}

/// The library on one stream.
pub(super) struct CublasLt {
    handle: sys::cublasLtHandle_t,
    device: Rc<Device>,
    workspace: Memory,
    /// None where the library refused.
    plans: RefCell<HashMap<Key, Option<Plan>>>,
}

impl CublasLt {
    /// The library, if the machine has it.
    pub fn open(device: &Rc<Device>) -> Result<Option<Self>, DeviceError> {
        // SAFETY: only looks for the library.
        if !unsafe { sys::is_culib_present() } {
            return Ok(None);
        }
        let handle = result::create_handle().map_err(failed)?;
        let workspace = device.alloc(WORKSPACE_BYTES)?;
        Ok(Some(Self { handle, device: Rc::clone(device), workspace, plans: RefCell::default() }))
    }

    /// For people.
    pub fn describe(&self) -> String {
        // SAFETY: takes nothing; the library is there.
        let version = unsafe { sys::cublasLtGetVersion() };
        format!("cublasLt {}.{}", version / 10_000, version / 100 % 100)
    }

    /// Enqueues `product`, or returns false where the library has no way to compute it.
    pub fn multiply(&self, product: &Product) -> Result<bool, DeviceError> {
        if !product.has_whole_scales() {
            return Ok(false);
        }
        let mut plans = self.plans.borrow_mut();
        let plan = plans.entry(Key::of(product)).or_insert_with_key(|key| self.plan(key, product).ok());
        let Some(plan) = plan else { return Ok(false) };
        match self.run(plan, product) {
            Ok(()) => Ok(true),
            Err(error) if is_refusal(error) => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    /// Shapes that it has a way for.
    #[cfg(test)]
    pub fn num_plans(&self) -> usize {
        self.plans.borrow().values().flatten().count()
    }

    fn plan(&self, key: &Key, product: &Product) -> Result<Plan, CublasError> {
        let description = Description::new(key.operands)?;
        description.point(product)?;
        let weight = Layout::new(key.operands, key.inputs, key.outputs)?;
        let input = Layout::new(key.operands, key.inputs, key.rows)?;
        let output = Layout::new(key.result, key.outputs, key.rows)?;
        let preference = Preference::new(WORKSPACE_BYTES)?;
        // SAFETY: all of them are alive.
        let chosen = unsafe {
            let (x, y) = (input.0, output.0);
            result::get_matmul_algo_heuristic(self.handle, description.0, weight.0, x, y, y, preference.0)
        }?;
        Ok(Plan { description, weight, input, output, algorithm: chosen.algo })
    }

    fn run(&self, plan: &Plan, product: &Product) -> Result<(), CublasError> {
        plan.description.point(product)?;
        plan.input.set_columns(product.rows)?;
        plan.output.set_columns(product.rows)?;
        let (one, onto) = (1.0f32, f32::from(product.adds));
        // SAFETY: the descriptors are alive; the caller's addresses outlive the stream's work, and are as large as the shape says.
        unsafe {
            result::matmul(
                self.handle,
                plan.description.0,
                from_ref(&one).cast(),
                from_ref(&onto).cast(),
                product.w as *const c_void,
                plan.weight.0,
                product.x as *const c_void,
                plan.input.0,
                product.y as *const c_void,
                plan.output.0,
                product.y as *mut c_void,
                plan.output.0,
                from_ref(&plan.algorithm),
                self.workspace.address() as *mut c_void,
                WORKSPACE_BYTES,
                self.device.stream().cu_stream().cast(),
            )
        }
    }
}

impl Drop for CublasLt {
    fn drop(&mut self) {
        self.plans.borrow_mut().clear();
        // SAFETY: made by `open`, and nothing of it is left.
        unsafe { result::destroy_handle(self.handle) }.ok();
    }
}

impl Product {
    /// The library wants rows of scales of 128 inputs in whole 16 bytes.
    fn has_whole_scales(&self) -> bool {
        self.operands != Number::E4m3G128 || (self.rows.is_multiple_of(4) && self.outputs.is_multiple_of(4))
    }
}

impl Key {
    fn of(product: &Product) -> Self {
        let &Product { operands, result, rows, outputs, inputs, .. } = product;
        Self { operands, result, rows: rows.next_power_of_two() as u64, outputs: outputs as u64, inputs: inputs as u64 }
    }
}

impl Number {
    fn kind(self) -> sys::cudaDataType {
        match self {
            Self::F32 => sys::cudaDataType::CUDA_R_32F,
            Self::Bf16 => sys::cudaDataType::CUDA_R_16BF,
            Self::E4m3 | Self::E4m3G128 => sys::cudaDataType::CUDA_R_8F_E4M3,
        }
    }

    /// How the scales of both operands lie, if they have any. Both modes are Hopper's alone.
    fn scale_mode(self) -> Option<sys::cublasLtMatmulMatrixScale_t> {
        use sys::cublasLtMatmulMatrixScale_t::*;
        match self {
            Self::E4m3 => Some(CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F),
            Self::E4m3G128 => Some(CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F),
            Self::F32 | Self::Bf16 => None,
        }
    }
}

/// All that a product of some shape takes but addresses and the number of rows.
struct Plan {
    description: Description,
    weight: Layout,
    input: Layout,
    output: Layout,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

/// How two matrices are multiplied.
struct Description(sys::cublasLtMatmulDesc_t);

impl Description {
    fn new(operands: Number) -> Result<Self, CublasError> {
        use sys::cublasLtMatmulDescAttributes_t::*;
        let f32_sums = sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let this = Self(result::create_matmul_desc(f32_sums, sys::cudaDataType::CUDA_R_32F)?);
        this.set(CUBLASLT_MATMUL_DESC_TRANSA, &TRANSPOSED)?;
        this.set(CUBLASLT_MATMUL_DESC_TRANSB, &AS_IT_IS)?;
        if let Some(mode) = operands.scale_mode() {
            this.set(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &mode)?;
            this.set(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &mode)?;
        }
        Ok(this)
    }

    /// Names the scales of this product.
    fn point(&self, product: &Product) -> Result<(), CublasError> {
        use sys::cublasLtMatmulDescAttributes_t::*;
        if product.operands.scale_mode().is_some() {
            self.set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &product.w_scales)?;
            self.set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &product.x_scales)?;
        }
        Ok(())
    }

    fn set<T>(&self, attribute: sys::cublasLtMatmulDescAttributes_t, value: &T) -> Result<(), CublasError> {
        // SAFETY: the library copies the value.
        unsafe { result::set_matmul_desc_attribute(self.0, attribute, from_ref(value).cast(), size_of::<T>()) }
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and gone with this.
        unsafe { result::destroy_matmul_desc(self.0) }.ok();
    }
}

/// A matrix of whole columns one after another.
struct Layout(sys::cublasLtMatrixLayout_t);

impl Layout {
    fn new(number: Number, rows: u64, columns: u64) -> Result<Self, CublasError> {
        result::create_matrix_layout(number.kind(), rows, columns, rows as i64).map(Self)
    }

    fn set_columns(&self, columns: usize) -> Result<(), CublasError> {
        let (attribute, columns) = (sys::cublasLtMatrixLayoutAttribute_t::CUBLASLT_MATRIX_LAYOUT_COLS, columns as u64);
        // SAFETY: the library copies the value.
        unsafe { result::set_matrix_layout_attribute(self.0, attribute, from_ref(&columns).cast(), size_of::<u64>()) }
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and gone with this.
        unsafe { result::destroy_matrix_layout(self.0) }.ok();
    }
}

/// What an algorithm may take.
struct Preference(sys::cublasLtMatmulPreference_t);

impl Preference {
    fn new(workspace_bytes: usize) -> Result<Self, CublasError> {
        let this = Self(result::create_matmul_pref()?);
        let attribute = sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
        let value = from_ref(&workspace_bytes).cast();
        // SAFETY: the library copies the value.
        unsafe { result::set_matmul_pref_attribute(this.0, attribute, value, size_of::<usize>()) }?;
        Ok(this)
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and gone with this.
        unsafe { result::destroy_matmul_pref(self.0) }.ok();
    }
}

/// Whether the library just has no such product, for which it enqueued nothing.
fn is_refusal(error: CublasError) -> bool {
    matches!(error.0, Status::CUBLAS_STATUS_NOT_SUPPORTED | Status::CUBLAS_STATUS_INVALID_VALUE)
}

fn failed(error: CublasError) -> DeviceError {
    let name = format!("{:?}", error.0);
    let words = name.trim_start_matches("CUBLAS_STATUS_").replace('_', " ").to_lowercase();
    DeviceError {
        sticky: error.0 == Status::CUBLAS_STATUS_EXECUTION_FAILED,
        ..refused(format!("cublasLt failed: {words}"))
    }
}
