//! compressed-tensors: groups of modules, each with its own scheme.

use serde::Deserialize;
use serde_json::Value;

use super::scheme::{Grid, Layout, Scheme};
use super::targets::Targets;
use super::{Group, Quantization, unsupported};
use crate::Problem;

#[derive(Debug, Deserialize)]
struct Written {
    format: Option<String>,
    config_groups: Option<serde_json::Map<String, Value>>,
    ignore: Option<Vec<String>>,
    sparsity_config: Option<Value>,
    transform_config: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct WrittenGroup {
    targets: Vec<String>,
    format: Option<String>,
    weights: Option<Weights>,
}

#[derive(Debug, Deserialize)]
struct Weights {
    num_bits: u32,
    r#type: String,
    strategy: Option<String>,
    symmetric: Option<bool>,
    group_size: Option<i64>,
    block_structure: Option<[usize; 2]>,
}

pub(super) fn read(config: &Value) -> Result<Quantization, Problem> {
    let written: Written = parse(config)?;
    for (what, setting) in [("sparsity", &written.sparsity_config), ("transforms", &written.transform_config)] {
        if setting.as_ref().is_some_and(is_set) {
            return Err(unsupported(&format!("{what} of compressed-tensors")));
        }
    }
    let groups = written.config_groups.unwrap_or_default();
    let groups = groups.values().map(|group| read_group(parse(group)?, written.format.as_deref()));
    let groups = groups.filter_map(Result::transpose).collect::<Result<Vec<Group>, Problem>>()?;
    if groups.is_empty() {
        return Err(Problem::Config("its quantization_config has no group of quantized weights".to_owned()));
    }
    Ok(Quantization { groups, ignore: Targets::read(&written.ignore.unwrap_or_default())? })
}

fn parse<'a, T: Deserialize<'a>>(value: &'a Value) -> Result<T, Problem> {
    T::deserialize(value)
        .map_err(|error| Problem::Config(format!("its quantization_config is not understood: {error}")))
}

/// Whether an object says anything: `{}`, null and the format "dense" do not.
fn is_set(setting: &Value) -> bool {
    setting.as_object().is_some_and(|fields| !fields.is_empty() && setting["format"] != "dense")
}

/// `None` for a group whose weights are not quantized.
fn read_group(group: WrittenGroup, format: Option<&str>) -> Result<Option<Group>, Problem> {
    let Some(weights) = group.weights else { return Ok(None) };
    let format = group.format.as_deref().or(format).unwrap_or("no format");
    let symmetric = weights.symmetric.unwrap_or(true);
    let layout = match (format, weights.r#type.as_str(), weights.num_bits) {
        ("float-quantized" | "naive-quantized", "float", 8) if symmetric => Layout::Fp8,
        ("int-quantized" | "naive-quantized", "int", 8) if symmetric => Layout::Int8,
        ("pack-quantized", "int", 4) => Layout::Packed { bits: 4 },
        ("pack-quantized", "int", 8) if symmetric => Layout::Packed { bits: 8 },
        (format, kind, bits) => {
            let sign = if symmetric { "" } else { " with zero points" };
            return Err(unsupported(&format!("weights of {bits} bits, {kind}, {format}{sign}")));
        }
    };
    let scheme = Scheme { layout, grid: weights.grid()?, symmetric };
    Ok(Some(Group { targets: Targets::read(&group.targets)?, scheme }))
}

impl Weights {
    fn grid(&self) -> Result<Grid, Problem> {
        let group_size = || match self.group_size {
            Some(size @ 1..) => Ok(Grid::Group(Some(size as usize))),
            other => Err(Problem::Config(format!("its quantization_config has groups of {other:?} columns"))),
        };
        match (self.strategy.as_deref(), self.block_structure) {
            (Some("tensor"), _) => Ok(Grid::Tensor),
            (Some("channel"), _) => Ok(Grid::Channel),
            (Some("group"), _) => group_size(),
            (Some("block"), Some([rows, cols])) if rows > 0 && cols > 0 => Ok(Grid::Block(rows, cols)),
            (Some("block"), block) => {
                Err(Problem::Config(format!("its quantization_config has blocks of {block:?} rows and columns")))
            }
            // As its makers default: groups where there is a size, else one scale.
            (None, _) if self.group_size.is_some_and(|size| size > 0) => group_size(),
            (None, _) if self.group_size == Some(-1) => Ok(Grid::Channel),
            (None, _) => Ok(Grid::Tensor),
            (Some(other), _) => Err(unsupported(&format!("scales by {other}"))),
        }
    }
}
