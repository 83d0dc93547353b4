//! `tokenmill bench serve`: load over HTTP, on a server that runs or on this engine in this process.

use std::io::IsTerminal;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use loadgen::{
    Arrival, Client, Dataset, Date, Endpoint, LoadAverage, Machine, Program, Report, Setup, Target, Workload,
};
use serde_json::Value;
use server::ServerConfig;
use tokio::sync::oneshot;

use crate::args::{BenchServeArgs, EndpointName, ModelArgs};
use crate::assemble::{Assembled, assemble};

/// Requests that may wait in an engine of ours: a burst is measured, not refused.
const MAX_QUEUED: u32 = 1 << 16;

/// Measures each point of the sweep, prints the table, and writes what was asked for.
///
/// # Errors
/// If the server cannot be reached, the data cannot be read, or nothing at all could be measured.
pub(super) fn run(args: &BenchServeArgs) -> Result<()> {
    let workload = workload(args)?;
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
    let common = common(args, &workload, &target, load_before);
    let reports = runtime.block_on(sweep(args, &workload, &target, common));
    if let Some(ours) = ours {
        ours.stop()?;
    }
    publish(args, &reports?)
}

fn workload(args: &BenchServeArgs) -> Result<Workload> {
    let dataset = match args.dataset.as_str() {
        "random" => Dataset::Random { input_len: args.input_len },
        other => match other.strip_prefix("sharegpt:") {
            Some(file) => Dataset::share_gpt(Path::new(file))?,
            None => bail!("--dataset is random or sharegpt:FILE, not {other}"),
        },
    };
    let fixed = if args.dataset == "random" { Some(128) } else { None };
    Ok(Workload { dataset, output_len: args.output_len.or(fixed), seed: args.model.seed.unwrap_or(0) })
}

async fn sweep(args: &BenchServeArgs, workload: &Workload, target: &Target, mut common: Setup) -> Result<Vec<Report>> {
    if common.model.is_empty() {
        common.model = Client::first_model(target).await.context("the server cannot be asked for its models")?;
    }
    let timeout = Duration::from_secs(args.request_timeout);
    let client = Arc::new(Client::new(target.clone(), common.model.clone(), timeout));
    let points: Vec<Option<u32>> = match args.max_concurrency.as_slice() {
        [] => vec![None],
        limits => limits.iter().copied().map(Some).collect(),
    };
    let (mut reports, mut offset) = (Vec::new(), 0);
    for limit in points {
        let point = Point::new(args, limit);
        let date = Date::now().to_string();
        let setup = Setup { arrival: point.arrival, warmup: point.warmup, date, ..common.clone() };
        reports.push(measure(&client, workload, &point, setup, offset).await?);
        offset += point.warmup + point.num_prompts;
    }
    Ok(reports)
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
            num_prompts: args.num_prompts.unwrap_or_else(|| (4 * at_once).max(16)),
            warmup: args.warmup.unwrap_or(at_once),
        }
    }
}

/// What all points have in common. The load of the machine is that before them: later it would show this very measurement.
fn common(args: &BenchServeArgs, workload: &Workload, target: &Target, load_before: Option<LoadAverage>) -> Setup {
    let ours = args.base_url.is_none().then(|| "tokenmill".to_owned());
    Setup {
        label: args.label.clone().or(ours).unwrap_or_else(|| target.authority().to_owned()),
        model: args.served_model.clone().unwrap_or_default(),
        dataset: args.dataset.clone(),
        input_len: (args.dataset == "random").then_some(args.input_len),
        output_len: workload.output_len,
        arrival: Arrival::default(),
        goodput: args.goodput,
        seed: workload.seed,
        warmup: 0,
        date: String::new(),
        machine: Machine::here(),
        program: Program::this(env!("CARGO_PKG_VERSION")),
        load_average_before: load_before,
        load_average_after: None,
    }
}

/// Warms up and measures, with prompts from place `offset` of the workload on.
async fn measure(
    client: &Arc<Client>,
    workload: &Workload,
    point: &Point,
    mut setup: Setup,
    offset: usize,
) -> Result<Report> {
    let warmup = workload.samples(offset, point.warmup)?;
    let samples = workload.samples(offset + point.warmup, point.num_prompts)?;
    let burst = Arrival { request_rate: None, ..point.arrival };
    loadgen::run(Arc::clone(client), warmup, burst, setup.seed, |_| {}).await;
    let bar = bar(samples.len(), &setup);
    let ticking = bar.clone();
    let run = loadgen::run(Arc::clone(client), samples, point.arrival, setup.seed, move |_| ticking.inc(1)).await;
    bar.finish_and_clear();
    setup.load_average_after = Machine::load_average();
    Ok(Report::new(setup, &run))
}

fn bar(len: usize, setup: &Setup) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let at_once = setup.arrival.max_concurrency.map_or_else(|| "all".to_owned(), |limit| limit.to_string());
    let style =
        ProgressStyle::with_template("{msg} {bar:32} {pos}/{len} {per_sec} {eta}").expect("the template is right");
    let bar =
        ProgressBar::new(len as u64).with_style(style).with_message(format!("{}, {at_once} at once", setup.label));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn publish(args: &BenchServeArgs, reports: &[Report]) -> Result<()> {
    print!("{}", loadgen::table(reports));
    let mut json: Vec<Value> = reports.iter().map(Report::to_json).collect();
    let json = if json.len() == 1 { json.remove(0) } else { Value::Array(json) };
    if let Some(path) = &args.save_json {
        super::write(path, &format!("{json:#}\n"))?;
    }
    if let Some(path) = &args.md {
        super::write(path, &loadgen::table(reports))?;
    }
    if let Some(path) = &args.html {
        super::write(path, &loadgen::page(reports))?;
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
        let thread = std::thread::Builder::new().name("server".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            runtime.block_on(async move {
                listener.set_nonblocking(true)?;
                let stopped = async { stopped.await.unwrap_or_default() };
                server::serve(tokio::net::TcpListener::from_std(listener)?, engine, config, stopped).await
            })?;
            Ok(())
        })?;
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
