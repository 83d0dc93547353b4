//! Reports as a page: the chart, the table, what must be known, and where it was measured. In HTML one file that needs nothing
//! else, in Markdown one beside its chart.

use crate::{Report, Setup, chart, table};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:980px;margin:2em auto;padding:0 1em;color:#1f2328}\
    pre{overflow-x:auto;background:#f6f8fa;padding:1em;font-size:12px}svg{width:100%;height:auto}\
    td{padding:0 1em 0 0;vertical-align:top}";

/// The text of an HTML file.
pub fn html(reports: &[Report]) -> String {
    let title = escaped(&title(reports));
    let row = |(name, value): (&str, String)| format!("<tr><td>{name}</td><td>{}</td></tr>\n", escaped(&value));
    let facts: String = facts(reports).into_iter().map(row).collect();
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style>\n\
         <h1>{title}</h1>\n{}<pre>{}</pre>\n<table>{facts}</table>\n</html>\n",
        chart(reports),
        escaped(&table(reports))
    )
}

/// The text of a Markdown file that shows the chart of the file `svg`.
pub fn markdown(reports: &[Report], svg: &str) -> String {
    let facts: String =
        facts(reports).into_iter().map(|(name, value)| format!("- {name}: {}\n", value.replace('\n', " "))).collect();
    let (title, table) = (title(reports), table(reports));
    format!("# {title}\n\n{table}\n![throughput against interactivity](<{svg}>)\n\n{facts}")
}

fn title(reports: &[Report]) -> String {
    let of = |report: &Report| format!("{}, {}", report.setup.model, report.setup.date);
    reports.first().map_or_else(|| "no measurement".to_owned(), of)
}

fn facts(reports: &[Report]) -> Vec<(&'static str, String)> {
    let Some(Report { setup, .. }) = reports.first() else { return Vec::new() };
    let Setup { machine, program, .. } = setup;
    let load = |load: Option<[f64; 3]>| load.map_or_else(|| "unknown".to_owned(), |load| format!("{load:?}"));
    let lengths = setup.lengths.iter().map(|(name, len)| format!(", {name} {len}"));
    let prompts = format!("{}{}", setup.dataset, lengths.collect::<String>());
    let answers = setup.output_len.map_or_else(|| "as recorded".to_owned(), |len| format!("{len} tokens"));
    vec![
        ("machine", format!("{}, {} cores ({}), {}", machine.cpu, machine.cores, machine.flags.join(" "), machine.os)),
        ("load average before the first", load(setup.load_average_before)),
        ("prompts", prompts),
        ("answers", answers),
        ("warm-up", format!("{} requests before each point, in no number", setup.warmup)),
        ("seed", setup.seed.to_string()),
        ("program", format!("{} at {}", program.version, program.commit.as_deref().unwrap_or("no known commit"))),
        ("command", program.command.join(" ")),
    ]
}

/// As text between tags or in quotes.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_is_escaped() {
        assert_eq!(escaped("<a & \"b\">"), "&lt;a &amp; &quot;b&quot;&gt;");
    }
}
