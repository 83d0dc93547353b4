//! A hub and a package index on loopback, a cache of one's own, and a progress that remembers.

#![allow(dead_code, clippy::unwrap_used)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use hub::{Catalog, CatalogModel, HubOptions, Progress, Retry, Step};
use sha2::{Digest, Sha256};

#[derive(Clone, Debug)]
pub struct Request {
    pub path: String,
    pub headers: HashMap<String, String>,
}

impl Request {
    /// First byte of the range that was asked for.
    pub fn offset(&self) -> Option<usize> {
        self.headers.get("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Sends this many bytes of the body and closes.
    pub cut: Option<usize>,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), cut: None }
    }

    pub fn body(body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..Self::status(200) }
    }

    /// As a file server answers: the range that was asked for.
    pub fn ranged(request: &Request, body: &[u8]) -> Self {
        match request.offset() {
            None => Self::body(body),
            Some(offset) if offset >= body.len() => Self::status(416),
            Some(offset) => {
                let range = format!("bytes {offset}-{}/{}", body.len() - 1, body.len());
                Self {
                    headers: vec![("Content-Range".into(), range)],
                    body: body[offset..].to_vec(),
                    ..Self::status(206)
                }
            }
        }
    }

    pub fn cut(self, cut: usize) -> Self {
        Self { cut: Some(cut), ..self }
    }
}

/// Answers until the process ends.
pub struct Server {
    pub url: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// `answer` gets each request and how many came before it.
    pub fn start(answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (requests.clone(), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, answer) = (seen.clone(), answer.clone());
                thread::spawn(move || serve(stream.unwrap(), &seen, &*answer));
            }
        });
        Self { url, requests }
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    pub fn paths(&self) -> Vec<String> {
        self.requests().into_iter().map(|request| request.path).collect()
    }
}

fn serve(stream: TcpStream, seen: &Mutex<Vec<Request>>, answer: &dyn Fn(&Request, usize) -> Reply) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let Some(Ok(first)) = lines.next() else { return };
    let path = first.split(' ').nth(1).unwrap().to_owned();
    let lines = lines.map_while(Result::ok).take_while(|line| !line.is_empty());
    let header = |line: String| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    let request = Request { path, headers: lines.filter_map(header).collect() };
    let before = {
        let mut seen = seen.lock().unwrap();
        seen.push(request.clone());
        seen.len() - 1
    };
    write_reply(stream, &answer(&request, before));
}

fn write_reply(mut stream: TcpStream, reply: &Reply) {
    let mut head =
        format!("HTTP/1.1 {} Status\r\nConnection: close\r\nContent-Length: {}\r\n", reply.status, reply.body.len());
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let body = &reply.body[..reply.cut.unwrap_or(reply.body.len())];
    // The client may have gone away, as it does when it refuses the rest.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}

/// A folder that is gone when the test ends.
pub struct TempDir(pub PathBuf);

impl TempDir {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tokenmill-hub-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file of 100,000 bytes that hardly compress.
pub fn model_bytes() -> Vec<u8> {
    let mut state = 1u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(100_000).collect()
}

pub const FILE: &str = "Tiny.Q4_1.gguf";
pub const REVISION: &str = "0123456789abcdef0123456789abcdef01234567";

pub fn catalog_model() -> CatalogModel {
    let bytes = model_bytes();
    CatalogModel {
        name: "Tiny".into(),
        license: "Apache-2.0".into(),
        hub: "owner/tiny-GGUF".into(),
        revision: REVISION.into(),
        file: FILE.into(),
        size: bytes.len() as u64,
        sha256: sha256(&bytes),
        wheel: None,
    }
}

/// A cache in `folder`, a hub at `endpoint`, and no waiting between attempts.
pub fn options(folder: &Path, endpoint: &str) -> HubOptions {
    HubOptions {
        endpoint: endpoint.to_owned(),
        connect_timeout: Duration::from_secs(10),
        retry: Retry { attempts: 3, backoff: Duration::ZERO },
        catalog: Catalog { models: vec![catalog_model()] },
        ..HubOptions::new(folder.to_owned()).unwrap()
    }
}

/// Where the catalog's model is stored.
pub fn stored(folder: &Path) -> PathBuf {
    folder.join("models/owner--tiny-GGUF").join(REVISION).join(FILE)
}

/// Where its partial file is.
pub fn partial(folder: &Path) -> PathBuf {
    stored(folder).with_file_name(format!("{FILE}.{}.partial", &sha256(&model_bytes())[..12]))
}

/// Steps as text.
#[derive(Default)]
pub struct Log(Mutex<Vec<String>>);

impl Log {
    pub fn steps(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl Progress for Log {
    fn step(&self, step: Step<'_>) {
        let text = match step {
            Step::Received { .. } => return,
            Step::Receiving { done, total, .. } => format!("receiving from {done} of {total:?}"),
            Step::Retrying { .. } => "retrying".to_owned(),
            Step::Verifying { file } => format!("verifying {file}"),
            Step::Stored { file } => format!("stored {file}"),
            Step::Waiting => "waiting".to_owned(),
            Step::Trying { .. } => "trying".to_owned(),
            Step::Failed { .. } => "failed".to_owned(),
        };
        self.0.lock().unwrap().push(text);
    }
}
