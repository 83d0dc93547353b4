//! Reports as one HTML file that needs nothing else: the chart, the table, what must be known, and where it was measured.

use crate::chart::{chart, escaped};
use crate::{Report, Setup, table};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:980px;margin:2em auto;padding:0 1em;color:#1f2328}\
    pre{overflow-x:auto;background:#f6f8fa;padding:1em;font-size:12px}svg{width:100%;font-size:12px;fill:#1f2328}\
    .grid{stroke:#d0d7de}td{padding:0 1em 0 0;vertical-align:top}";

/// The file's text.
pub fn page(reports: &[Report]) -> String {
    let title = reports
        .first()
        .map_or_else(|| "no measurement".to_owned(), |report| format!("{}, {}", report.setup.model, report.setup.date));
    let title = escaped(&title);
    let facts = reports.first().map(|report| facts(&report.setup)).unwrap_or_default();
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style>\n\
         <h1>{title}</h1>\n{}<pre>{}</pre>\n<table>{facts}</table>\n</html>\n",
        chart(reports),
        escaped(&table(reports))
    )
}

fn facts(setup: &Setup) -> String {
    let load = |load: Option<[f64; 3]>| load.map_or_else(|| "unknown".to_owned(), |load| format!("{load:?}"));
    let length = |len: Option<String>| len.unwrap_or_else(|| "as recorded".to_owned());
    let rows = [
        ("machine", format!("{}, {} cores, {}", setup.machine.cpu, setup.machine.cores, setup.machine.os)),
        ("load average before the first", load(setup.load_average_before)),
        ("prompts", format!("{}, {} words", setup.dataset, length(setup.input_len.map(|len| len.to_string())))),
        ("answers", format!("{} tokens", length(setup.output_len.map(|len| len.to_string())))),
        ("warm-up", format!("{} requests before each point, in no number", setup.warmup)),
        ("seed", setup.seed.to_string()),
        (
            "program",
            format!("{} at {}", setup.program.version, setup.program.commit.as_deref().unwrap_or("no known commit")),
        ),
        ("command", setup.program.command.join(" ")),
    ];
    rows.map(|(name, value)| format!("<tr><td>{name}</td><td>{}</td></tr>\n", escaped(&value))).concat()
}
