//! The recorded metrics and their text form.

use std::collections::HashMap;

use engine::{CacheConfig, Stats};
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry, TextEncoder, core::Collector};

use super::snapshot;

/// Names and labels are fixed when it is built; recording never fails.
pub(crate) struct Metrics {
    registry: Registry,
    labels: HashMap<String, String>,
    pub time_to_first_token: Histogram,
    pub inter_token_latency: Histogram,
    pub time_per_output_token: Histogram,
    pub e2e_latency: Histogram,
    pub queue_time: Histogram,
    pub inference_time: Histogram,
    pub prefill_time: Histogram,
    pub decode_time: Histogram,
    pub request_prompt_tokens: Histogram,
    pub request_generation_tokens: Histogram,
    pub prompt_tokens_cached: IntCounter,
    pub unknown_params: IntCounter,
    success: IntCounterVec,
    rejections: IntCounterVec,
}

/// Why a request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    QueueFull,
    Draining,
    Stopped,
    ContextLength,
}

impl Rejection {
    const ALL: [Self; 4] = [Self::QueueFull, Self::Draining, Self::Stopped, Self::ContextLength];

    fn reason(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
            Self::ContextLength => "context_length",
        }
    }
}

/// How a choice, or a request that never finished, ended.
const FINISHED_REASONS: [&str; 4] = ["stop", "length", "abort", "error"];

// Upper bounds of the histograms: those that existing dashboards were drawn for.
const FIRST_TOKEN_S: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0,
];
const TOKEN_S: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0,
];
const REQUEST_S: &[f64] = &[
    0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
    480.0, 960.0, 1920.0, 7680.0,
];
const TOKENS: &[f64] =
    &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6];

impl Metrics {
    pub fn new(model_name: &str) -> Self {
        let labels = HashMap::from([("model_name".into(), model_name.into()), ("engine".into(), "0".into())]);
        let make = Maker { registry: Registry::new(), labels: labels.clone() };
        let metrics = Self {
            labels,
            time_to_first_token: make.seconds("vllm:time_to_first_token_seconds", FIRST_TOKEN_S),
            inter_token_latency: make.seconds("vllm:inter_token_latency_seconds", TOKEN_S),
            time_per_output_token: make.seconds("vllm:request_time_per_output_token_seconds", TOKEN_S),
            e2e_latency: make.seconds("vllm:e2e_request_latency_seconds", REQUEST_S),
            queue_time: make.seconds("vllm:request_queue_time_seconds", REQUEST_S),
            inference_time: make.seconds("vllm:request_inference_time_seconds", REQUEST_S),
            prefill_time: make.seconds("vllm:request_prefill_time_seconds", REQUEST_S),
            decode_time: make.seconds("vllm:request_decode_time_seconds", REQUEST_S),
            request_prompt_tokens: make.histogram("vllm:request_prompt_tokens", "Prompt tokens.", TOKENS),
            request_generation_tokens: make.histogram("vllm:request_generation_tokens", "Output tokens.", TOKENS),
            prompt_tokens_cached: make.counter(
                "vllm:prompt_tokens_cached_total",
                "Prompt tokens of ended requests that came from the prefix cache.",
            ),
            unknown_params: make
                .counter("tokenmill:unknown_parameters_total", "Fields of requests that this server does not know."),
            success: make.counters("vllm:request_success_total", "Ended requests.", "finished_reason"),
            rejections: make.counters("vllm:admission_rejections_total", "Requests not taken.", "reason"),
            registry: make.registry,
        };
        // Series that exist from the start, so that a rate over them has a first value.
        for reason in FINISHED_REASONS {
            metrics.success.with_label_values(&[reason]);
        }
        for rejection in Rejection::ALL {
            metrics.rejections.with_label_values(&[rejection.reason()]);
        }
        metrics
    }

    pub fn finished(&self, reason: &'static str) {
        self.success.with_label_values(&[reason]).inc();
    }

    pub fn rejected(&self, rejection: Rejection) {
        self.rejections.with_label_values(&[rejection.reason()]).inc();
    }

    /// All of it in Prometheus' text format.
    pub fn render(&self, stats: &Stats, cache: CacheConfig) -> String {
        let mut families = self.registry.gather();
        families.extend(snapshot::families(stats, cache, &self.labels));
        TextEncoder::new().encode_to_string(&families).expect("every family has a name and a metric")
    }
}

struct Maker {
    registry: Registry,
    labels: HashMap<String, String>,
}

impl Maker {
    fn register<C: Collector + Clone + 'static>(&self, collector: C) -> C {
        self.registry.register(Box::new(collector.clone())).expect("each name is registered once");
        collector
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let opts = HistogramOpts::new(name, help).const_labels(self.labels.clone()).buckets(buckets.to_vec());
        self.register(Histogram::with_opts(opts).expect("name and buckets are constants of this file"))
    }

    fn seconds(&self, name: &str, buckets: &[f64]) -> Histogram {
        self.histogram(name, "In seconds, per request or token as the name says.", buckets)
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        let opts = Opts::new(name, help).const_labels(self.labels.clone());
        self.register(IntCounter::with_opts(opts).expect("the name is a constant of this file"))
    }

    fn counters(&self, name: &str, help: &str, label: &str) -> IntCounterVec {
        let opts = Opts::new(name, help).const_labels(self.labels.clone());
        self.register(IntCounterVec::new(opts, &[label]).expect("name and label are constants of this file"))
    }
}
