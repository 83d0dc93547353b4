//! The record as a page that a person reads.

use std::fmt::Write;

use serde_json::Value;

use crate::goals::{output_rate, points};

/// What stands for a figure that nothing has measured.
const MISSING: &str = "missing";

/// Markdown of a record.
pub fn of(record: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("unknown").to_owned();
    let steps = record["steps"].as_array().map_or(&[][..], Vec::as_slice);
    let mut page = format!(
        "# gpu-check on {}\n\n{}, commit {}, {} s\n",
        record["gpu"]["name"].as_str().unwrap_or("no GPU"),
        text(&record["date"]),
        text(&record["commit"]),
        number(&record["seconds"], 1.0),
    );
    table(&mut page, "Goals", &["goal", "wanted", "reached", "met", "measured", "roofline"], goals(record));
    table(
        &mut page,
        "Models",
        &["run", "batch", "in", "out", "ms", "ms a token", "beside, tokens", "ms", "output tok/s", "host"],
        models(steps),
    );
    table(&mut page, "Beside transformers", &["", "ours, tok/s", "theirs, tok/s"], peers(steps));
    table(
        &mut page,
        "Own matmuls beside cublasLt",
        &["op", "tokens", "own, us", "cublasLt, us", "own is"],
        matmuls(steps),
    );
    table(
        &mut page,
        "Ops",
        &["op", "by", "tokens", "us", "GB/s", "TFLOP/s", "% of the roofline", "wanted"],
        ops(steps),
    );
    table(&mut page, "Steps", &["step", "outcome", "s", "planned", "at most", ""], outcomes(steps));
    page
}

/// Nothing where there are no rows.
fn table(page: &mut String, title: &str, columns: &[&str], rows: Vec<Vec<String>>) {
    if rows.is_empty() {
        return;
    }
    let line = |cells: &[String]| {
        format!("| {} |\n", cells.iter().map(|cell| cell.replace('|', "/")).collect::<Vec<_>>().join(" | "))
    };
    write!(page, "\n## {title}\n").expect("a string takes all");
    *page += "\n";
    *page += &line(&columns.iter().map(|&column| column.to_owned()).collect::<Vec<_>>());
    *page += &format!("|{}\n", "---|".repeat(columns.len()));
    rows.iter().for_each(|row| *page += &line(row));
}

fn goals(record: &Value) -> Vec<Vec<String>> {
    let row = |goal: &Value| {
        let met = goal["met"].as_bool().map_or("", |met| if met { "yes" } else { "no" });
        let word = |key: &str| goal[key].as_str().unwrap_or_default().to_owned();
        let reached = goal["reached"].as_f64().map_or_else(|| MISSING.to_owned(), short);
        let (units, unit) = if goal["unit"] == "s" { (1e3, "ms".to_owned()) } else { (1.0, word("unit")) };
        let of_unit =
            |key: &str| goal[key].as_f64().map_or_else(String::new, |value| format!("{} {unit}", short(value * units)));
        vec![word("goal"), word("wanted"), reached, met.to_owned(), of_unit("measured"), of_unit("roofline")]
    };
    record["goals"].as_array().into_iter().flatten().map(row).collect()
}

fn models(steps: &[Value]) -> Vec<Vec<String>> {
    let row = |name: &str, point: &Value| {
        let sizes = ["batch_size", "input_len", "output_len"].map(|key| number(&point[key], 1.0));
        let times = ["avg_latency", "avg_time_per_output_token"].map(|key| number(&point[key], 1e3));
        let beside = [number(&point["beside_len"], 1.0), number(&point["avg_beside_latency"], 1e3)];
        let rate = output_rate(point).map_or_else(String::new, short);
        let host = point["host_share"].as_f64().map_or_else(String::new, |share| format!("{:.1}%", 100.0 * share));
        [vec![name.to_owned()], sizes.to_vec(), times.to_vec(), beside.to_vec(), vec![rate, host]].concat()
    };
    let names = steps.iter().filter_map(|step| step["step"].as_str());
    names.flat_map(|name| points(steps, name).iter().map(move |point| row(name, point))).collect()
}

/// The points of an 8B model that both have, by what its layers are held in.
fn peers(steps: &[Value]) -> Vec<Vec<String>> {
    let peer = result(steps, "transformers");
    let row = |theirs: &Value| {
        let weights = theirs["weights"].as_str().unwrap_or("bf16");
        let own = points(steps, &format!("dummy-{weights}"));
        let (batch, prompt) = (&theirs["decode_batch"], &theirs["prefill_tokens"]);
        let (what, ours) = match batch.as_f64() {
            Some(size) => {
                let is_same = |point: &&Value| {
                    point["batch_size"] == *batch && point["output_len"] != 1 && point["beside_len"].is_null()
                };
                let point = own.iter().find(is_same);
                (
                    format!("{weights}: decode of {batch}"),
                    point.and_then(|point| Some(size / point["avg_time_per_output_token"].as_f64()?)),
                )
            }
            None => {
                let point = own.iter().find(|point| point["input_len"] == *prompt && point["output_len"] == 1);
                (
                    format!("{weights}: prefill of {prompt}"),
                    point.and_then(|point| Some(prompt.as_f64()? / point["avg_latency"].as_f64()?)),
                )
            }
        };
        vec![what, ours.map_or_else(|| MISSING.to_owned(), short), number(&theirs["tokens_per_second"], 1.0)]
    };
    let speed = peer["llama-3.1-8b"].as_array().into_iter().flatten().map(row);
    let equal = peer["equality"]["equal_tokens"].as_array().map(|equal| {
        let found = equal.iter().map(Value::to_string).collect::<Vec<_>>().join(", ");
        vec![format!("bf16: equal greedy tokens of {}", peer["equality"]["new_tokens"]), found, String::new()]
    });
    let left_out = peer["not compared"].as_array().into_iter().flatten();
    let left_out = left_out
        .map(|what| vec![what.as_str().unwrap_or_default().to_owned(), "not compared".to_owned(), String::new()]);
    speed.chain(equal).chain(left_out).collect()
}

/// Ops that both have computed.
fn matmuls(steps: &[Value]) -> Vec<Vec<String>> {
    let ops = || result(steps, "rooflines")["ops"].as_array().into_iter().flatten();
    let row = |theirs: &Value| {
        let is_same = |op: &&Value| op["by"] == "own" && op["op"] == theirs["op"] && op["tokens"] == theirs["tokens"];
        let own = ops().find(is_same)?;
        let times = own["seconds"].as_f64()? / theirs["seconds"].as_f64()?;
        let cells = [number(&own["tokens"], 1.0), number(&own["seconds"], 1e6), number(&theirs["seconds"], 1e6)];
        let what = own["op"].as_str().unwrap_or_default().to_owned();
        Some([vec![what], cells.to_vec(), vec![format!("{} of its speed", short(1.0 / times))]].concat())
    };
    ops().filter(|op| op["by"] == "cublasLt").filter_map(row).collect()
}

fn ops(steps: &[Value]) -> Vec<Vec<String>> {
    let row = |op: &Value| {
        let rate = |key: &str| op[key].as_f64().zip(op["seconds"].as_f64()).map(|(work, seconds)| work / seconds);
        let shown = |rate: Option<f64>, unit: f64| rate.map_or_else(String::new, |rate| short(rate / unit));
        let word = |key: &str| op[key].as_str().unwrap_or_default().to_owned();
        vec![
            word("op"),
            word("by"),
            number(&op["tokens"], 1.0),
            number(&op["seconds"], 1e6),
            shown(rate("bytes"), 1e9),
            shown(rate("flops"), 1e12),
            number(&op["of_roofline"], 100.0),
            number(&op["wanted"], 100.0),
        ]
    };
    result(steps, "rooflines")["ops"].as_array().into_iter().flatten().map(row).collect()
}

/// What a step has written; null where it has not.
fn result<'a>(steps: &'a [Value], name: &str) -> &'a Value {
    steps.iter().find(|step| step["step"] == name).map_or(&Value::Null, |step| &step["result"])
}

fn outcomes(steps: &[Value]) -> Vec<Vec<String>> {
    let row = |step: &Value| {
        let word = |key: &str| step[key].as_str().unwrap_or_default().to_owned();
        let times = ["seconds", "planned_seconds", "limit_seconds"].map(|key| number(&step[key], 1.0));
        [vec![word("step"), word("outcome")], times.to_vec(), vec![word("why")]].concat()
    };
    steps.iter().map(row).collect()
}

/// `value` in `units`, or nothing.
fn number(value: &Value, units: f64) -> String {
    value.as_f64().map_or_else(String::new, |value| short(value * units))
}

/// About three digits, and all before the point.
fn short(value: f64) -> String {
    match value.abs() {
        _ if value.fract() == 0.0 => format!("{value:.0}"),
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        1.0.. => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_page_has_what_was_measured_and_no_empty_table() {
        let bf16 = json!({ "points": [
            { "batch_size": 8, "input_len": 8, "output_len": 5, "beside_len": 64, "avg_latency": 0.02,
              "avg_time_per_output_token": 0.003, "avg_beside_latency": 0.0071 },
            { "batch_size": 8, "input_len": 8, "output_len": 5, "avg_latency": 0.02, "avg_time_per_output_token": 0.004, "host_share": 0.031 },
            { "batch_size": 1, "input_len": 512, "output_len": 1, "avg_latency": 0.016 },
        ] });
        let peer = json!({
            "llama-3.1-8b": [
                { "decode_batch": 8, "tokens_per_second": 250.0 },
                { "prefill_tokens": 512, "tokens_per_second": 9000.0 },
                { "weights": "fp8", "decode_batch": 8, "tokens_per_second": 300.0 },
            ],
            "equality": { "new_tokens": 16, "equal_tokens": [16, 15] },
            "not compared": ["an FP8 KV cache"],
        });
        let op = |by: &str, seconds: f64| {
            json!({ "op": "down", "by": by, "tokens": 256, "seconds": seconds, "bytes": 3e6, "flops": 6e9,
            "of_roofline": 0.5, "wanted": 0.6 })
        };
        let record = json!({
            "gpu": { "name": "a card" }, "date": "today", "seconds": 12.0,
            "goals": [
                { "goal": "fast", "wanted": "at least 0.85", "reached": 0.9012, "met": true, "unit": "s", "measured": 0.01, "roofline": 0.009012 },
                { "goal": "many", "wanted": "at least 9", "reached": null, "met": null, "unit": "tokens/s", "measured": null, "roofline": 20.0 },
            ],
            "steps": [
                { "step": "dummy-bf16", "outcome": "passed", "seconds": 3.25, "planned_seconds": 4.0, "limit_seconds": 7.0, "result": bf16 },
                { "step": "transformers", "outcome": "passed", "result": peer },
                { "step": "memcheck", "outcome": "missing", "why": "no | tool" },
                { "step": "rooflines", "outcome": "passed", "result": { "ops": [op("own", 3e-5), op("cublasLt", 2e-5), op("own", 1.0)] } },
            ],
        });
        let page = of(&record);
        for line in [
            "# gpu-check on a card",
            "today, commit unknown, 12 s",
            "| fast | at least 0.85 | 0.901 | yes | 10 ms | 9.01 ms |",
            "| many | at least 9 | missing |  |  | 20 tokens/s |",
            "| dummy-bf16 | 8 | 8 | 5 | 20 | 3 | 64 | 7.10 | 2000 |  |",
            "| dummy-bf16 | 8 | 8 | 5 | 20 | 4 |  |  | 2000 | 3.1% |",
            "| bf16: decode of 8 | 2000 | 250 |",
            "| bf16: prefill of 512 | 32000 | 9000 |",
            "| fp8: decode of 8 | missing | 300 |",
            "| bf16: equal greedy tokens of 16 | 16, 15 |  |",
            "| an FP8 KV cache | not compared |  |",
            "| down | 256 | 30 | 20 | 0.667 of its speed |",
            "| down | own | 256 | 30 | 100 | 200 | 50 | 60 |",
            "| dummy-bf16 | passed | 3.25 | 4 | 7 |  |",
            "| memcheck | missing |  |  |  | no / tool |",
        ] {
            assert!(page.lines().any(|found| found == line), "no {line:?} in\n{page}");
        }
        let bare = of(&json!({ "steps": [] }));
        assert!(!bare.contains("##"), "nothing was measured: {bare}");
    }
}
