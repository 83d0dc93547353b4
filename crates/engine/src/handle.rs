//! EngineHandle: what everyone else holds of the engine. Submitting works on the caller's thread and costs the engine
//! thread one message.

use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use contract::{Executor, KvCapacity, TokenId};
use sched::{KvError, Layout};
use text::{TextModel, Tokenizer};
use thiserror::Error;

use crate::admission::Admission;
use crate::core::EngineCore;
use crate::inbox::{Message, Queue};
use crate::output::Response;
use crate::shared::Shared;
use crate::thread;
use crate::{CacheConfig, ChatPrompt, EngineConfig, GenerateRequest, Health, State, Stats, SubmitError};

/// How much longer than its timeout a shutdown waits for the step that is under way.
const STEP_GRACE: Duration = Duration::from_secs(10);

/// Cheap to clone. The engine stops when it is told to, or when the last handle and the last response are gone.
#[derive(Clone)]
pub struct EngineHandle {
    inner: Arc<Inner>,
    inbox: Sender<Message>,
}

struct Inner {
    admission: Admission,
    queue: Queue,
    cache: CacheConfig,
    shared: Arc<Shared>,
    engine: Mutex<Option<Running>>,
}

/// The thread, and a channel that closes when it ends.
struct Running {
    thread: JoinHandle<()>,
    ended: Receiver<()>,
}

/// Why an engine did not start.
#[derive(Debug, Error)]
pub enum StartError {
    #[error("the engine thread could not be spawned: {0}")]
    Thread(#[from] std::io::Error),
    #[error("{0}")]
    Executor(String),
    #[error("the executor's memory cannot be scheduled: {0}")]
    Capacity(#[from] KvError),
    #[error("the engine thread ended while it built the executor")]
    Died,
}

/// Spawns the engine thread, builds the executor there, and returns when it is ready or has failed.
pub fn start(
    config: EngineConfig,
    text: Arc<TextModel>,
    executor: impl FnOnce() -> Result<Box<dyn Executor>, String> + Send + 'static,
) -> Result<EngineHandle, StartError> {
    let shared = Arc::new(Shared::new(config.step_timeout));
    let (inbox, messages) = channel();
    let (ready, built) = sync_channel(1);
    let (alive, ended) = sync_channel::<()>(0);
    let (thread_shared, thread_config) = (Arc::clone(&shared), config.clone());
    let thread = std::thread::Builder::new().name("engine".to_owned()).spawn(move || {
        let _alive = alive;
        match build(thread_config, executor) {
            Ok((core, capacity)) => {
                thread_shared.publish(core.stats());
                if ready.send(Ok(capacity)).is_ok() {
                    thread::run(core, &messages, &thread_shared);
                }
            }
            // If nobody waits for the answer, nobody needs it.
            Err(error) => drop(ready.send(Err(error))),
        }
    })?;
    let capacity = built.recv().map_err(|_| StartError::Died)??;
    let layout = Layout::new(&capacity)?;
    let queue = Queue::new(config.max_num_queued_reqs);
    let block_size = capacity.groups.first().map_or(0, |group| group.block_size);
    let cache = CacheConfig { block_size, enable_prefix_caching: config.enable_prefix_caching };
    let admission = Admission::new(config, text, layout, capacity.max_model_len);
    let engine = Mutex::new(Some(Running { thread, ended }));
    Ok(EngineHandle { inner: Arc::new(Inner { admission, queue, cache, shared, engine }), inbox })
}

fn build(
    config: EngineConfig,
    executor: impl FnOnce() -> Result<Box<dyn Executor>, String>,
) -> Result<(EngineCore, KvCapacity), StartError> {
    let executor = executor().map_err(StartError::Executor)?;
    let capacity = executor.capacity().clone();
    Ok((EngineCore::new(config, executor)?, capacity))
}

impl EngineHandle {
    /// Checks, renders, tokenizes and sends a request. Blocks for as long as the tokenizer takes.
    pub fn submit(&self, request: GenerateRequest) -> Result<Response, SubmitError> {
        let Inner { admission, queue, shared, .. } = &*self.inner;
        let submitted = shared.now();
        match shared.state() {
            State::Ready => {}
            State::Draining => return Err(SubmitError::Draining),
            State::Stopped => return Err(SubmitError::Stopped),
        }
        let ticket = queue.enter().ok_or_else(|| self.overloaded())?;
        let admitted = admission.admit(request, || shared.next_request())?;
        let (response, submission) = Response::new(admitted, ticket, submitted, self.inbox.clone());
        self.inbox.send(Message::Submit(Box::new(submission))).map_err(|_| SubmitError::Stopped)?;
        Ok(response)
    }

    /// A place becomes free at the pace at which requests have started so far.
    fn overloaded(&self) -> SubmitError {
        let started = self.stats().requests_started.clamp(1, u64::from(u32::MAX)) as u32;
        let retry_after = (self.inner.shared.now() / started).clamp(Duration::from_secs(1), Duration::from_secs(30));
        SubmitError::Overloaded { queued: self.inner.queue.len(), retry_after }
    }

    /// The tokens that a chat prompt becomes.
    pub fn render_chat(&self, prompt: &ChatPrompt) -> Result<Vec<TokenId>, SubmitError> {
        self.inner.admission.render(prompt, 0)
    }

    /// The tokens that a text prompt becomes, with the model's own special tokens around it if asked for.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<TokenId>, SubmitError> {
        self.inner.admission.encode(text, add_special_tokens, 0)
    }

    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.inner.admission.text().tokenizer
    }

    /// Prompt and output of one sequence, in tokens.
    pub fn max_model_len(&self) -> u32 {
        self.inner.admission.max_model_len()
    }

    pub fn vocab_size(&self) -> usize {
        self.tokenizer().vocab_size()
    }

    pub fn cache_config(&self) -> CacheConfig {
        self.inner.cache
    }

    /// As of the last step.
    pub fn stats(&self) -> Stats {
        self.inner.shared.stats()
    }

    pub fn health(&self) -> Health {
        self.inner.shared.health()
    }

    /// Why the engine has ended by itself, once it has: its device is beyond help, and every request has failed.
    pub async fn given_up(&self) -> String {
        self.inner.shared.given_up().await
    }

    /// Requests that were submitted and have not started.
    pub fn queued(&self) -> u32 {
        self.inner.queue.len()
    }

    /// New requests are refused from here on.
    pub fn drain(&self) {
        self.inner.shared.advance(State::Draining);
    }

    /// Refuses new requests, lets those that are here finish for up to `timeout`, fails the rest, and ends the thread.
    /// Where another thread already does so, returns at once.
    pub fn shutdown(&self, timeout: Duration) {
        self.drain();
        let deadline = self.inner.shared.now().saturating_add(timeout);
        let running = self.inner.engine.lock().expect("nothing panics while it holds the thread").take();
        let Some(Running { thread, ended }) = running else { return };
        // A thread that is gone already needs no message.
        self.inbox.send(Message::Stop { deadline }).ok();
        match ended.recv_timeout(timeout.saturating_add(STEP_GRACE)) {
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                tracing::error!("the engine's last step does not end; it is left behind");
            }
            _ if thread.join().is_err() => tracing::error!("the engine thread ended in a panic"),
            _ => {}
        }
    }
}
