//! Embeddings, norms and matmuls with every epilogue, of weights in every format.
//!
//! Activations are chosen so that the codes which a device makes of them are exact: what a product is off by is the kernel's.

use quant::{Format, OwnedScales};
use tensor::{Act, ActSet, Activation, Backend, Encoding, NormSpec, Role, StepInputs};
use testkit::{Random, Tolerance, check_close};

use super::mixtures::Matrix;
use super::{identity, matrix, pack, run};
use crate::reference::Reference;

/// What a row computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// Rows of a table, halved.
    Embed,
    /// Two rows of three.
    Gather,
    /// With a gain of its own for each column.
    Norm,
    /// A product and a bias.
    Linear,
    /// The same onto the product.
    Add,
    Glu(Activation),
}

/// How a weight is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weight {
    Blocks(Format),
    Int4(Groups),
}

/// INT4 with scales beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Groups {
    /// Columns under one scale.
    pub size: usize,
    pub zeros: bool,
    /// Columns are in an order of their own.
    pub ordered: bool,
}

/// One op of `tokens` rows by a weight of `outputs` x `inputs`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub op: Op,
    pub weight: Weight,
    pub tokens: usize,
    pub outputs: usize,
    pub inputs: usize,
}

/// Tokens, outputs and inputs; these are rounded up to whole blocks of a format.
const SHAPES: [(usize, usize, usize); 14] = [
    (1, 16, 16),
    (3, 48, 40),
    // Odd outputs.
    (2, 20, 64),
    (5, 90, 32),
    // Inputs that are no power of two, of one row and few.
    (1, 64, 576),
    (5, 40, 640),
    (3, 24, 1536),
    (16, 96, 64),
    (17, 80, 200),
    (64, 128, 576),
    // A device's largest tiles.
    (67, 144, 320),
    // K is split: each split in a block of its own, and all in one.
    (3, 80, 1088),
    (67, 48, 1088),
    // A whole matrix of a model of 576, for what is fast.
    (24, 576, 1536),
];

const GROUPS: [Groups; 5] = [
    Groups { size: 32, zeros: true, ordered: false },
    Groups { size: 64, zeros: true, ordered: true },
    Groups { size: 128, zeros: true, ordered: true },
    Groups { size: 128, zeros: false, ordered: false },
    // One scale an output at some shapes; at others the last group hangs over.
    Groups { size: 320, zeros: true, ordered: false },
];

/// The table's rows whose inputs, and units of a gated weight, come in multiples of `step`, as a device wants them. What depends on the
/// weight's format is there in each of them, the rest for plain weights.
pub(crate) fn rows(step: usize) -> impl Iterator<Item = Row> {
    let plain = [Op::Gather, Op::Norm, Op::Glu(Activation::GeluTanh)].map(|op| (op, Weight::Blocks(Format::F32)));
    let weights = Format::blocks().map(Weight::Blocks).chain(GROUPS.map(Weight::Int4));
    let stored = [Op::Embed, Op::Linear, Op::Add, Op::Glu(Activation::Silu)];
    let stored = weights.flat_map(move |weight| stored.map(|op| (op, weight)));
    let rows = plain.into_iter().chain(stored).flat_map(|(op, weight)| {
        SHAPES.map(|(tokens, outputs, inputs)| {
            let inputs = inputs.next_multiple_of(weight.format().block_len());
            Row { op, weight, tokens, outputs, inputs }
        })
    });
    rows.filter(move |row| row.inputs.is_multiple_of(step) && row.units().unwrap_or(0).is_multiple_of(step))
}

impl Row {
    /// Multiply-adds; a norm is read through a square matrix.
    pub fn work(&self) -> usize {
        self.tokens * self.inputs * if self.op == Op::Norm { self.inputs } else { self.outputs }
    }

    /// Of a gated weight.
    fn units(&self) -> Option<usize> {
        matches!(self.op, Op::Glu(_)).then_some(self.outputs / 2)
    }

    /// Holds what `b` makes of the row against what the reference does.
    pub fn check<B: Backend>(&self, b: &mut B, device: &str, tolerance: Tolerance) {
        let (actual, peak) = self.run(b, None);
        let (expected, _) = self.run(&mut Reference::new(), Some(peak));
        check_close(&format!("{device}: {self:?}"), &actual, &expected, tolerance);
    }

    /// The output, and the peak of the inputs where none is given: as many levels as the device's codes have.
    pub fn run<B: Backend>(&self, b: &mut B, peak: Option<u16>) -> (Vec<f32>, u16) {
        let Self { tokens, outputs, inputs, .. } = *self;
        let (weight, bias) = (self.pack(b), b.vector(&Random::new(8).vector(outputs)).unwrap());
        let peak = peak.unwrap_or_else(|| if B::wants(&weight).contains(Encoding::Int16G32) { 127 << 7 } else { 127 });
        let (x, rms) = activations(tokens, inputs, peak);
        let table = pack(b, &x, inputs, Role::Embed);
        let gains = if self.op == Op::Norm { Random::new(5).vector(inputs) } else { vec![rms; inputs] };
        let norm = NormSpec { gain: b.vector(&gains).unwrap(), eps: EPS, size: inputs };
        let layer = Layer { op: self.op, weight, bias, norm, same: identity(b, self.units().unwrap_or(16)) };
        let out = run(b, &[step(tokens)], &mut |b| {
            let x = b.embed(&table, 1.0);
            layer.forward(b, &x)
        });
        (out.concat(), peak)
    }

    fn pack<B: Backend>(&self, b: &mut B) -> B::Weight {
        let (role, count, rows) = match self.op {
            Op::Norm => return identity(b, self.inputs),
            Op::Embed => (Role::Embed, 1, self.tokens.next_multiple_of(8)),
            Op::Add => (Role::Row, 1, self.outputs),
            Op::Glu(_) => (Role::Glu, 2, self.outputs / 2),
            Op::Gather | Op::Linear => (Role::Column, 1, self.outputs),
        };
        self.weight.pack(b, role, count, (rows, self.inputs))
    }
}

/// One op, between an embedding and what the host can read.
struct Layer<B: Backend> {
    op: Op,
    weight: B::Weight,
    bias: B::Buf,
    norm: NormSpec<B>,
    /// Changes nothing of a gated unit.
    same: B::Weight,
}

impl<B: Backend> Layer<B> {
    fn forward(&self, b: &mut B, x: &B::Buf) -> B::Buf {
        let Self { op, weight, bias, norm, same } = self;
        match *op {
            Op::Embed => return b.embed(weight, 0.5),
            Op::Gather => return b.gather(x),
            _ => {}
        }
        let act = b.norm(x, norm, B::wants(weight));
        match *op {
            Op::Glu(f) => {
                let gated = b.linear_glu(&act, weight, f, B::wants(same));
                b.linear(&gated, same, None)
            }
            Op::Add => {
                let onto = b.linear(&act, weight, None);
                b.linear_add(&act, weight, Some(bias), &onto);
                onto
            }
            _ => b.linear(&act, weight, Some(bias).filter(|_| *op == Op::Linear)),
        }
    }
}

impl Weight {
    pub fn format(self) -> Format {
        match self {
            Self::Blocks(format) => format,
            Self::Int4(_) => Format::Int4,
        }
    }

    /// As many random parts of `rows` x `cols`.
    pub fn pack<B: Backend>(self, b: &mut B, role: Role, count: usize, (rows, cols): (usize, usize)) -> B::Weight {
        let mut random = Random::new(7);
        let parts: Vec<_> = (0..count).map(|_| self.part(&mut random, rows, cols)).collect();
        b.pack(&parts.iter().map(Matrix::stored).collect::<Vec<_>>(), role).unwrap()
    }

    pub fn part(self, random: &mut Random, rows: usize, cols: usize) -> Matrix {
        let (bytes, scales) = match self {
            Self::Blocks(format) => (matrix(format, rows, cols, random), None),
            Self::Int4(groups) => {
                let (codes, scales) = groups.part(random, rows, cols);
                (codes, Some(scales))
            }
        };
        Matrix { rows, cols, format: self.format(), bytes, scales }
    }
}

impl Groups {
    /// Codes, scales of bf16, zeros, and an order that gives each group its full number of columns.
    fn part(self, random: &mut Random, rows: usize, cols: usize) -> (Vec<u8>, OwnedScales) {
        let groups = cols.div_ceil(self.size);
        let codes = (0..rows * cols / 2).map(|_| random.next_u64() as u8).collect();
        let scale = |random: &mut Random| half::bf16::from_f32(0.02 + random.uniform() * 0.08).to_f32();
        let scales = (0..rows * groups).map(|_| scale(random)).collect();
        let zeros = self.zeros.then(|| (0..rows * groups).map(|_| (random.next_u64() % 16) as u8).collect());
        // 7 has no factor in common with any number of columns here.
        let group_of = |col: usize| (col * 7 % cols / self.size) as u32;
        let group_of = self.ordered.then(|| (0..cols).map(group_of).collect());
        (codes, OwnedScales { zeros, group_of, ..OwnedScales::new(1, self.size, scales) })
    }
}

const EPS: f32 = 1e-5;

/// Rows of which each group of 32 columns has the same magnitudes, in another order and with other signs: whole numbers up to `peak`, as
/// parts of about 1. And the gain that brings a norm of such a row back to it.
fn activations(rows: usize, cols: usize, peak: u16) -> (Vec<f32>, f32) {
    let unit = f32::from(peak) * 128.0 / 127.0;
    let magnitude = |idx: usize| if idx == 0 { peak } else { (idx * 7919 % usize::from(peak)) as u16 };
    let mut random = Random::new(3);
    let mut x = Vec::with_capacity(rows * cols);
    for _ in 0..rows {
        for first in (0..cols).step_by(32) {
            let (len, turn) = ((cols - first).min(32), random.below(32));
            let value = |idx: usize| f32::from(magnitude((idx + turn) % len)) / unit;
            x.extend((0..len).map(|idx| value(idx).copysign(random.uniform())));
        }
    }
    let mean = x[..cols].iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / cols as f64;
    (x, (mean + f64::from(EPS)).sqrt() as f32)
}

/// A step of so many tokens, the last of a table first; the logits of two of three are wanted.
pub(crate) fn step(tokens: usize) -> StepInputs {
    let logit_tokens = (0..tokens as u32).filter(|token| token % 3 != 1).collect();
    StepInputs { token_ids: (0..tokens as u32).rev().collect(), logit_tokens, ..StepInputs::default() }
}

/// A norm's output as the next matmul reads it.
pub(crate) fn normed<B: Backend>(b: &mut B, x: &B::Buf, gain: &B::Buf, size: usize, set: ActSet) -> Act<B> {
    b.norm(x, &NormSpec { gain: gain.clone(), eps: EPS, size }, set)
}
