//! Devices: implementations of [`tensor::Backend`]. With the weight reader's memory map, the only place of `unsafe`.
//!
//! [`cpu`] and [`cuda`] are the product's own backends; [`reference`] is the specification that it is compared with.

#![allow(unsafe_code)]

pub mod cpu;
pub mod cuda;
mod inputs;
mod memory;
#[cfg(test)]
mod ops;
mod parts;
pub mod reference;

use memory::free_bytes;
