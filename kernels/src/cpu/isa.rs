//! Which instruction set runs, and how an op written once is compiled for each.

use std::fmt;
use std::str::FromStr;

#[cfg(target_arch = "x86_64")]
use super::simd::{Avx2, Avx512};
use super::simd::{Portable, Simd};

/// An instruction set of the CPU kernels, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// AVX-512 F, BW, DQ, VL and VNNI.
    Avx512,
    /// AVX2, FMA and F16C.
    Avx2,
    /// What every processor has.
    Portable,
}

/// One piece of work, generic over the instruction set.
pub(super) trait Op {
    /// Whether it multiplies pairs of bf16, for which some processors have an instruction.
    const PAIRS: bool = false;

    /// # Safety
    /// The processor has the features of `S`, and the op's own pointers are valid as its fields say.
    unsafe fn run<S: Simd>(self);
}

impl Isa {
    /// The best of this processor.
    pub fn detect() -> Self {
        Self::available()[0]
    }

    /// All that this processor has, best first.
    pub fn available() -> Vec<Self> {
        [Self::Avx512, Self::Avx2, Self::Portable].into_iter().filter(|isa| isa.is_available()).collect()
    }

    #[cfg(target_arch = "x86_64")]
    pub fn is_available(self) -> bool {
        match self {
            Self::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            Self::Avx2 => {
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
            }
            Self::Portable => true,
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub fn is_available(self) -> bool {
        self == Self::Portable
    }

    /// Runs `op` compiled for this instruction set.
    ///
    /// # Safety
    /// `self` is available, and the op's pointers are valid as its fields say.
    pub(super) unsafe fn run<O: Op>(self, op: O) {
        match self {
            // SAFETY: the caller vouches for the features and the pointers.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 if O::PAIRS && is_x86_feature_detected!("avx512bf16") => unsafe { run_avx512_bf16(op) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { run_avx512(op) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { run_avx2(op) },
            // SAFETY: as above.
            _ => unsafe { op.run::<Portable>() },
        }
    }
}

// SAFETY: callers have the features; the op is inlined, so its intrinsics are compiled with them.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn run_avx512<O: Op>(op: O) {
    // SAFETY: the caller vouches for the op's pointers.
    unsafe { op.run::<Avx512<false>>() }
}

// SAFETY: as above.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
unsafe fn run_avx512_bf16<O: Op>(op: O) {
    // SAFETY: the caller vouches for the op's pointers.
    unsafe { op.run::<Avx512<true>>() }
}

// SAFETY: as above.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn run_avx2<O: Op>(op: O) {
    // SAFETY: the caller vouches for the op's pointers.
    unsafe { op.run::<Avx2>() }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Portable => "portable",
        })
    }
}

impl FromStr for Isa {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        [Self::Avx512, Self::Avx2, Self::Portable]
            .into_iter()
            .find(|isa| isa.to_string() == name)
            .ok_or_else(|| format!("{name:?} is no instruction set of these kernels: avx512, avx2, portable"))
    }
}
