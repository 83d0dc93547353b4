//! The whole generator against a server of a few lines that misbehaves on demand.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::stream;
use loadgen::{
    Arrival, Beside, Client, Dataset, Endpoint, Failure, LoadAverage, Machine, Program, Report, Run, Sample, Setup,
    ShareGpt, Target, Workload, chart, html, markdown, run, table,
};
use serde_json::{Value, json};

/// What the server saw, and what it does to the request of each number.
#[derive(Default)]
struct Fake {
    bodies: Mutex<Vec<Value>>,
    keys: Mutex<Vec<Option<String>>>,
    running: AtomicUsize,
    most_running: AtomicUsize,
    mischief: Vec<(usize, Mischief)>,
    without_usage: bool,
}

#[derive(Clone, Copy)]
enum Mischief {
    Refuse,
    Cut,
    EndEarly,
    Malformed,
    FailMidway,
    OneShort,
}

fn event(value: &Value) -> String {
    format!("data: {value}\n\n")
}

impl Fake {
    fn answer(&self, body: &Value, mischief: Option<Mischief>) -> Vec<Result<Bytes, std::io::Error>> {
        let asked = body["max_tokens"].as_u64().unwrap_or(0);
        let tokens = if matches!(mischief, Some(Mischief::OneShort)) { asked - 1 } else { asked };
        let piece = |text: &str| match body.get("messages") {
            Some(_) => json!({"choices": [{"delta": {"content": text}}], "usage": null}),
            None => json!({"choices": [{"text": text}], "usage": null}),
        };
        let mut events = vec![event(&json!({"choices": [{"delta": {"role": "assistant", "content": ""}}]}))];
        events.extend((0..tokens).map(|_| event(&piece("word"))));
        match mischief {
            Some(Mischief::Malformed) => events.insert(2, "data: {\"choices\": [\n\n".to_owned()),
            Some(Mischief::FailMidway) => events.insert(2, event(&json!({"error": {"message": "lost a device"}}))),
            Some(Mischief::Cut | Mischief::EndEarly) => {
                let cut = Err(std::io::Error::other("cut"));
                let sent = events.into_iter().take(3).map(|event| Ok(Bytes::from(event)));
                return if matches!(mischief, Some(Mischief::Cut)) {
                    sent.chain([cut]).collect()
                } else {
                    sent.collect()
                };
            }
            _ => {}
        }
        events.push(event(&json!({"choices": [{"text": "", "finish_reason": "length"}]})));
        if !self.without_usage && body["stream_options"]["include_usage"] == true {
            let usage =
                json!({"prompt_tokens": 5, "completion_tokens": tokens, "prompt_tokens_details": {"cached_tokens": 1}});
            events.push(event(&json!({"choices": [], "usage": usage})));
        }
        events.push("data: [DONE]\n\n".to_owned());
        events.into_iter().map(|event| Ok(Bytes::from(event))).collect()
    }
}

async fn complete(State(fake): State<Arc<Fake>>, headers: axum::http::HeaderMap, Json(body): Json<Value>) -> Response {
    let key = headers.get("authorization").map(|key| key.to_str().unwrap().to_owned());
    fake.keys.lock().unwrap().push(key);
    let idx = {
        let mut bodies = fake.bodies.lock().unwrap();
        bodies.push(body.clone());
        bodies.len() - 1
    };
    let mischief = fake.mischief.iter().find(|(at, _)| *at == idx).map(|(_, mischief)| *mischief);
    if matches!(mischief, Some(Mischief::Refuse)) {
        return (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({"error": {"message": "no memory"}}))).into_response();
    }
    fake.most_running.fetch_max(fake.running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
    let events = fake.answer(&body, mischief);
    let pieces = stream::unfold((events.into_iter(), Some(Running(fake))), |(mut events, running)| async move {
        tokio::task::yield_now().await;
        let event = events.next()?;
        // Ends before the client can know: it sends the next request as soon as it has the last event.
        let running = running.filter(|_| events.len() > 0);
        Some((event, (events, running)))
    });
    Response::new(Body::from_stream(pieces))
}

/// A token is a letter.
async fn tokenize(State(fake): State<Arc<Fake>>, Json(body): Json<Value>) -> Response {
    let text = body["prompt"].as_str().or_else(|| body["messages"][0]["content"].as_str()).unwrap();
    let answer = if fake.without_usage { json!({}) } else { json!({"count": text.len(), "max_model_len": 12}) };
    Json(answer).into_response()
}

/// A stream that has not ended.
struct Running(Arc<Fake>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn start(fake: Fake) -> (Arc<Fake>, Target) {
    let fake = Arc::new(fake);
    let app = Router::new()
        .route("/v1/completions", post(complete))
        .route("/v1/chat/completions", post(complete))
        .route(
            "/v1/models",
            get(|| async { Json(json!({"data": [{"id": "tiny", "max_model_len": 12}, {"id": "other"}]})) }),
        )
        .route("/tokenize", post(tokenize))
        .with_state(Arc::clone(&fake));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    (fake, target)
}

fn samples(count: usize, output_len: u32) -> Vec<Sample> {
    let workload = Workload { dataset: Dataset::Random { input_len: 4 }, output_len, seed: 1 };
    workload.samples(0, count).unwrap()
}

async fn load(target: Target, count: usize, at_once: usize) -> Run {
    let client = Arc::new(Client::new(target, "tiny", Duration::from_secs(20)));
    let arrival = Arrival { request_rate: None, max_concurrency: Some(at_once) };
    run(client, samples(count, 6), arrival, 0, Box::new(std::iter::empty()), |_| {}).await
}

fn report(run: &Run) -> Report {
    let idle: LoadAverage = [0.0; 3];
    let setup = Setup {
        label: "fake".to_owned(),
        model: "tiny".to_owned(),
        dataset: "random".to_owned(),
        lengths: vec![("input_len", 4)],
        beside_len: None,
        dropped: None,
        notes: vec!["nobody listens to it".to_owned()],
        output_len: Some(6),
        arrival: Arrival { request_rate: None, max_concurrency: Some(3) },
        goodput: Some("ttft:60000,e2el:60000".parse().unwrap()),
        seed: 0,
        warmup: 0,
        date: "2026-11-21T00:00:00Z".to_owned(),
        machine: Machine { cpu: "none".to_owned(), cores: 2, flags: vec!["avx2".to_owned()], os: String::new() },
        program: Program { version: "0".to_owned(), commit: None, built: None, command: Vec::new() },
        load_average_before: Some(idle),
        load_average_after: None,
    };
    Report::new(setup, run)
}

#[tokio::test]
async fn counts_usage_and_the_limit_at_once() {
    for at_once in [1, 3] {
        let (fake, target) = start(Fake::default()).await;
        let report = report(&load(target, 10, at_once).await);
        assert_eq!((report.completed, report.wrong_lengths, report.counted_by_server), (10, 0, 10));
        assert_eq!((report.total_input_tokens, report.total_output_tokens, report.total_chunks), (50, 60, 60));
        assert_eq!((report.cached_input_tokens, report.output_lens, report.good), (10, Some((6, 6)), Some(10)));
        assert!(fake.most_running.load(Ordering::SeqCst) <= at_once);
        let bodies = fake.bodies.lock().unwrap();
        assert!(
            bodies.iter().all(|body| body["ignore_eos"] == true && body["min_tokens"] == 6 && body["max_tokens"] == 6)
        );
        let mut prompts: Vec<_> = bodies.iter().map(|body| body["prompt"].as_str().unwrap().to_owned()).collect();
        prompts.sort_unstable();
        prompts.dedup();
        assert_eq!(prompts.len(), 10, "each prompt was asked once");
        assert_eq!(report.itl.map(|itl| itl.p50 >= 0.0), Some(true));
    }
}

#[tokio::test]
async fn the_report_has_the_known_keys() {
    let (_fake, target) = start(Fake::default()).await;
    let report = report(&load(target, 4, 2).await);
    let json = report.to_json();
    assert_eq!(json["num_prompts"], 4);
    assert_eq!(json["request_rate"], "inf");
    assert_eq!(json["max_concurrency"], 3);
    assert_eq!((&json["completed"], &json["failed"]), (&json!(4), &json!(0)));
    for key in ["duration", "request_throughput", "request_goodput", "output_throughput", "total_token_throughput"] {
        assert!(json[key].as_f64().unwrap() > 0.0, "{key}");
    }
    for kind in ["mean", "median", "std", "p50", "p90", "p99"] {
        for name in ["ttft", "tpot", "itl", "e2el"] {
            assert!(json[format!("{kind}_{name}_ms")].is_number(), "{kind}_{name}_ms");
        }
    }
    assert!(table(std::slice::from_ref(&report)).lines().nth(2).unwrap().contains("fake"));
    assert_eq!((&json["input_len"], &json["beside"]), (&json!(4), &Value::Null));
    let reports = [report];
    let page = html(&reports);
    assert!(page.contains("<svg") && page.ends_with("</html>\n") && !page.contains("src=") && !page.contains("href"));
    let text = markdown(&reports, "a chart.svg");
    for part in ["(<a chart.svg>)", "2 cores (avx2)", "- program: 0 at no known commit", "- command: ", "| measured |"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(text.contains("nobody listens to it"));
}

#[tokio::test]
async fn chat_and_a_key() {
    let (fake, mut target) = start(Fake::default()).await;
    target.endpoint = Endpoint::Chat;
    target.api_key = Some("secret".to_owned());
    assert_eq!(Client::first_model(&target).await.unwrap(), "tiny");
    let report = report(&load(target, 2, 1).await);
    assert_eq!((report.completed, report.total_chunks), (2, 12), "the role is no piece");
    assert_eq!(fake.keys.lock().unwrap()[0].as_deref(), Some("Bearer secret"));
    assert_eq!(fake.bodies.lock().unwrap()[0]["messages"][0]["role"], "user");
}

#[tokio::test]
async fn without_usage_pieces_are_counted() {
    let (_fake, target) = start(Fake { without_usage: true, ..Fake::default() }).await;
    let report = report(&load(target, 3, 3).await);
    assert_eq!((report.completed, report.counted_by_server, report.total_output_tokens), (3, 0, 18));
    assert!(report.warnings().iter().any(|warning| warning.contains("counts no tokens")));
}

#[tokio::test]
async fn each_failure_is_kept_and_hurts_no_other() {
    for (mischief, message) in [
        (Mischief::Refuse, "answered 500: no memory"),
        (Mischief::Cut, "the stream was cut"),
        (Mischief::EndEarly, "the stream was cut: it ended before its last event"),
        (Mischief::Malformed, "malformed"),
        (Mischief::FailMidway, "lost a device"),
    ] {
        let (_fake, target) = start(Fake { mischief: vec![(1, mischief)], ..Fake::default() }).await;
        let report = report(&load(target, 4, 1).await);
        let errors: Vec<_> = report.errors.iter().collect();
        assert_eq!((report.completed, errors.len()), (3, 1), "{errors:?}");
        assert!(errors[0].0.contains(message) && *errors[0].1 == 1, "{errors:?} say {message}");
        assert_eq!(report.to_json()["failed"], 1);
        assert!(report.warnings()[0].starts_with("1 of 4 requests failed"));
    }
}

#[tokio::test]
async fn unequal_lengths_are_said_loudly() {
    let (_fake, target) = start(Fake { mischief: vec![(2, Mischief::OneShort)], ..Fake::default() }).await;
    let report = report(&load(target, 4, 1).await);
    assert_eq!((report.completed, report.wrong_lengths, report.output_lens), (4, 1, Some((5, 6))));
    assert!(report.warnings()[0].starts_with("NOT EQUAL: 1 of 4"), "{:?}", report.warnings());
    assert!(table(&[report]).contains("NOT EQUAL"));
}

#[tokio::test]
async fn nobody_listens() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let target = Target::parse(&format!("http://{address}")).unwrap();
    assert!(matches!(Client::first_model(&target).await, Err(Failure::Connect(..))));
    let report = report(&load(target, 3, 2).await);
    assert_eq!((report.completed, report.errors.values().sum::<usize>()), (0, 3));
    assert!(report.ttft.is_none() && report.to_json()["mean_ttft_ms"].is_null());
    assert_eq!(report.output_throughput(), 0.0);
    assert!(html(&[report]).contains("cannot connect"));
}

#[tokio::test]
async fn recorded_prompts_fit_the_server() {
    let recorded = r#"[
        {"conversations": [{"from": "human", "value": "four"}, {"from": "gpt", "value": "and eight"}]},
        {"conversations": [{"from": "human", "value": "five5"}, {"from": "gpt", "value": "sevenup"}]},
        {"conversations": [{"from": "human", "value": "much too long"}, {"from": "gpt", "value": "a"}]}]"#;
    let path = std::env::temp_dir().join(format!("loadgen-fit-{}.json", std::process::id()));
    std::fs::write(&path, recorded).unwrap();
    let file = ShareGpt::read(&path, 0).unwrap();
    std::fs::remove_file(&path).unwrap();
    // By letters only five and seven are no more than twelve; by words all are.
    for (without_usage, output_len, expected, dropped) in [
        (false, None, vec![("five5", 7)], 2),
        (false, Some(8), vec![("four", 8)], 2),
        (true, None, vec![("five5", 1), ("four", 2), ("much too long", 1)], 0),
    ] {
        for endpoint in [Endpoint::Completions, Endpoint::Chat] {
            let (_fake, mut target) = start(Fake { without_usage, ..Fake::default() }).await;
            target.endpoint = endpoint;
            let client = Client::new(target, "tiny", Duration::from_secs(20));
            let mut fitting = file.clone().fit(&client, output_len, 9).await;
            fitting.samples.sort_by(|a, b| a.prompt.cmp(&b.prompt));
            let found: Vec<_> =
                fitting.samples.iter().map(|sample| (sample.prompt.as_str(), sample.output_len)).collect();
            assert_eq!((found, fitting.dropped, fitting.is_counted), (expected.clone(), dropped, !without_usage));
            assert_eq!(file.clone().fit(&client, Some(1), 1).await.samples.len(), 1);
        }
    }
}

#[tokio::test]
async fn prompts_are_sent_beside_the_others() {
    let (fake, target) = start(Fake::default()).await;
    let client = Arc::new(Client::new(target, "tiny", Duration::from_secs(20)));
    let workload = Workload { dataset: Dataset::Random { input_len: 4 }, output_len: 600, seed: 1 };
    let samples = workload.samples(0, 1).unwrap();
    let beside = (0..).map(move |idx| workload.beside(30, idx));
    let run = run(client, samples, Arrival::default(), 0, Box::new(beside), |_| {}).await;
    let (mut report, asked) = (report(&run), fake.bodies.lock().unwrap().len());
    assert_eq!((report.completed, run.beside.len()), (1, asked - 1));
    assert!(asked > 1 && run.beside.iter().all(|result| result.as_ref().is_ok_and(|one| one.output_tokens() == 1)));
    report.beside = Some(Beside::new(30, &[run.outcomes[0].result.as_ref().unwrap()], &run.beside));
    assert_eq!(report.to_json()["beside"]["sent"], run.beside.len());
    assert!(table(&[report]).contains("of 30 words"));
}

#[tokio::test]
async fn a_chart_has_every_point() {
    let (_fake, target) = start(Fake::default()).await;
    let mut reports = [report(&load(target.clone(), 4, 2).await), report(&load(target, 4, 2).await)];
    reports[1].setup.label = "<other> & co".to_owned();
    let svg = chart(&reports);
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
    assert_eq!(svg.matches("<circle").count(), 4, "a point and a legend each: {svg}");
    assert!(chart(&[]).ends_with("</svg>\n"));
    assert!(svg.contains("&lt;other&gt; &amp; co"), "{svg}");
}
