//! The kernels that the build compiled and embedded: name, image, and the kernels in it.

include!(concat!(env!("OUT_DIR"), "/modules.rs"));
