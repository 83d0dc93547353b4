//! The hub: what a repository holds, and its files.

use serde::Deserialize;

use crate::HubOptions;
use crate::http::Http;
use crate::source::{Failure, Source, Stream, Wanted};
use crate::spec::{is_name, is_relative_file};

/// One revision of one repository.
#[derive(Debug)]
pub(crate) struct Remote<'a> {
    http: Http,
    endpoint: &'a str,
    id: &'a str,
    revision: &'a str,
}

/// What the hub says of a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listing {
    /// The commit.
    pub(crate) revision: String,
    pub(crate) files: Vec<Wanted>,
}

#[derive(Deserialize)]
struct RepoInfo {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
    size: Option<u64>,
}

impl<'a> Remote<'a> {
    pub(crate) fn new(options: &'a HubOptions, id: &'a str, revision: &'a str) -> Self {
        Self { http: Http::new(options), endpoint: &options.endpoint, id, revision }
    }

    /// Asks what the revision is and which files it has, with sizes and digests.
    pub(crate) fn list(&self) -> Result<Listing, Failure> {
        let revision = self.revision.replace('/', "%2F");
        let url = format!("{}/api/models/{}/revision/{revision}?blobs=true", self.endpoint, self.id);
        let mut response = self.http.get(&url, 0)?;
        let body = response.body_mut().read_to_vec().map_err(|error| Failure::Cut(error.to_string()))?;
        let info: RepoInfo = serde_json::from_slice(&body)
            .map_err(|error| Failure::Source(format!("its answer is not what a hub says: {error}")))?;
        if !is_name(&info.sha) {
            return Err(Failure::Source("its answer names no commit".to_owned()));
        }
        let files = info.siblings.into_iter().filter(|file| is_relative_file(&file.rfilename)).map(Wanted::from);
        Ok(Listing { revision: info.sha, files: files.collect() })
    }
}

impl From<Sibling> for Wanted {
    fn from(file: Sibling) -> Self {
        let is_digest = |text: &String| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let size = file.lfs.as_ref().and_then(|lfs| lfs.size).or(file.size);
        let sha256 = file.lfs.and_then(|lfs| lfs.sha256).filter(is_digest).map(|sha256| sha256.to_lowercase());
        Self { file: file.rfilename, size, sha256 }
    }
}

impl Source for Remote<'_> {
    fn name(&self) -> String {
        self.endpoint.split_once("://").map_or(self.endpoint, |(_, host)| host).to_owned()
    }

    fn open(&self, wanted: &Wanted, offset: u64) -> Result<Stream, Failure> {
        let revision = self.revision.replace('/', "%2F");
        let url = format!("{}/{}/resolve/{revision}/{}", self.endpoint, self.id, escape(&wanted.file));
        let response = self.http.get(&url, offset)?;
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let start = match response.status().as_u16() {
            206 => header("content-range").and_then(range_start).unwrap_or(0),
            _ => 0,
        };
        if start != offset && start != 0 {
            return Err(Failure::Source(format!("asked for bytes from {offset}, it sent them from {start}")));
        }
        let length = header("content-length").and_then(|length| length.parse::<u64>().ok());
        Ok(Stream {
            offset: start,
            total: length.map(|length| start + length),
            bytes: Box::new(response.into_body().into_reader()),
        })
    }
}

/// 100 of "bytes 100-199/200".
fn range_start(header: &str) -> Option<u64> {
    header.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}

/// A file's path as part of an address.
fn escape(file: &str) -> String {
    let mut out = String::with_capacity(file.len());
    for byte in file.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => out.push(byte as char),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
