//! `quantization_config`: which tensors are stored in codes, and how. Codes and their scales become one tensor.
//!
//! The file decides what is coded: a weight that is stored in floats stays so, whatever the config aims at. The config
//! decides how codes are read; codes that it says nothing about are refused.

mod compressed;
mod module;
mod raw;
mod repack;
mod scheme;
mod single;
mod targets;

use serde_json::Value;

use super::shards::Shards;
use crate::{Problem, Tensor};
use module::Module;
pub(super) use raw::RawTensor;
use scheme::Scheme;
use targets::Targets;

#[derive(Debug)]
pub(super) struct Quantization {
    groups: Vec<Group>,
    ignore: Targets,
}

#[derive(Debug)]
struct Group {
    targets: Targets,
    scheme: Scheme,
}

impl Quantization {
    /// Reads `config.json`'s `quantization_config`.
    pub fn read(config: &Value) -> Result<Self, Problem> {
        match config["quant_method"].as_str() {
            Some("compressed-tensors") => compressed::read(config),
            Some("fp8" | "fbgemm_fp8") => single::fp8(config),
            Some("gptq") => single::gptq(config),
            Some("awq") => single::awq(config),
            Some(other) => Err(unsupported(other)),
            None => Err(unsupported("a method that its quantization_config does not name")),
        }
    }

    /// One scheme for every module.
    fn of_all(scheme: Scheme) -> Self {
        let targets = Targets::read(&["Linear".to_owned()]).expect("a class is no pattern");
        Self { groups: vec![Group { targets, scheme }], ignore: Targets::default() }
    }

    /// Refuses a config that no tensor bears out.
    pub fn check(&self, shards: &Shards) -> Result<(), Problem> {
        let coded = |name: &str| {
            let packed = [".weight_packed", ".qweight"].iter().any(|end| name.ends_with(end));
            packed || shards.raw(name).is_some_and(|raw| module::is_code(raw.dtype))
        };
        if shards.names().any(coded) {
            return Ok(());
        }
        Err(Problem::Config("it has a quantization_config, but no tensor is quantized".to_owned()))
    }

    /// Whether the module `name` has a weight in codes.
    pub fn has(shards: &Shards, name: &str) -> bool {
        Module { shards, name }.is_coded()
    }

    /// The weight of the module `name`; `None` where it is not in codes.
    pub fn weight<'a>(&self, shards: &'a Shards, name: &str) -> Result<Option<Tensor<'a>>, String> {
        let module = Module { shards, name };
        if module.is_coded() {
            return module.read(self.scheme(name)?).map(Some);
        }
        match module.stray_scales() {
            Some(scales) => Err(format!("there is a {scales}, but its weight is stored without codes")),
            None => Ok(None),
        }
    }

    fn scheme(&self, module: &str) -> Result<Scheme, String> {
        if self.ignore.names(module) {
            return Err("it is quantized, but quantization_config ignores it".to_owned());
        }
        let by_name = self.groups.iter().find(|group| group.targets.names(module));
        let group = by_name.or_else(|| self.groups.iter().find(|group| group.targets.linear()));
        group
            .map(|group| group.scheme)
            .ok_or("it is quantized, but no group of quantization_config says how".to_owned())
    }
}

fn unsupported(what: &str) -> Problem {
    Problem::Unsupported(format!(
        "the model is quantized by {what}, which cannot be read; compressed-tensors (float-quantized, int-quantized, \
         pack-quantized), fp8, gptq and awq of 4 bits can"
    ))
}
