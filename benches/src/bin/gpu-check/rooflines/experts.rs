//! A mixture of experts as a layer calls it: routing, gate and up, down and their sum.

use anyhow::Result;
use benches::{Experts, Matrix, Shape, Work};
use kernels::cuda::Cuda;
use quant::Format;
use tensor::{Act, Activation, Backend, NormSpec, Role, RouteSpec};

use super::{Bench, noise, plain_inputs};

impl Bench<'_> {
    /// Experts whose weights are `format`, each a stack that no cache holds.
    pub(super) fn experts(&mut self, format: Format) -> Result<()> {
        self.start_over()?;
        let experts @ Experts { num, top_k, hidden, ffn } = self.scale.experts;
        let [up, down] = [(ffn, hidden), (hidden, ffn)].map(|(rows, cols)| Matrix::new(format, Shape { rows, cols }));
        let gate_up = self.cuda.pack(&vec![up.stored(); 2 * num], Role::ExpertsGlu)?;
        let down = self.cuda.pack(&vec![down.stored(); num], Role::Experts)?;
        let bits = 8.0 * up.num_bytes() as f64 / (hidden * ffn) as f64;
        let spec = RouteSpec { num_experts: num, top_k, renormalize: true };
        let norm = NormSpec { gain: self.cuda.vector(&vec![1.0; hidden])?, eps: 1e-5, size: hidden };
        // From the largest on: the first step plans the workspace.
        for &tokens in self.scale.tokens.iter().rev() {
            let x = self.cuda.vector(&noise(tokens * hidden))?;
            let logits = self.cuda.vector(&noise(tokens * num))?;
            let mut prepare = |b: &mut Cuda| b.norm(&x, &norm, Cuda::wants(&gate_up));
            let mut op = |b: &mut Cuda, act: &Act<Cuda>, _| {
                let routing = b.route(&logits, &spec);
                let gated = b.experts_glu(act, &gate_up, &routing, Activation::Silu, Cuda::wants(&down));
                b.experts_add(&gated, &down, &routing, &x);
            };
            let seconds = self.seconds(&plain_inputs(tokens), &mut prepare, &mut op)?;
            let work = Work::experts(tokens, experts, bits);
            let work = if format == Format::Fp8E4m3 { work.in_fp8() } else { work };
            self.record(&format!("{top_k} of {num} experts of {ffn}x{hidden} {format}"), tokens, work, seconds)?;
        }
        Ok(())
    }
}
