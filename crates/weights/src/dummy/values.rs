//! What is made up for a name: how wide a tensor's values spread, and whether a model has one that not every model has.
//!
//! Shapes are the model's to say, by what it asks for. Names are those of Hugging Face, of all families.

use crate::ModelConfig;

/// The head's logits then differ by several units, and the likeliest token is seldom a close call.
const LOGIT_SPREAD: f32 = 4.0;
const BIAS_SPREAD: f32 = 0.02;
/// Families whose q, k and v have biases that no setting tells of.
const BIASED: &[&str] = &["qwen2"];

/// One tensor.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Shape {
    pub name: String,
    pub rows: usize,
    pub cols: usize,
    pub values: Values,
}

/// What a tensor's values are like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Values {
    /// Around zero, with this standard deviation.
    Spread(f32),
    /// A norm's gains, around one.
    Gain,
}

impl Shape {
    pub fn new(config: &ModelConfig, name: &str, rows: usize, cols: usize) -> Self {
        Self { name: name.to_owned(), rows, cols, values: values(config, name, cols) }
    }

    pub fn elements(&self) -> usize {
        self.rows * self.cols
    }

    /// As bf16.
    pub fn bytes(&self) -> u64 {
        2 * self.elements() as u64
    }
}

/// Whether a model of `config` has the tensor `name`, as far as models differ in it: biases, a head of its own, routers. Scales
/// and sinks are never made up.
pub(super) fn is_there(config: &ModelConfig, name: &str) -> bool {
    let (part, kind) = part(name);
    match (part, kind) {
        ("q_proj" | "k_proj" | "v_proj", "bias") => {
            config.attention_bias || BIASED.contains(&config.architecture.as_str())
        }
        ("o_proj", "bias") => config.attention_bias,
        ("gate_proj" | "up_proj" | "down_proj", "bias") => config.mlp_bias,
        ("lm_head", "weight") => !config.tie_word_embeddings,
        ("gate", "weight") => config.moe.is_some(),
        _ => kind == "weight",
    }
}

/// Outputs of a matrix that reads normed activations are as large as its inputs; one that adds to the residual stream does not
/// blow it up, over all layers together.
fn values(config: &ModelConfig, name: &str, inputs: usize) -> Values {
    let inputs = inputs as f32;
    match part(name) {
        (_, "bias") => Values::Spread(BIAS_SPREAD),
        (part, _) if part.ends_with("norm") => Values::Gain,
        ("embed_tokens" | "lm_head", _) => Values::Spread(LOGIT_SPREAD / inputs.sqrt()),
        ("o_proj" | "down_proj" | "w2", _) => Values::Spread(1.0 / (2.0 * config.num_layers as f32 * inputs).sqrt()),
        _ => Values::Spread(1.0 / inputs.sqrt()),
    }
}

/// `q_proj` and `weight` of `model.layers.0.self_attn.q_proj.weight`.
fn part(name: &str) -> (&str, &str) {
    let (module, kind) = name.rsplit_once('.').unwrap_or((name, ""));
    (module.rsplit('.').next().unwrap_or(module), kind)
}
