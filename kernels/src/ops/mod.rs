//! The table of ops that the tests of every device share: each row is one op at one shape, run through `Backend` and held against the
//! reference. How far a device may be off, and which rows it has no kernels for, is said where its tests run them.

pub(crate) mod attention;
pub(crate) mod mixtures;
pub(crate) mod products;

use half::{bf16, f16};
use quant::{Format, Stored};
use tensor::{Backend, Role, StepInputs, StepKey};
use testkit::Random;

/// Multiply-adds of the largest row that an emulator of a device runs.
pub(crate) const EMULATED: usize = 5 << 20;

/// Random values that bf16 holds exactly.
pub(crate) fn values(random: &mut Random, len: usize) -> Vec<f32> {
    random.vector(len).into_iter().map(|x| bf16::from_f32(x).to_f32()).collect()
}

pub(crate) fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// A random matrix of `format`: elements of about 1 at most, any codes.
pub(crate) fn matrix(format: Format, rows: usize, cols: usize, random: &mut Random) -> Vec<u8> {
    // Where a block holds halves, and how large they may be.
    let (halves, size): (&[usize], f32) = match format {
        Format::F32 => return bytes(&values(random, rows * cols)),
        Format::F16 => {
            return random.vector(rows * cols).iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect();
        }
        Format::Bf16 => {
            return random.vector(rows * cols).iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect();
        }
        Format::Q4_0 => (&[0], 0.08),
        Format::Q5_0 => (&[0], 0.04),
        Format::Q8_0 => (&[0], 0.01),
        Format::Q4_1 => (&[0, 2], 0.08),
        Format::Q5_1 => (&[0, 2], 0.04),
        Format::Q4K | Format::Q5K => (&[0, 2], 0.001),
        Format::Q2K => (&[80, 82], 0.005),
        Format::Q3K => (&[108], 0.005),
        Format::Q6K => (&[208], 0.0002),
        Format::Fp8E4m3 | Format::Int8 | Format::Int4 => unreachable!("{format} has no scales of its own"),
    };
    let mut bytes: Vec<u8> = (0..rows * format.row_bytes(cols).unwrap()).map(|_| random.next_u64() as u8).collect();
    for block in bytes.chunks_exact_mut(format.block_bytes()) {
        for &at in halves {
            block[at..at + 2].copy_from_slice(&f16::from_f32(random.uniform() * size).to_le_bytes());
        }
    }
    bytes
}

pub(crate) fn pack<B: Backend>(b: &mut B, values: &[f32], cols: usize, role: Role) -> B::Weight {
    let bytes = bytes(values);
    b.pack(&[Stored::new(values.len() / cols, cols, Format::F32, &bytes).unwrap()], role).unwrap()
}

/// The matrix that changes nothing: activations come back through it.
pub(crate) fn identity<B: Backend>(b: &mut B, size: usize) -> B::Weight {
    let values: Vec<f32> = (0..size * size).map(|at| f32::from(at / size == at % size)).collect();
    pack(b, &values, size, Role::Row)
}

/// Plans every step, then runs them in order; returns what each body's buffer holds.
pub(crate) fn run<B: Backend>(
    b: &mut B,
    steps: &[StepInputs],
    body: &mut dyn FnMut(&mut B) -> B::Buf,
) -> Vec<Vec<f32>> {
    for inputs in steps {
        b.step(StepKey::Plan, inputs, &[], body).unwrap();
    }
    steps.iter().map(|inputs| run_planned(b, inputs, body)).collect()
}

fn run_planned<B: Backend>(b: &mut B, inputs: &StepInputs, body: &mut dyn FnMut(&mut B) -> B::Buf) -> Vec<f32> {
    let out = b.step(StepKey::Eager, inputs, &[], body).unwrap();
    let mut values = Vec::new();
    b.read(&out, &mut values).unwrap();
    values
}
