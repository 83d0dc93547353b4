//! What the engine costs beside the model: real server, engine and scheduler, over a device that only pretends.
//!
//! `cargo bench -p benches --bench overhead` streams 256 answers at once over HTTP from this process to this process, so that load
//! and engine share the cores. First the device takes no time: chunks a second, and the engine's own part of a step. Then a
//! step takes 20 ms: how much later than that the clients see each token.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use contract::{Control, Executor, ExecutorError, KvCapacity, Masks, ModelRunnerOutput, SchedulerOutput};
use engine::{EngineConfig, EngineHandle};
use loadgen::{Arrival, Client, Dataset, Endpoint, Recording, Run, Target, Workload, percentile};
use server::ServerConfig;
use sim::{SimConfig, SimExecutor};
use tokio::sync::oneshot;

const STREAMS: u32 = 256;
const INPUT_LEN: usize = 16;
const MAX_MODEL_LEN: u32 = 4096;
/// Tokens of the tiny tokenizer that are a character each: any other might be part of one, and its client would see nothing of it.
const LETTERS: std::ops::Range<u32> = 69..95;
const PACE: Duration = Duration::from_millis(20);

fn main() {
    // Long enough that the first still runs when the last has come.
    let (run, steps) = measure(Duration::ZERO, MAX_MODEL_LEN / 4 * 3);
    let chunks: u64 = answers(&run).map(Recording::num_chunks).sum();
    println!("{STREAMS} streams, a device that takes no time:");
    println!("  {:.0} chunks a second", chunks as f64 / run.duration.as_secs_f64());
    println!("  {}", spread("engine's part of a step of all streams", "us", steps, 1e6));

    let (run, _) = measure(PACE, 128);
    let late = answers(&run).flat_map(Recording::gaps).map(|gap| gap.saturating_sub(PACE).as_secs_f64()).collect();
    println!("{STREAMS} streams, {} ms a step:", PACE.as_millis());
    println!("  {}", spread("added to the gap between two tokens", "ms", late, 1e3));
}

fn answers(run: &Run) -> impl Iterator<Item = &Recording> {
    run.outcomes.iter().map(|outcome| outcome.result.as_ref().expect("every stream is answered"))
}

fn spread(what: &str, unit: &str, seconds: Vec<f64>, scale: f64) -> String {
    if seconds.is_empty() {
        return format!("{what}: there was none");
    }
    let mut sorted = seconds;
    sorted.sort_unstable_by(f64::total_cmp);
    let at = |percent| percentile(&sorted, percent) * scale;
    format!("{what}: median {:.2}, p99 {:.2} {unit} (of {})", at(50.0), at(99.0), sorted.len())
}

/// Streams two answers of `output_len` tokens for each place; returns them, and the engine's own seconds in each step of all streams.
fn measure(pace: Duration, output_len: u32) -> (Run, Vec<f64>) {
    let server = Simulated::start(pace);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut target = Target::parse(&server.base_url).expect("an address that was just bound");
    target.endpoint = Endpoint::Completions;
    let client = Arc::new(Client::new(target, "simulated", Duration::from_secs(120)));
    let dataset = Dataset::Random { input_len: INPUT_LEN };
    let workload = Workload { dataset, output_len, seed: 0 };
    let samples = workload.samples(0, 2 * STREAMS as usize).expect("random prompts do not end");
    let arrival = Arrival { max_concurrency: Some(STREAMS as usize), ..Arrival::default() };
    let run = runtime.block_on(loadgen::run(client, samples, arrival, 0, Box::new(std::iter::empty()), |_| {}));
    (run, server.stop())
}

/// Real server, real engine, simulated device.
struct Simulated {
    base_url: String,
    engine: EngineHandle,
    steps: Arc<Mutex<Vec<f64>>>,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Simulated {
    fn start(pace: Duration) -> Self {
        let (text, steps) = (Arc::new(text_model()), Arc::new(Mutex::new(Vec::new())));
        let (vocab_size, seen) = (text.tokenizer.vocab_size() as u32, Arc::clone(&steps));
        let config =
            EngineConfig { max_num_seqs: STREAMS, max_num_queued_reqs: 2 * STREAMS, ..EngineConfig::default() };
        let executor = move || Ok(Box::new(Timed::new(vocab_size, pace, seen)) as Box<dyn Executor>);
        let engine = engine::start(config, text, executor).expect("the simulated device starts");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let base_url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let (stop, stopped) = oneshot::channel();
        let handle = engine.clone();
        let thread = std::thread::spawn(move || {
            let stopped = async { stopped.await.unwrap_or_default() };
            server::run(listener, handle, ServerConfig::new("simulated"), stopped).expect("it serves");
        });
        Self { base_url, engine, steps, stop, thread }
    }

    fn stop(self) -> Vec<f64> {
        self.stop.send(()).expect("the server runs until it is told to stop");
        self.thread.join().expect("the server ends in order");
        self.engine.shutdown(Duration::ZERO);
        std::mem::take(&mut self.steps.lock().expect("nobody panics with it"))
    }
}

fn text_model() -> text::TextModel {
    const TOKENIZER: &[u8] = include_bytes!("../../tests/tiny/llama/tokenizer.json");
    let special = text::SpecialTokens { bos: Some("<bos>".into()), eos: Some("<eos>".into()), additional: Vec::new() };
    let tokenizer = text::Tokenizer::from_json(TOKENIZER, special).expect("the tiny model's tokenizer is whole");
    text::TextModel::new(tokenizer, None, &[]).expect("without a chat template nothing can be wrong")
}

/// Takes the device's time off the engine's.
struct Timed {
    sim: SimExecutor,
    /// When the step before this one began, and what of it was the device's.
    began: Option<Instant>,
    device: Duration,
    was_full: bool,
    steps: Arc<Mutex<Vec<f64>>>,
}

impl Timed {
    fn new(vocab_size: u32, pace: Duration, steps: Arc<Mutex<Vec<f64>>>) -> Self {
        let plain = SimConfig::plain(vocab_size, MAX_MODEL_LEN);
        let mut capacity = plain.capacity.clone();
        capacity.pools[0].blocks = 1 + STREAMS * MAX_MODEL_LEN.div_ceil(16);
        (capacity.max_rows, capacity.max_logit_rows, capacity.max_tokens) = (STREAMS, STREAMS, 2048);
        let sim = SimExecutor::new(SimConfig { capacity, delay: pace, ..plain });
        Self { sim, began: None, device: Duration::ZERO, was_full: false, steps }
    }

    fn timed<T>(&mut self, call: impl FnOnce(&mut SimExecutor) -> T) -> T {
        let start = Instant::now();
        let result = call(&mut self.sim);
        self.device += start.elapsed();
        result
    }
}

impl Executor for Timed {
    fn capacity(&self) -> &KvCapacity {
        self.sim.capacity()
    }

    fn submit(&mut self, plan: &SchedulerOutput) -> Result<(), ExecutorError> {
        let now = Instant::now();
        let full = plan.work.len() == STREAMS as usize && plan.num_tokens() == STREAMS;
        if let (Some(began), true, true) = (self.began, full, self.was_full) {
            let own = (now - began).saturating_sub(self.device);
            self.steps.lock().expect("nobody panics with it").push(own.as_secs_f64());
        }
        (self.began, self.device, self.was_full) = (Some(now), Duration::ZERO, full);
        self.timed(|sim| sim.submit(plan))
    }

    fn sample(&mut self, masks: &Masks) -> Result<(), ExecutorError> {
        self.timed(|sim| sim.sample(masks))
    }

    fn wait(&mut self, out: &mut ModelRunnerOutput) -> Result<(), ExecutorError> {
        let result = self.timed(|sim| sim.wait(out));
        out.tokens.iter_mut().for_each(|token| *token = LETTERS.start + *token % LETTERS.len() as u32);
        result
    }

    fn control(&mut self, control: &Control) -> Result<(), ExecutorError> {
        self.sim.control(control)
    }
}
