//! `tokenmill serve --device cuda` over HTTP on the emulated GPU: the answers of the reference, and what is said when the GPU fails.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
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
    command.args(["serve", "--port", "0", "--kv-cache-memory", "1MiB", "--device", device]);
    command
        .env_clear()
        .env("TOKENMILL_MODEL", TINY)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null());
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
        // One that has ended by itself cannot be, and need not.
        self.child.kill().ok();
        self.child.wait().expect("and then it ends");
    }
}

impl Server {
    fn start(command: Command) -> Self {
        Self::try_start(command).unwrap_or_else(|said| panic!("the server ended: {said}"))
    }

    /// What it said instead of an address, if it ends.
    fn try_start(mut command: Command) -> Result<Self, String> {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the program starts");
        let said = BufReader::new(child.stderr.take().expect("it was just piped"));
        let mut server = Self { child, address: String::new(), said };
        let mut all = String::new();
        while server.address.is_empty() {
            let line_start = all.len();
            if server.said.read_line(&mut all).expect("stderr is text") == 0 {
                return Err(all);
            }
            let line = all[line_start..].trim();
            server.address.extend(line.strip_prefix("address  http://").map(|address| address.trim_end_matches("/v1")));
        }
        Ok(server)
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

    /// The answers to `prompts`, all asked at once.
    fn complete_all(&self, prompts: &[Value]) -> Vec<(u16, Value)> {
        std::thread::scope(|scope| {
            let asked: Vec<_> = prompts.iter().map(|prompt| scope.spawn(|| self.complete(prompt))).collect();
            asked.into_iter().map(|asked| asked.join().expect("an answer came")).collect()
        })
    }

    /// That a supervisor sees a failure, and whoever reads the log its reason.
    fn ends_as_its_engine_gave_up(mut self) {
        let (child, stderr, mut said) = (&mut self.child, &mut self.said, String::new());
        let (ended, end) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| ended.send(stderr.read_to_string(&mut said)));
            if end.recv_timeout(PATIENCE).is_err() {
                child.kill().ok();
            }
        });
        let status = child.wait().expect("a server ends by itself or is killed");
        assert_eq!(status.code(), Some(1), "{said}");
        let last = said.lines().rfind(|line| !line.starts_with("emu: ")).unwrap_or_default();
        assert!(last.starts_with("tokenmill: the server ends, as its engine has given up: The device"), "{said}");
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
    server.ends_as_its_engine_gave_up();
}

#[test]
fn requests_that_wait_behind_a_failure_are_answered() {
    let Some(folder) = emulator("cuda: requests_that_wait_behind_a_failure_are_answered") else { return };
    // The kernel fails in the first context alone: its step runs again in the next one. Or in all of them: no request hangs.
    for (failure, expected) in [("launch:700", 200), ("dies:120", 500)] {
        let mut command = on_emulator(&folder, &[("TOKENMILL_EMU_FAIL", failure)]);
        command.args(["--max-num-seqs", "1"]);
        let server = Server::start(command);
        let prompts: Vec<Value> = (0..6).map(|first| json!([first + 5])).collect();
        let answers = server.complete_all(&prompts);
        let statuses: Vec<u16> = answers.iter().map(|(status, _)| *status).collect();
        assert!(statuses.iter().all(|status| *status == expected), "{failure}: {answers:?}");
        match expected {
            200 => assert_eq!(server.ask("GET /livez", &Value::Null).0, 200),
            _ => server.ends_as_its_engine_gave_up(),
        }
    }
}

/// Memory is taken at the start: the one that fails after the last that a start needs would fail a request.
#[test]
fn memory_runs_out_at_the_start_or_never() {
    let Some(folder) = emulator("cuda: memory_runs_out_at_the_start_or_never") else { return };
    let failing = |number: u32| on_emulator(&folder, &[("TOKENMILL_EMU_FAIL", &format!("alloc:{number}"))]);
    let starts = |number: &u32| Server::try_start(failing(*number)).is_ok();
    let (mut fails, mut works) = (1, 256);
    while fails + 1 < works {
        let number = u32::midpoint(fails, works);
        *if starts(&number) { &mut works } else { &mut fails } = number;
    }
    refuses(failing(fails), "; a step's workspace shrinks with --max-num-batched-tokens and --max-num-seqs");
    let server = Server::start(failing(works));
    let prompts: Vec<Value> = (0..8).map(|idx| json!(vec![idx + 5; 1 + 60 * idx])).collect();
    let answers = server.complete_all(&prompts);
    assert!(answers.iter().all(|(status, _)| *status == 200), "after {works} allocations: {answers:?}");
}

/// A token whose embedding is no number: whoever asks for it fails, and the blocks that it leaves behind hurt nobody.
#[test]
fn a_request_that_fails_leaves_its_neighbours_alone() {
    let poisoned = with_nan_embedding_of(300);
    let variables = [("TOKENMILL_MODEL", poisoned.path())];
    let folder = emulator("cuda: a_request_that_fails_leaves_its_neighbours_alone on a GPU");
    let gpu = folder.map(|folder| on_emulator(&folder, &variables));
    for command in [Some(serve("cpu", &variables)), gpu].into_iter().flatten() {
        let server = Server::start(command);
        let good = |idx: u32| json!([idx + 5, 17, 3 * idx + 40]);
        let alone: Vec<Value> =
            (0..4).map(|idx| server.complete(&good(idx)).1["choices"][0]["token_ids"].clone()).collect();
        for _ in 0..3 {
            let prompts: Vec<Value> = (0..4).flat_map(|idx| [good(idx), json!([idx + 5, 300, 17])]).collect();
            for (idx, (status, answer)) in server.complete_all(&prompts).iter().enumerate() {
                match idx % 2 {
                    0 => assert_eq!(answer["choices"][0]["token_ids"], alone[idx / 2], "{answer}"),
                    _ => assert!(*status == 500 && answer.to_string().contains("not a finite number"), "{answer}"),
                }
            }
        }
        assert_eq!(server.ask("GET /health", &Value::Null).0, 200);
    }
}

#[test]
fn starts_that_cannot_be_are_one_sentence() {
    let Some(folder) = emulator("cuda: starts_that_cannot_be_are_one_sentence") else { return };
    for (variables, message) in [
        (&[("TOKENMILL_EMU_FAIL", "alloc:1")][..], "MiB free and 1 more are wanted; --device cpu"),
        (
            &[("TOKENMILL_EMU_MEMORY", "65536")],
            "the weights take at least 0.3 MiB, and 0.1 MiB are free: --quantization fp8",
        ),
        (
            &[("TOKENMILL_EMU_FAIL", "alloc:2")],
            "MiB free and 1 more are wanted; that was after 0 MiB of weights, with more to come: --quantization fp8 or int4 makes \
             them smaller, and nvidia-smi shows what else holds memory",
        ),
        (&[("TOKENMILL_EMU_NO_DEVICE", "1")], "CUDA_VISIBLE_DEVICES not empty?; --device cpu does without"),
        (
            &[("TOKENMILL_EMU_CAPABILITY", "7.5")],
            "compute capability 7.5; the kernels need 8.0 (Ampere) or newer; --device cpu",
        ),
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
    refuses(serve("cuda", &[]), "no NVIDIA driver (libcuda.so.1) is on this machine; --device cpu");
}

#[test]
fn what_the_gpu_cannot_hold_or_run_is_one_sentence() {
    let Some(folder) = emulator("cuda: what_the_gpu_cannot_hold_or_run_is_one_sentence") else { return };
    let odd_heads = with_heads_of(24);
    for (memory, args, message) in [
        ("250000", &[TINY][..], "and 0.2 MiB are free: --quantization fp8 brings them to 0.2 MiB"),
        (
            "4000000",
            &[TINY, "--max-num-batched-tokens", "8192"],
            "are left: --max-num-batched-tokens and --max-num-seqs make the workspace smaller",
        ),
        ("8000000", &[TINY, "--max-model-len", "512", "--kv-cache-memory", "64KiB"], "a smaller --max-model-len"),
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

#[test]
fn what_does_not_fit_is_known_before_it_is_loaded() {
    let Some(folder) = emulator("cuda: what_does_not_fit_is_known_before_it_is_loaded") else { return };
    let large = concat!(env!("CARGO_MANIFEST_DIR"), "/../../benches/configs/llama-3.1-8b");
    let output = plan(&folder, "8000000000", &[large, "--load-format", "dummy"]).output().expect("the program starts");
    let [table, said] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    assert_eq!(output.status.code(), Some(1), "{said}");
    for row in ["weights   15316.0 MiB", "workspace           ?", "free       7629.4 MiB", "missing    7686.6 MiB"] {
        assert!(table.contains(row), "{row} in\n{table}");
    }
    for advice in ["at least 15316.0 MiB, and 7629.4 MiB", "--quantization int4 brings them to 53", "--device cpu"] {
        assert!(said.contains(advice) && said.trim_end().lines().count() == 1, "{advice} in {said}");
    }
    let output = plan(&folder, "4000000", &[TINY, "--kv-cache-memory", "1GiB"]).output().expect("the program starts");
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(table.contains("KV cache   1024.0 MiB") && table.contains("\nmissing "), "{table}");
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

/// The tiny model, whose embedding of `token` is no number.
fn with_nan_embedding_of(token: usize) -> Scratch {
    let scratch = Scratch(std::env::temp_dir().join(format!("tokenmill-nan-{token}-{}", std::process::id())));
    std::fs::create_dir_all(&scratch.0).expect("a folder for the test");
    for entry in std::fs::read_dir(TINY).expect("the tiny model") {
        let path = entry.expect("a file of it").path();
        std::fs::copy(&path, scratch.0.join(path.file_name().expect("a name"))).expect("a file for the test");
    }
    let path = scratch.0.join("model.safetensors");
    let mut file = std::fs::read(&path).expect("the tiny model has weights");
    let data_start = 8 + u64::from_le_bytes(file[..8].try_into().expect("eight bytes")) as usize;
    let header: Value = serde_json::from_slice(&file[8..data_start]).expect("a header of JSON");
    let table = &header["model.embed_tokens.weight"];
    let number = |value: &Value| value.as_u64().expect("a number") as usize;
    let [start, row] = [&table["data_offsets"][0], &table["shape"][1]].map(number);
    assert_eq!(table["dtype"], "BF16");
    for element in file[data_start + start + 2 * token * row..][..2 * row].chunks_mut(2) {
        element.copy_from_slice(&0x7fc0_u16.to_le_bytes());
    }
    std::fs::write(&path, file).expect("a file for the test");
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
