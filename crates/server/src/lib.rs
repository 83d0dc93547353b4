//! HTTP: OpenAI's API over an [`EngineHandle`]. The only crate that knows HTTP and the API's JSON; it knows no tensor.
//!
//! A request's way: `listen` → `headers` → `auth` → `routes` → `body` → `fields` and `params` → the engine; and back:
//! `generation` merges the engine's events, a `shape` words them, `sse` streams the pieces or `fold` adds them up.

mod app;
mod auth;
mod body;
mod config;
mod error;
mod fields;
mod fold;
mod generation;
mod headers;
mod ids;
mod listen;
mod messages;
mod metrics;
mod params;
mod routes;
mod shape;
mod sse;

use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use engine::EngineHandle;
use tokio::sync::watch;

pub use config::{RequestLimits, ServerConfig, Timeouts};

/// Of this many cores one streams answers: some 100,000 pieces a second, more than the others compute. A second thread on two cores
/// would take turns with the first, and with whoever computes, in slices of milliseconds.
const CORES_PER_WORKER: usize = 4;

/// Serves, on threads of its own, until `stop` is ready; then refuses new requests, lets running ones finish within
/// `ServerConfig::shutdown_timeout`, stops the engine and returns.
///
/// # Errors
/// If the engine gives up. What a device leaves behind may hold for the whole process: only another one can serve again.
/// Or if a thread cannot be started.
///
/// # Panics
/// If `config` has no model name.
pub fn run(
    listener: TcpListener,
    engine: EngineHandle,
    config: ServerConfig,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = (cores / CORES_PER_WORKER).max(1);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    runtime.block_on(serve(listener, engine, config, stop))
}

async fn serve(
    listener: TcpListener,
    engine: EngineHandle,
    config: ServerConfig,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let app = Arc::new(app::App::new(engine.clone(), config));
    let (close, closed) = watch::channel(false);
    let serving = listen::run(listener, routes::router(Arc::clone(&app)), &app.config.timeouts, closed);
    let ending = async {
        let given_up = tokio::select! {
            () = stop => None,
            reason = engine.given_up() => Some(reason),
        };
        if given_up.is_none() {
            shut_down(engine.clone(), app.config.shutdown_timeout).await;
        }
        close.send_replace(true);
        given_up
    };
    let ((), given_up) = tokio::join!(serving, ending);
    match given_up {
        Some(reason) => Err(io::Error::other(format!("the server ends, as its engine has given up: {reason}"))),
        None => Ok(()),
    }
}

/// The probes and the refusals go on being served meanwhile.
async fn shut_down(engine: EngineHandle, timeout: std::time::Duration) {
    engine.drain();
    tracing::info!(timeout_s = timeout.as_secs_f32(), "shutting down: no new requests, running ones finish");
    if tokio::task::spawn_blocking(move || engine.shutdown(timeout)).await.is_err() {
        tracing::error!("the engine's shutdown panicked");
    }
}
