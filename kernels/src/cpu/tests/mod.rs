//! Kernels against plain f64 loops, on every instruction set that this processor has; and each row's bits against the
//! same row computed alone.

mod attention;
mod experts;
mod matmul;
mod planar;
mod rows;
mod steps;

use half::bf16;
use quant::{Format, Stored};
use tensor::{Backend, GroupInputs, KvDtype, KvScales};
use testkit::{Random, Tolerance, check_close};

use super::*;
use crate::ops::matrix;

fn cpu(isa: Isa, threads: usize) -> Cpu {
    coded(isa, threads, Activations::default())
}

fn coded(isa: Isa, threads: usize, activations: Activations) -> Cpu {
    Cpu::new(CpuOptions { threads: Some(threads), isa: Some(isa), activations }).expect("the instruction set was found")
}

/// Every way to run: instruction sets and codings.
fn ways() -> impl Iterator<Item = (Isa, Activations)> {
    Isa::available().into_iter().flat_map(|isa| [(isa, Activations::Int8), (isa, Activations::Int16)])
}

/// Plans `body`, runs it on `inputs`, and reads what it returns.
fn run(cpu: &mut Cpu, inputs: &StepInputs, body: &mut dyn FnMut(&mut Cpu) -> Buf) -> Vec<f32> {
    cpu.step(StepKey::Plan, inputs, &[], body).unwrap();
    let out = cpu.step(StepKey::Eager, inputs, &[], body).unwrap();
    let mut values = Vec::new();
    cpu.read(&out, &mut values).unwrap();
    values
}

/// `x` as it is, in the encodings of `set`.
fn encode(cpu: &Cpu, x: &Buf, cols: usize, set: ActSet) -> Act<Cpu> {
    let rows = x.len() / cols;
    let (act, emit) = cpu.emit(rows, cols, set);
    if !cpu.planning {
        Rows { x: x.ptr(), rows, cols, norm: None, emit }.run(&cpu.pool, cpu.isa);
    }
    act
}

/// What a row becomes in an encoding.
fn as_encoded(x: &[f32], encoding: Encoding) -> Vec<f64> {
    match encoding {
        Encoding::Bf16 => x.iter().map(|&x| bf16::from_f32(x).to_f64()).collect(),
        Encoding::Int8G32 => through_codes(x, 127.0),
        Encoding::Int16G32 => through_codes(x, 127.0 * 128.0),
        _ => x.iter().map(|&x| f64::from(x)).collect(),
    }
}

/// What groups of 32 become on their way through integers.
fn through_codes(x: &[f32], levels: f32) -> Vec<f64> {
    let group = |x: &[f32]| {
        let peak = x.iter().fold(0.0f32, |peak, x| peak.max(x.abs()));
        let inverse = if peak > 0.0 { levels / peak } else { 0.0 };
        x.iter().map(|x| f64::from((x * inverse).round_ties_even()) * f64::from(peak / levels)).collect::<Vec<f64>>()
    };
    x.chunks(32).flat_map(group).collect()
}
