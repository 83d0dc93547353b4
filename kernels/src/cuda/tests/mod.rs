//! The CUDA kernels against the reference backend, op by op, through the trait; and a row's bits against the same row in other
//! company. They run where there is a GPU, and on the emulator.

mod attention;
mod dense;
mod emit;
mod experts;
mod fp8;
mod graphs;
mod int4;
mod library;
mod sample;
mod wrappers;

use half::{bf16, f16};
use quant::{Format, Stored};
use tensor::{Activation, Backend, GroupInputs, KvDtype, KvScales};
use testkit::{Random, Tolerance, check_close};

use super::weight::Kind;
use super::*;
use crate::reference::Reference;

/// The GPU, or a word on why this test is skipped.
fn gpu(test: &str) -> Option<Cuda> {
    match Cuda::new(0) {
        // So few that small products are cut into the largest tiles.
        Ok(cuda) => Some(Cuda { sms: 2, ..cuda }),
        Err(error) => {
            testkit::skip(test, &error.to_string());
            None
        }
    }
}

/// What bf16 in between leaves of a value.
const CLOSE: Tolerance = Tolerance { absolute: 0.02, relative: 0.02 };

/// Random values that bf16 holds exactly.
fn values(random: &mut Random, len: usize) -> Vec<f32> {
    random.vector(len).into_iter().map(|x| bf16::from_f32(x).to_f32()).collect()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// Random blocks of `format`: small scales, any codes.
fn stored(random: &mut Random, format: Format, rows: usize, cols: usize) -> Vec<u8> {
    if format == Format::F32 {
        return bytes(&values(random, rows * cols));
    }
    let mut bytes: Vec<u8> = (0..rows * format.row_bytes(cols).unwrap()).map(|_| random.next_u64() as u8).collect();
    for block in bytes.chunks_exact_mut(format.block_bytes()) {
        let halves: &[usize] = match format {
            Format::Q4_1 | Format::Q5_1 | Format::Q4K => &[0, 2],
            Format::Q6K => &[208],
            _ => &[0],
        };
        // So that a weight is about 1 at most.
        let size = match format {
            Format::Q4K => 0.001,
            Format::Q6K => 0.0002,
            Format::Q8_0 => 0.01,
            Format::Q5_1 => 0.04,
            _ => 0.08,
        };
        for &at in halves {
            block[at..at + 2].copy_from_slice(&f16::from_f32(random.uniform() * size).to_le_bytes());
        }
    }
    bytes
}

fn pack<B: Backend>(b: &mut B, values: &[f32], cols: usize, role: Role) -> B::Weight {
    let bytes = bytes(values);
    b.pack(&[Stored::new(values.len() / cols, cols, Format::F32, &bytes).unwrap()], role).unwrap()
}

/// The matrix that changes nothing: activations come back through it.
fn identity<B: Backend>(b: &mut B, size: usize) -> B::Weight {
    let values: Vec<f32> = (0..size * size).map(|at| f32::from(at / size == at % size)).collect();
    pack(b, &values, size, Role::Row)
}

/// Plans every step, then runs them in order; returns what each body's buffer holds.
fn run<B: Backend>(b: &mut B, steps: &[StepInputs], body: &mut dyn FnMut(&mut B) -> B::Buf) -> Vec<Vec<f32>> {
    for inputs in steps {
        b.step(StepKey::Plan, inputs, body).unwrap();
    }
    let step = |inputs| {
        let out = b.step(StepKey::Eager, inputs, body).unwrap();
        let mut values = Vec::new();
        b.read(&out, &mut values).unwrap();
        values
    };
    steps.iter().map(step).collect()
}
