//! `tokenmill serve`: load, listen, say where, and end in order.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use server::ServerConfig;

use crate::args::ServeArgs;
use crate::assemble::{Assembled, assemble};
use crate::size::ByteSize;

/// Serves until SIGTERM or Ctrl-C, then lets running requests finish.
///
/// # Errors
/// If the address is taken, the model cannot be had or loaded, or an open address has no key.
pub fn run(args: &ServeArgs) -> Result<()> {
    let api_keys = api_keys(args)?;
    refuse_open_door(args, &api_keys)?;
    let listener = bind(SocketAddr::new(args.host, args.port))?;
    let assembled = assemble(&args.model, args.max_num_queued_reqs)?;
    let config = ServerConfig {
        served_model_names: served_names(args, &assembled),
        api_keys,
        max_body_bytes: args.max_body_size.0 as usize,
        strict_params: args.strict_params,
        seed: args.model.seed,
        shutdown_timeout: Duration::from_secs(args.shutdown_timeout),
        ..ServerConfig::new(&assembled.files.name)
    };
    announce(&assembled, &config, listener.local_addr()?);
    server::run(listener, assembled.engine.clone(), config, stop_signal())?;
    assembled.engine.shutdown(Duration::ZERO);
    Ok(())
}

fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            anyhow::anyhow!("{address} is in use by another program; choose another with --port")
        }
        _ => anyhow::Error::new(error).context(format!("cannot listen on {address}")),
    })
}

fn api_keys(args: &ServeArgs) -> Result<Vec<String>> {
    let mut keys = args.api_key.clone();
    if let Some(path) = &args.api_key_file {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read the keys in {}", path.display()))?;
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        keys.extend(lines.filter(|key| !key.is_empty()).map(str::to_owned));
    }
    if (!args.api_key.is_empty() || args.api_key_file.is_some()) && keys.iter().all(|key| key.trim().is_empty()) {
        bail!("keys were asked for, but none was given that is not empty");
    }
    Ok(keys)
}

fn refuse_open_door(args: &ServeArgs, keys: &[String]) -> Result<()> {
    if args.host.is_loopback() || !keys.is_empty() || args.no_auth {
        return Ok(());
    }
    bail!("{} is reachable from other machines: give --api-key, or --no-auth to let everyone in", args.host)
}

fn served_names(args: &ServeArgs, assembled: &Assembled) -> Vec<String> {
    match args.served_model_name.as_slice() {
        [] => vec![assembled.files.name.clone()],
        names => names.to_vec(),
    }
}

fn announce(assembled: &Assembled, config: &ServerConfig, address: SocketAddr) {
    let name = &config.served_model_names[0];
    let key = if config.api_keys.is_empty() { "" } else { " -H 'authorization: Bearer YOUR_KEY'" };
    eprintln!("Tokenmill {} serves {name}", env!("CARGO_PKG_VERSION"));
    eprintln!("  file     {} ({})", assembled.files.path.display(), file_size(&assembled.files.path));
    eprintln!("  device   {}", assembled.device);
    for line in assembled.plan.to_string().lines() {
        eprintln!("  {line}");
    }
    eprintln!("  loaded   in {:.2} s", assembled.load_time.as_secs_f64());
    eprintln!("  address  http://{address}/v1");
    eprintln!(
        "\n  curl http://{address}/v1/chat/completions{key} -H 'content-type: application/json' -d '\
         {{\"model\": \"{name}\", \"temperature\": 0, \"messages\": [{{\"role\": \"user\", \"content\": \"What is the capital \
         of France?\"}}]}}'\n"
    );
}

fn file_size(path: &std::path::Path) -> String {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => ByteSize(metadata.len()).to_string(),
        _ => "folder".to_owned(),
    }
}

/// Ends at the first SIGTERM or Ctrl-C; a second one ends the process at once.
async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
        (Err(error), _) | (_, Err(error)) => {
            tracing::warn!(%error, "signals cannot be caught: they end the server at once");
            return std::future::pending().await;
        }
    };
    tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    eprintln!("stopping: running requests may finish; once more to stop at once");
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        std::process::exit(130);
    });
}
