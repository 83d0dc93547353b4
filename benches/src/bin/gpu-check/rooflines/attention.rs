//! Attention with its rotation and KV write, as a layer calls it: decode at several contexts and batches, prefill, and both in one step.

use anyhow::Result;
use benches::{Heads, Part, Work, step_inputs};
use kernels::cuda::Cuda;
use tensor::{ActSet, AttnSpec, Backend, CacheSpec, Encoding, KvDtype, KvScales, QkvSpec, RopeTable, StepInputs};

use super::{BLOCK_SIZE, Bench, Buf, noise, plain_inputs};

/// Elements of KV caches: their names, and bytes of a number.
const CACHES: [(KvDtype, &str, usize); 2] = [(KvDtype::Bf16, "bf16", 2), (KvDtype::Fp8, "fp8", 1)];

impl Bench<'_> {
    pub(super) fn attention(&mut self) -> Result<()> {
        for (dtype, name, bytes) in CACHES {
            for &parts in self.scale.attention {
                self.start_over()?;
                let inputs = step_inputs(parts, BLOCK_SIZE);
                let heads = self.scale.heads;
                let seconds = self.attend(&inputs, heads, dtype)?;
                let what: Vec<String> = parts.iter().map(words).collect();
                let what = format!("attend {}, {name}", what.join(" beside "));
                let work = parts.iter().map(|part| Work::attend(*part, heads, bytes)).sum();
                self.record(&what, inputs.num_tokens(), work, seconds)?;
            }
        }
        Ok(())
    }

    /// Rotation and KV write in a launch of their own, as a step with prompts has them.
    pub(super) fn rotations(&mut self) -> Result<()> {
        let heads = self.scale.heads;
        for (dtype, name, bytes) in CACHES {
            for &tokens in self.scale.tokens {
                self.start_over()?;
                let inputs = plain_inputs(tokens);
                let (mut cache, layers) = self.cache(&inputs, heads, dtype)?;
                let (qkv, spec) = rotated(&mut self.cuda, &inputs, heads)?;
                let mut op = |b: &mut Cuda, (): &(), idx: usize| {
                    drop(b.rope_write(&qkv, &spec, &mut cache, idx % layers));
                };
                let seconds = self.seconds(&inputs, &mut |_| (), &mut op)?;
                self.record(
                    &format!("rotate and write, {name}"),
                    tokens,
                    Work::rope_write(tokens, heads, bytes),
                    seconds,
                )?;
            }
        }
        Ok(())
    }

    fn attend(&mut self, inputs: &StepInputs, heads: Heads, dtype: KvDtype) -> Result<f64> {
        let (mut cache, layers) = self.cache(inputs, heads, dtype)?;
        let (qkv, spec) = rotated(&mut self.cuda, inputs, heads)?;
        let (attention, wants) = (attention(heads), ActSet::of(Encoding::Bf16));
        let mut op = |b: &mut Cuda, (): &(), idx: usize| {
            drop(b.rope_attend(&qkv, &spec, &attention, &mut cache, idx % layers, wants));
        };
        self.seconds(inputs, &mut |_| (), &mut op)
    }

    /// A cache for the step's blocks, and how many layers of it are used in turn.
    fn cache(
        &mut self,
        inputs: &StepInputs,
        heads: Heads,
        dtype: KvDtype,
    ) -> Result<(<Cuda as Backend>::Cache, usize)> {
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
        Ok((self.cuda.new_cache(&CacheSpec { layers, ..of_one })?, layers))
    }
}

fn words(part: &Part) -> String {
    format!("{} after {} x {}", part.new, part.context - part.new, part.sequences)
}

/// Queries, keys and values of the step's tokens, and how they are rotated.
fn rotated(cuda: &mut Cuda, inputs: &StepInputs, heads: Heads) -> Result<(Buf, QkvSpec<Cuda>)> {
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
