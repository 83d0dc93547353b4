//! `tokenmill bench serve`: load over HTTP, on a server that runs or on this engine in this process.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use loadgen::{
    Arrival, Client, Dataset, Date, Endpoint, LoadAverage, Machine, Outcome, Program, Report, Setup, ShareGpt, Target,
    Workload,
};
use serde_json::Value;
use server::ServerConfig;
use tokio::sync::oneshot;

use crate::args::{BenchServeArgs, DatasetName, EndpointName, ModelArgs};
use crate::assemble::{Assembled, assemble};

/// Requests that may wait in an engine of ours: a burst is measured, not refused.
const MAX_QUEUED: u32 = 1 << 16;
/// Tokens of an answer where neither the caller nor the data says.
const DEFAULT_OUTPUT_LEN: u32 = 128;

/// Measures each point of the sweep, prints the table, and writes what was asked for.
///
/// # Errors
/// If the server cannot be reached, the data cannot be read, or nothing at all could be measured.
pub(super) fn run(args: &BenchServeArgs) -> Result<()> {
    let source = Source::read(args)?;
    // Later it would show the load of this measurement itself.
    let load_before = Machine::load_average();
    let ours = match args.base_url {
        Some(_) => None,
        None => Some(OurServer::start(&args.model, args.served_model.as_deref())?),
    };
    let base_url =
        ours.as_ref().map_or_else(|| args.base_url.clone().unwrap_or_default(), |ours| ours.base_url.clone());
    let mut target = Target::parse(&base_url)?;
    target.api_key.clone_from(&args.api_key);
    target.endpoint = match args.endpoint {
        EndpointName::Completions => Endpoint::Completions,
        EndpointName::Chat => Endpoint::Chat,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let common = common(args, &target, load_before);
    let reports = runtime.block_on(sweep(args, source, &target, common));
    if let Some(ours) = ours {
        ours.stop()?;
    }
    publish(args, &reports?)
}

/// Where prompts come from, before a server is asked what it has room for.
enum Source {
    Made(Dataset),
    Recorded(ShareGpt),
}

impl Source {
    fn read(args: &BenchServeArgs) -> Result<Self> {
        let &BenchServeArgs { input_len, prefix_len, suffix_len, num_prefixes, .. } = args;
        Ok(match &args.dataset {
            DatasetName::Random => Self::Made(Dataset::Random { input_len }),
            DatasetName::PrefixRepetition => {
                Self::Made(Dataset::PrefixRepetition { prefix_len, suffix_len, num_prefixes })
            }
            DatasetName::ShareGpt(file) => Self::Recorded(ShareGpt::read(file, seed(args))?),
        })
    }

    /// Says in `common` what was left out.
    async fn fit(self, args: &BenchServeArgs, client: &Client, wanted: usize, common: &mut Setup) -> Dataset {
        let recorded = match self {
            Self::Made(dataset) => return dataset,
            Self::Recorded(recorded) => recorded,
        };
        let fitting = recorded.fit(client, args.output_len, wanted).await;
        common.dropped = Some(fitting.dropped);
        if fitting.dropped > 0 {
            common.notes.push(format!("{} conversations were left out: they are too long", fitting.dropped));
        }
        if !fitting.is_counted {
            common.notes.push("lengths of recorded turns are guesses by words: the server has no /tokenize".to_owned());
        }
        Dataset::Recorded(fitting.samples)
    }
}

fn seed(args: &BenchServeArgs) -> u64 {
    args.model.seed.unwrap_or(0)
}

async fn sweep(args: &BenchServeArgs, source: Source, target: &Target, mut common: Setup) -> Result<Vec<Report>> {
    if common.model.is_empty() {
        common.model = Client::first_model(target).await.context("the server cannot be asked for its models")?;
    }
    let timeout = Duration::from_secs(args.request_timeout);
    let client = Arc::new(Client::new(target.clone(), common.model.clone(), timeout));
    let points: Vec<Point> = match args.max_concurrency.as_slice() {
        [] => vec![Point::new(args, None)],
        limits => limits.iter().map(|limit| Point::new(args, Some(*limit))).collect(),
    };
    let wanted = points.iter().map(|point| point.warmup + point.num_prompts).sum();
    let dataset = source.fit(args, &client, wanted, &mut common).await;
    let workload = Workload { dataset, output_len: args.output_len.unwrap_or(DEFAULT_OUTPUT_LEN), seed: seed(args) };
    let (mut reports, mut offset) = (Vec::new(), 0);
    for (idx, point) in points.iter().enumerate() {
        let date = Date::now().to_string();
        let setup = Setup { arrival: point.arrival, warmup: point.warmup, date, ..common.clone() };
        reports.push(measure(&client, &workload, point, setup, Places { requests: offset, beside: idx << 32 }).await?);
        offset += point.warmup + point.num_prompts;
    }
    Ok(reports)
}

/// From where on a point takes prompts of the workload.
struct Places {
    requests: usize,
    beside: usize,
}

/// One measurement of a sweep.
struct Point {
    arrival: Arrival,
    num_prompts: usize,
    warmup: usize,
}

impl Point {
    fn new(args: &BenchServeArgs, limit: Option<u32>) -> Self {
        let at_once = limit.map_or(8, |limit| limit as usize);
        Self {
            arrival: Arrival {
                request_rate: args.request_rate.filter(|rate| rate.is_finite()),
                max_concurrency: limit.map(|limit| limit as usize),
            },
            num_prompts: args.num_prompts.unwrap_or(match args.beside_len {
                Some(_) => at_once,
                None => (4 * at_once).max(16),
            }),
            warmup: args.warmup.unwrap_or(at_once.max(args.prefixes())),
        }
    }
}

/// What all points have in common. The load of the machine is that before them: later it would show this very measurement.
fn common(args: &BenchServeArgs, target: &Target, load_before: Option<LoadAverage>) -> Setup {
    let ours = args.base_url.is_none().then(|| "tokenmill".to_owned());
    Setup {
        label: args.label.clone().or(ours).unwrap_or_else(|| target.authority().to_owned()),
        model: args.served_model.clone().unwrap_or_default(),
        dataset: args.dataset.to_string(),
        lengths: args.lengths(),
        beside_len: args.beside_len,
        dropped: None,
        notes: Vec::new(),
        output_len: args.output_len.or((!args.is_recorded()).then_some(DEFAULT_OUTPUT_LEN)),
        arrival: Arrival::default(),
        goodput: args.goodput,
        seed: seed(args),
        warmup: 0,
        date: String::new(),
        machine: Machine::here(),
        program: Program::this(env!("CARGO_PKG_VERSION")),
        load_average_before: load_before,
        load_average_after: None,
    }
}

/// Warms up and measures.
async fn measure(
    client: &Arc<Client>,
    workload: &Workload,
    point: &Point,
    mut setup: Setup,
    places: Places,
) -> Result<Report> {
    let warmup = workload.samples(places.requests, point.warmup)?;
    let samples = workload.samples(places.requests + point.warmup, point.num_prompts)?;
    let burst = Arrival { request_rate: None, ..point.arrival };
    let none = Box::new(std::iter::empty());
    loadgen::run(Arc::clone(client), warmup, burst, setup.seed, none, |_| {}).await;
    let at_once = setup.arrival.max_concurrency.map_or_else(|| "all".to_owned(), |limit| limit.to_string());
    let bar = super::bar(samples.len(), format!("{}, {at_once} at once", setup.label));
    let (ticking, workload) = (bar.clone(), workload.clone());
    let beside = setup.beside_len.into_iter().flat_map(move |len| (places.beside..).map(move |idx| (len, idx)));
    let beside = beside.map(move |(len, idx)| workload.beside(len, idx));
    let tick = move |_: &Outcome| ticking.inc(1);
    let run = loadgen::run(Arc::clone(client), samples, point.arrival, setup.seed, Box::new(beside), tick).await;
    bar.finish_and_clear();
    setup.load_average_after = Machine::load_average();
    Ok(Report::new(setup, &run))
}

fn publish(args: &BenchServeArgs, reports: &[Report]) -> Result<()> {
    crate::say::print(loadgen::table(reports));
    let mut json: Vec<Value> = reports.iter().map(Report::to_json).collect();
    let json = if json.len() == 1 { json.remove(0) } else { Value::Array(json) };
    if let Some(path) = &args.save_json {
        super::write(path, &format!("{json:#}\n"))?;
    }
    if let Some(path) = &args.md {
        let svg = path.with_extension("svg");
        let name = svg.file_name().unwrap_or_default().to_string_lossy().into_owned();
        super::write(&svg, &loadgen::chart(reports))?;
        super::write(path, &loadgen::markdown(reports, &name))?;
    }
    if let Some(path) = &args.html {
        super::write(path, &loadgen::html(reports))?;
    }
    if reports.iter().any(|report| report.completed == 0 && report.num_prompts > 0) {
        bail!("no request of a point was answered; there is nothing to compare");
    }
    Ok(())
}

/// This engine behind its own HTTP server, on a loopback port that was free. Load and engine share the machine's cores.
struct OurServer {
    base_url: String,
    assembled: Assembled,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<()>>,
}

impl OurServer {
    fn start(model: &ModelArgs, name: Option<&str>) -> Result<Self> {
        let assembled = assemble(model, MAX_QUEUED)?;
        let config = ServerConfig { seed: model.seed, ..ServerConfig::new(name.unwrap_or(&assembled.files.name)) };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let base_url = format!("http://{}", listener.local_addr()?);
        eprintln!("{} on {}, in this process at {base_url}", assembled.files.name, assembled.device);
        let (stop, stopped) = oneshot::channel::<()>();
        let engine = assembled.engine.clone();
        let thread = std::thread::Builder::new()
            .name("server".to_owned())
            .spawn(move || Ok(server::run(listener, engine, config, async { stopped.await.unwrap_or_default() })?))?;
        Ok(Self { base_url, assembled, stop, thread })
    }

    fn stop(self) -> Result<()> {
        // A server that has ended already needs no message.
        self.stop.send(()).ok();
        let ended = self.thread.join().unwrap_or_else(|_| bail!("the server ended in a panic"));
        self.assembled.engine.shutdown(Duration::ZERO);
        ended
    }
}
