//! `tokenmill serve --device cuda` over HTTP on the emulated GPU: the answers of the reference, and what is said when the GPU fails.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/tiny/llama");

/// An answer that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// The folder of the emulator's driver library, or a word on why `test` is skipped.
fn emulator(test: &str) -> Option<PathBuf> {
    let folder = testkit::root().join("target/emu");
    if folder.join("libcuda.so.1").exists() {
        return Some(folder);
    }
    testkit::skip(test, "there is no emulator in target/emu; `cargo xtask emu` builds it");
    None
}

/// `tokenmill serve` of a model of a few kilobytes, with nothing but these variables in its environment.
fn serve(device: &str, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokenmill"));
    command.args(["serve", TINY, "--port", "0", "--kv-cache-memory", "1MiB", "--device", device]);
    command.env_clear().envs(variables.iter().copied()).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn on_emulator(folder: &std::path::Path, variables: &[(&str, &str)]) -> Command {
    let mut command = serve("cuda", variables);
    command.env("LD_LIBRARY_PATH", folder);
    command
}

/// A server that listens; it does not outlive the test.
struct Server {
    child: Child,
    address: String,
    /// Kept open, so that the server can go on to write to it.
    said: BufReader<std::process::ChildStderr>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().expect("the server can be killed");
        self.child.wait().expect("and then it ends");
    }
}

impl Server {
    fn start(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the program starts");
        let said = BufReader::new(child.stderr.take().expect("it was just piped"));
        let mut server = Self { child, address: String::new(), said };
        let mut all = String::new();
        while server.address.is_empty() {
            let line_start = all.len();
            assert!(server.said.read_line(&mut all).expect("stderr is text") > 0, "the server ended: {all}");
            let line = all[line_start..].trim();
            server.address.extend(line.strip_prefix("address  http://").map(|address| address.trim_end_matches("/v1")));
        }
        server
    }

    /// Status and body of a request.
    fn ask(&self, request: &str, body: &Value) -> (u16, Value) {
        let mut stream = TcpStream::connect(&self.address).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout is no zero");
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (host, len) = (&self.address, body.len());
        let head = format!(
            "{request} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {len}"
        );
        write!(stream, "{head}\r\n\r\n{body}").expect("the server reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("the server answers in text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, serde_json::from_str(body).expect("a body of JSON"))
    }

    fn complete(&self, prompt: &Value) -> (u16, Value) {
        let body = json!({ "prompt": prompt, "max_tokens": 8, "temperature": 0, "ignore_eos": true, "logprobs": 1, "return_token_ids": true });
        self.ask("POST /v1/completions", &body)
    }
}

#[test]
fn answers_are_those_of_the_reference() {
    let Some(folder) = emulator("cuda: answers_are_those_of_the_reference") else { return };
    let (gpu, reference) = (Server::start(on_emulator(&folder, &[])), Server::start(serve("reference", &[])));
    let long: Vec<u32> = (0..40).map(|idx| 11 + idx * 37 % 400).collect();
    for prompt in [json!("The"), json!("Once upon a time"), json!([17]), json!(long)] {
        let [(status, answer), (_, expected)] = [gpu.complete(&prompt), reference.complete(&prompt)];
        assert_eq!(status, 200, "{answer}");
        for key in ["text", "token_ids"] {
            assert_eq!(answer["choices"][0][key], expected["choices"][0][key], "{key} after {prompt}");
        }
        let logprobs = |answer: &Value| answer["choices"][0]["logprobs"]["token_logprobs"].clone();
        let (logprobs, exact) = (logprobs(&answer), logprobs(&expected));
        let pairs = logprobs.as_array().into_iter().flatten().zip(exact.as_array().into_iter().flatten());
        let pairs: Vec<(f64, f64)> =
            pairs.map(|(a, b)| (a.as_f64().unwrap_or(f64::NAN), b.as_f64().unwrap_or(0.0))).collect();
        assert!(pairs.len() == 8 && pairs.iter().all(|(a, b)| (a - b).abs() < 0.05), "{pairs:?}");
    }
    assert_eq!(gpu.ask("GET /health", &Value::Null).0, 200);
}

#[test]
fn a_gpu_that_fails_for_good_is_told() {
    let Some(folder) = emulator("cuda: a_gpu_that_fails_for_good_is_told") else { return };
    let server = Server::start(on_emulator(&folder, &[("TOKENMILL_EMU_FAIL", "dies:100")]));
    let (status, answer) = server.complete(&json!("The"));
    assert_eq!((status, &answer["error"]["type"]), (500, &json!("server_error")), "{answer}");
    // One request that fails may have been its own fault; a few more, and the card is given up.
    let is_ill = || server.ask("GET /health", &Value::Null).0 == 503;
    let told = (0..8).any(|_| is_ill() || server.complete(&json!("The")).0 == 200);
    assert!(told && is_ill(), "/health does not tell");
    assert_eq!(server.ask("GET /livez", &Value::Null).0, 200);
}

#[test]
fn requests_that_wait_behind_a_failure_are_answered() {
    let Some(folder) = emulator("cuda: requests_that_wait_behind_a_failure_are_answered") else { return };
    // The kernel fails in the first context alone: its step runs again in the next one. Or in all of them: no request hangs.
    for (failure, expected) in [("launch:700", 200), ("dies:120", 500)] {
        let mut command = on_emulator(&folder, &[("TOKENMILL_EMU_FAIL", failure)]);
        command.args(["--max-num-seqs", "1"]);
        let server = Server::start(command);
        let answers: Vec<(u16, Value)> = std::thread::scope(|scope| {
            let asked: Vec<_> = (0..6)
                .map(|first| {
                    scope.spawn({
                        let server = &server;
                        move || server.complete(&json!([first + 5]))
                    })
                })
                .collect();
            asked.into_iter().map(|asked| asked.join().expect("an answer came")).collect()
        });
        let statuses: Vec<u16> = answers.iter().map(|(status, _)| *status).collect();
        assert!(statuses.iter().all(|status| *status == expected), "{failure}: {answers:?}");
        assert_eq!(server.ask("GET /livez", &Value::Null).0, 200);
    }
}

#[test]
fn starts_that_cannot_be_are_one_sentence() {
    let Some(folder) = emulator("cuda: starts_that_cannot_be_are_one_sentence") else { return };
    for (variables, message) in [
        (&[("TOKENMILL_EMU_MEMORY", "65536")][..], "the GPU has 0 MiB free and 1 more are wanted"),
        (&[("TOKENMILL_EMU_FAIL", "alloc:2")], "more are wanted"),
        (&[("TOKENMILL_EMU_NO_DEVICE", "1")], "the NVIDIA driver finds no GPU"),
        (&[("TOKENMILL_EMU_CAPABILITY", "7.5")], "compute capability 7.5; the kernels need 8.0 (Ampere) or newer"),
        (
            &[("TOKENMILL_EMU_DRIVER", "12.4")],
            "the NVIDIA driver knows CUDA 12.4; the kernels need 13.0 (driver 580) or newer",
        ),
    ] {
        refuses(on_emulator(&folder, variables), message);
    }
    let elsewhere = ["/usr/lib/x86_64-linux-gnu/libcuda.so.1", "/usr/lib64/libcuda.so.1", "/usr/lib/libcuda.so.1"];
    if elsewhere.iter().any(|path| std::path::Path::new(path).exists()) {
        return testkit::skip("cuda: a start without a driver", "this machine has one");
    }
    refuses(serve("cuda", &[]), "no NVIDIA driver (libcuda.so.1) is on this machine");
}

#[test]
fn what_the_gpu_cannot_hold_or_run_is_one_sentence() {
    let Some(folder) = emulator("cuda: what_the_gpu_cannot_hold_or_run_is_one_sentence") else { return };
    let odd_heads = with_heads_of(24);
    for (memory, args, message) in [
        ("250000", &[TINY][..], "MiB of weights are loaded: --quantization fp8 or int4 makes them smaller"),
        (
            "4000000",
            &[TINY, "--max-num-batched-tokens", "8192"],
            "are left: --max-num-batched-tokens and --max-num-seqs make the workspace smaller",
        ),
        ("4000000", &[TINY, "--max-model-len", "512", "--kv-cache-memory", "64KiB"], "a smaller --max-model-len"),
        ("99000000", &[TINY, "--kv-cache-memory", "1GiB"], "the KV cache was to take 1024.0 MiB, but weights take"),
        ("99000000", &[TINY, "--device", "cuda:7"], "there is no GPU 7: the only one is cuda:0"),
        ("99000000", &[TINY, "--kv-cache-dtype", "f32"], "the CUDA kernels have no F32 KV cache; use bf16 or fp8"),
        ("99000000", &[odd_heads.path(), "--load-format", "dummy"], "heads of 16, 32, 64, 80, 96, 128 or 256, not 24"),
    ] {
        refuses(plan(&folder, memory, args), message);
    }
}

#[test]
fn a_plan_says_where_the_memory_goes() {
    let Some(folder) = emulator("cuda: a_plan_says_where_the_memory_goes") else { return };
    let output = plan(&folder, "104857600", &[TINY]).output().expect("the program starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let mebibytes = |what: &str| -> f64 {
        let line = said.lines().find_map(|line| line.strip_prefix(what)).unwrap_or_else(|| panic!("no {what}: {said}"));
        line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number of MiB")
    };
    let [weights, workspace, kv, free] = ["weights", "workspace", "KV cache", "free"].map(mebibytes);
    assert!(weights > 0.1 && workspace > 1.0 && kv > 8.0 * free, "a GPU's memory is there to be used: {said}");
    assert!(weights + workspace + kv + free <= 100.0, "{said}");
}

/// `tokenmill plan` on an emulated GPU of `memory` bytes.
fn plan(folder: &std::path::Path, memory: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokenmill"));
    command.arg("plan").args(["--device", "cuda"]).args(args).env_clear();
    command.envs([("TOKENMILL_EMU_MEMORY", memory)]).env("LD_LIBRARY_PATH", folder);
    command
}

/// A folder of the test's own, gone at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn path(&self) -> &str {
        self.0.to_str().expect("a path in UTF-8")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).expect("the test's own folder");
    }
}

/// The tiny model's config with other heads.
fn with_heads_of(size: u32) -> Scratch {
    let scratch = Scratch(std::env::temp_dir().join(format!("tokenmill-heads-{size}-{}", std::process::id())));
    std::fs::create_dir_all(&scratch.0).expect("a folder for the test");
    let config = std::fs::read(std::path::Path::new(TINY).join("config.json")).expect("the tiny model has a config");
    let mut config: Value = serde_json::from_slice(&config).expect("JSON");
    config["head_dim"] = json!(size);
    std::fs::write(scratch.0.join("config.json"), config.to_string()).expect("a file for the test");
    scratch
}

/// That the program ends at once, and what it says last is `message` in a sentence without any panic.
fn refuses(mut command: Command, message: &str) {
    let output = command.output().expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    // The emulator's own words are marked.
    let lines: Vec<&str> = said.lines().filter(|line| !line.starts_with("emu: ")).collect();
    assert!(lines.len() == 1 && lines[0].contains(message), "{said}");
}
