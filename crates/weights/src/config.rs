//! What a model is: the numbers that a forward pass needs, from either kind of checkpoint, checked.

use crate::{Problem, Yarn};

/// A decoder's shape and constants.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The family, as Hugging Face names it: `llama`, `mistral`, `qwen3_moe`. GGUF calls Mistral `llama` too.
    pub architecture: String,
    pub hidden_size: usize,
    pub num_layers: usize,
    pub num_heads: usize,
    pub num_kv_heads: usize,
    pub head_dim: usize,
    pub intermediate_size: usize,
    /// Experts in place of the feed-forward layer.
    pub moe: Option<MoeConfig>,
    pub vocab_size: usize,
    pub max_position_embeddings: usize,
    pub rms_norm_eps: f32,
    /// `silu`, `gelu_pytorch_tanh`, ...
    pub hidden_act: String,
    pub rope: RopeConfig,
    /// The head is the embedding; there is no `lm_head.weight`.
    pub tie_word_embeddings: bool,
    pub attention_bias: bool,
    pub mlp_bias: bool,
    /// Tokens that attention looks back at, itself included, on the layers that slide.
    pub sliding_window: Option<usize>,
    pub bos_token_id: Option<u32>,
    /// Tokens that end a generation, without repetition.
    pub eos_token_ids: Vec<u32>,
}

/// A mixture of experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MoeConfig {
    pub num_experts: usize,
    pub experts_per_token: usize,
    /// Of one expert.
    pub intermediate_size: usize,
    /// Whether the weights of a token's experts are scaled to sum to 1.
    pub renormalize: bool,
}

/// Rotary position embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    pub theta: f32,
    /// Leading dimensions of a head that rotate; even.
    pub rotary_dim: usize,
    pub scaling: RopeScaling,
}

/// How the rotation's frequencies are stretched for long contexts.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    None,
    /// Every frequency divided by `factor`.
    Linear {
        factor: f32,
    },
    /// Llama 3: low frequencies divided by `factor`, high ones kept, between them a blend.
    Llama3 {
        factor: f32,
        low_freq_factor: f32,
        high_freq_factor: f32,
        original_max_position_embeddings: usize,
    },
    Yarn(Yarn),
    /// Frequency `i` divided by `factors[i]`; `rotary_dim / 2` of them. GGUF stores any scaling so.
    Factors(Vec<f32>),
}

impl ModelConfig {
    /// Refuses numbers that no model has; what passes can be multiplied and divided without a second look.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        for (name, value, most) in [
            ("the hidden size", self.hidden_size, 1 << 17),
            ("the number of layers", self.num_layers, 1 << 12),
            ("the number of attention heads", self.num_heads, 1 << 12),
            ("the number of key-value heads", self.num_kv_heads, 1 << 12),
            ("the head dimension", self.head_dim, 1 << 12),
            ("the intermediate size", self.intermediate_size, 1 << 20),
            ("the vocabulary size", self.vocab_size, 1 << 24),
            ("the maximum position", self.max_position_embeddings, 1 << 28),
        ] {
            require((1..=most).contains(&value), || format!("{name} is {value}, but it must be 1 to {most}"))?;
        }
        require(self.num_heads.is_multiple_of(self.num_kv_heads), || {
            format!("{} attention heads cannot share {} key-value heads evenly", self.num_heads, self.num_kv_heads)
        })?;
        require(self.rms_norm_eps > 0.0 && self.rms_norm_eps < 1.0, || {
            format!("the norm's epsilon is {}, but it must be between 0 and 1", self.rms_norm_eps)
        })?;
        require(self.sliding_window != Some(0), || "the sliding window is 0, but it must hold a token".to_owned())?;
        self.rope.check(self.head_dim)?;
        self.moe.map_or(Ok(()), MoeConfig::check)?;
        self.check_tokens()
    }

    fn check_tokens(&self) -> Result<(), Problem> {
        for token in self.eos_token_ids.iter().chain(&self.bos_token_id) {
            require((*token as usize) < self.vocab_size, || {
                format!("the special token {token} is outside the vocabulary of {}", self.vocab_size)
            })?;
        }
        Ok(())
    }
}

impl MoeConfig {
    fn check(self) -> Result<(), Problem> {
        let Self { num_experts, experts_per_token, intermediate_size, .. } = self;
        require((1..=1 << 12).contains(&num_experts), || {
            format!("the number of experts is {num_experts}, but it must be 1 to 4096")
        })?;
        require((1..=num_experts).contains(&experts_per_token), || {
            format!("a token asks {experts_per_token} of {num_experts} experts, but it must ask 1 to all of them")
        })?;
        require((1..=1 << 20).contains(&intermediate_size), || {
            format!("an expert's intermediate size is {intermediate_size}, but it must be 1 to {}", 1 << 20)
        })
    }
}

impl RopeConfig {
    fn check(&self, head_dim: usize) -> Result<(), Problem> {
        require(self.theta.is_finite() && self.theta > 1.0, || {
            format!("rope's theta is {}, but it must be a number above 1", self.theta)
        })?;
        let dim = self.rotary_dim;
        require(dim > 0 && dim.is_multiple_of(2) && dim <= head_dim, || {
            format!("rope turns {dim} dimensions, but it must be an even number up to the head dimension {head_dim}")
        })?;
        self.scaling.check(dim)
    }
}

impl RopeScaling {
    fn check(&self, rotary_dim: usize) -> Result<(), Problem> {
        let positive = |name: &str, value: f32| {
            require(value.is_finite() && value > 0.0, || {
                format!("rope scaling's {name} is {value}, but it must be a positive number")
            })
        };
        match self {
            Self::None => Ok(()),
            Self::Linear { factor } => positive("factor", *factor),
            Self::Llama3 { factor, low_freq_factor: low, high_freq_factor: high, original_max_position_embeddings } => {
                positive("factor", *factor)?;
                positive("low_freq_factor", *low)?;
                positive("high_freq_factor", *high)?;
                positive("original_max_position_embeddings", *original_max_position_embeddings as f32)?;
                require(low < high, || {
                    format!("rope scaling's low_freq_factor {low} is not below the high one, {high}")
                })
            }
            Self::Yarn(yarn) => {
                positive("factor", yarn.factor)?;
                positive("original_max_position_embeddings", yarn.original_max_position_embeddings as f32)?;
                positive("beta_slow", yarn.beta_slow)?;
                positive("attention_factor", yarn.attention_factor)?;
                require(yarn.beta_slow <= yarn.beta_fast && yarn.beta_fast.is_finite(), || {
                    format!("rope scaling's beta_fast is {}, below beta_slow, {}", yarn.beta_fast, yarn.beta_slow)
                })
            }
            Self::Factors(factors) => {
                require(factors.len() == rotary_dim / 2, || {
                    format!("there are {} rope factors for {rotary_dim} turning dimensions", factors.len())
                })?;
                factors.iter().try_for_each(|factor| positive("factor", *factor))
            }
        }
    }
}

fn require(holds: bool, sentence: impl FnOnce() -> String) -> Result<(), Problem> {
    if holds { Ok(()) } else { Err(Problem::Config(sentence())) }
}

/// A head's width where the checkpoint leaves it out.
pub(crate) fn head_dim(hidden_size: usize, num_heads: usize) -> Result<usize, Problem> {
    require(num_heads > 0 && hidden_size.is_multiple_of(num_heads), || {
        format!("a hidden size of {hidden_size} does not divide into {num_heads} attention heads")
    })?;
    Ok(hidden_size / num_heads)
}
