//! A server for one test: real sockets, real engine, simulated device.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use contract::{Control, Executor, ExecutorError, KvCapacity, Masks, ModelRunnerOutput, SchedulerOutput};
use engine::{EngineConfig, EngineHandle, Stats};
use serde_json::Value;
use server::ServerConfig;
use sim::{SimConfig, SimExecutor};
use tokio::sync::oneshot;

use crate::client::{self, Reply, Started};

/// Long enough for any machine; a test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);
const MAX_MODEL_LEN: u32 = 1024;

pub struct Setup {
    pub config: ServerConfig,
    pub engine: EngineConfig,
    /// What a step takes.
    pub pace: Duration,
    pub health: Health,
}

/// What every step of the device comes to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Health {
    Sound,
    Lost,
    /// And it panics once more when it is brought back.
    Panics,
}

pub struct Server {
    pub addr: SocketAddr,
    pub engine: EngineHandle,
    steps: Arc<Mutex<()>>,
    stop: Mutex<Option<oneshot::Sender<()>>>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Server {
    pub fn start() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Setup)) -> Self {
        let (config, engine) = (ServerConfig::new("tiny/model"), EngineConfig::default());
        let mut setup = Setup { config, engine, pace: Duration::ZERO, health: Health::Sound };
        change(&mut setup);
        let steps = Arc::new(Mutex::new(()));
        let text = Arc::new(text_model());
        let config =
            SimConfig { delay: setup.pace, ..SimConfig::plain(text.tokenizer.vocab_size() as u32, MAX_MODEL_LEN) };
        let (held, health) = (Arc::clone(&steps), setup.health);
        let executor =
            move || Ok(Box::new(Held { sim: SimExecutor::new(config), steps: held, health }) as Box<dyn Executor>);
        let engine = engine::start(setup.engine, text, executor).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let (handle, config) = (engine.clone(), setup.config);
        let thread =
            thread::spawn(move || server::run(listener, handle, config, async { stopped.await.unwrap_or_default() }));
        Self { addr, engine, steps, stop: Mutex::new(Some(stop)), thread: Some(thread) }
    }

    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        client::request(self.addr, method, path, headers, body).finish()
    }

    pub fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], b"")
    }

    pub fn post(&self, path: &str, body: &Value) -> Reply {
        self.begin("POST", path, body).finish()
    }

    /// Sends a request and reads no more than the head of the reply.
    pub fn begin(&self, method: &str, path: &str, body: &Value) -> Started {
        let headers = [("content-type", "application/json")];
        client::request(self.addr, method, path, &headers, body.to_string().as_bytes())
    }

    /// The value of a series, by its name and the labels that tell it from its siblings.
    pub fn metric(&self, series: &str) -> f64 {
        let text = self.get("/metrics").text();
        let (name, label) = series.split_once('{').unwrap_or((series, "}"));
        let label = label.trim_end_matches('}');
        let line = text.lines().find(|line| {
            let labels = line.strip_prefix(name).and_then(|rest| rest.strip_prefix('{'));
            labels.is_some_and(|labels| labels.contains(label) && labels.contains("model_name=\"tiny/model\""))
        });
        let value = line.and_then(|line| line.rsplit(' ').next()).and_then(|value| value.parse().ok());
        value.unwrap_or_else(|| panic!("no series {series} in\n{text}"))
    }

    /// Keeps the device from finishing a step as long as the guard lives.
    pub fn hold_steps(&self) -> MutexGuard<'_, ()> {
        self.steps.lock().unwrap()
    }

    pub fn wait_until(&self, what: &str, condition: impl Fn(&Stats) -> bool) {
        wait(what, || condition(&self.engine.stats()));
    }

    pub fn wait_for_status(&self, path: &str, status: u16) {
        wait(&format!("{path} answers {status}"), || self.get(path).status == status);
    }

    /// What the server ends with, once it ends by itself.
    pub fn ended(mut self) -> std::io::Result<()> {
        self.thread.take().unwrap().join().unwrap()
    }

    /// Tells the server to end.
    pub fn stop(&self) {
        if let Some(stop) = self.stop.lock().unwrap().take() {
            let _ = stop.send(());
        }
    }
}

/// Ends the server and waits for it, so that every test sees an orderly end.
impl Drop for Server {
    fn drop(&mut self) {
        if thread::panicking() {
            return;
        }
        self.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().unwrap();
        }
    }
}

fn wait(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::yield_now();
    }
}

fn text_model() -> text::TextModel {
    const TOKENIZER: &[u8] = include_bytes!("../../../../tests/tiny/llama/tokenizer.json");
    const TEMPLATE: &str = include_str!("../../../../tests/tiny/llama/chat_template.jinja");
    let special = text::SpecialTokens { bos: Some("<bos>".into()), eos: Some("<eos>".into()), additional: Vec::new() };
    let tokenizer = text::Tokenizer::from_json(TOKENIZER, special).unwrap();
    let end = tokenizer.token_id("<|im_end|>").unwrap();
    text::TextModel::new(tokenizer, Some(TEMPLATE), &[end]).unwrap()
}

/// A small device that a test can hold.
struct Held {
    sim: SimExecutor,
    steps: Arc<Mutex<()>>,
    health: Health,
}

impl Executor for Held {
    fn capacity(&self) -> &KvCapacity {
        self.sim.capacity()
    }

    fn submit(&mut self, plan: &SchedulerOutput) -> Result<(), ExecutorError> {
        self.sim.submit(plan)
    }

    fn sample(&mut self, masks: &Masks) -> Result<(), ExecutorError> {
        self.sim.sample(masks)
    }

    fn wait(&mut self, out: &mut ModelRunnerOutput) -> Result<(), ExecutorError> {
        drop(self.steps.lock());
        match self.health {
            Health::Sound => self.sim.wait(out),
            Health::Lost => Err(ExecutorError::Lost("gone".to_owned())),
            Health::Panics => panic!("burnt"),
        }
    }

    fn control(&mut self, control: &Control) -> Result<(), ExecutorError> {
        assert!(self.health != Health::Panics, "burnt out");
        self.sim.control(control)
    }
}
