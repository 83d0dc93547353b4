//! The command line. Names follow vLLM's where the meaning is the same; each option is also an environment variable.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

mod bench;

pub use bench::{
    BatchShape, BenchCommand, BenchDummyArgs, BenchLatencyArgs, BenchServeArgs, BenchStartupArgs, BenchThroughputArgs,
    DatasetName, EndpointName,
};

use crate::size::ByteSize;

/// Serve open-weight language models on your own machine, behind an OpenAI-style API.
#[derive(Debug, Parser)]
#[command(name = "tokenmill", version, max_term_width = 110, args_override_self = true, arg_required_else_help = true)]
pub struct Cli {
    /// What to log: error, warn, info, debug, or per module as in `engine=debug`.
    #[arg(long, global = true, env = "TOKENMILL_LOG", value_name = "FILTER", help_heading = "Logging")]
    pub log: Option<String>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve a model over HTTP.
    Serve(ServeArgs),
    /// Chat with a model in the terminal.
    Run(RunArgs),
    /// Fetch a model into the cache.
    Pull(PullArgs),
    /// List the models in the cache, or remove one.
    Models(ModelsArgs),
    /// Print the memory plan of a model, and serve nothing.
    Plan(PlanArgs),
    /// Say what this machine can do.
    Doctor(DoctorArgs),
    /// Measure a server, or this engine.
    #[command(subcommand)]
    Bench(BenchCommand),
}

const MODEL_HELP: &str = "A hub id (owner/name[@revision][:file]), a folder with safetensors, or a .gguf file; \
                          SmolLM2-135M-Instruct when left out";

/// Which model, on which device, in how much memory: shared by every command that loads one.
#[derive(Args, Debug)]
pub struct ModelArgs {
    #[arg(help = MODEL_HELP, env = "TOKENMILL_MODEL")]
    pub model: Option<String>,
    /// Where weights come from: auto reads the model's files; dummy makes them up from --seed in the shapes of a folder's
    /// config.json, to measure a model that is not here.
    #[arg(long, env = "TOKENMILL_LOAD_FORMAT", value_enum, default_value_t = LoadFormat::Auto)]
    pub load_format: LoadFormat,
    /// Where to run: auto takes the first GPU that works, else the CPU; cuda:N is the N-th GPU; reference is the specification
    /// that the kernels are tested against: exact, in f32, slow.
    #[arg(
        long,
        env = "TOKENMILL_DEVICE",
        value_name = "auto|cpu|cuda[:N]|reference",
        default_value = "auto",
        help_heading = "Device"
    )]
    pub device: Device,
    /// Let cublasLt, if the machine has it, multiply steps of more than 64 tokens on a GPU: faster prefill is bought with answers that
    /// may depend on what else is in a step.
    #[arg(long, env = "TOKENMILL_NO_BATCH_INVARIANT", help_heading = "Device")]
    pub no_batch_invariant: bool,
    /// Instruction set of the CPU kernels: avx512, avx2 or portable; the best of this processor when left out.
    #[arg(long, env = "TOKENMILL_ISA", value_name = "ISA", help_heading = "Device")]
    pub isa: Option<kernels::cpu::Isa>,
    /// How the CPU rounds activations that quantized weights multiply: int16 keeps 15 bits and picks the tokens that f32
    /// would; int8 is up to 1.6 times as fast with many tokens a step, and close calls may fall the other way.
    #[arg(
        long,
        env = "TOKENMILL_ACTIVATIONS",
        value_name = "CODING",
        default_value = "int16",
        help_heading = "Device"
    )]
    pub activations: kernels::cpu::Activations,
    /// Quantize the weights of linear layers while they are loaded: fp8 has a scale for each output, int4 one for 128 inputs of an
    /// output. Embedding, head and norms stay as they are. Refused for checkpoints that are quantized already, but for GGUF.
    #[arg(long, env = "TOKENMILL_QUANTIZATION", value_name = "fp8|int4", help_heading = "Device")]
    pub quantization: Option<quant::Scheme>,
    /// Do not record steps of a GPU as graphs: launch every kernel of every step.
    #[arg(long, env = "TOKENMILL_ENFORCE_EAGER", help_heading = "Device")]
    pub enforce_eager: bool,
    /// Compute threads; one per core when left out.
    #[arg(long, env = "TOKENMILL_THREADS", value_name = "N", help_heading = "Device",
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
    /// Longest prompt and output together, in tokens; what the model and the KV cache allow when left out.
    #[arg(long, env = "TOKENMILL_MAX_MODEL_LEN", value_name = "TOKENS", help_heading = "Memory",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub max_model_len: Option<u32>,
    /// Sequences that run at once.
    #[arg(long, env = "TOKENMILL_MAX_NUM_SEQS", value_name = "N", default_value_t = 64, help_heading = "Scheduling",
          value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub max_num_seqs: u32,
    /// Tokens in one step, prefill and decode together.
    #[arg(long, env = "TOKENMILL_MAX_NUM_BATCHED_TOKENS", value_name = "TOKENS", default_value_t = 512,
          help_heading = "Scheduling", value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub max_num_batched_tokens: u32,
    /// Tokens in a block of the KV cache; a multiple of 16.
    #[arg(long, env = "TOKENMILL_BLOCK_SIZE", value_name = "TOKENS", default_value_t = 16, help_heading = "Memory",
          value_parser = clap::value_parser!(u32).range(16..=256))]
    pub block_size: u32,
    /// Element type of the KV cache.
    #[arg(long, env = "TOKENMILL_KV_CACHE_DTYPE", value_enum, default_value_t = KvCacheDtype::Auto,
          help_heading = "Memory")]
    pub kv_cache_dtype: KvCacheDtype,
    /// Memory for the KV cache, as in 256MiB or 2GB. When left out, nine tenths of what is free on a GPU, or a quarter of what is free in
    /// the machine's memory, up to 256 MiB.
    #[arg(long, env = "TOKENMILL_KV_CACHE_MEMORY", value_name = "BYTES", help_heading = "Memory")]
    pub kv_cache_memory: Option<ByteSize>,
    /// Do not reuse the KV of a prompt's beginning that was seen before.
    #[arg(long, env = "TOKENMILL_NO_ENABLE_PREFIX_CACHING", help_heading = "Scheduling")]
    pub no_enable_prefix_caching: bool,
    /// Which waiting request runs next.
    #[arg(long, env = "TOKENMILL_SCHEDULING_POLICY", value_enum, default_value_t = SchedulingPolicy::Fcfs,
          help_heading = "Scheduling")]
    pub scheduling_policy: SchedulingPolicy,
    /// Seed of requests that bring none, random when left out; and of dummy weights, 0 when left out.
    #[arg(long, env = "TOKENMILL_SEED", value_name = "N", help_heading = "Scheduling")]
    pub seed: Option<u64>,
    /// A TOML file with options by their long names, as in `port = 9000`; the command line and the environment win.
    #[arg(long, env = "TOKENMILL_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct ServeArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Address to listen on. Anything but a loopback address wants --api-key.
    #[arg(long, env = "TOKENMILL_HOST", default_value = "127.0.0.1", help_heading = "Server")]
    pub host: IpAddr,
    /// Port to listen on; 0 takes a free one.
    #[arg(long, env = "TOKENMILL_PORT", default_value_t = 8000, help_heading = "Server")]
    pub port: u16,
    /// Name that clients ask for; may be given more than once, the first is the one reported.
    #[arg(
        long,
        env = "TOKENMILL_SERVED_MODEL_NAME",
        value_name = "NAME",
        value_delimiter = ',',
        help_heading = "Server"
    )]
    pub served_model_name: Vec<String>,
    /// Key that clients must send as a bearer token; may be given more than once.
    #[arg(
        long,
        env = "TOKENMILL_API_KEY",
        value_name = "KEY",
        hide_env_values = true,
        value_delimiter = ',',
        help_heading = "Server"
    )]
    pub api_key: Vec<String>,
    /// A file with one key a line; `#` starts a comment.
    #[arg(long, env = "TOKENMILL_API_KEY_FILE", value_name = "FILE", help_heading = "Server")]
    pub api_key_file: Option<PathBuf>,
    /// Let everyone in, even from other machines.
    #[arg(long, env = "TOKENMILL_NO_AUTH", help_heading = "Server")]
    pub no_auth: bool,
    /// Requests that may wait; more get 429.
    #[arg(
        long,
        env = "TOKENMILL_MAX_NUM_QUEUED_REQS",
        value_name = "N",
        default_value_t = 1024,
        help_heading = "Scheduling"
    )]
    pub max_num_queued_reqs: u32,
    /// Seconds that running requests may take to finish after SIGTERM.
    #[arg(
        long,
        env = "TOKENMILL_SHUTDOWN_TIMEOUT",
        value_name = "SECONDS",
        default_value_t = 30,
        help_heading = "Server"
    )]
    pub shutdown_timeout: u64,
    /// Largest request body.
    #[arg(
        long,
        env = "TOKENMILL_MAX_BODY_SIZE",
        value_name = "BYTES",
        default_value = "32MiB",
        help_heading = "Server"
    )]
    pub max_body_size: ByteSize,
    /// Refuse request fields that are not known, rather than ignore and count them.
    #[arg(long, env = "TOKENMILL_STRICT_PARAMS", help_heading = "Server")]
    pub strict_params: bool,
}

#[derive(Args, Debug)]
pub struct RunArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Ask this one thing, print the answer, and leave.
    #[arg(long, short, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// Text of the system message.
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// 0 always takes the likeliest token.
    #[arg(long, default_value_t = 0.7, value_parser = temperature)]
    pub temperature: f32,
    /// Longest answer, in tokens.
    #[arg(long, value_name = "TOKENS", default_value_t = 1024)]
    pub max_tokens: u32,
}

#[derive(Args, Debug)]
pub struct PullArgs {
    #[arg(help = MODEL_HELP)]
    pub model: Option<String>,
}

#[derive(Args, Debug)]
pub struct ModelsArgs {
    /// Remove this model from the cache.
    #[arg(long, value_name = "NAME")]
    pub remove: Option<String>,
}

#[derive(Args, Debug)]
pub struct PlanArgs {
    #[command(flatten)]
    pub model: ModelArgs,
}

#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// Port that `serve` would take.
    #[arg(long, default_value_t = 8000)]
    pub port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    Auto,
    Cpu,
    /// The GPU of this number.
    Cuda(usize),
    Reference,
}

impl std::str::FromStr for Device {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            "reference" => Ok(Self::Reference),
            _ => name
                .strip_prefix("cuda:")
                .and_then(|number| number.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| format!("a device is auto, cpu, cuda, cuda:N or reference, not {name:?}")),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LoadFormat {
    Auto,
    Dummy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KvCacheDtype {
    Auto,
    F32,
    Bf16,
    Fp8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SchedulingPolicy {
    Fcfs,
    Priority,
}

fn temperature(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(value) if (0.0..=2.0).contains(&value) => Ok(value),
        _ => Err("a number from 0 to 2 is wanted".to_owned()),
    }
}
