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
use crate::ops::{bytes, identity, pack, run, values};
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

/// Whether a row of the table has to be small.
fn is_emulated(cuda: &Cuda) -> bool {
    cuda.describe().contains("Emulated")
}

/// What bf16 in between leaves of a value.
const CLOSE: Tolerance = Tolerance { absolute: 0.02, relative: 0.02 };
