//! What `tokenmill bench` can be asked. Names follow vLLM's `bench`.

use std::fmt::{Display, Formatter};
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand, ValueEnum};
use loadgen::Goodput;

use super::ModelArgs;

#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Load a server over HTTP and time every answer: any server with --base-url, this engine without.
    Serve(Box<BenchServeArgs>),
    /// Run many requests at once through the engine, without HTTP.
    Throughput(BenchThroughputArgs),
    /// Run one batch from its prompts to its last token, again and again, without HTTP.
    Latency(BenchLatencyArgs),
    /// Start `tokenmill serve` as a process of its own, and time it until it is healthy.
    Startup(BenchStartupArgs),
    /// Write the weights of --load-format dummy to a folder, for other engines to load.
    Dummy(BenchDummyArgs),
}

#[derive(Args, Debug)]
pub struct BenchServeArgs {
    /// The engine to start where no --base-url is given; its --seed is also the one of prompts and arrivals.
    #[command(flatten)]
    pub model: ModelArgs,
    /// A server that runs, as in http://127.0.0.1:8000. Left out, this engine is started in this process on a free port.
    #[arg(long, value_name = "URL", help_heading = "Server")]
    pub base_url: Option<String>,
    /// The model to ask for; the server's first one when left out.
    #[arg(long = "model", value_name = "NAME", help_heading = "Server")]
    pub served_model: Option<String>,
    /// Which endpoint to load.
    #[arg(long, value_enum, default_value_t = EndpointName::Completions, help_heading = "Server")]
    pub endpoint: EndpointName,
    /// Key to send as a bearer token.
    #[arg(long, env = "TOKENMILL_BENCH_API_KEY", hide_env_values = true, value_name = "KEY", help_heading = "Server")]
    pub api_key: Option<String>,
    /// What tables and files call the server that is measured.
    #[arg(long, value_name = "NAME", help_heading = "Server")]
    pub label: Option<String>,
    /// `random` words; `prefix_repetition`, prompts that share their beginnings, to measure a prefix cache; or `sharegpt:FILE`, the
    /// first turns of recorded conversations that the server has room for.
    #[arg(long, default_value = "random", help_heading = "Load")]
    pub dataset: DatasetName,
    /// Words in a random prompt; each is one token in common vocabularies. The server's own count is reported.
    #[arg(long, value_name = "N", default_value_t = 128, help_heading = "Load")]
    pub input_len: usize,
    /// Words that prompts of prefix_repetition share.
    #[arg(long, value_name = "N", default_value_t = 256, help_heading = "Load")]
    pub prefix_len: usize,
    /// Words behind them that no other prompt has.
    #[arg(long, value_name = "N", default_value_t = 256, help_heading = "Load")]
    pub suffix_len: usize,
    /// How many prefixes there are; the warm-up brings each into the server's cache.
    #[arg(long, value_name = "N", default_value_t = 10, help_heading = "Load", value_parser = positive)]
    pub num_prefixes: usize,
    /// Send other prompts of this many words beside the requests, one at a time, each for one token, and report how long a stream had to
    /// wait meanwhile. Requests are then as many as run at a time when --num-prompts is left out.
    #[arg(long, value_name = "N", help_heading = "Load")]
    pub beside_len: Option<usize>,
    /// Tokens in each answer, whatever the model would say; 128, or those of the recorded answers, when left out.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Load")]
    pub output_len: Option<u32>,
    /// Requests to measure at each point of a sweep; four per request at a time, and no less than 16, when left out.
    #[arg(long, value_name = "N", help_heading = "Load")]
    pub num_prompts: Option<usize>,
    /// Requests at a time; several numbers are a sweep, and the only limit is the server's when left out.
    #[arg(long, value_name = "N[,N...]", value_delimiter = ',', help_heading = "Load",
          value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub max_concurrency: Vec<u32>,
    /// Requests a second, with the gaps of a Poisson process; all at once when left out.
    #[arg(long, value_name = "R", value_parser = rate, help_heading = "Load")]
    pub request_rate: Option<f64>,
    /// Count the requests that keep all of these limits, in milliseconds.
    #[arg(long, value_name = "ttft:MS,tpot:MS,e2el:MS", help_heading = "Load")]
    pub goodput: Option<Goodput>,
    /// Requests before each point that are in no number; as many as run at a time, and one for each prefix, when left out.
    #[arg(long, value_name = "N", help_heading = "Load")]
    pub warmup: Option<usize>,
    /// Seconds that one request may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, help_heading = "Load")]
    pub request_timeout: u64,
    /// Write the report here; a sweep is a list of reports.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub save_json: Option<PathBuf>,
    /// Write a page with a chart of throughput against interactivity here.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub html: Option<PathBuf>,
    /// Write the table and where it was measured here, in Markdown, and the chart beside it, as .svg.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub md: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct BenchThroughputArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Tokens in each prompt.
    #[arg(long, value_name = "N", default_value_t = 128, help_heading = "Load")]
    pub input_len: u32,
    /// Tokens in each answer.
    #[arg(long, value_name = "N", default_value_t = 128, help_heading = "Load",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub output_len: u32,
    /// Requests, all submitted at once.
    #[arg(long, value_name = "N", default_value_t = 64, help_heading = "Load",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub num_prompts: u32,
    /// Write the result here.
    #[arg(long, visible_alias = "output-json", value_name = "FILE", help_heading = "Output")]
    pub save_json: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct BenchLatencyArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Tokens in each prompt; several numbers are a sweep.
    #[arg(long, value_name = "N[,N...]", default_value = "32", value_delimiter = ',', help_heading = "Load")]
    pub input_len: Vec<u32>,
    /// Tokens in each answer.
    #[arg(long, value_name = "N", default_value_t = 128, help_heading = "Load",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub output_len: u32,
    /// Requests in the batch; several numbers are a sweep.
    #[arg(long, value_name = "N[,N...]", default_value = "8", value_delimiter = ',', help_heading = "Load",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub batch_size: Vec<u32>,
    /// Other batches than those, each with its own lengths: `64x8+32` is 64 prompts of 8 tokens with answers of 32; `64x8+32/2048` the
    /// same, and a prompt of 2048 that comes when all have begun to answer.
    #[arg(long, value_name = "BATCHxINPUT+OUTPUT[/BESIDE][,...]", value_delimiter = ',', help_heading = "Load",
          conflicts_with_all = ["input_len", "output_len", "batch_size"])]
    pub shapes: Vec<BatchShape>,
    /// Batches to measure.
    #[arg(long, value_name = "N", default_value_t = 10, help_heading = "Load",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub num_iters: u32,
    /// Batches before them that are in no number.
    #[arg(long, value_name = "N", default_value_t = 2, help_heading = "Load")]
    pub num_iters_warmup: u32,
    /// Write the result here.
    #[arg(long, visible_alias = "output-json", value_name = "FILE", help_heading = "Output")]
    pub save_json: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct BenchStartupArgs {
    /// How often to start it; the first start may find the model's file outside of the page cache.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: u32,
    /// Seconds that a start may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub timeout: u64,
    /// Write the result here.
    #[arg(long, visible_alias = "output-json", value_name = "FILE")]
    pub save_json: Option<PathBuf>,
    /// Options of `tokenmill serve`, after `--`; the model among them.
    #[arg(last = true, value_name = "SERVE OPTIONS")]
    pub serve: Vec<String>,
}

#[derive(Args, Debug)]
pub struct BenchDummyArgs {
    /// A folder with a config.json.
    pub model: PathBuf,
    /// The folder to write.
    pub out: PathBuf,
    /// Seed of the weights.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EndpointName {
    Completions,
    Chat,
}

/// Where the prompts of `bench serve` come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatasetName {
    Random,
    PrefixRepetition,
    ShareGpt(PathBuf),
}

impl FromStr for DatasetName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "random" => Ok(Self::Random),
            "prefix_repetition" => Ok(Self::PrefixRepetition),
            other => match other.strip_prefix("sharegpt:") {
                Some(file) => Ok(Self::ShareGpt(file.into())),
                None => Err(format!("a data set is random, prefix_repetition or sharegpt:FILE, not {other}")),
            },
        }
    }
}

impl Display for DatasetName {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Random => f.write_str("random"),
            Self::PrefixRepetition => f.write_str("prefix_repetition"),
            Self::ShareGpt(file) => write!(f, "sharegpt:{}", file.display()),
        }
    }
}

impl BenchServeArgs {
    /// What decides the lengths of prompts, by the options' names; nothing where they are recorded.
    pub fn lengths(&self) -> Vec<(&'static str, usize)> {
        match self.dataset {
            DatasetName::Random => vec![("input_len", self.input_len)],
            DatasetName::PrefixRepetition => vec![
                ("prefix_len", self.prefix_len),
                ("suffix_len", self.suffix_len),
                ("num_prefixes", self.num_prefixes),
            ],
            DatasetName::ShareGpt(_) => Vec::new(),
        }
    }

    /// Beginnings that several prompts share.
    pub fn prefixes(&self) -> usize {
        if self.dataset == DatasetName::PrefixRepetition { self.num_prefixes } else { 0 }
    }

    /// Whether somebody wrote the prompts, and an answer to each.
    pub fn is_recorded(&self) -> bool {
        matches!(self.dataset, DatasetName::ShareGpt(_))
    }
}

/// A batch and its lengths in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchShape {
    pub batch: u32,
    pub input: u32,
    pub output: u32,
    /// Of a prompt that comes while the batch is answered.
    pub beside: Option<u32>,
}

impl FromStr for BatchShape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (batch, beside) = text.split_once('/').map_or((text, None), |(batch, beside)| (batch, Some(beside)));
        let parts = batch.split_once('x').and_then(|(batch, rest)| Some((batch, rest.split_once('+')?)));
        let number = |text: &str| text.parse().ok().filter(|number| *number > 0);
        let shape = |(batch, (input, output)): (&str, (&str, &str))| {
            let beside = beside.map(|beside| number(beside).ok_or(())).transpose().ok()?;
            Some(Self { batch: number(batch)?, input: number(input)?, output: number(output)?, beside })
        };
        parts.and_then(shape).ok_or_else(|| format!("a batch is written 64x8+32 or 64x8+32/2048, not {text:?}"))
    }
}

fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "a number from 1 on is wanted".to_owned())
}

/// `inf` is no rate at all.
fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate >= 0.001 => Ok(rate),
        _ => Err("a number from 0.001 on, or inf, is wanted".to_owned()),
    }
}
