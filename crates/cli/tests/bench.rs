//! `tokenmill bench` on a model of a few kilobytes: that it measures what was asked, not how fast.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/tiny/llama");

/// A file of the test's own, gone at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("tokenmill-bench-{}-{name}", std::process::id())))
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a path in UTF-8")
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.0).expect("the command wrote the file")
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.text()).expect("the file is JSON")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).ok();
    }
}

fn bench(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokenmill"));
    command.arg("bench").args(args).env_clear().output().expect("the program starts")
}

fn done(args: &[&str]) -> String {
    let output = bench(args);
    assert!(output.status.success(), "{args:?} said {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_sweep_over_http() {
    let (json, page, table) = (Scratch::new("sweep.json"), Scratch::new("page.html"), Scratch::new("table.md"));
    let said = done(&[
        "serve",
        TINY,
        "--kv-cache-memory",
        "16MiB",
        "--input-len",
        "3",
        "--output-len",
        "5",
        "--num-prompts",
        "4",
        "--max-concurrency",
        "1,3",
        "--warmup",
        "1",
        "--goodput",
        "e2el:600000",
        "--save-json",
        json.path(),
        "--html",
        page.path(),
        "--md",
        table.path(),
    ]);
    let chart = Scratch(table.0.with_extension("svg"));
    assert!(said.contains("out tok/s") && table.text().contains(&said), "{said}");
    let name = chart.0.file_name().and_then(|name| name.to_str()).expect("a name in UTF-8");
    for part in [name, "- machine: ", "- program: ", "bench serve"] {
        assert!(table.text().contains(part), "{part} in {}", table.text());
    }
    assert!(page.text().contains("<polyline") && chart.text().contains("<polyline"));
    let reports = json.json();
    for (report, at_once) in reports.as_array().expect("a sweep is a list").iter().zip([1, 3]) {
        assert_eq!(report["max_concurrency"], at_once);
        assert_eq!((&report["completed"], &report["failed"]), (&Value::from(4), &Value::from(0)), "{report}");
        assert_eq!((&report["total_output_tokens"], &report["wrong_lengths"]), (&Value::from(20), &Value::from(0)));
        assert!(report["request_goodput"].is_number() && report["machine"]["cores"].is_number());
        assert!(report["machine"]["flags"].is_array() && report["load_average_before"].is_array());
        assert!(report["command"].as_array().is_some_and(|command| command.iter().any(|word| word == "--warmup")));
    }
}

/// Options of a server whose cache holds a few prompts.
const SMALL: [&str; 3] = ["serve", TINY, "--kv-cache-memory=16MiB"];

#[test]
fn prefixes_are_found_in_the_cache() {
    let json = Scratch::new("prefixes.json");
    let load = ["--dataset", "prefix_repetition", "--prefix-len", "64", "--suffix-len", "4", "--num-prefixes", "2"];
    let rest = ["--output-len", "2", "--num-prompts", "4", "--max-concurrency", "1", "--save-json", json.path()];
    done(&[&SMALL[..], &load[..], &rest[..]].concat());
    let report = json.json();
    assert_eq!((&report["completed"], &report["warmup"], &report["prefix_len"]), (&4.into(), &2.into(), &64.into()));
    // Each prefix was there after the warm-up: at least its blocks of 64 tokens.
    assert!(report["cached_input_tokens"].as_u64() >= Some(4 * 64), "{report}");
}

#[test]
fn prompts_beside_the_streams() {
    let json = Scratch::new("beside.json");
    let load = ["--beside-len", "30", "--input-len", "3", "--output-len", "150", "--max-concurrency", "2"];
    let said = done(&[&SMALL[..], &load[..], &["--save-json", json.path()]].concat());
    let report = json.json();
    assert_eq!((&report["num_prompts"], &report["failed"]), (&2.into(), &0.into()), "{report}");
    assert!(report["beside"]["sent"].as_u64() >= Some(1) && report["beside"]["error"].is_null(), "{report}");
    assert!(said.contains("prompts of 30 words"), "{said}");
}

#[test]
fn conversations_that_are_too_long_are_left_out() {
    let (json, file) = (Scratch::new("recorded.json"), Scratch::new("sharegpt.json"));
    let turn = |from: &str, words: usize| serde_json::json!({"from": from, "value": "word ".repeat(words)});
    let conversation =
        |lens: (usize, usize)| serde_json::json!({"conversations": [turn("human", lens.0), turn("gpt", lens.1)]});
    let recorded: Vec<Value> = [(3, 4), (9000, 4), (5, 6), (3, 9000)].map(conversation).into();
    std::fs::write(&file.0, Value::from(recorded).to_string()).expect("a file for the test");
    let dataset = format!("sharegpt:{}", file.path());
    let load = ["--dataset", &dataset, "--num-prompts", "2", "--max-concurrency", "2", "--save-json", json.path()];
    done(&[&SMALL[..], &load[..]].concat());
    let report = json.json();
    assert_eq!(
        (&report["completed"], &report["failed"], &report["dropped"]),
        (&2.into(), &0.into(), &2.into()),
        "{report}"
    );
}

#[test]
fn batches_without_http() {
    let (throughput, latency) = (Scratch::new("throughput.json"), Scratch::new("latency.json"));
    let lengths = ["--kv-cache-memory", "16MiB", "--input-len", "3", "--output-len", "5"];
    done(&[&["throughput", TINY, "--num-prompts", "7", "--save-json", throughput.path()], &lengths[..]].concat());
    let throughput = throughput.json();
    assert_eq!((&throughput["num_requests"], &throughput["total_num_tokens"]), (&Value::from(7), &Value::from(56)));
    done(
        &[&["latency", TINY, "--batch-size", "2", "--num-iters", "3", "--save-json", latency.path()], &lengths[..]]
            .concat(),
    );
    let latency = latency.json();
    assert_eq!(latency["latencies"].as_array().map(Vec::len), Some(3));
    assert!(latency["percentiles"]["90"].as_f64() >= latency["percentiles"]["10"].as_f64());
}

#[test]
fn batches_of_several_shapes() {
    let json = Scratch::new("shapes.json");
    let shapes = ["latency", TINY, "--kv-cache-memory", "16MiB", "--shapes", "3x2+1,1x5+4/7", "--num-iters", "1"];
    done(&[&shapes[..], &["--save-json", json.path()]].concat());
    let points = json.json();
    let shape = |point: &Value| ["batch_size", "input_len", "output_len", "beside_len"].map(|key| point[key].as_u64());
    let shapes: Vec<_> = points["points"].as_array().expect("a sweep is a list").iter().map(shape).collect();
    assert_eq!(shapes, [[Some(3), Some(2), Some(1), None], [Some(1), Some(5), Some(4), Some(7)]]);
    let beside = |idx: usize| points["points"][idx]["avg_beside_latency"].as_f64();
    assert!(beside(0).is_none() && beside(1) > Some(0.0), "{points:?}");
}

#[test]
fn nonsense_is_refused_with_what_is_meant() {
    for (args, message) in [
        (["latency", "--shapes", "3x2"], "a batch is written 64x8+32"),
        (["latency", "--shapes", "3x2+1/0"], "a batch is written 64x8+32"),
        (["latency", "--shapes", "3x2/5"], "a batch is written 64x8+32"),
        (["serve", "--dataset", "other"], "random, prefix_repetition or sharegpt:FILE, not other"),
    ] {
        let output = bench(&args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(message), "{args:?} said {said}");
    }
}

#[test]
fn a_start() {
    let json = Scratch::new("startup.json");
    done(&["startup", "--runs", "2", "--save-json", json.path(), "--", TINY, "--kv-cache-memory", "16MiB"]);
    let result = json.json();
    assert_eq!(result["starts"].as_array().map(Vec::len), Some(2));
    assert!(result["median_startup_time"].as_f64() > Some(0.0) && result["median_first_answer_time"].is_number());
}

#[test]
fn refusals_are_one_sentence() {
    for (args, message) in [
        (&["serve", "--base-url", "https://a"][..], "asks for https"),
        (&["serve", "--base-url", "nonsense"], "is no address"),
        (&["serve", "--dataset", "sharegpt:/nowhere.json"], "cannot read /nowhere.json"),
        (&["startup", "--runs", "1", "--", "/nowhere/model.gguf"], "there is no file or folder"),
        (&["throughput", TINY, "--kv-cache-memory", "16MiB", "--input-len", "1000000"], "do not fit"),
    ] {
        let output = bench(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?} said {said}");
        assert!(said.contains(message) && said.contains("tokenmill: "), "{args:?} said {said}");
        assert!(output.stdout.is_empty(), "a refusal prints no table");
    }
}
