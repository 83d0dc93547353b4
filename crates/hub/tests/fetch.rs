//! One pinned file through everything that can happen on the way.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::{FILE, Log, Reply, Request, Server, TempDir, catalog_model, model_bytes, options, partial, stored};
use hub::{HubError, HubOptions, Progress, Step, resolve};

#[test]
fn a_file_is_fetched_once_and_then_found() {
    let (temp, server) = (TempDir::new(), Server::start(|request, _| Reply::ranged(request, &model_bytes())));
    let (options, log) = (options(&temp.0, &server.url), Log::default());
    let files = resolve(None, &options, &log).unwrap();
    assert_eq!((files.path.clone(), files.name.as_str()), (stored(&temp.0), "Tiny"));
    assert_eq!(fs::read(&files.path).unwrap(), model_bytes());
    assert_eq!(server.paths(), [format!("/owner/tiny-GGUF/resolve/{}/{FILE}", common::REVISION)]);
    assert_eq!(log.steps(), ["trying", "receiving from 0 of Some(100000)", &format!("stored {FILE}")]);
    for spec in [None, Some("tiny"), Some("owner/tiny-GGUF"), Some("owner/tiny-GGUF:Tiny.Q4_1.gguf")] {
        assert_eq!(resolve(spec, &options, &()).unwrap(), files);
    }
    assert_eq!(resolve(None, &HubOptions { offline: true, ..options }, &()).unwrap(), files);
    assert_eq!(server.requests().len(), 1, "the cache answered");
    assert_eq!(
        fs::read_dir(files.path.parent().unwrap()).unwrap().count(),
        2,
        "the model and the manifest, nothing else"
    );
}

#[test]
fn a_path_is_itself() {
    let (temp, options) = (TempDir::new(), options(std::path::Path::new("/nonexistent"), "http://127.0.0.1:9"));
    let file = temp.0.join("my-model.gguf");
    fs::write(&file, "GGUF").unwrap();
    let files = resolve(file.to_str(), &options, &()).unwrap();
    assert_eq!((files.path, files.name.as_str()), (file, "my-model"));
    let files = resolve(temp.0.to_str(), &options, &()).unwrap();
    assert_eq!(files.name, temp.0.file_name().unwrap().to_str().unwrap());
    let missing = resolve(Some("./missing.gguf"), &options, &());
    assert!(matches!(missing, Err(HubError::NoSuchPath { .. })), "{missing:?}");
}

#[test]
fn cuts_are_resumed_where_they_happened() {
    let temp = TempDir::new();
    let server = Server::start(|request, before| {
        let reply = Reply::ranged(request, &model_bytes());
        if before < 4 { reply.cut(20_000) } else { reply }
    });
    resolve(None, &options(&temp.0, &server.url), &()).unwrap();
    assert_eq!(fs::read(stored(&temp.0)).unwrap(), model_bytes());
    let offsets: Vec<Option<usize>> = server.requests().iter().map(Request::offset).collect();
    assert_eq!(
        offsets,
        [None, Some(20_000), Some(40_000), Some(60_000), Some(80_000)],
        "more cuts than attempts, but each got on"
    );
}

#[test]
fn a_server_without_ranges_starts_over() {
    let temp = TempDir::new();
    let server = Server::start(|_, before| {
        let reply = Reply::body(model_bytes());
        if before == 0 { reply.cut(50_000) } else { reply }
    });
    resolve(None, &options(&temp.0, &server.url), &()).unwrap();
    assert_eq!(fs::read(stored(&temp.0)).unwrap(), model_bytes());
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn a_connection_that_never_gets_on_is_given_up() {
    let temp = TempDir::new();
    let server = Server::start(|_, _| Reply::body(model_bytes()).cut(50_000));
    let error = resolve(None, &options(&temp.0, &server.url), &()).unwrap_err().to_string();
    assert!(error.contains("cut") || error.contains("ended after 50000 of 100000"), "{error}");
    assert_eq!(server.requests().len(), 3);
    assert!(partial(&temp.0).exists(), "what came is kept for the next time");
}

#[test]
fn what_an_earlier_process_left_is_taken_up() {
    let bytes = model_bytes();
    let mut wrong = bytes[..70_000].to_vec();
    wrong[5] ^= 1;
    let left: [(&[u8], Vec<Option<usize>>); 5] = [
        (&bytes[..70_000], vec![Some(70_000)]),
        (&bytes, vec![]),
        (&wrong, vec![Some(70_000), None]),
        (&[], vec![None]),
        (&[0; 100_001], vec![None]),
    ];
    for (left, offsets) in left {
        let (temp, server) = (TempDir::new(), Server::start(|request, _| Reply::ranged(request, &model_bytes())));
        fs::create_dir_all(partial(&temp.0).parent().unwrap()).unwrap();
        fs::write(partial(&temp.0), left).unwrap();
        resolve(None, &options(&temp.0, &server.url), &()).unwrap();
        assert_eq!(fs::read(stored(&temp.0)).unwrap(), bytes);
        assert_eq!(
            server.requests().iter().map(Request::offset).collect::<Vec<_>>(),
            offsets,
            "{} bytes were left",
            left.len()
        );
        assert!(!partial(&temp.0).exists());
    }
}

#[test]
fn what_is_not_the_file_is_refused_and_not_kept() {
    type Answer = fn(&Request, usize) -> Reply;
    let answers: [(Answer, &str); 4] = [
        (|_, _| Reply::body([0; 100_000]), "SHA-256"),
        (|_, _| Reply::body(&model_bytes()[..99_999]), "99999 bytes"),
        (|_, _| Reply::body([model_bytes(), vec![0]].concat()), "100001 bytes"),
        (|_, _| Reply::body(""), "0 bytes"),
    ];
    for (answer, reason) in answers {
        let (temp, server) = (TempDir::new(), Server::start(answer));
        let error = resolve(None, &options(&temp.0, &server.url), &()).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
        assert_eq!(server.requests().len(), 1, "asking again would bring the same");
        assert!(!partial(&temp.0).exists() && !stored(&temp.0).exists());
    }
}

#[test]
fn statuses_are_explained_and_only_passing_ones_are_retried() {
    for (status, requests, reason) in [
        (401, 1, "set HF_TOKEN"),
        (403, 1, "set HF_TOKEN"),
        (404, 1, "no such model"),
        (410, 1, "answered 410"),
        (500, 3, "answered 500"),
        (429, 3, "answered 429"),
    ] {
        let (temp, server) = (TempDir::new(), Server::start(move |_, _| Reply::status(status)));
        let error = resolve(None, &options(&temp.0, &server.url), &()).unwrap_err().to_string();
        assert!(error.contains(reason) && error.contains("Give the path of a .gguf file"), "{error}");
        assert_eq!(server.requests().len(), requests, "{status}");
    }
    let (temp, server) = (
        TempDir::new(),
        Server::start(|request, before| match before {
            0 | 1 => Reply::status(503),
            _ => Reply::ranged(request, &model_bytes()),
        }),
    );
    resolve(None, &options(&temp.0, &server.url), &()).unwrap();
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn nobody_there_is_said_at_once() {
    let temp = TempDir::new();
    let log = Log::default();
    let error = resolve(None, &options(&temp.0, "http://127.0.0.1:9"), &log).unwrap_err().to_string();
    assert!(error.contains("127.0.0.1:9: it cannot be reached"), "{error}");
    assert_eq!(log.steps(), ["trying", "failed"], "without a second attempt");
    let offline = HubOptions { offline: true, ..options(&temp.0, "http://127.0.0.1:9") };
    let error = resolve(None, &offline, &()).unwrap_err().to_string();
    assert!(error.contains("HF_HUB_OFFLINE"), "{error}");
}

#[test]
fn the_token_goes_to_the_hub_only() {
    let temp = TempDir::new();
    let files = Arc::new(Server::start(|request, _| Reply::ranged(request, &model_bytes())));
    let location = format!("{}/blob", files.url);
    let hub =
        Server::start(move |_, _| Reply { headers: vec![("Location".into(), location.clone())], ..Reply::status(302) });
    let options = HubOptions { token: Some("secret".into()), ..options(&temp.0, &hub.url) };
    resolve(None, &options, &()).unwrap();
    assert_eq!(hub.requests()[0].headers.get("authorization").unwrap(), "Bearer secret");
    assert_eq!(files.requests()[0].headers.get("authorization"), None);
}

/// Tells when it has to wait.
struct WaitingTold(Mutex<mpsc::Sender<()>>);

impl Progress for WaitingTold {
    fn step(&self, step: Step<'_>) {
        if step == Step::Waiting {
            self.0.lock().unwrap().send(()).unwrap();
        }
    }
}

#[test]
fn of_two_pullers_the_second_waits_and_finds() {
    let temp = TempDir::new();
    let (asked, is_asked) = mpsc::channel();
    let (waits, is_waiting) = mpsc::channel();
    let (asked, is_waiting) = (Mutex::new(asked), Mutex::new(is_waiting));
    // The file is sent once the second puller waits, and the second begins once the first has asked.
    let server = Server::start(move |request, _| {
        asked.lock().unwrap().send(()).unwrap();
        is_waiting.lock().unwrap().recv_timeout(Duration::from_secs(60)).unwrap();
        Reply::ranged(request, &model_bytes())
    });
    let options = options(&temp.0, &server.url);
    let first = thread::spawn({
        let options = options.clone();
        move || resolve(None, &options, &()).unwrap()
    });
    is_asked.recv_timeout(Duration::from_secs(60)).unwrap();
    let second = resolve(None, &options, &WaitingTold(Mutex::new(waits))).unwrap();
    assert_eq!(first.join().unwrap(), second);
    assert_eq!(server.requests().len(), 1);
    assert_eq!(catalog_model().size, fs::metadata(second.path).unwrap().len());
}
