//! A plain HTTP client over a socket: it can send what no library would, and leave when it likes.
//!
//! It speaks HTTP/1.0, so that a body is whatever comes until the end.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Long enough for any machine, short enough for a test that hangs.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn error(&self) -> Value {
        self.json()["error"].clone()
    }

    /// The events of a stream that ended well, without its end mark.
    pub fn events(&self) -> Vec<Value> {
        let text = self.text();
        let mut data: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert_eq!(data.pop(), Some("[DONE]"), "{text}");
        data.into_iter().map(|json| serde_json::from_str(json).expect("each event is JSON")).collect()
    }
}

/// A reply of which only the head has been read.
pub struct Started {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    reader: BufReader<TcpStream>,
}

impl Started {
    /// The next line of the body; `None` at its end.
    pub fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("the server writes lines");
        (!line.is_empty()).then(|| line.trim_end().to_owned())
    }

    /// The data of the next event.
    pub fn event(&mut self) -> Option<String> {
        while let Some(line) = self.line() {
            if let Some(data) = line.strip_prefix("data: ") {
                return Some(data.to_owned());
            }
        }
        None
    }

    pub fn finish(mut self) -> Reply {
        let mut body = Vec::new();
        self.reader.read_to_end(&mut body).expect("the server ends the body");
        Reply { status: self.status, headers: self.headers, body }
    }
}

pub fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    stream
}

/// Sends bytes as they are and reads the head of what comes back.
pub fn send(addr: SocketAddr, bytes: &[u8]) -> Started {
    let mut stream = connect(addr);
    // A server that refuses early may close before it has read all.
    let _ = stream.write_all(bytes);
    read_head(stream)
}

pub fn read_head(stream: TcpStream) -> Started {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).expect("a status line");
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.unwrap_or_else(|| panic!("not a status line: {line:?}"));
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line).expect("a header");
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.trim().to_owned()),
            None => break,
        };
    }
    Started { status, headers, reader }
}

pub fn head(method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let mut head = format!("{method} {path} HTTP/1.0\r\nhost: localhost\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head + "\r\n"
}

/// One request with a body of bytes.
pub fn request(addr: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Started {
    let length = body.len().to_string();
    let headers = [&[("content-length", length.as_str())], headers].concat();
    send(addr, &[head(method, path, &headers).as_bytes(), body].concat())
}
