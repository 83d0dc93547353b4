//! Self-attention with its projections.

use tensor::{Act, ActSet, AttnSpec, Backend, KvScales, QkvSpec, Role};

use crate::{Linear, Loader, NnError, RmsNorm, Rope};

/// Grouped-query attention over the paged KV cache.
pub struct Attention<B: Backend> {
    qkv: Linear<B>,
    out: Linear<B>,
    qkv_spec: QkvSpec<B>,
    attn_spec: AttnSpec<B>,
}

/// What a family says of its attention.
#[derive(Clone, Copy, Debug)]
pub struct AttentionConfig {
    pub hidden_size: usize,
    pub num_heads: usize,
    pub num_kv_heads: usize,
    pub head_dim: usize,
    pub window: Option<usize>,
    /// Epsilon of the per-head norms of q and k, where the family has them.
    pub qk_norm_eps: Option<f32>,
}

impl<B: Backend> Attention<B> {
    /// Loads `prefix.{q_proj, k_proj, v_proj, o_proj}`, and `q_norm` and `k_norm` where the family has them; `sinks`, `k_scale`
    /// and `v_scale` where the checkpoint has them.
    pub fn load(
        loader: &mut Loader<'_, B>,
        prefix: &str,
        config: &AttentionConfig,
        rope: &Rope<B>,
    ) -> Result<Self, NnError> {
        let &AttentionConfig { hidden_size, num_heads, num_kv_heads, head_dim, window, qk_norm_eps } = config;
        let (q_size, kv_size) = (num_heads * head_dim, num_kv_heads * head_dim);
        let parts = [("q_proj", q_size), ("k_proj", kv_size), ("v_proj", kv_size)];
        let head_norm = |loader: &mut Loader<'_, B>, part: &str| {
            let load = |eps| RmsNorm::load(loader, &format!("{prefix}.{part}"), head_dim, eps);
            qk_norm_eps.map(load).transpose().map(|norm| norm.map(RmsNorm::into_spec))
        };
        let kv_scales = KvScales {
            k: loader.scalar(&format!("{prefix}.k_scale"))?.unwrap_or(1.0),
            v: loader.scalar(&format!("{prefix}.v_scale"))?.unwrap_or(1.0),
        };
        let sinks = format!("{prefix}.sinks");
        let sinks = loader.has(&sinks).then(|| loader.vector(&sinks, num_heads)).transpose()?;
        let qkv_spec = QkvSpec {
            num_heads,
            num_kv_heads,
            head_dim,
            q_norm: head_norm(loader, "q_norm")?,
            k_norm: head_norm(loader, "k_norm")?,
            rope: rope.table.clone(),
            rotary_dim: rope.rotary_dim,
            kv_scales,
        };
        let scale = 1.0 / (head_dim as f32).sqrt();
        Ok(Self {
            qkv: Linear::load(loader, prefix, &parts, hidden_size, Role::Column)?,
            out: Linear::load(loader, prefix, &[("o_proj", hidden_size)], q_size, Role::Row)?,
            qkv_spec,
            attn_spec: AttnSpec { num_heads, num_kv_heads, head_dim, scale, window, softcap: None, sinks, kv_scales },
        })
    }

    pub fn wants(&self) -> ActSet {
        self.qkv.wants()
    }

    /// Adds the attention of `x` over layer `layer` of `cache` to `onto`.
    pub fn forward_add(&self, b: &mut B, x: &Act<B>, cache: &mut B::Cache, layer: usize, onto: &B::Buf) {
        let qkv = self.qkv.forward(b, x);
        let attended = b.rope_attend(&qkv, &self.qkv_spec, &self.attn_spec, cache, layer, self.out.wants());
        self.out.forward_add(b, &attended, onto);
    }
}
