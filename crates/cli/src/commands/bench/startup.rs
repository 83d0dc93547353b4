//! `tokenmill bench startup`: a server as a process of its own, from its start until it is healthy and has answered once.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use loadgen::{Machine, Summary};
use serde_json::{Value, json};

use crate::args::BenchStartupArgs;

/// Between two looks at a port that nobody listens on yet.
const LOOK: Duration = Duration::from_millis(1);

/// A child that does not outlive the measurement, and what it says: a pipe that nobody reads would stop it.
struct Server {
    child: Child,
    last_line: Option<JoinHandle<String>>,
}

impl Server {
    fn spawn(command: &mut Command) -> Result<Self> {
        let mut child = command.stderr(Stdio::piped()).spawn().context("cannot start this program again")?;
        let said = BufReader::new(child.stderr.take().context("it was just piped")?);
        let last_line = std::thread::spawn(move || said.lines().map_while(Result::ok).last().unwrap_or_default());
        Ok(Self { child, last_line: Some(last_line) })
    }

    /// Its last words, if it has ended.
    fn ended(&mut self) -> Result<Option<String>> {
        let Some(status) = self.child.try_wait()? else { return Ok(None) };
        let last_line = self.last_line.take().and_then(|reader| reader.join().ok()).unwrap_or_default();
        Ok(Some(format!("{status}: {last_line}")))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A child that has ended already needs no end.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Times in seconds, memory in bytes.
pub(super) fn run(args: &BenchStartupArgs) -> Result<()> {
    let before = Machine::load_average();
    let starts: Vec<Value> = (0..args.runs).map(|_| start(args)).collect::<Result<_>>()?;
    let of = |key: &str| -> Vec<f64> { starts.iter().filter_map(|start| start[key].as_f64()).collect() };
    let median = |key: &str| Summary::of(of(key)).map(|summary| summary.median());
    let result = json!({
        "median_startup_time": median("startup_time"),
        "median_first_answer_time": median("first_answer_time"),
        "median_resident_bytes": median("resident_bytes"),
        "median_peak_resident_bytes": median("peak_resident_bytes"),
        "starts": starts,
    });
    super::finish(result, before, args.save_json.as_deref())
}

fn start(args: &BenchStartupArgs) -> Result<Value> {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("serve").args(&args.serve).args(["--host", "127.0.0.1", "--port", &port.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let started = Instant::now();
    let mut server = Server::spawn(&mut command)?;
    let pid = server.child.id();
    healthy(&mut server, address, started + Duration::from_secs(args.timeout))?;
    let startup = started.elapsed();
    let (resident, _) = memory(pid);
    let asked = r#"{"prompt": "The", "max_tokens": 1, "temperature": 0}"#;
    let answer = ask(
        address,
        &format!(
            "POST /v1/completions HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{asked}",
            asked.len()
        ),
    );
    let first_answer =
        answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")).then(|| started.elapsed().as_secs_f64());
    let (_, peak) = memory(pid);
    Ok(json!({
        "startup_time": startup.as_secs_f64(),
        "first_answer_time": first_answer,
        "resident_bytes": resident,
        "peak_resident_bytes": peak,
    }))
}

/// Returns with the first good answer of `/health`.
fn healthy(server: &mut Server, address: SocketAddr, deadline: Instant) -> Result<()> {
    let request = format!("GET /health HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    loop {
        if let Some(end) = server.ended()? {
            bail!("the server ended with {end}");
        }
        if ask(address, &request).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("the server is not healthy in the time that --timeout gives it");
        }
        std::thread::sleep(LOOK);
    }
}

fn ask(address: SocketAddr, request: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Resident now and at most so far, in bytes, where the system says so.
fn memory(pid: u32) -> (Option<u64>, Option<u64>) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim_start_matches(':').split_whitespace().next()?.parse::<u64>().ok()? << 10)
    };
    (bytes("VmRSS"), bytes("VmHWM"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_may_say_as_much_as_it_likes() {
        let mut command = Command::new("sh");
        command.args(["-c", "yes words | head -c 999996 >&2; echo the end >&2; exit 3"]);
        let mut server = Server::spawn(&mut command).expect("there is a shell");
        let deadline = Instant::now() + Duration::from_secs(60);
        let end = loop {
            assert!(Instant::now() < deadline, "it hangs");
            if let Some(end) = server.ended().expect("a child") {
                break end;
            }
            std::thread::yield_now();
        };
        assert!(end.contains('3') && end.ends_with(": the end"), "{end}");
    }
}
