//! Attention with its rotation and KV write, as a layer calls it: decode at several contexts and batches, and prefill.

use anyhow::Result;
use benches::{Heads, Work, decode_inputs, prefill_inputs};
use kernels::cuda::Cuda;
use tensor::{ActSet, AttnSpec, Backend, CacheSpec, Encoding, KvDtype, KvScales, QkvSpec, RopeTable, StepInputs};

use super::{BLOCK_SIZE, Bench, Buf, noise};

impl Bench<'_> {
    pub(super) fn attention(&mut self) -> Result<()> {
        for (dtype, name, bytes) in [(KvDtype::Bf16, "bf16", 2), (KvDtype::Fp8, "fp8", 1)] {
            for &(sequences, context, new) in self.scale.attention {
                self.start_over()?;
                let inputs = match new {
                    1 => decode_inputs(sequences, context, BLOCK_SIZE),
                    _ => prefill_inputs(new, context, BLOCK_SIZE),
                };
                let heads = self.scale.heads;
                let seconds = self.attend(&inputs, heads, dtype)?;
                let what = format!("attend {new} after {} x {sequences}, {name}", context - new);
                self.record(&what, sequences * new, Work::attend(sequences, context, new, heads, bytes), seconds)?;
            }
        }
        Ok(())
    }

    fn attend(&mut self, inputs: &StepInputs, heads: Heads, dtype: KvDtype) -> Result<f64> {
        let blocks = inputs.groups[0].block_tables.iter().max().map_or(1, |&max| max as usize + 1);
        let of_one = CacheSpec {
            group: 0,
            layers: 1,
            num_kv_heads: heads.kv,
            head_dim: heads.dim,
            block_size: BLOCK_SIZE,
            blocks,
            dtype,
        };
        let layers = self.copies(self.cuda.block_bytes(&of_one) as usize * blocks);
        let mut cache = self.cuda.new_cache(&CacheSpec { layers, ..of_one })?;
        let (qkv, spec) = rotated(&mut self.cuda, inputs, heads)?;
        let (attention, wants) = (attention(heads), ActSet::of(Encoding::Bf16));
        let mut op = |b: &mut Cuda, (): &(), idx: usize| {
            drop(b.rope_attend(&qkv, &spec, &attention, &mut cache, idx % layers, wants));
        };
        self.seconds(inputs, &mut |_| (), &mut op)
    }
}

/// Queries, keys and values of the step's tokens, and how they are rotated.
pub(super) fn rotated(cuda: &mut Cuda, inputs: &StepInputs, heads: Heads) -> Result<(Buf, QkvSpec<Cuda>)> {
    let longest = inputs.seq_lens.iter().max().map_or(1, |&len| len as usize);
    let angles = noise(longest * heads.dim / 2);
    let rope = cuda.rope_table(&RopeTable { cos: angles.clone(), sin: angles, rotary_dim: heads.dim })?;
    let qkv = cuda.vector(&noise(inputs.num_tokens() * (heads.q + 2 * heads.kv) * heads.dim))?;
    let spec = QkvSpec {
        num_heads: heads.q,
        num_kv_heads: heads.kv,
        head_dim: heads.dim,
        q_norm: None,
        k_norm: None,
        rope,
        rotary_dim: heads.dim,
        kv_scales: KvScales::default(),
    };
    Ok((qkv, spec))
}

fn attention(heads: Heads) -> AttnSpec<Cuda> {
    AttnSpec {
        num_heads: heads.q,
        num_kv_heads: heads.kv,
        head_dim: heads.dim,
        scale: 1.0 / (heads.dim as f32).sqrt(),
        window: None,
        softcap: None,
        sinks: None,
        kv_scales: KvScales::default(),
    }
}
