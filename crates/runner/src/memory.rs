//! How memory is divided: weights, workspace, KV cache. Decided once, before the first request, and printed.

use std::fmt;

use tensor::KvDtype;

use crate::RunnerError;

/// Limits and sizes asked for.
#[derive(Clone, Debug)]
pub struct RunnerOptions {
    pub max_num_seqs: u32,
    /// Tokens in one step.
    pub max_num_batched_tokens: u32,
    /// What the model and the KV cache allow when `None`.
    pub max_model_len: Option<u32>,
    /// Tokens in a block.
    pub block_size: u32,
    /// Bytes; a part of the free memory when `None`.
    pub kv_cache_memory: Option<u64>,
    pub kv_dtype: KvDtype,
}

impl Default for RunnerOptions {
    fn default() -> Self {
        Self {
            max_num_seqs: 64,
            max_num_batched_tokens: 512,
            max_model_len: None,
            block_size: 16,
            kv_cache_memory: None,
            kv_dtype: KvDtype::Auto,
        }
    }
}

/// Where the memory goes. Sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    pub weights_bytes: u64,
    pub workspace_bytes: u64,
    pub kv_bytes: u64,
    /// Left to others.
    pub free_bytes: u64,
    /// Blocks that hold tokens, the null block left out.
    pub kv_blocks: u32,
    pub block_bytes: u64,
    pub block_size: u32,
    pub max_model_len: u32,
}

/// In memory that it shares with other programs, the KV cache takes this part of what is free, and no more than this, unless told
/// otherwise: a small model's server stays small, and 256 MiB of a 135M model's KV are 11,000 tokens.
const DEFAULT_KV_PART: u64 = 4;
const DEFAULT_KV_MAX: u64 = 256 << 20;
/// Of memory that is there for it alone, a tenth is left to the driver: recorded steps, libraries, other contexts.
const SPARE_PART: u64 = 10;

/// A cache that holds fewer than this many sequences of usual length is worth a warning.
const FEW_SEQUENCES: u64 = 4;
const USUAL_LEN: u32 = 2048;

impl MemoryPlan {
    /// Divides what is free. `wanted_len` is the longest sequence that the model, or the user, asks for.
    ///
    /// # Errors
    /// If not even one sequence of `max_model_len` (or of a block, where it was left open) fits.
    pub(crate) fn divide(
        options: &RunnerOptions,
        wanted_len: u32,
        block_bytes: u64,
        sizes: Sizes,
    ) -> Result<Self, RunnerError> {
        let kv_bytes = options.kv_cache_memory.unwrap_or_else(|| sizes.default_kv_bytes(block_bytes));
        if kv_bytes > sizes.left() {
            return Err(RunnerError::OutOfMemory { asked: Mebibytes(kv_bytes), sizes });
        }
        let blocks = u32::try_from(kv_bytes / block_bytes).unwrap_or(u32::MAX).saturating_sub(1);
        let tokens = blocks.saturating_mul(options.block_size);
        let needed = options.max_model_len.unwrap_or(options.block_size);
        if options.kv_cache_memory.is_none() && tokens < options.block_size {
            return Err(RunnerError::NoRoom { sizes });
        }
        if tokens < needed {
            let needed_bytes = (u64::from(needed.div_ceil(options.block_size)) + 1) * block_bytes;
            return Err(RunnerError::KvTooSmall { kv: Mebibytes(kv_bytes), tokens, needed, needed_bytes, sizes });
        }
        Ok(Self {
            weights_bytes: sizes.weights,
            workspace_bytes: sizes.workspace,
            free_bytes: sizes.left() - (u64::from(blocks) + 1) * block_bytes,
            kv_bytes: (u64::from(blocks) + 1) * block_bytes,
            kv_blocks: blocks,
            block_bytes,
            block_size: options.block_size,
            max_model_len: wanted_len.min(tokens),
        })
    }

    /// What a user should know before the first request; `wanted_len` is what the model, or the user, asked for.
    pub(crate) fn warnings(&self, wanted_len: u32) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.max_model_len < wanted_len {
            warnings.push(format!(
                "The KV cache holds {} tokens, so sequences end there and not at the {wanted_len} asked for; \
                 --kv-cache-memory gives it more.",
                self.kv_tokens()
            ));
        }
        let usual = u64::from(self.max_model_len.min(USUAL_LEN));
        if self.kv_tokens() < FEW_SEQUENCES * usual {
            warnings.push(format!(
                "The KV cache holds {} tokens, fewer than {FEW_SEQUENCES} sequences of {usual}: expect requests to wait \
                 or to be computed again; --kv-cache-memory gives it more.",
                self.kv_tokens()
            ));
        }
        warnings
    }

    /// Tokens that the KV cache holds.
    pub fn kv_tokens(&self) -> u64 {
        u64::from(self.kv_blocks) * u64::from(self.block_size)
    }
}

/// What the KV cache has to fit beside. Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    pub weights: u64,
    pub workspace: u64,
    /// With the weights loaded, and no workspace yet.
    pub free: u64,
    /// See `tensor::Memory`.
    pub dedicated: bool,
}

impl Sizes {
    /// What is free beside the workspace.
    fn left(&self) -> u64 {
        self.free.saturating_sub(self.workspace)
    }

    fn default_kv_bytes(&self, block_bytes: u64) -> u64 {
        match self.dedicated {
            true => self.left() - self.left() / SPARE_PART,
            false => (self.left() / DEFAULT_KV_PART).min(DEFAULT_KV_MAX.max(64 * block_bytes)),
        }
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [weights, workspace, left] = [self.weights, self.workspace, self.left()].map(Mebibytes);
        write!(f, "weights take {weights}, a step's workspace {workspace}, and {left} are left")
    }
}

/// What does not fit. Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    pub weights: u64,
    /// Known once the weights are loaded.
    pub workspace: Option<u64>,
    /// What was asked for, or the least that would do; 0 where it takes what is left.
    pub kv: u64,
    /// What is free, with no weights loaded.
    pub available: u64,
}

impl Shortage {
    fn total(&self) -> u64 {
        self.weights + self.workspace.unwrap_or(0) + self.kv
    }

    pub fn missing(&self) -> u64 {
        self.total().saturating_sub(self.available)
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |f: &mut fmt::Formatter<'_>, name: &str, bytes: u64| writeln!(f, "{name:<9}{:>12}", Mebibytes(bytes));
        row(f, "weights", self.weights)?;
        match self.workspace {
            Some(bytes) => row(f, "workspace", bytes)?,
            None => writeln!(f, "workspace{:>12}   known once the weights are loaded", "?")?,
        }
        row(f, "KV cache", self.kv)?;
        row(f, "total", self.total())?;
        row(f, "free", self.available)?;
        write!(f, "{:<9}{:>12}", "missing", Mebibytes(self.missing()))
    }
}

/// Bytes as people read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mebibytes(pub u64);

impl fmt::Display for Mebibytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:.1} MiB", self.0 as f64 / 1_048_576.0))
    }
}

impl fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes| format!("{:>12}", Mebibytes(bytes));
        let tokens = self.kv_tokens();
        writeln!(f, "weights  {}", mib(self.weights_bytes))?;
        writeln!(f, "workspace{}", mib(self.workspace_bytes))?;
        writeln!(
            f,
            "KV cache {}   {} blocks of {} = {tokens} tokens, {:.1} sequences of {}",
            mib(self.kv_bytes),
            self.kv_blocks,
            self.block_size,
            tokens as f64 / f64::from(self.max_model_len),
            self.max_model_len
        )?;
        writeln!(f, "total    {}", mib(self.weights_bytes + self.workspace_bytes + self.kv_bytes))?;
        write!(f, "free     {}", mib(self.free_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn divide(options: RunnerOptions, free: u64) -> Result<MemoryPlan, RunnerError> {
        let sizes = Sizes { weights: 3 << 20, workspace: 0, free, dedicated: false };
        MemoryPlan::divide(&options, 8192, 1 << 20, sizes)
    }

    #[test]
    fn memory_of_its_own_is_used() {
        let sizes = Sizes { weights: 0, workspace: 100 << 20, free: 1100 << 20, dedicated: true };
        let plan = MemoryPlan::divide(&RunnerOptions::default(), 1 << 20, 1 << 20, sizes).unwrap();
        assert_eq!(
            (plan.kv_blocks, plan.free_bytes),
            (899, 100 << 20),
            "a tenth of what the workspace leaves stays free"
        );
        let none_left = Sizes { free: 50 << 20, ..sizes };
        let message = MemoryPlan::divide(&RunnerOptions::default(), 64, 1 << 20, none_left).unwrap_err().to_string();
        assert!(message.contains("workspace 100.0 MiB, and 0.0 MiB are left: --max-num-batched-tokens"), "{message}");
    }

    #[test]
    fn the_default_is_a_part_of_the_free_memory_up_to_a_limit() {
        for (free, blocks) in [(64 << 20, 15), (1 << 30, 255), (1 << 40, 255)] {
            assert_eq!(divide(RunnerOptions::default(), free).unwrap().kv_blocks, blocks, "{free} bytes free");
        }
    }

    #[test]
    fn the_longest_sequence_fits_the_cache() {
        let plan =
            divide(RunnerOptions { kv_cache_memory: Some(5 << 20), ..RunnerOptions::default() }, 1 << 30).unwrap();
        assert_eq!((plan.max_model_len, plan.kv_tokens()), (64, 64));
    }

    #[test]
    fn a_small_cache_is_warned_about() {
        for (mebibytes, warnings) in [(65, 2), (511, 2), (513, 0)] {
            let options = RunnerOptions { kv_cache_memory: Some(mebibytes << 20), ..RunnerOptions::default() };
            let plan = divide(options, 1 << 30).unwrap();
            assert_eq!(plan.warnings(8192).len(), warnings, "{mebibytes} MiB: {plan}");
        }
    }

    #[test]
    fn a_cache_that_holds_too_little_says_what_would_do() {
        let options =
            RunnerOptions { kv_cache_memory: Some(5 << 20), max_model_len: Some(65), ..RunnerOptions::default() };
        let message = divide(options, 1 << 30).unwrap_err().to_string();
        for part in ["64 tokens", "--kv-cache-memory 6291456", "weights take 3.0 MiB", "--max-model-len"] {
            assert!(message.contains(part), "{message}");
        }
        let options = RunnerOptions { kv_cache_memory: Some(2 << 30), ..RunnerOptions::default() };
        assert!(divide(options, 1 << 30).unwrap_err().to_string().contains("2048.0 MiB, but weights"));
    }
}
