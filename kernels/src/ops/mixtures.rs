//! Cases of mixtures of experts that every backend runs, and what f64 loops make of them.

use quant::{Format, OwnedScales, Stored, quantize};
use tensor::{Activation, Backend, NormSpec, Role, RouteSpec, StepInputs, StepKey};
use testkit::Random;

/// Who goes where.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Logits {
    /// Anywhere.
    Random,
    /// Every token's first choice is this expert, and every second the next.
    All(usize),
    /// Anywhere but to this expert.
    Not(usize),
    /// All logits are equal: the first experts win.
    Equal,
}

/// A mixture and the tokens that go through it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mixture {
    pub tokens: usize,
    pub experts: usize,
    pub top_k: usize,
    pub renormalize: bool,
    pub hidden: usize,
    pub ffn: usize,
    pub logits: Logits,
    /// Rows and columns of a matrix under one scale, where scales lie beside; 0 is all.
    pub grid: (usize, usize),
    /// Whether a token's first value stands out, in each by another factor.
    pub peaks: bool,
}

pub(crate) const PLAIN: Mixture = Mixture {
    tokens: 5,
    experts: 4,
    top_k: 2,
    renormalize: true,
    hidden: 64,
    ffn: 96,
    logits: Logits::Random,
    grid: (1, 0),
    peaks: false,
};

const SCALED: Mixture = Mixture { peaks: true, ..PLAIN };

pub(crate) const CASES: [Mixture; 9] = [
    PLAIN,
    Mixture { tokens: 1, ..PLAIN },
    Mixture { tokens: 37, logits: Logits::All(3), ..PLAIN },
    Mixture { tokens: 17, logits: Logits::Not(0), renormalize: false, ..PLAIN },
    Mixture { top_k: 4, ..PLAIN },
    Mixture { experts: 1, top_k: 1, tokens: 16, ..PLAIN },
    Mixture { tokens: 70, top_k: 3, hidden: 96, ffn: 160, ..PLAIN },
    Mixture { tokens: 130, logits: Logits::All(1), hidden: 32, ffn: 32, ..PLAIN },
    Mixture { tokens: 3, experts: 70, top_k: 32, hidden: 32, ffn: 32, logits: Logits::Equal, ..PLAIN },
];

/// What FP8 has beside: scales a matrix, a channel, a block of 128, a channel and 128 columns.
pub(crate) const SCALED_CASES: [Mixture; 6] = [
    SCALED,
    Mixture { tokens: 17, logits: Logits::Not(0), grid: (0, 0), ..SCALED },
    Mixture { tokens: 70, top_k: 3, hidden: 144, ffn: 272, ..SCALED },
    Mixture { tokens: 1, hidden: 144, ffn: 272, grid: (128, 128), ..SCALED },
    Mixture { tokens: 130, hidden: 272, ffn: 144, logits: Logits::All(1), grid: (128, 128), ..SCALED },
    Mixture { tokens: 3, hidden: 256, ffn: 144, grid: (1, 128), ..SCALED },
];

/// A matrix of an expert.
pub(crate) struct Matrix {
    pub rows: usize,
    pub cols: usize,
    pub format: Format,
    pub bytes: Vec<u8>,
    pub scales: Option<OwnedScales>,
}

impl Matrix {
    fn new(random: &mut Random, rows: usize, cols: usize, format: Format, grid: (usize, usize)) -> Self {
        let values = random.vector(rows * cols);
        let of = |size: usize, all: usize| if size == 0 { all } else { size };
        let (rows_per, cols_per) = (of(grid.0, rows), of(grid.1, cols));
        let scales = format.is_planar().then(|| {
            let scales =
                (0..rows.div_ceil(rows_per) * cols.div_ceil(cols_per)).map(|_| 0.001 + 0.002 * random.uniform().abs());
            OwnedScales::new(rows_per, cols_per, scales.collect())
        });
        let size = if scales.is_some() { 150.0 } else { 0.3 };
        let values: Vec<f32> = values.iter().map(|x| x * size).collect();
        let bytes = quantize(format, &values).expect("columns are whole blocks");
        Self { rows, cols, format, bytes, scales }
    }

    pub fn stored(&self) -> Stored<'_> {
        let stored = Stored::new(self.rows, self.cols, self.format, &self.bytes).expect("a matrix");
        match &self.scales {
            Some(scales) => stored.with_scales(scales.borrow()).expect("scales of the matrix"),
            None => stored,
        }
    }
}

impl Mixture {
    fn spec(&self) -> RouteSpec {
        RouteSpec { num_experts: self.experts, top_k: self.top_k, renormalize: self.renormalize }
    }

    /// `[tokens, experts]`.
    fn logits(&self) -> Vec<f32> {
        let mut random = Random::new(21);
        let logit = |expert: usize, random: f32| match self.logits {
            Logits::Random => 3.0 * random,
            Logits::All(first) if expert == first => 9.0,
            Logits::All(first) if expert == (first + 1) % self.experts => 8.0,
            Logits::Not(expelled) if expert == expelled => -9.0,
            Logits::Equal => 0.5,
            Logits::All(_) | Logits::Not(_) => random,
        };
        (0..self.tokens * self.experts).map(|idx| logit(idx % self.experts, random.uniform())).collect()
    }

    /// Values that bf16 holds exactly: the residual stream `[tokens, hidden]`.
    fn stream(&self) -> Vec<f32> {
        let mut values = Random::new(22).vector(self.tokens * self.hidden);
        if self.peaks {
            values.chunks_mut(self.hidden).enumerate().for_each(|(token, row)| row[0] = (2 + token % 5) as f32);
        }
        values.into_iter().map(|x| half::bf16::from_f32(x).to_f32()).collect()
    }

    /// Gate, up and down of each expert, in `format`.
    fn matrices(&self, format: Format) -> Vec<[Matrix; 3]> {
        let mut random = Random::new(23);
        let mut matrix = |rows, cols| Matrix::new(&mut random, rows, cols, format, self.grid);
        let (hidden, ffn) = (self.hidden, self.ffn);
        (0..self.experts).map(|_| [matrix(ffn, hidden), matrix(ffn, hidden), matrix(hidden, ffn)]).collect()
    }

    /// The stacks: gate and up, and down.
    pub fn pack<B: Backend>(&self, b: &mut B, format: Format) -> [B::Weight; 2] {
        stacks(b, &self.matrices(format))
    }

    /// Runs the tokens that `tokens` names through the mixture on `b`: the residual stream after it.
    pub fn run<B: Backend>(&self, b: &mut B, format: Format, tokens: &[usize]) -> Vec<f32> {
        self.run_stored(b, &self.matrices(format), tokens)
    }

    /// The same with other matrices: gate, up and down of each expert.
    pub fn run_stored<B: Backend>(&self, b: &mut B, matrices: &[[Matrix; 3]], tokens: &[usize]) -> Vec<f32> {
        let [gate_up, down] = stacks(b, matrices);
        let stream: Vec<u8> = self.stream().iter().flat_map(|x| x.to_le_bytes()).collect();
        let stream = Stored::new(self.tokens, self.hidden, Format::F32, &stream).expect("a matrix");
        let table = b.pack(&[stream], Role::Embed).expect("a table");
        let logits = self.logits();
        let logits: Vec<f32> =
            tokens.iter().flat_map(|t| &logits[t * self.experts..][..self.experts]).copied().collect();
        let (logits, gain) = (b.vector(&logits).expect("logits"), b.vector(&vec![1.0; self.hidden]).expect("a gain"));
        let norm = NormSpec { gain, eps: 1e-5, size: self.hidden };
        let inputs = StepInputs { token_ids: tokens.iter().map(|t| *t as u32).collect(), ..StepInputs::default() };
        let mut body = |b: &mut B| {
            let x = b.embed(&table, 1.0);
            let act = b.norm(&x, &norm, B::wants(&gate_up));
            let routing = b.route(&logits, &self.spec());
            let gated = b.experts_glu(&act, &gate_up, &routing, Activation::Silu, B::wants(&down));
            b.experts_add(&gated, &down, &routing, &x);
            x
        };
        b.step(StepKey::Plan, &inputs, &[], &mut body).expect("a plan");
        let x = b.step(StepKey::Eager, &inputs, &[], &mut body).expect("a step");
        let mut values = Vec::new();
        b.read(&x, &mut values).expect("the stream");
        values
    }

    pub fn all(&self) -> Vec<usize> {
        (0..self.tokens).collect()
    }

    /// What [`Mixture::run`] of all tokens is in f64, of the values that `format` leaves.
    pub fn expected(&self, format: Format) -> Vec<f32> {
        self.expected_stored(&self.matrices(format))
    }

    /// The same of [`Mixture::run_stored`].
    pub fn expected_stored(&self, matrices: &[[Matrix; 3]]) -> Vec<f32> {
        let dequantized = |matrices: &[Matrix; 3]| matrices.each_ref().map(|m| m.stored().dequantize());
        let experts: Vec<[Vec<f32>; 3]> = matrices.iter().map(dequantized).collect();
        let (stream, logits) = (self.stream(), self.logits());
        let rows = stream.chunks(self.hidden).zip(logits.chunks(self.experts));
        rows.flat_map(|(x, logits)| self.expected_row(&experts, x, logits)).collect()
    }

    fn expected_row(&self, experts: &[[Vec<f32>; 3]], x: &[f32], logits: &[f32]) -> Vec<f32> {
        let mean = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / self.hidden as f64;
        let normed: Vec<f64> = x.iter().map(|&x| f64::from(x) / (mean + 1e-5).sqrt()).collect();
        let mut order: Vec<usize> = (0..self.experts).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        let share = |&expert: &usize| f64::from(logits[expert]).exp();
        let picked = &order[..self.top_k];
        let of: f64 = if self.renormalize { picked } else { &order }.iter().map(share).sum();
        let mut out: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        for expert in picked {
            let [gate, up, down] = &experts[*expert];
            let silu = |x: f64| x / (1.0 + (-x).exp());
            let (gate, up) = (multiply(gate, &normed), multiply(up, &normed));
            let gated: Vec<f64> = gate.iter().zip(up).map(|(&gate, up)| silu(gate) * up).collect();
            let weight = share(expert) / of;
            out.iter_mut().zip(multiply(down, &gated)).for_each(|(out, y)| *out += weight * y);
        }
        out.into_iter().map(|x| x as f32).collect()
    }
}

/// The stacks of gate and up, and of down.
pub(crate) fn stacks<B: Backend>(b: &mut B, matrices: &[[Matrix; 3]]) -> [B::Weight; 2] {
    let gate_ups: Vec<_> = matrices.iter().flat_map(|[gate, up, _]| [gate.stored(), up.stored()]).collect();
    let downs: Vec<_> = matrices.iter().map(|[_, _, down]| down.stored()).collect();
    [(gate_ups, Role::ExpertsGlu), (downs, Role::Experts)].map(|(parts, role)| b.pack(&parts, role).expect("a stack"))
}

/// `w x`.
fn multiply(w: &[f32], x: &[f64]) -> Vec<f64> {
    w.chunks(x.len()).map(|w| w.iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum()).collect()
}
