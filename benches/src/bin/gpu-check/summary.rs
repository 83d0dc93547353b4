//! The record as a page that a person reads.

use std::fmt::Write;

use serde_json::Value;

use crate::goals::{output_rate, points};

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
    table(&mut page, "Goals", &["goal", "wanted", "reached", "met"], goals(record));
    table(
        &mut page,
        "Models",
        &["run", "batch", "in", "out", "ms", "ms a token", "output tok/s", "host"],
        models(steps),
    );
    table(&mut page, "Beside transformers", &["", "ours, tok/s", "theirs, tok/s"], peers(steps));
    table(&mut page, "Ops", &["op", "tokens", "us", "GB/s", "TFLOP/s", "% of the roofline"], ops(steps));
    table(&mut page, "Steps", &["step", "outcome", "s", ""], outcomes(steps));
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
        let reached = goal["reached"].as_f64().map_or_else(|| "-".to_owned(), short);
        vec![word("goal"), word("wanted"), reached, met.to_owned()]
    };
    record["goals"].as_array().into_iter().flatten().map(row).collect()
}

fn models(steps: &[Value]) -> Vec<Vec<String>> {
    let row = |name: &str, point: &Value| {
        let sizes = ["batch_size", "input_len", "output_len"].map(|key| number(&point[key], 1.0));
        let times = ["avg_latency", "avg_time_per_output_token"].map(|key| number(&point[key], 1e3));
        let rate = output_rate(point).map_or_else(String::new, short);
        let host = point["host_share"].as_f64().map_or_else(String::new, |share| format!("{:.1}%", 100.0 * share));
        [vec![name.to_owned()], sizes.to_vec(), times.to_vec(), vec![rate, host]].concat()
    };
    let names = steps.iter().filter_map(|step| step["step"].as_str());
    names.flat_map(|name| points(steps, name).iter().map(|point| row(name, point)).collect::<Vec<_>>()).collect()
}

/// The points of an 8B model in bf16 that both have.
fn peers(steps: &[Value]) -> Vec<Vec<String>> {
    let peer = steps.iter().find(|step| step["step"] == "transformers").map_or(&Value::Null, |step| &step["result"]);
    let ours = points(steps, "dummy-bf16");
    let row = |theirs: &Value| {
        let (batch, prompt) = (&theirs["decode_batch"], &theirs["prefill_tokens"]);
        let (what, ours) = match batch.as_f64() {
            Some(size) => {
                let point = ours.iter().find(|point| point["batch_size"] == *batch && point["output_len"] != 1);
                (
                    format!("decode of {batch}"),
                    point.and_then(|point| Some(size / point["avg_time_per_output_token"].as_f64()?)),
                )
            }
            None => {
                let point = ours.iter().find(|point| point["input_len"] == *prompt && point["output_len"] == 1);
                (
                    format!("prefill of {prompt}"),
                    point.and_then(|point| Some(prompt.as_f64()? / point["avg_latency"].as_f64()?)),
                )
            }
        };
        vec![what, ours.map_or_else(|| "-".to_owned(), short), number(&theirs["tokens_per_second"], 1.0)]
    };
    let speed = peer["llama-3.1-8b"].as_array().into_iter().flatten().map(row);
    let equal = peer["equality"]["equal_tokens"].as_array().map(|equal| {
        let found = equal.iter().map(Value::to_string).collect::<Vec<_>>().join(", ");
        vec![format!("equal greedy tokens of {}", peer["equality"]["new_tokens"]), found, String::new()]
    });
    speed.chain(equal).collect()
}

fn ops(steps: &[Value]) -> Vec<Vec<String>> {
    let result = steps.iter().find(|step| step["step"] == "rooflines").map_or(&Value::Null, |step| &step["result"]);
    let row = |op: &Value| {
        let rate = |key: &str| op[key].as_f64().zip(op["seconds"].as_f64()).map(|(work, seconds)| work / seconds);
        let shown = |rate: Option<f64>, unit: f64| rate.map_or_else(String::new, |rate| short(rate / unit));
        vec![
            op["op"].as_str().unwrap_or_default().to_owned(),
            number(&op["tokens"], 1.0),
            number(&op["seconds"], 1e6),
            shown(rate("bytes"), 1e9),
            shown(rate("flops"), 1e12),
            number(&op["of_roofline"], 100.0),
        ]
    };
    result["ops"].as_array().into_iter().flatten().map(row).collect()
}

fn outcomes(steps: &[Value]) -> Vec<Vec<String>> {
    let row = |step: &Value| {
        let word = |key: &str| step[key].as_str().unwrap_or_default().to_owned();
        vec![word("step"), word("outcome"), number(&step["seconds"], 1.0), word("why")]
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
            { "batch_size": 8, "input_len": 8, "output_len": 5, "avg_latency": 0.02, "avg_time_per_output_token": 0.004, "host_share": 0.031 },
            { "batch_size": 1, "input_len": 512, "output_len": 1, "avg_latency": 0.016 },
        ] });
        let peer = json!({
            "llama-3.1-8b": [{ "decode_batch": 8, "tokens_per_second": 250.0 }, { "prefill_tokens": 512, "tokens_per_second": 9000.0 }],
            "equality": { "new_tokens": 16, "equal_tokens": [16, 15] },
        });
        let record = json!({
            "gpu": { "name": "a card" }, "date": "today", "seconds": 12.0,
            "goals": [{ "goal": "fast", "wanted": "at least 0.85", "reached": 0.9012, "met": true }],
            "steps": [
                { "step": "dummy-bf16", "outcome": "passed", "seconds": 3.25, "result": bf16 },
                { "step": "transformers", "outcome": "passed", "result": peer },
                { "step": "memcheck", "outcome": "skipped", "why": "no | tool" },
            ],
        });
        let page = of(&record);
        for line in [
            "# gpu-check on a card",
            "today, commit unknown, 12 s",
            "| fast | at least 0.85 | 0.901 | yes |",
            "| dummy-bf16 | 8 | 8 | 5 | 20 | 4 | 2000 | 3.1% |",
            "| decode of 8 | 2000 | 250 |",
            "| prefill of 512 | 32000 | 9000 |",
            "| equal greedy tokens of 16 | 16, 15 |  |",
            "| dummy-bf16 | passed | 3.25 |  |",
            "| memcheck | skipped |  | no / tool |",
        ] {
            assert!(page.lines().any(|found| found == line), "no {line:?} in\n{page}");
        }
        assert!(!page.contains("## Ops"), "nothing was measured");
    }
}
