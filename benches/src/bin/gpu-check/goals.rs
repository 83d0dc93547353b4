//! What was wanted beside what was reached, and beside what the card allows, from the records of the steps.

use benches::{Ceilings, Work};
use serde_json::{Value, json};

use crate::scale::{Batch, Measured, Scale, Weights};

/// Steps that run made-up weights, what their layers are held in, and which part of the roofline a single sequence is to reach.
const OWN: [(&str, Weights, f64); 3] =
    [("dummy-bf16", Weights::Bf16, 0.85), ("dummy-fp8", Weights::Fp8, 0.85), ("dummy-int4", Weights::Int4, 0.70)];
/// Those in which cublasLt multiplies many rows.
const BY_LIBRARY: [(&str, Weights); 2] = [("dummy-bf16-cublaslt", Weights::Bf16), ("dummy-fp8-cublaslt", Weights::Fp8)];
const OUTPUT_TOKENS_PER_SECOND: f64 = 18_000.0;
/// Of steps with more than one row, whether memory bounds them or products do.
const ROOFLINE_SHARE: f64 = 0.60;
const HOST_SHARE: f64 = 0.05;
/// Of an op alone; by what it waits for.
const MEMORY_SHARE: f64 = 0.80;
const PRODUCT_SHARE: f64 = 0.60;
/// Seconds that an op's roofline has to last for it to have a goal: shorter ones wait for their launch.
const SHORTEST: f64 = 10e-6;
const BF16: usize = 2;
const FP8: usize = 1;

/// Whether more or less than the goal is wanted.
#[derive(Clone, Copy)]
enum Wanted {
    AtLeast(f64),
    AtMost(f64),
}

/// A figure: what was measured, what the card allows, both in `unit`, and what of it is held against the goal.
struct Figure {
    unit: &'static str,
    measured: Option<f64>,
    roofline: Option<f64>,
    reached: Option<f64>,
}

impl Figure {
    /// Of something that lasts.
    fn of_roofline(seconds: Option<f64>, roofline: Option<f64>) -> Self {
        let reached = roofline.zip(seconds).map(|(roofline, seconds)| roofline / seconds);
        Self { unit: "s", measured: seconds, roofline, reached }
    }

    fn itself(unit: &'static str, measured: Option<f64>, roofline: Option<f64>) -> Self {
        Self { unit, measured, roofline, reached: measured }
    }
}

/// One object a goal: `goal`, `wanted`, `reached` and `met`, and the figure's `unit`, what was `measured` in it and its `roofline`. Null
/// is what was not measured, and the roofline of a card whose ceilings are not known.
pub fn of(steps: &[Value], scale: &Scale, ceilings: Option<Ceilings>) -> Vec<Value> {
    let seconds = |work: Work| ceilings.map(|ceilings| work.seconds(&ceilings));
    let mut goals = Vec::new();
    let mut goal = |what: String, wanted: Wanted, figure: Figure| goals.push(value(&what, wanted, &figure));
    let own = OWN.map(|(name, weights, alone)| (name, weights, alone, scale.batches()));
    let by_library = BY_LIBRARY.map(|(name, weights)| (name, weights, ROOFLINE_SHARE, scale.many_rows.to_vec()));
    for (name, weights, alone, batches) in own.iter().chain(&by_library) {
        for batch in batches {
            let point = point(steps, name, batch);
            let roofline = seconds(scale.step(*weights, &batch.step(), BF16));
            let share = if is_alone(batch) { *alone } else { ROOFLINE_SHARE };
            let figure = Figure::of_roofline(point.and_then(|point| step_seconds(point, batch)), roofline);
            goal(format!("{name}: {}, share of the roofline", words(batch)), Wanted::AtLeast(share), figure);
        }
    }
    let [_, load] = scale.throughput;
    for name in ["throughput-fp8", "throughput-fp8-cublaslt"] {
        let whole: Option<f64> = scale.whole(load, Weights::Fp8, FP8).into_iter().map(seconds).sum();
        let roofline = whole.map(|seconds| (load.size * load.output) as f64 / seconds);
        let figure = Figure::itself("tokens/s", point(steps, name, &load).and_then(output_rate), roofline);
        let what = format!("{name}: {} in, {} out, output tokens a second", load.input, load.output);
        goal(what, Wanted::AtLeast(OUTPUT_TOKENS_PER_SECOND), figure);
    }
    for (name, _, _, batches) in &own {
        for batch in batches.iter().filter(|batch| batch.measured() != Measured::Prefill) {
            let share = point(steps, name, batch).and_then(|point| point["host_share"].as_f64());
            let what = format!("{name}: {}, host's share of the time", words(batch));
            goal(what, Wanted::AtMost(HOST_SHARE), Figure::itself("share", share, Some(0.0)));
        }
    }
    goals
}

/// Which share of its roofline an op is to reach; none where the launch is what it waits for.
pub fn of_op(work: Work, ceilings: &Ceilings) -> Option<f64> {
    let share = if work.waits_for_memory(ceilings) { MEMORY_SHARE } else { PRODUCT_SHARE };
    (work.seconds(ceilings) >= SHORTEST).then_some(share)
}

fn value(what: &str, wanted: Wanted, figure: &Figure) -> Value {
    let (word, limit) = match wanted {
        Wanted::AtLeast(limit) => ("at least", limit),
        Wanted::AtMost(limit) => ("at most", limit),
    };
    let is_met = |reached| match wanted {
        Wanted::AtLeast(limit) => reached >= limit,
        Wanted::AtMost(limit) => reached <= limit,
    };
    let Figure { unit, measured, roofline, reached } = figure;
    json!({
        "goal": what, "wanted": format!("{word} {limit}"), "reached": reached, "met": reached.map(is_met),
        "unit": unit, "measured": measured, "roofline": roofline,
    })
}

fn is_alone(batch: &Batch) -> bool {
    batch.size == 1 && batch.measured() == Measured::Decode
}

fn words(batch: &Batch) -> String {
    match batch.measured() {
        Measured::Decode => format!("decode of {}", batch.size),
        Measured::Prefill => format!("prefill of {}", batch.input),
        Measured::Mixed => format!("decode of {} beside a prompt of {}", batch.size, batch.beside),
    }
}

/// The batches that a step timed.
pub fn points<'a>(steps: &'a [Value], name: &str) -> &'a [Value] {
    let result = steps.iter().find(|step| step["step"] == name).map(|step| &step["result"]);
    result.and_then(|result| result["points"].as_array()).map_or(&[], Vec::as_slice)
}

/// What a step found of a batch.
pub fn point<'a>(steps: &'a [Value], name: &str, batch: &Batch) -> Option<&'a Value> {
    points(steps, name).iter().find(|point| {
        let of = |key: &str| point[key].as_u64().unwrap_or(0) as usize;
        let found = ["batch_size", "input_len", "output_len", "beside_len"].map(of);
        found == [batch.size, batch.input, batch.output, batch.beside]
    })
}

/// Seconds of one step of `batch`, the mean of its steps where it has several.
pub fn step_seconds(point: &Value, batch: &Batch) -> Option<f64> {
    let key = match batch.measured() {
        Measured::Decode => "avg_time_per_output_token",
        Measured::Prefill => "avg_latency",
        Measured::Mixed => "avg_beside_latency",
    };
    point[key].as_f64()
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
        let h200 = Ceilings::of("NVIDIA H200");
        let roofline = |weights, batch: &Batch| FULL.step(weights, &batch.step(), BF16).seconds(&h200.expect("known"));
        let [first, .., prompt] = FULL.batches()[..] else { panic!("there are batches") };
        let steps = [
            step(
                "dummy-bf16",
                json!([
                    { "batch_size": 1, "input_len": 8, "output_len": 128, "host_share": 0.06,
                      "avg_time_per_output_token": roofline(Weights::Bf16, &first) / 0.9 },
                    { "batch_size": 1, "input_len": 8192, "output_len": 1, "avg_latency": roofline(Weights::Bf16, &prompt) * 2.0 },
                    { "batch_size": 64, "input_len": 512, "output_len": 32, "beside_len": 2048, "avg_beside_latency": 0.05 },
                ]),
            ),
            step(
                "throughput-fp8",
                json!([{ "batch_size": 512, "input_len": 1000, "output_len": 1000, "avg_latency": 25.6 }]),
            ),
        ];
        let goals = of(&steps, &FULL, h200);
        let find = |start: &str| goals.iter().find(|goal| goal["goal"].as_str().expect("a name").starts_with(start));
        for (start, reached, met) in [
            ("dummy-bf16: decode of 1, share", Some(0.9), json!(true)),
            ("dummy-fp8: decode of 1, share", None, Value::Null),
            ("dummy-fp8-cublaslt: prefill of 512, share", None, Value::Null),
            ("throughput-fp8: ", Some(20_000.0), json!(true)),
            ("dummy-bf16: prefill of 8192", Some(0.5), json!(false)),
            ("dummy-bf16: decode of 1, host", Some(0.06), json!(false)),
            ("dummy-bf16: decode of 64 beside a prompt of 2048, share", Some(0.776), json!(true)),
        ] {
            let goal = find(start).unwrap_or_else(|| panic!("no goal {start}"));
            let apart = goal["reached"].as_f64().zip(reached).map(|(found, reached)| (found / reached - 1.0).abs());
            assert!(
                apart.is_none_or(|apart| apart < 0.01) && goal["reached"].is_number() == reached.is_some(),
                "{goal}"
            );
            assert_eq!(goal["met"], met, "{goal}");
        }
        assert!(goals.iter().all(|goal| goal["roofline"].is_number()));
        let unknown = of(&steps, &FULL, None);
        let shares = || unknown.iter().filter(|goal| goal["unit"] == "s");
        assert!(shares().count() > 0 && shares().all(|goal| goal["met"].is_null() && goal["roofline"].is_null()));
    }

    #[test]
    fn prompts_of_fp8_codes_are_held_against_its_tensor_cores() {
        let ceilings = Ceilings::of("NVIDIA H200").expect("it is known");
        let seconds = |weights| {
            FULL.step(weights, &Batch { size: 1, input: 8192, output: 1, beside: 0 }.step(), BF16).seconds(&ceilings)
        };
        let ratio = seconds(Weights::Bf16) / seconds(Weights::Fp8);
        assert!((1.7..1.8).contains(&ratio), "attention stays with bf16: {ratio}");
    }

    #[test]
    fn ops_that_only_wait_for_their_launch_have_no_goal() {
        let ceilings = Ceilings::of("NVIDIA H200").expect("it is known");
        for (work, share) in [
            (Work::norm(1, 4096), None),
            (Work::linear(1, 128_256, 4096, 16.0), Some(MEMORY_SHARE)),
            (Work::linear(2048, 14336, 4096, 16.0), Some(PRODUCT_SHARE)),
        ] {
            assert_eq!(of_op(work, &ceilings), share, "{work:?}");
        }
    }
}
