//! GGUF metadata to [`ModelConfig`]. The tensors decide what the metadata leaves open.

use quant::Stored;

use super::header::Header;
use super::value::Value;
use crate::config::head_dim;
use crate::{ModelConfig, MoeConfig, Problem, RopeConfig, RopeScaling, Yarn};

/// The tensor that holds one divisor per rotating pair.
const ROPE_FACTORS: &str = "rope_freqs.weight";

/// The metadata of one architecture: keys begin with its name.
struct Keys<'a> {
    header: &'a Header,
    file: &'a [u8],
    architecture: &'a str,
}

pub(super) fn read(header: &Header, file: &[u8]) -> Result<ModelConfig, Problem> {
    let architecture = header.string("general.architecture")?;
    let architecture = architecture.ok_or_else(|| Problem::Config("general.architecture is missing".to_owned()))?;
    let keys = Keys { header, file, architecture };
    let hidden_size = keys.size("embedding_length")?;
    let num_heads = keys.uniform("attention.head_count")?.ok_or_else(|| keys.missing("attention.head_count"))?;
    let head_dim = match keys.optional_size("attention.key_length")? {
        Some(head_dim) => head_dim,
        None => head_dim(hidden_size, num_heads)?,
    };
    let has = |name: &str| header.tensors.contains_key(name);
    let moe = keys.moe()?;
    let config = ModelConfig {
        architecture: family(architecture, moe.is_some()).to_owned(),
        hidden_size,
        num_layers: keys.size("block_count")?,
        num_heads,
        num_kv_heads: keys.uniform("attention.head_count_kv")?.unwrap_or(num_heads),
        head_dim,
        intermediate_size: keys.uniform("feed_forward_length")?.ok_or_else(|| keys.missing("feed_forward_length"))?,
        moe,
        vocab_size: keys.vocab_size(hidden_size)?,
        max_position_embeddings: keys.size("context_length")?,
        rms_norm_eps: keys.float("attention.layer_norm_rms_epsilon")?,
        hidden_act: "silu".to_owned(),
        rope: keys.rope(head_dim)?,
        tie_word_embeddings: !has("output.weight"),
        attention_bias: has("blk.0.attn_q.bias"),
        mlp_bias: has("blk.0.ffn_up.bias"),
        sliding_window: keys.optional_size("attention.sliding_window")?,
        bos_token_id: header.token("tokenizer.ggml.bos_token_id")?,
        eos_token_ids: eos_token_ids(header)?,
    };
    config.check()?;
    Ok(config)
}

/// Hugging Face's name of the family.
fn family(architecture: &str, mixture: bool) -> &str {
    match architecture {
        "llama" if mixture => "mixtral",
        "qwen3moe" => "qwen3_moe",
        other => other,
    }
}

fn eos_token_ids(header: &Header) -> Result<Vec<u32>, Problem> {
    let mut tokens = Vec::new();
    for key in ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"] {
        tokens.extend(header.token(key)?.filter(|token| !tokens.contains(token)));
    }
    Ok(tokens)
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    fn missing(&self, name: &str) -> Problem {
        Problem::Config(format!("{} is missing", self.key(name)))
    }

    fn optional_size(&self, name: &str) -> Result<Option<usize>, Problem> {
        self.header.size(&self.key(name))
    }

    fn size(&self, name: &str) -> Result<usize, Problem> {
        self.optional_size(name)?.ok_or_else(|| self.missing(name))
    }

    fn optional_float(&self, name: &str) -> Result<Option<f32>, Problem> {
        self.header.float(&self.key(name))
    }

    fn float(&self, name: &str) -> Result<f32, Problem> {
        self.optional_float(name)?.ok_or_else(|| self.missing(name))
    }

    /// A size, or one per layer that are all the same.
    fn uniform(&self, name: &str) -> Result<Option<usize>, Problem> {
        let key = self.key(name);
        let Some(Value::Array(array)) = self.header.get(&key) else { return self.header.size(&key) };
        let sizes = array.scalars(self.file, &key, |value| value.as_unsigned()?.try_into().ok())?;
        match sizes.split_first() {
            Some((first, rest)) if rest.iter().all(|size| size == first) => Ok(Some(*first)),
            _ => Err(Problem::Unsupported(format!("{key} differs from layer to layer, which cannot be run"))),
        }
    }

    fn moe(&self) -> Result<Option<MoeConfig>, Problem> {
        let Some(num_experts) = self.optional_size("expert_count")?.filter(|num| *num > 0) else { return Ok(None) };
        let intermediate_size = match self.uniform("expert_feed_forward_length")? {
            Some(size) => Some(size),
            None => self.uniform("feed_forward_length")?,
        };
        Ok(Some(MoeConfig {
            num_experts,
            experts_per_token: self.size("expert_used_count")?,
            intermediate_size: intermediate_size.ok_or_else(|| self.missing("feed_forward_length"))?,
            // The architectures that are read here all renormalize; only others have a setting.
            renormalize: true,
        }))
    }

    /// The embedding's rows; the metadata often counts otherwise or not at all.
    fn vocab_size(&self, hidden_size: usize) -> Result<usize, Problem> {
        let embedding = self.header.tensors.get("token_embd.weight");
        let embedding = embedding.ok_or_else(|| Problem::NoTensor("token_embd.weight".to_owned()))?;
        if embedding.cols != hidden_size {
            let reason = format!("has {} columns, but the hidden size is {hidden_size}", embedding.cols);
            return Err(Problem::tensor("token_embd.weight", reason));
        }
        Ok(embedding.rows)
    }

    fn rope(&self, head_dim: usize) -> Result<RopeConfig, Problem> {
        Ok(RopeConfig {
            theta: self.optional_float("rope.freq_base")?.unwrap_or(10_000.0),
            rotary_dim: self.optional_size("rope.dimension_count")?.unwrap_or(head_dim),
            scaling: self.rope_scaling()?,
        })
    }

    /// The file gives the attention factor, if at all, without the logarithm that belongs to it.
    fn yarn(&self, factor: f32) -> Result<RopeScaling, Problem> {
        let given = self.optional_float("rope.scaling.attn_factor")?.unwrap_or(1.0);
        let original = self.optional_size("rope.scaling.original_context_length")?;
        Ok(RopeScaling::Yarn(Yarn {
            factor,
            original_max_position_embeddings: original.map_or_else(|| self.size("context_length"), Ok)?,
            beta_fast: self.optional_float("rope.scaling.yarn_beta_fast")?.unwrap_or(Yarn::BETA_FAST),
            beta_slow: self.optional_float("rope.scaling.yarn_beta_slow")?.unwrap_or(Yarn::BETA_SLOW),
            attention_factor: given * Yarn::magnitude(factor, 1.0),
            truncate: true,
        }))
    }

    fn rope_scaling(&self) -> Result<RopeScaling, Problem> {
        if let Some(info) = self.header.tensors.get(ROPE_FACTORS) {
            let stored = Stored::new(info.rows, info.cols, info.format, &self.file[info.bytes.clone()]);
            return Ok(RopeScaling::Factors(stored.expect("the header checked the length").dequantize()));
        }
        let factor = self.optional_float("rope.scaling.factor")?;
        match self.header.string(&self.key("rope.scaling.type"))? {
            None | Some("none") => Ok(RopeScaling::None),
            Some("linear") => {
                Ok(RopeScaling::Linear { factor: factor.ok_or_else(|| self.missing("rope.scaling.factor"))? })
            }
            Some("yarn") => self.yarn(factor.ok_or_else(|| self.missing("rope.scaling.factor"))?),
            Some(other) => Err(Problem::Unsupported(format!(
                "its rope scaling is {other}; none, linear, yarn and stored factors can be run"
            ))),
        }
    }
}
