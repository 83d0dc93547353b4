//! Devices: implementations of [`tensor::Backend`]. With the weight reader's memory map, the only place of `unsafe`.
//!
//! [`cpu`] is the product's own CPU backend; [`reference`] is the specification that it is compared with.

#![allow(unsafe_code)]

pub mod cpu;
mod memory;
pub mod reference;

use memory::free_bytes;
