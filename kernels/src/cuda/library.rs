//! Which matmuls cublasLt computes where it is in use: those of many rows, by which own kernels are bounded by arithmetic.

use tensor::{Act, Activation, DeviceError};

use super::act::e4m3;
use super::cublaslt::{CublasLt, Number, Product};
use super::gemm::{Out, encoding};
use super::params::Glu;
use super::weight::{Kind, Weight};
use super::{Buf, Cuda, address, int};

/// Up to so many rows the weight's bytes are what bounds a matmul, and own kernels read them as fast as anybody.
const OWN_ROWS: usize = 64;
/// Threads of a block of `glu_rows`, and units of a thread.
const GLU_THREADS: usize = 256;
const GLU_UNITS: usize = 8;

impl Cuda {
    /// The same GPU, with cublasLt for matmuls of many rows if the machine has it. It chooses its order of summation by the number of
    /// rows: a row's last bits then depend on its neighbours.
    pub fn with_cublaslt(mut self) -> Result<Self, DeviceError> {
        self.library = CublasLt::open(&self.device)?;
        Ok(self)
    }

    /// `y = a w^T`, and what `out` makes of it, by cublasLt; false where it is not in use, or has no such product.
    pub(super) fn multiply_by_library(
        &mut self,
        out: Out,
        a: &Act<Self>,
        w: &Weight,
        bias: Option<&Buf>,
        y: &Buf,
    ) -> bool {
        if self.library.is_none() || a.rows <= OWN_ROWS || bias.is_some() || operands(w).is_none() {
            return false;
        }
        let gate = if let Out::Glu { f, .. } = out { Some(f) } else { None };
        let pairs = gate.map(|f| (f, self.arena.alloc(a.rows * w.rows * 2)));
        if !self.launches() {
            return false;
        }
        let product = product(out, a, w, pairs.as_ref().map_or(y, |(_, pairs)| pairs));
        let library = self.library.as_ref().expect("just looked");
        match library.multiply(&product) {
            Ok(false) => return false,
            Ok(true) => {}
            Err(error) => self.failed = Some(error),
        }
        if let Some((f, pairs)) = pairs {
            let (units, activation) = (w.rows / 2, i32::from(f == Activation::GeluTanh));
            let params = Glu { x: pairs.address(), y: y.address(), units: int(units), activation };
            self.launch("glu_rows", [a.rows, units.div_ceil(GLU_THREADS * GLU_UNITS), 1], GLU_THREADS, 0, &params);
        }
        true
    }
}

/// What cublasLt is asked to multiply. Its 128 x 128 blocks do not fit gate and up that alternate, but a scale an output and 128 inputs does;
/// where both operands have one scale for all, tokens have none of their own.
fn operands(w: &Weight) -> Option<Number> {
    match w.kind {
        Kind::Bf16 => Some(Number::Bf16),
        Kind::Fp8(scaling) if !scaling.by_group => Some(Number::E4m3),
        Kind::Fp8(_) if w.wide_scales.is_some() => Some(Number::E4m3G128),
        _ => None,
    }
}

fn product(out: Out, a: &Act<Cuda>, w: &Weight, y: &Buf) -> Product {
    let operands = operands(w).expect("the caller asked");
    let encoding = encoding(w.kind);
    Product {
        operands,
        result: if matches!(out, Out::Glu { .. }) { Number::Bf16 } else { Number::F32 },
        rows: a.rows,
        outputs: w.rows,
        inputs: w.cols,
        x: a.get(encoding).address(),
        w: w.data.address(),
        x_scales: if operands == Number::Bf16 { 0 } else { e4m3(a, encoding).scales },
        w_scales: address(w.wide_scales.as_ref().or(w.meta.as_ref())),
        y: y.address(),
        adds: matches!(out, Out::Add),
    }
}
