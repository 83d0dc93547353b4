//! What all routes share: the engine, the configuration, the metrics; and the few things they all do with them.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use engine::{EngineHandle, GenerateRequest, State, SubmitError};
use tokio::sync::Semaphore;

use crate::config::ServerConfig;
use crate::error::ApiError;
use crate::fields::Fields;
use crate::ids::Seeds;
use crate::metrics::{Metrics, Rejection};
use crate::params::Bounds;

pub(crate) struct App {
    pub engine: EngineHandle,
    pub config: ServerConfig,
    pub metrics: Arc<Metrics>,
    pub created: u64,
    pub fingerprint: String,
    seeds: Seeds,
    /// Places for templates and tokenizers at work on long prompts.
    heavy: Arc<Semaphore>,
}

/// Bodies up to here are worked on where they arrive; a longer one would keep other connections waiting.
const LIGHT_BYTES: usize = 16 << 10;

impl App {
    pub fn new(engine: EngineHandle, config: ServerConfig) -> Self {
        let model = config.served_model_names.first().expect("a server has at least one model name");
        Self {
            metrics: Arc::new(Metrics::new(model)),
            created: crate::shape::unix_seconds(),
            fingerprint: fingerprint(model),
            seeds: Seeds::new(config.seed),
            heavy: Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from))),
            engine,
            config,
        }
    }

    pub fn bounds(&self) -> Bounds<'_> {
        Bounds { limits: &self.config.limits, vocab_size: self.engine.vocab_size(), seeds: &self.seeds }
    }

    /// The model that a request names; one that names none means the only one there is.
    pub fn model(&self, named: Option<String>) -> Result<String, ApiError> {
        let names = &self.config.served_model_names;
        match named {
            None => Ok(names[0].clone()),
            Some(name) if names.contains(&name) => Ok(name),
            Some(name) => Err(ApiError::model_not_found(&name)),
        }
    }

    /// Before any work: whether a request has a chance at all.
    pub fn check_open(&self) -> Result<(), ApiError> {
        match self.engine.health().state {
            State::Ready => Ok(()),
            State::Draining => Err(self.refuse(SubmitError::Draining, "")),
            State::Stopped => Err(self.refuse(SubmitError::Stopped, "")),
        }
    }

    /// Decides about the fields that nobody took.
    pub fn check_leftovers(
        &self,
        fields: Fields<'_>,
        ignored: &[&str],
        refused: &[(&str, &str)],
    ) -> Result<(), ApiError> {
        for (name, raw) in fields.into_entries() {
            if raw.get() == "null" || ignored.contains(&name.as_str()) {
                continue;
            }
            if let Some((_, reason)) = refused.iter().find(|(refused, _)| *refused == name) {
                return Err(ApiError::unsupported(&name, reason));
            }
            self.metrics.unknown_params.inc();
            if self.config.strict_params {
                return Err(ApiError::unknown_param(&crate::error::excerpt(&name)));
            }
        }
        Ok(())
    }

    /// Hands requests to the engine. If one is refused, those before it are dropped, which aborts them.
    pub async fn submit(
        self: &Arc<Self>,
        requests: Vec<GenerateRequest>,
        num_bytes: usize,
        prompt_param: &'static str,
    ) -> Result<Vec<engine::Response>, ApiError> {
        let engine = self.engine.clone();
        let submit = move || requests.into_iter().map(|request| engine.submit(request)).collect::<Result<_, _>>();
        self.work(num_bytes, submit).await?.map_err(|error| self.refuse(error, prompt_param))
    }

    /// Runs work whose cost grows with the prompt: aside if that is long, and then no more of it than processors.
    pub async fn work<T: Send + 'static>(
        &self,
        num_bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        if num_bytes <= LIGHT_BYTES {
            return Ok(work());
        }
        let place = Arc::clone(&self.heavy).acquire_owned().await.expect("this semaphore is never closed");
        let result = tokio::task::spawn_blocking(move || {
            let _place = place;
            work()
        });
        result.await.map_err(|_| ApiError::internal())
    }

    pub fn refuse(&self, error: SubmitError, prompt_param: &str) -> ApiError {
        let rejection = match &error {
            SubmitError::Invalid { .. } => None,
            SubmitError::ContextLength { .. } => Some(Rejection::ContextLength),
            SubmitError::Overloaded { .. } => Some(Rejection::QueueFull),
            SubmitError::Draining => Some(Rejection::Draining),
            SubmitError::Stopped => Some(Rejection::Stopped),
        };
        if let Some(rejection) = rejection {
            self.metrics.rejected(rejection);
        }
        ApiError::refused(error, prompt_param)
    }
}

/// Changes when the same request may be answered differently: with the model or the program.
fn fingerprint(model: &str) -> String {
    let mut hasher = DefaultHasher::new();
    (model, env!("CARGO_PKG_VERSION")).hash(&mut hasher);
    format!("fp_{:010x}", hasher.finish() >> 24)
}
