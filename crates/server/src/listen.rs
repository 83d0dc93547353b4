//! Connections: accepts them, bounds how long and how large a request head may be, and ends them in order.

use std::io;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::Timeouts;

const MAX_HEADER_BYTES: usize = 64 << 10;
/// After a failed accept, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// For answers that are written but not sent when the server ends.
const FLUSH: Duration = Duration::from_secs(5);

/// Serves until `closed` turns true, then lets each connection finish the answer it is writing.
pub(crate) async fn run(listener: TcpListener, router: Router, timeouts: &Timeouts, closed: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    let http = http(timeouts);
    let mut closing = closed.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = turned(&mut closing) => break,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(serve(http.clone(), stream, router.clone(), closed.clone()));
            }
            Err(error) => pause(&error).await,
        }
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(FLUSH, all).await.is_err() {
        tracing::warn!("some clients did not take their answers in time");
    }
}

fn http(timeouts: &Timeouts) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(timeouts.read_headers).max_header_size(MAX_HEADER_BYTES);
    http
}

async fn serve(http: http1::Builder, stream: TcpStream, router: Router, mut closed: watch::Receiver<bool>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps its delay");
    }
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = turned(&mut closed) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Waits until it is true, or until nobody is left to say so.
async fn turned(closed: &mut watch::Receiver<bool>) {
    let _ = closed.wait_for(|closed| *closed).await;
}

/// A client that leaves before it is accepted is no reason to wait; anything else may be a lack that passes.
async fn pause(error: &io::Error) {
    if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        return;
    }
    tracing::warn!(%error, "a connection was not accepted");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}
