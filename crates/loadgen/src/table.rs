//! Reports as one table that reads well on a terminal and in Markdown.

use crate::{Beside, Report, Summary};

const HEADS: [&str; 12] = [
    "measured",
    "at once",
    "req/s",
    "done",
    "failed",
    "out tok/s",
    "all tok/s",
    "goodput/s",
    "TTFT ms p50",
    "TPOT ms p50",
    "ITL ms p50/p99/max",
    "E2E ms p50/p99",
];

/// A row per report, then what must be known of them.
pub fn table(reports: &[Report]) -> String {
    let rows: Vec<[String; 12]> = reports.iter().map(row).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).chain([HEADS[column].len()]).max();
    let widths: Vec<usize> = (0..HEADS.len()).map(|column| width(column).unwrap_or_default()).collect();
    let mut text = line(&HEADS.map(str::to_owned), &widths);
    let rule: Vec<String> = widths.iter().map(|width| format!("{}:", "-".repeat(width + 1))).collect();
    text.push_str(&format!("|{}|\n", rule.join("|")));
    text.extend(rows.iter().map(|row| line(row, &widths)));
    for report in reports {
        let beside = report.beside.iter().map(Beside::sentence);
        let known: Vec<String> = beside.chain(report.warnings()).collect();
        if !known.is_empty() {
            text.push_str(&format!("\n{}, {} at once:\n", report.setup.label, at_once(report)));
            text.extend(known.iter().map(|sentence| format!("- {sentence}\n")));
        }
    }
    text
}

fn line(cells: &[String; 12], widths: &[usize]) -> String {
    let cells: Vec<String> = cells.iter().zip(widths).map(|(cell, width)| format!(" {cell:>width$} ")).collect();
    format!("|{}|\n", cells.join("|"))
}

/// The limit of requests at a time, as tables and charts say it.
pub(crate) fn at_once(report: &Report) -> String {
    report.setup.arrival.max_concurrency.map_or_else(|| "all".to_owned(), |limit| limit.to_string())
}

fn row(report: &Report) -> [String; 12] {
    let total = report.total_input_tokens + report.total_output_tokens;
    let goodput = report.good.map(|good| format!("{:.2}", report.per_second(good as u64)));
    let p50 = |summary: Option<Summary>| shown(summary.map(|summary| summary.p50));
    let itl = report.itl.map(|itl| [itl.p50, itl.p99, itl.max].map(|value| shown(Some(value))).join(" / "));
    let e2el = report.e2el.map(|e2el| [e2el.p50, e2el.p99].map(|value| shown(Some(value))).join(" / "));
    let none = || "-".to_owned();
    [
        report.setup.label.replace('|', "/"),
        at_once(report),
        format!("{:.2}", report.request_throughput()),
        report.completed.to_string(),
        (report.num_prompts - report.completed).to_string(),
        format!("{:.1}", report.output_throughput()),
        format!("{:.1}", report.per_second(total)),
        goodput.unwrap_or_else(none),
        p50(report.ttft),
        p50(report.tpot),
        itl.unwrap_or_else(none),
        e2el.unwrap_or_else(none),
    ]
}

/// Three digits or more.
fn shown(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value < 10.0 => format!("{value:.2}"),
        Some(value) if value < 100.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.0}"),
    }
}
