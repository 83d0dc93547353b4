//! What families share: layers that add to one residual stream `x [T, E]`, and a head.
//!
//! Per layer: norm, qkv, rotate and write, attend, project, norm, feed forward. A family says what differs by its
//! [`Parts`].

use nn::{Attention, AttentionConfig, Embedding, FeedForward, Head, Loader, Mlp, NnError, RmsNorm, Rope};
use tensor::{Activation, Backend, Role};
use weights::ModelConfig;

use crate::{CausalLm, KvGroup};

/// What one family has and another has not.
pub(crate) struct Parts<B: Backend> {
    /// A norm of each head's q and k.
    pub qk_norm: bool,
    /// Loads the feed-forward part of the layer of this prefix.
    pub feed_forward: LoadFeedForward<B>,
}

type LoadFeedForward<B> = fn(&mut Loader<'_, B>, &ModelConfig, &str) -> Result<FeedForward<B>, NnError>;

pub(crate) struct Decoder<B: Backend> {
    embedding: Embedding<B>,
    layers: Vec<Layer<B>>,
    norm: RmsNorm<B>,
    head: Head<B>,
    kv_group: KvGroup,
    vocab_size: usize,
}

struct Layer<B: Backend> {
    attention_norm: RmsNorm<B>,
    attention: Attention<B>,
    feed_forward_norm: RmsNorm<B>,
    feed_forward: FeedForward<B>,
}

impl<B: Backend> Decoder<B> {
    pub fn load(
        loader: &mut Loader<'_, B>,
        config: &ModelConfig,
        max_model_len: usize,
        parts: &Parts<B>,
    ) -> Result<Self, NnError> {
        let rope = Rope::new(loader, &config.rope, max_model_len)?;
        let (shape, role) = ((config.vocab_size, config.hidden_size), embedding_role(config));
        let embedding = Embedding::load(loader, "model.embed_tokens.weight", shape, 1.0, role)?;
        let head = match config.tie_word_embeddings {
            true => embedding.tied_head(),
            false => Head::load(loader, "lm_head.weight", shape)?,
        };
        Ok(Self {
            layers: (0..config.num_layers)
                .map(|idx| Layer::load(loader, config, &rope, parts, idx))
                .collect::<Result<_, _>>()?,
            norm: RmsNorm::load(loader, "model.norm", config.hidden_size, config.rms_norm_eps)?,
            embedding,
            head,
            kv_group: KvGroup {
                layers: config.num_layers,
                num_kv_heads: config.num_kv_heads,
                head_dim: config.head_dim,
                window: config.sliding_window,
            },
            vocab_size: config.vocab_size,
        })
    }
}

fn embedding_role(config: &ModelConfig) -> Role {
    if config.tie_word_embeddings { Role::Head } else { Role::Embed }
}

/// The gated layer of dense families.
pub(crate) fn mlp<B: Backend>(
    loader: &mut Loader<'_, B>,
    config: &ModelConfig,
    layer: &str,
) -> Result<FeedForward<B>, NnError> {
    let (hidden, intermediate) = (config.hidden_size, config.intermediate_size);
    let mlp = Mlp::load(loader, &format!("{layer}.mlp"), hidden, intermediate, Activation::Silu)?;
    Ok(FeedForward::Dense(mlp))
}

impl<B: Backend> Layer<B> {
    fn load(
        loader: &mut Loader<'_, B>,
        config: &ModelConfig,
        rope: &Rope<B>,
        parts: &Parts<B>,
        idx: usize,
    ) -> Result<Self, NnError> {
        let prefix = format!("model.layers.{idx}");
        let norm = |loader: &mut Loader<'_, B>, name: &str| {
            RmsNorm::load(loader, &format!("{prefix}.{name}"), config.hidden_size, config.rms_norm_eps)
        };
        let attention = AttentionConfig {
            hidden_size: config.hidden_size,
            num_heads: config.num_heads,
            num_kv_heads: config.num_kv_heads,
            head_dim: config.head_dim,
            window: config.sliding_window,
            qk_norm_eps: parts.qk_norm.then_some(config.rms_norm_eps),
        };
        Ok(Self {
            attention_norm: norm(loader, "input_layernorm")?,
            attention: Attention::load(loader, &format!("{prefix}.self_attn"), &attention, rope)?,
            feed_forward_norm: norm(loader, "post_attention_layernorm")?,
            feed_forward: (parts.feed_forward)(loader, config, &prefix)?,
        })
    }

    fn forward(&self, b: &mut B, x: &B::Buf, cache: &mut B::Cache, idx: usize) {
        let normed = self.attention_norm.forward(b, x, self.attention.wants());
        self.attention.forward_add(b, &normed, cache, idx, x);
        let normed = self.feed_forward_norm.forward(b, x, self.feed_forward.wants());
        self.feed_forward.forward_add(b, &normed, x);
    }
}

impl<B: Backend> CausalLm<B> for Decoder<B> {
    fn forward(&self, b: &mut B, caches: &mut [B::Cache]) -> B::Buf {
        let x = self.embedding.forward(b);
        for (idx, layer) in self.layers.iter().enumerate() {
            layer.forward(b, &x, &mut caches[0], idx);
        }
        let wanted = b.gather(&x);
        let normed = self.norm.forward(b, &wanted, self.head.wants());
        self.head.forward(b, &normed)
    }

    fn kv_groups(&self) -> &[KvGroup] {
        std::slice::from_ref(&self.kv_group)
    }

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }
}
