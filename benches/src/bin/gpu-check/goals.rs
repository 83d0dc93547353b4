//! What was wanted beside what was reached, from the records of the steps.

use serde_json::{Value, json};

use crate::scale::Scale;

/// Names of the steps that run made-up weights, bits of a weight, and which part of the bandwidth's floor a single sequence is to
/// reach.
const FORMATS: [(&str, f64, f64); 3] =
    [("dummy-bf16", 16.0, 0.85), ("dummy-fp8", 8.0 + 32.0 / 4096.0, 0.85), ("dummy-int4", 4.25, 0.70)];
const OUTPUT_TOKENS_PER_SECOND: f64 = 18_000.0;
const PREFILL_SHARE: f64 = 0.60;
const HOST_SHARE: f64 = 0.05;

/// Whether more or less than the goal is wanted.
#[derive(Clone, Copy)]
enum Wanted {
    AtLeast(f64),
    AtMost(f64),
}

/// One object a goal: `goal`, `wanted`, `reached` and `met`; the last two are null where nothing was measured, or the card's ceilings are
/// not known.
pub fn of(steps: &[Value], scale: &Scale, gpu: &Value) -> Vec<Value> {
    let mut goals = Vec::new();
    let mut goal = |what: String, wanted: Wanted, reached: Option<f64>| goals.push(value(&what, wanted, reached));
    for (name, bits, share) in FORMATS {
        let floor = gpu["bytes_per_second"].as_f64().map(|rate| scale.weight_bytes(bits) / rate);
        let seconds = decode(steps, name, 1).and_then(|point| point["avg_time_per_output_token"].as_f64());
        let reached = floor.zip(seconds).map(|(floor, seconds)| floor / seconds);
        goal(format!("{name}: decode of 1, share of the bandwidth's floor"), Wanted::AtLeast(share), reached);
    }
    for name in ["throughput-fp8", "throughput-fp8-cublaslt"] {
        let reached = points(steps, name).last().and_then(output_rate);
        goal(
            format!("{name}: 1000 in, 1000 out, output tokens a second"),
            Wanted::AtLeast(OUTPUT_TOKENS_PER_SECOND),
            reached,
        );
    }
    for name in ["dummy-bf16", "dummy-fp8", "dummy-int4", "dummy-bf16-cublaslt", "dummy-fp8-cublaslt"] {
        for point in points(steps, name).iter().filter(|point| point["output_len"] == 1) {
            let rate = gpu["flops_per_second"].as_f64();
            let tokens = point["input_len"].as_f64().unwrap_or(0.0);
            let seconds = point["avg_latency"].as_f64();
            let reached = rate.zip(seconds).map(|(rate, seconds)| scale.prefill_flops(tokens) / seconds / rate);
            goal(
                format!("{name}: prefill of {tokens}, share of the bf16 tensor cores' rate"),
                Wanted::AtLeast(PREFILL_SHARE),
                reached,
            );
        }
    }
    for (name, ..) in FORMATS {
        for point in points(steps, name).iter().filter(|point| point["output_len"] != 1) {
            let what = format!("{name}: decode of {}, host's share of the time", point["batch_size"]);
            goal(what, Wanted::AtMost(HOST_SHARE), point["host_share"].as_f64());
        }
    }
    goals
}

fn value(what: &str, wanted: Wanted, reached: Option<f64>) -> Value {
    let (word, limit) = match wanted {
        Wanted::AtLeast(limit) => ("at least", limit),
        Wanted::AtMost(limit) => ("at most", limit),
    };
    let is_met = |reached| match wanted {
        Wanted::AtLeast(limit) => reached >= limit,
        Wanted::AtMost(limit) => reached <= limit,
    };
    json!({ "goal": what, "wanted": format!("{word} {limit}"), "reached": reached, "met": reached.map(is_met) })
}

/// The batches that a step timed.
pub fn points(steps: &[Value], name: &str) -> Vec<Value> {
    let result = steps.iter().find(|step| step["step"] == name).map(|step| &step["result"]);
    match result.map(|result| &result["points"]) {
        Some(Value::Array(points)) => points.clone(),
        _ => Vec::new(),
    }
}

/// The answers of so many sequences at once.
fn decode(steps: &[Value], name: &str, batch: u64) -> Option<Value> {
    points(steps, name).into_iter().find(|point| point["batch_size"] == batch && point["output_len"] != 1)
}

/// Output tokens a second over a whole batch.
pub fn output_rate(point: &Value) -> Option<f64> {
    let [batch, length, seconds] = ["batch_size", "output_len", "avg_latency"].map(|key| point[key].as_f64());
    Some(batch? * length? / seconds?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scale::FULL;

    fn step(name: &str, points: Value) -> Value {
        json!({ "step": name, "result": { "points": points } })
    }

    #[test]
    fn goals_stand_beside_what_was_reached() {
        let gpu = json!({ "bytes_per_second": 4.0e12, "flops_per_second": 800e12 });
        let at_floor = FULL.weight_bytes(16.0) / 4.0e12;
        let steps = [
            step(
                "dummy-bf16",
                json!([
                    { "batch_size": 1, "input_len": 8, "output_len": 128, "avg_time_per_output_token": at_floor / 0.9, "host_share": 0.06 },
                    { "batch_size": 1, "input_len": 8192, "output_len": 1, "avg_latency": FULL.prefill_flops(8192.0) / 400e12 },
                ]),
            ),
            step("throughput-fp8", json!([{}, { "batch_size": 512, "output_len": 1000, "avg_latency": 25.6 }])),
        ];
        let goals = of(&steps, &FULL, &gpu);
        let find = |start: &str| goals.iter().find(|goal| goal["goal"].as_str().expect("a name").starts_with(start));
        for (start, reached, met) in [
            ("dummy-bf16: decode of 1, share", Some(0.9), json!(true)),
            ("dummy-fp8: decode of 1, share", None, Value::Null),
            ("throughput-fp8: ", Some(20_000.0), json!(true)),
            ("dummy-bf16: prefill of 8192", Some(0.5), json!(false)),
            ("dummy-bf16: decode of 1, host", Some(0.06), json!(false)),
        ] {
            let goal = find(start).unwrap_or_else(|| panic!("no goal {start}"));
            let apart = goal["reached"].as_f64().zip(reached).map(|(found, reached)| (found / reached - 1.0).abs());
            assert!(
                apart.is_none_or(|apart| apart < 1e-9) && goal["reached"].is_number() == reached.is_some(),
                "{goal}"
            );
            assert_eq!(goal["met"], met, "{goal}");
        }
        let unknown = of(&steps, &FULL, &Value::Null);
        assert!(unknown.iter().all(|goal| goal["met"].is_null() || !goal["goal"].as_str().expect("a name").contains("share of the b")));
    }
}
