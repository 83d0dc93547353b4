//! A `tokenmill serve` of our own on a free port, for the clients to talk to.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::{Context, model};

const READY_WITHIN: Duration = Duration::from_secs(120);
const GONE_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// A running server. Dropping it kills it; [`Server::stop`] ends it in order.
pub(super) struct Server {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Server {
    /// Serves the default model, and waits until `/readyz` says so.
    pub fn start(context: &Context) -> Result<Self> {
        let program = context.built()?.binary("tokenmill")?;
        let address = free_address()?;
        let log = context.target().join("check-server.log");
        let file = fs::File::create(&log).context("cannot write the server's log")?;
        let mut serve = context.command(&program.path);
        serve.arg("serve").args(model::path(context)).args(["--port", &address.port().to_string()]);
        serve.stdout(file.try_clone()?).stderr(file);
        println!("$ tokenmill serve --port {} (log: {})", address.port(), log.display());
        let child = serve.spawn().context("cannot start the server")?;
        let mut server = Self { child, address, log };
        server.wait_until_ready()?;
        Ok(server)
    }

    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let started = Instant::now();
        while started.elapsed() < READY_WITHIN {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended with {status} before it was ready:\n{}", self.log_text());
            }
            if get(self.address, "/readyz").is_ok_and(|status| status == 200) {
                println!("ready after {:.1} s", started.elapsed().as_secs_f64());
                return Ok(());
            }
            thread::sleep(POLL);
        }
        bail!("the server was not ready within {READY_WITHIN:?}:\n{}", self.log_text())
    }

    /// Sends SIGTERM and waits for the end.
    pub fn stop(mut self) -> Result<ExitStatus> {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().context("cannot run kill")?;
        ensure!(sent.success(), "the server is gone already:\n{}", self.log_text());
        let started = Instant::now();
        while started.elapsed() < GONE_WITHIN {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            thread::sleep(POLL);
        }
        bail!("the server still runs {GONE_WITHIN:?} after SIGTERM:\n{}", self.log_text())
    }

    fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0").context("there is no free port")?.local_addr()?)
}

/// The status of a GET request.
fn get(address: SocketAddr, path: &str) -> Result<u16> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    std::str::from_utf8(&head[9..])?.parse().context("no status in the answer")
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;

    #[test]
    fn a_status_is_read_off_an_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let answering = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("one client");
            let request = BufReader::new(&stream).lines().map(|line| line.expect("a request"));
            request.take_while(|line| !line.is_empty()).for_each(drop);
            stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").expect("an open stream");
        });
        assert_eq!(get(address, "/readyz").expect("an answer"), 503);
        answering.join().expect("the server ends");
        assert!(get(address, "/readyz").is_err());
    }
}
