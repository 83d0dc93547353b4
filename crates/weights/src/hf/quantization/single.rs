//! The older methods, which have one scheme for all that they quantize: fp8, GPTQ, AWQ.

use serde::Deserialize;
use serde_json::Value;

use super::scheme::{Grid, Layout, Scheme};
use super::{Quantization, unsupported};
use crate::Problem;

#[derive(Debug, Deserialize)]
struct Written {
    #[serde(alias = "w_bit")]
    bits: Option<u32>,
    #[serde(alias = "q_group_size")]
    group_size: Option<i64>,
    checkpoint_format: Option<String>,
    version: Option<String>,
    weight_block_size: Option<[usize; 2]>,
}

fn parse(config: &Value) -> Result<Written, Problem> {
    Written::deserialize(config)
        .map_err(|error| Problem::Config(format!("its quantization_config is not understood: {error}")))
}

/// The fp8 of Hugging Face and DeepSeek: a scale for each block, each row or the whole.
pub(super) fn fp8(config: &Value) -> Result<Quantization, Problem> {
    let grid = match parse(config)?.weight_block_size {
        Some([rows, cols]) if rows > 0 && cols > 0 => Grid::Block(rows, cols),
        Some(block) => return Err(Problem::Config(format!("its quantization_config has blocks of {block:?}"))),
        None => Grid::TensorOrChannel,
    };
    Ok(Quantization::of_all(Scheme { layout: Layout::Fp8, grid, symmetric: true }))
}

pub(super) fn gptq(config: &Value) -> Result<Quantization, Problem> {
    let written = parse(config)?;
    let zero_shift = match written.checkpoint_format.as_deref() {
        None | Some("gptq") => 1,
        Some("gptq_v2") => 0,
        Some(other) => return Err(unsupported(&format!("gptq as {other}"))),
    };
    written.four_bits("gptq", Layout::Gptq { zero_shift })
}

pub(super) fn awq(config: &Value) -> Result<Quantization, Problem> {
    let written = parse(config)?;
    match written.version.as_deref() {
        None | Some("gemm" | "GEMM") => written.four_bits("awq", Layout::Awq),
        Some(other) => Err(unsupported(&format!("awq as {other}"))),
    }
}

impl Written {
    fn four_bits(&self, method: &str, layout: Layout) -> Result<Quantization, Problem> {
        if self.bits != Some(4) {
            return Err(unsupported(&format!("{method} of {} bits", self.bits.unwrap_or(0))));
        }
        let size = match self.group_size {
            Some(-1) => None,
            Some(size @ 1..) => Some(size as usize),
            other => return Err(Problem::Config(format!("its quantization_config has groups of {other:?} columns"))),
        };
        Ok(Quantization::of_all(Scheme { layout, grid: Grid::Group(size), symmetric: false }))
    }
}
