//! Matmuls by all formats of weights, from one row to a prompt's.

use anyhow::Result;
use benches::{Matrix, Shape, Work};
use kernels::cuda::Cuda;
use quant::{Format, Stored};
use tensor::{Act, Activation, Backend, NormSpec, Role};

use super::{Bench, noise, plain_inputs};

/// The library multiplies more rows than these.
const OWN_ROWS: usize = 64;

impl Bench<'_> {
    /// All matrices of a layer, and the head where it is held in `format`; by cublasLt where that is asked for and installed.
    pub(super) fn matmuls(&mut self, format: Format, by_library: bool) -> Result<()> {
        // The head stays as it is where the rest is quantized.
        let is_held = |shape: Shape, what: &str| {
            format.row_bytes(shape.cols).is_some() && (format == Format::Bf16 || what != "head")
        };
        let matrices = self.scale.matrices().into_iter().filter(|(what, shape, _)| is_held(*shape, what));
        for (what, shape, is_glu) in matrices {
            self.start_over()?;
            if by_library && !self.take_library()? {
                println!("cublasLt is not installed");
                return Ok(());
            }
            self.matmul(what, format, shape, is_glu, by_library)?;
        }
        Ok(())
    }

    fn take_library(&mut self) -> Result<bool> {
        let own = self.cuda.describe();
        self.cuda = Cuda::new(0)?.with_cublaslt()?;
        Ok(self.cuda.describe() != own)
    }

    fn matmul(&mut self, what: &str, format: Format, shape: Shape, is_glu: bool, by_library: bool) -> Result<()> {
        let parts = match is_glu {
            true => vec![Matrix::new(format, Shape { rows: shape.rows / 2, ..shape }); 2],
            false => vec![Matrix::new(format, shape)],
        };
        let bytes: usize = parts.iter().map(Matrix::num_bytes).sum();
        let stored: Vec<Stored<'_>> = parts.iter().map(Matrix::stored).collect();
        let role = if is_glu { Role::Glu } else { Role::Column };
        let weights = (0..self.copies(bytes)).map(|_| self.cuda.pack(&stored, role)).collect::<Result<Vec<_>, _>>()?;
        let gain = self.cuda.vector(&vec![1.0; shape.cols])?;
        let spec = NormSpec { gain, eps: 1e-5, size: shape.cols };
        let wants = Cuda::wants(&weights[0]);
        let bits = 8.0 * bytes as f64 / (shape.rows * shape.cols) as f64;
        let by = if by_library { "cublasLt" } else { "own" };
        // From the largest on: the first step plans the workspace.
        for &tokens in self.scale.tokens.iter().rev().filter(|tokens| !by_library || **tokens > OWN_ROWS) {
            let x = self.cuda.vector(&noise(tokens * shape.cols))?;
            let mut prepare = |b: &mut Cuda| b.norm(&x, &spec, wants);
            let mut op = |b: &mut Cuda, act: &Act<Cuda>, idx: usize| {
                let weight = &weights[idx % weights.len()];
                match is_glu {
                    true => drop(b.linear_glu(act, weight, Activation::Silu, wants)),
                    false => drop(b.linear(act, weight, None)),
                }
            };
            let seconds = self.seconds(&plain_inputs(tokens), &mut prepare, &mut op)?;
            let work = if is_glu { Work::linear_glu } else { Work::linear };
            let work = work(tokens, shape.rows, shape.cols, bits);
            let work = if format == Format::Fp8E4m3 { work.in_fp8() } else { work };
            let shown = format!("{what} {}x{} {format}", shape.rows, shape.cols);
            self.record_by(by, &shown, tokens, work, seconds)?;
        }
        Ok(())
    }
}
