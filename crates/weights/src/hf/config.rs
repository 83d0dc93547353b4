//! `config.json` of both generations to [`ModelConfig`]: transformers 4 wrote `rope_theta`, `rope_scaling` and
//! `torch_dtype`, transformers 5 writes `rope_parameters` and `dtype`.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::json;
use super::quantization::Quantization;
use crate::error::InFile;
use crate::{ModelConfig, MoeConfig, Problem, RopeConfig, RopeScaling, WeightsError, Yarn};

/// The settings as written. Absent and null are the same.
#[derive(Debug, Deserialize)]
struct Written {
    model_type: Option<String>,
    hidden_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    intermediate_size: Option<usize>,
    num_experts: Option<usize>,
    num_local_experts: Option<usize>,
    num_experts_per_tok: Option<usize>,
    moe_intermediate_size: Option<usize>,
    norm_topk_prob: Option<bool>,
    vocab_size: Option<usize>,
    max_position_embeddings: Option<usize>,
    rms_norm_eps: Option<f32>,
    hidden_act: Option<String>,
    rope_parameters: Option<Rope>,
    rope_scaling: Option<Rope>,
    rope_theta: Option<f32>,
    partial_rotary_factor: Option<f32>,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    sliding_window: Option<usize>,
    use_sliding_window: Option<bool>,
    max_window_layers: Option<usize>,
    bos_token_id: Option<u32>,
    eos_token_id: Option<OneOrMore>,
}

/// `rope_parameters`, or `rope_scaling`, which had no theta.
#[derive(Clone, Debug, Default, Deserialize)]
struct Rope {
    rope_theta: Option<f32>,
    #[serde(alias = "type")]
    rope_type: Option<String>,
    partial_rotary_factor: Option<f32>,
    factor: Option<f32>,
    low_freq_factor: Option<f32>,
    high_freq_factor: Option<f32>,
    original_max_position_embeddings: Option<usize>,
    attention_factor: Option<f32>,
    beta_fast: Option<f32>,
    beta_slow: Option<f32>,
    mscale: Option<f32>,
    mscale_all_dim: Option<f32>,
    truncate: Option<bool>,
}

/// An end token, or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(u32),
    More(Vec<u32>),
}

/// `generation_config.json`, as far as it matters.
#[derive(Debug, Default, Deserialize)]
struct Generation {
    eos_token_id: Option<OneOrMore>,
}

/// What `config.json` says of how weights are stored.
#[derive(Debug, Deserialize)]
struct Storage {
    quantization_config: Option<Value>,
}

/// `quantization_config`, if there is one.
pub(super) fn read_quantization(folder: &Path) -> Result<Option<Quantization>, WeightsError> {
    let path = folder.join("config.json");
    let storage: Storage = json::parse(&path)?;
    storage.quantization_config.as_ref().map(Quantization::read).transpose().in_file(&path)
}

pub(crate) fn read(folder: &Path) -> Result<ModelConfig, WeightsError> {
    let path = folder.join("config.json");
    let generation: Option<Generation> = json::parse_optional(&folder.join("generation_config.json"))?;
    let written: Written = json::parse(&path)?;
    written.into_config(generation.unwrap_or_default()).in_file(&path)
}

impl Written {
    fn into_config(self, generation: Generation) -> Result<ModelConfig, Problem> {
        let hidden_size = required(self.hidden_size, "hidden_size")?;
        let num_heads = required(self.num_attention_heads, "num_attention_heads")?;
        let head_dim = match self.head_dim {
            Some(head_dim) => head_dim,
            None => crate::config::head_dim(hidden_size, num_heads)?,
        };
        let config = ModelConfig {
            rope: self.rope(head_dim)?,
            moe: self.moe()?,
            sliding_window: self.window()?,
            eos_token_ids: end_tokens([generation.eos_token_id, self.eos_token_id]),
            architecture: required(self.model_type, "model_type")?,
            hidden_size,
            num_layers: required(self.num_hidden_layers, "num_hidden_layers")?,
            num_heads,
            num_kv_heads: self.num_key_value_heads.unwrap_or(num_heads),
            head_dim,
            intermediate_size: required(self.intermediate_size, "intermediate_size")?,
            vocab_size: required(self.vocab_size, "vocab_size")?,
            max_position_embeddings: required(self.max_position_embeddings, "max_position_embeddings")?,
            rms_norm_eps: required(self.rms_norm_eps, "rms_norm_eps")?,
            hidden_act: self.hidden_act.unwrap_or_else(|| "silu".to_owned()),
            tie_word_embeddings: self.tie_word_embeddings.unwrap_or(false),
            attention_bias: self.attention_bias.unwrap_or(false),
            mlp_bias: self.mlp_bias.unwrap_or(false),
            bos_token_id: self.bos_token_id,
        };
        config.check()?;
        Ok(config)
    }

    /// Models without experts write none, or 0 of them.
    fn moe(&self) -> Result<Option<MoeConfig>, Problem> {
        let Some(num_experts) = self.num_local_experts.or(self.num_experts).filter(|num| *num > 0) else {
            return Ok(None);
        };
        let intermediate_size = self.moe_intermediate_size.or(self.intermediate_size);
        Ok(Some(MoeConfig {
            num_experts,
            experts_per_token: required(self.num_experts_per_tok, "num_experts_per_tok")?,
            intermediate_size: required(intermediate_size, "moe_intermediate_size")?,
            renormalize: self.norm_topk_prob.unwrap_or(false),
        }))
    }

    /// Where some layers are to slide, those from `max_window_layers` on do.
    fn window(&self) -> Result<Option<usize>, Problem> {
        let sliding = self.sliding_window.filter(|_| self.use_sliding_window != Some(false));
        match self.max_window_layers.filter(|_| self.use_sliding_window == Some(true)) {
            None | Some(0) => Ok(sliding),
            Some(first) if self.num_hidden_layers.is_some_and(|layers| first >= layers) => Ok(None),
            Some(_) if sliding.is_none() => Ok(None),
            Some(first) => Err(Problem::Unsupported(format!(
                "layers from {first} on slide and those before do not, which cannot be run"
            ))),
        }
    }

    fn rope(&self, head_dim: usize) -> Result<RopeConfig, Problem> {
        let rope = self.rope_parameters.clone().or(self.rope_scaling.clone()).unwrap_or_default();
        let fraction = rope.partial_rotary_factor.or(self.partial_rotary_factor).unwrap_or(1.0);
        Ok(RopeConfig {
            theta: rope.rope_theta.or(self.rope_theta).unwrap_or(10_000.0),
            rotary_dim: (head_dim as f32 * fraction) as usize,
            scaling: rope.scaling(self.max_position_embeddings)?,
        })
    }
}

impl Rope {
    /// `longest` is the model's own longest context.
    fn scaling(&self, longest: Option<usize>) -> Result<RopeScaling, Problem> {
        match self.rope_type.as_deref() {
            None | Some("default") => Ok(RopeScaling::None),
            Some("linear") => Ok(RopeScaling::Linear { factor: required(self.factor, "rope's factor")? }),
            Some("llama3") => Ok(RopeScaling::Llama3 {
                factor: required(self.factor, "rope's factor")?,
                low_freq_factor: required(self.low_freq_factor, "rope's low_freq_factor")?,
                high_freq_factor: required(self.high_freq_factor, "rope's high_freq_factor")?,
                original_max_position_embeddings: required(
                    self.original_max_position_embeddings,
                    "rope's original_max_position_embeddings",
                )?,
            }),
            Some("yarn") => self.yarn(longest).map(RopeScaling::Yarn),
            Some(other) => Err(Problem::Unsupported(format!(
                "its rope type is {other}; default, linear, llama3 and yarn can be run"
            ))),
        }
    }

    /// As transformers reads it: what was stretched is `original_max_position_embeddings`, else the model's longest context; a missing
    /// factor is the ratio of both; a missing attention factor follows from the factor, or from both mscales.
    fn yarn(&self, longest: Option<usize>) -> Result<Yarn, Problem> {
        let original = required(self.original_max_position_embeddings.or(longest), "max_position_embeddings")?;
        let ratio = longest.filter(|_| self.original_max_position_embeddings.is_some());
        let ratio = ratio.map(|longest| longest as f32 / original as f32);
        let factor = required(self.factor.or(ratio), "rope's factor")?;
        let derived = match (self.mscale, self.mscale_all_dim) {
            (Some(mscale), Some(all_dim)) if mscale != 0.0 && all_dim != 0.0 => {
                Yarn::magnitude(factor, mscale) / Yarn::magnitude(factor, all_dim)
            }
            _ => Yarn::magnitude(factor, 1.0),
        };
        Ok(Yarn {
            factor,
            original_max_position_embeddings: original,
            beta_fast: self.beta_fast.unwrap_or(Yarn::BETA_FAST),
            beta_slow: self.beta_slow.unwrap_or(Yarn::BETA_SLOW),
            attention_factor: self.attention_factor.unwrap_or(derived),
            truncate: self.truncate.unwrap_or(true),
        })
    }
}

fn required<T>(setting: Option<T>, name: &str) -> Result<T, Problem> {
    setting.ok_or_else(|| Problem::Config(format!("{name} is missing")))
}

/// All of them, each once, in order.
fn end_tokens(sources: [Option<OneOrMore>; 2]) -> Vec<u32> {
    let mut tokens = Vec::new();
    for source in sources.into_iter().flatten() {
        let listed = match source {
            OneOrMore::One(token) => vec![token],
            OneOrMore::More(tokens) => tokens,
        };
        for token in listed {
            if !tokens.contains(&token) {
                tokens.push(token);
            }
        }
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A whole config, with `changes` over it; null takes a setting away.
    fn config(changes: Value) -> Result<ModelConfig, Problem> {
        let mut config = json!({
            "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "intermediate_size": 128, "vocab_size": 512, "max_position_embeddings": 512,
            "rms_norm_eps": 1e-6, "eos_token_id": 2,
        });
        for (key, value) in changes.as_object().expect("changes are an object") {
            config[key] = value.clone();
        }
        let written: Written = serde_json::from_value(config).expect("the types are right");
        written.into_config(Generation::default())
    }

    #[test]
    fn what_is_left_out_is_derived() {
        let config = config(json!({ "num_key_value_heads": null })).expect("a whole config");
        assert_eq!((config.head_dim, config.num_kv_heads, config.rope.rotary_dim), (16, 4, 16));
        assert_eq!((config.rope.theta, config.rope.scaling), (10_000.0, RopeScaling::None));
        assert!(!config.tie_word_embeddings && config.sliding_window.is_none() && config.eos_token_ids == [2]);
    }

    #[test]
    fn both_generations_of_rope_mean_the_same() {
        let scaling = json!({ "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64 });
        let (mut new, mut old, mut oldest) = (scaling.clone(), scaling.clone(), scaling);
        (new["rope_type"], new["rope_theta"]) = (json!("llama3"), json!(500_000.0));
        (old["rope_type"], oldest["type"]) = (json!("llama3"), json!("llama3"));
        let new = config(json!({ "rope_parameters": new })).expect("transformers 5").rope;
        for old in [old, oldest] {
            let old = config(json!({ "rope_scaling": old, "rope_theta": 500_000.0 })).expect("transformers 4").rope;
            assert_eq!(old, new);
        }
        assert!(matches!(new.scaling, RopeScaling::Llama3 { original_max_position_embeddings: 64, .. }));
    }

    #[test]
    fn yarn_is_read_as_transformers_reads_it() {
        let yarn = |rope: Value| match config(json!({ "rope_scaling": rope })).expect("a whole config").rope.scaling {
            RopeScaling::Yarn(yarn) => yarn,
            other => panic!("{other:?}"),
        };
        let plain = yarn(json!({ "rope_type": "yarn", "factor": 4.0 }));
        let expected = Yarn {
            factor: 4.0,
            original_max_position_embeddings: 512,
            beta_fast: 32.0,
            beta_slow: 1.0,
            attention_factor: 1.138_629_4,
            truncate: true,
        };
        assert_eq!(plain, expected, "0.1 ln 4 + 1");
        let original = yarn(json!({ "type": "yarn", "original_max_position_embeddings": 64, "beta_fast": 8.0,
            "beta_slow": 2.0, "attention_factor": 1.5, "truncate": false }));
        assert_eq!((original.factor, original.original_max_position_embeddings), (8.0, 64), "512 / 64");
        assert_eq!((original.beta_fast, original.beta_slow), (8.0, 2.0));
        assert_eq!((original.attention_factor, original.truncate), (1.5, false));
        let both = yarn(json!({ "type": "yarn", "factor": 40.0, "mscale": 0.707, "mscale_all_dim": 1.0 }));
        assert!((both.attention_factor - 0.921_042_4).abs() < 1e-5, "(0.0707 ln 40 + 1) / (0.1 ln 40 + 1)");
        assert_eq!(yarn(json!({ "type": "yarn", "factor": 1.0 })).attention_factor, 1.0);
    }

    #[test]
    fn end_tokens_are_gathered_once() {
        let list = OneOrMore::More(vec![5, 2, 5]);
        assert_eq!(end_tokens([Some(list), Some(OneOrMore::One(2))]), [5, 2]);
        assert_eq!(config(json!({ "eos_token_id": [7, 8] })).expect("a list").eos_token_ids, [7, 8]);
        assert!(config(json!({ "eos_token_id": null })).expect("none").eos_token_ids.is_empty());
    }

    #[test]
    fn a_window_that_is_off_is_none() {
        for (off, window) in [(json!(null), Some(16)), (json!(true), Some(16)), (json!(false), None)] {
            let config = config(json!({ "sliding_window": 16, "use_sliding_window": off })).expect("a whole config");
            assert_eq!(config.sliding_window, window);
        }
    }

    #[test]
    fn a_window_of_some_layers_only_is_refused() {
        let windowed = |layers: usize| {
            config(json!({ "sliding_window": 16, "use_sliding_window": true, "max_window_layers": layers }))
        };
        assert_eq!(windowed(0).expect("all slide").sliding_window, Some(16));
        assert_eq!(windowed(2).expect("none slides").sliding_window, None);
        let error = windowed(1).expect_err("one of two slides").to_string();
        assert!(error.contains("layers from 1 on slide"), "{error}");
    }

    #[test]
    fn experts_are_counted_under_either_name() {
        let experts = |changes: Value| config(changes).map(|config| config.moe);
        let own =
            json!({ "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "norm_topk_prob": true });
        let moe = MoeConfig { num_experts: 8, experts_per_token: 2, intermediate_size: 32, renormalize: true };
        assert_eq!(experts(own).expect("a mixture"), Some(moe));
        let local = json!({ "num_local_experts": 8, "num_experts_per_tok": 2 });
        let moe = MoeConfig { intermediate_size: 128, renormalize: false, ..moe };
        assert_eq!(experts(local).expect("a mixture"), Some(moe));
        assert_eq!(experts(json!({ "num_experts": 0 })).expect("none"), None);
    }

    #[test]
    fn settings_that_cannot_be_are_refused() {
        for (changes, message) in [
            (json!({ "model_type": null }), "model_type is missing"),
            (json!({ "hidden_size": null }), "hidden_size is missing"),
            (json!({ "num_attention_heads": 0 }), "does not divide into 0 attention heads"),
            (json!({ "num_attention_heads": 0, "head_dim": 16 }), "the number of attention heads is 0"),
            (json!({ "num_attention_heads": 5 }), "a hidden size of 64 does not divide into 5 attention heads"),
            (json!({ "num_key_value_heads": 0 }), "the number of key-value heads is 0"),
            (json!({ "num_key_value_heads": 3 }), "4 attention heads cannot share 3 key-value heads evenly"),
            (json!({ "num_hidden_layers": 1_000_000 }), "the number of layers is 1000000, but it must be 1 to 4096"),
            (json!({ "vocab_size": u64::MAX }), "the vocabulary size is 18446744073709551615"),
            (json!({ "head_dim": 15 }), "rope turns 15 dimensions"),
            (json!({ "rms_norm_eps": 0.0 }), "the norm's epsilon is 0"),
            (json!({ "sliding_window": 0 }), "the sliding window is 0"),
            (json!({ "rope_theta": -1.0 }), "rope's theta is -1"),
            (json!({ "rope_theta": 1e60 }), "rope's theta is inf"),
            (json!({ "partial_rotary_factor": 2.0 }), "rope turns 32 dimensions"),
            (json!({ "rope_scaling": { "type": "longrope", "factor": 4.0 } }), "its rope type is longrope"),
            (json!({ "rope_scaling": { "type": "dynamic", "factor": 4.0 } }), "its rope type is dynamic"),
            (json!({ "rope_scaling": { "type": "yarn" } }), "rope's factor is missing"),
            (json!({ "rope_scaling": { "type": "yarn", "factor": 4.0, "beta_fast": 0.5 } }), "beta_fast is 0.5, below"),
            (json!({ "rope_scaling": { "type": "linear" } }), "rope's factor is missing"),
            (json!({ "rope_scaling": { "type": "linear", "factor": 0.0 } }), "rope scaling's factor is 0"),
            (json!({ "eos_token_id": 512 }), "the special token 512 is outside the vocabulary of 512"),
            (json!({ "num_experts": 8 }), "num_experts_per_tok is missing"),
            (json!({ "num_experts": 8, "num_experts_per_tok": 9 }), "a token asks 9 of 8 experts"),
            (json!({ "num_experts": 5000, "num_experts_per_tok": 1 }), "the number of experts is 5000"),
            (
                json!({ "num_experts": 8, "num_experts_per_tok": 1, "moe_intermediate_size": 0 }),
                "intermediate size is 0",
            ),
        ] {
            let error = config(changes).expect_err(message).to_string();
            assert!(error.contains(message), "{error} does not say: {message}");
        }
    }
}
