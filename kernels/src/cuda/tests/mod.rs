//! The CUDA kernels against the reference backend, op by op, through the trait; and a row's bits against the same row in other
//! company. They run where there is a GPU, and on the emulator.

mod attention;
mod dense;

use half::bf16;
use quant::{Format, Stored};
use tensor::{Activation, Backend, GroupInputs};
use testkit::{Random, Tolerance, check_close};

use super::*;
use crate::reference::Reference;

/// The GPU, or a word on why this test is skipped.
fn gpu(test: &str) -> Option<Cuda> {
    match Cuda::new(0) {
        Ok(cuda) => Some(cuda),
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
