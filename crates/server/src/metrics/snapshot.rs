//! The engine's own numbers as metric families: a picture of one moment, with no state on this side.

use std::collections::HashMap;

use engine::{CacheConfig, ITERATION_TOKENS_BUCKETS, Stats};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

pub(super) fn families(stats: &Stats, cache: CacheConfig, labels: &HashMap<String, String>) -> Vec<MetricFamily> {
    let config = pairs(&cache_labels(stats, cache, labels));
    let labels = pairs(labels);
    let gauge = |name, help, value: f64| gauge(&labels, name, help, value);
    let counter = |name, help, value: u64| counter(&labels, name, help, value);
    vec![
        gauge("vllm:num_requests_running", "Sequences in the batch.", stats.running.into()),
        gauge("vllm:num_requests_waiting", "Sequences waiting for a place.", stats.waiting.into()),
        gauge("vllm:kv_cache_usage_perc", "Share of KV blocks in use; 1 is all.", kv_usage(stats)),
        self::gauge(&config, "vllm:cache_config_info", "How the KV cache is kept, in its labels.", 1.0),
        gauge("tokenmill:kv_blocks_total", "KV blocks.", stats.kv_blocks_total.into()),
        gauge("tokenmill:kv_blocks_used", "KV blocks that sequences hold.", stats.kv_blocks_used.into()),
        counter("vllm:prefix_cache_queries_total", "Prompt tokens looked up.", stats.prefix_cache_queries),
        counter("vllm:prefix_cache_hits_total", "Prompt tokens found.", stats.prefix_cache_hits),
        counter("vllm:num_preemptions_total", "Sequences that lost their blocks.", stats.preemptions),
        counter("vllm:prompt_tokens_total", "Prompt tokens.", stats.prompt_tokens),
        counter("vllm:generation_tokens_total", "Generated tokens.", stats.generation_tokens),
        counter("tokenmill:steps_total", "Steps of the engine.", stats.steps),
        counter("tokenmill:executor_losses_total", "Times the device lost its state.", stats.executor_losses),
        family(
            "vllm:iteration_tokens_total",
            "Tokens per step.",
            MetricType::HISTOGRAM,
            iteration_tokens(stats, &labels),
        ),
    ]
}

/// Truths are written as vLLM, a Python program, writes them.
fn cache_labels(stats: &Stats, cache: CacheConfig, labels: &HashMap<String, String>) -> HashMap<String, String> {
    let CacheConfig { block_size, enable_prefix_caching } = cache;
    let own = [
        ("block_size", block_size.to_string()),
        ("num_gpu_blocks", stats.kv_blocks_total.to_string()),
        ("enable_prefix_caching", if enable_prefix_caching { "True" } else { "False" }.to_owned()),
    ];
    let own = own.map(|(name, value)| (name.to_owned(), value));
    labels.clone().into_iter().chain(own).collect()
}

fn kv_usage(stats: &Stats) -> f64 {
    f64::from(stats.kv_blocks_used) / f64::from(stats.kv_blocks_total.max(1))
}

fn pairs(labels: &HashMap<String, String>) -> Vec<LabelPair> {
    let mut names: Vec<&String> = labels.keys().collect();
    names.sort();
    names
        .into_iter()
        .map(|name| {
            let mut pair = LabelPair::default();
            pair.set_name(name.clone());
            pair.set_value(labels[name].clone());
            pair
        })
        .collect()
}

fn gauge(labels: &[LabelPair], name: &str, help: &str, value: f64) -> MetricFamily {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::from_label(labels.to_vec());
    metric.set_gauge(gauge);
    family(name, help, MetricType::GAUGE, metric)
}

fn counter(labels: &[LabelPair], name: &str, help: &str, value: u64) -> MetricFamily {
    let mut counter = Counter::default();
    counter.set_value(value as f64);
    let mut metric = Metric::from_label(labels.to_vec());
    metric.set_counter(counter);
    family(name, help, MetricType::COUNTER, metric)
}

fn iteration_tokens(stats: &Stats, labels: &[LabelPair]) -> Metric {
    let mut cumulative = 0;
    let buckets = ITERATION_TOKENS_BUCKETS.iter().zip(stats.iteration_tokens_histogram).map(|(&bound, count)| {
        cumulative += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound.into());
        bucket.set_cumulative_count(cumulative);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(stats.steps);
    histogram.set_sample_sum(stats.iteration_tokens as f64);
    let mut metric = Metric::from_label(labels.to_vec());
    metric.set_histogram(histogram);
    metric
}

fn family(name: &str, help: &str, kind: MetricType, metric: Metric) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.into());
    family.set_help(help.into());
    family.set_field_type(kind);
    family.set_metric(vec![metric]);
    family
}
