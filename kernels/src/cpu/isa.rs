//! Which instruction set runs.

use std::fmt;
use std::str::FromStr;

#[cfg(target_arch = "x86_64")]
use super::simd::{Avx2, Avx512};
use super::simd::{Op, Portable, Simd};

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
            Self::Avx512 if is_x86_feature_detected!("avx512bf16") => unsafe { Avx512::<true>::call(op) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { Avx512::<false>::call(op) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { Avx2::call(op) },
            // SAFETY: as above.
            _ => unsafe { Portable::call(op) },
        }
    }
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
