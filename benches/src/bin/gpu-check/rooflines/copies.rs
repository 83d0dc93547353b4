//! Blocks of the KV cache from one place to another, as a prefix that is shared and then written needs it.

use std::time::Instant;

use anyhow::Result;
use benches::Work;
use kernels::cuda::Cuda;
use tensor::{Backend, CacheSpec, KvDtype};

use super::{BLOCK_SIZE, Bench, ROUNDS};

impl Bench<'_> {
    /// All layers of some blocks at once, until the last one has arrived. The host asks for each copy by itself.
    pub(super) fn block_copies(&mut self) -> Result<()> {
        self.start_over()?;
        let (copied, heads) = (self.scale.copied, self.scale.heads);
        let spec = CacheSpec {
            group: 0,
            layers: self.scale.layers,
            num_kv_heads: heads.kv,
            head_dim: heads.dim,
            block_size: BLOCK_SIZE,
            blocks: 2 * copied + 1,
            dtype: KvDtype::Bf16,
        };
        let mut cache = self.cuda.new_cache(&spec)?;
        let last = self.cuda.vector(&[0.0; 4])?;
        let pairs: Vec<(u32, u32)> = (1..=copied as u32).map(|block| (block, block + copied as u32)).collect();
        let mut copy = |cuda: &mut Cuda| -> Result<f64> {
            let started = Instant::now();
            cuda.copy_blocks(&mut cache, &pairs)?;
            cuda.read(&last, &mut Vec::new())?;
            Ok(started.elapsed().as_secs_f64())
        };
        let mut rounds = (0..=ROUNDS).map(|_| copy(&mut self.cuda)).collect::<Result<Vec<_>>>()?;
        rounds.sort_unstable_by(f64::total_cmp);
        let bytes = copied * self.cuda.block_bytes(&spec) as usize;
        let what = format!("copy {copied} KV blocks of {} layers", spec.layers);
        self.record(&what, copied * BLOCK_SIZE, Work::copy(bytes), rounds[ROUNDS / 2])
    }
}
