//! The tensors of a decoder of the Llama kind, by their Hugging Face names, and how wide their values spread.

use crate::ModelConfig;

/// The head's logits then differ by several units, and the likeliest token is seldom a close call.
const LOGIT_SPREAD: f32 = 4.0;
const BIAS_SPREAD: f32 = 0.02;

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
    pub fn elements(&self) -> usize {
        self.rows * self.cols
    }

    /// As bf16.
    pub fn bytes(&self) -> u64 {
        2 * self.elements() as u64
    }
}

/// All tensors of a model of `config`, in the order in which a model runs through them.
pub(super) fn tensors(config: &ModelConfig) -> Vec<Shape> {
    let (hidden, vocab) = (config.hidden_size, config.vocab_size);
    let logits = Values::Spread(LOGIT_SPREAD / (hidden as f32).sqrt());
    let mut tensors = vec![shape("model.embed_tokens.weight".to_owned(), vocab, hidden, logits)];
    for idx in 0..config.num_layers {
        let prefix = format!("model.layers.{idx}");
        tensors.push(shape(format!("{prefix}.input_layernorm.weight"), 1, hidden, Values::Gain));
        tensors.extend(attention(config, &format!("{prefix}.self_attn")));
        tensors.push(shape(format!("{prefix}.post_attention_layernorm.weight"), 1, hidden, Values::Gain));
        tensors.extend(mlp(config, &format!("{prefix}.mlp")));
    }
    tensors.push(shape("model.norm.weight".to_owned(), 1, hidden, Values::Gain));
    if !config.tie_word_embeddings {
        tensors.push(shape("lm_head.weight".to_owned(), vocab, hidden, logits));
    }
    tensors
}

fn attention(config: &ModelConfig, prefix: &str) -> Vec<Shape> {
    let hidden = config.hidden_size;
    let (q, kv) = (config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim);
    let parts = [("q_proj", q), ("k_proj", kv), ("v_proj", kv)];
    let mut tensors: Vec<Shape> = parts
        .iter()
        .map(|(part, rows)| shape(format!("{prefix}.{part}.weight"), *rows, hidden, inward(hidden)))
        .collect();
    tensors.push(shape(format!("{prefix}.o_proj.weight"), hidden, q, outward(config, q)));
    if config.attention_bias {
        let biased = parts.into_iter().chain([("o_proj", hidden)]);
        tensors.extend(biased.map(|(part, rows)| bias(format!("{prefix}.{part}.bias"), rows)));
    }
    tensors
}

fn mlp(config: &ModelConfig, prefix: &str) -> Vec<Shape> {
    let (hidden, ffn) = (config.hidden_size, config.intermediate_size);
    let mut tensors = vec![
        shape(format!("{prefix}.gate_proj.weight"), ffn, hidden, inward(hidden)),
        shape(format!("{prefix}.up_proj.weight"), ffn, hidden, inward(hidden)),
        shape(format!("{prefix}.down_proj.weight"), hidden, ffn, outward(config, ffn)),
    ];
    if config.mlp_bias {
        let biased = [("gate_proj", ffn), ("up_proj", ffn), ("down_proj", hidden)];
        tensors.extend(biased.map(|(part, rows)| bias(format!("{prefix}.{part}.bias"), rows)));
    }
    tensors
}

/// Of a matrix that reads normed activations: outputs are as large as inputs.
fn inward(inputs: usize) -> Values {
    Values::Spread(1.0 / (inputs as f32).sqrt())
}

/// Of a matrix that adds to the residual stream, which all layers together shall not blow up.
fn outward(config: &ModelConfig, inputs: usize) -> Values {
    Values::Spread(1.0 / (2.0 * config.num_layers as f32 * inputs as f32).sqrt())
}

fn bias(name: String, len: usize) -> Shape {
    shape(name, 1, len, Values::Spread(BIAS_SPREAD))
}

fn shape(name: String, rows: usize, cols: usize, values: Values) -> Shape {
    Shape { name, rows, cols, values }
}
