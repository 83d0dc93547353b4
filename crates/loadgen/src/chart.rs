//! Throughput against interactivity as SVG: each point is a number of requests at a time; further up and right is better.

use std::fmt::Write;

use crate::Report;
use crate::table::at_once;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 460.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 55.0;
const COLORS: [&str; 6] = ["#1f6feb", "#d1242f", "#1a7f37", "#8250df", "#bf8700", "#57606a"];

/// One line of the chart: reports of one label, as (interactivity, throughput, what stands beside the point).
struct Series {
    label: String,
    points: Vec<(f64, f64, String)>,
}

/// The whole `<svg>`; empty axes where no report has both numbers.
pub(crate) fn chart(reports: &[Report]) -> String {
    let series = series(reports);
    let points = || series.iter().flat_map(|series| &series.points);
    let (step_x, max_x) = scale(points().map(|point| point.0).fold(0.0, f64::max));
    let (step_y, max_y) = scale(points().map(|point| point.1).fold(0.0, f64::max));
    let x = |value: f64| LEFT + value / max_x * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - value / max_y * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"throughput against interactivity\">\n"
    );
    for tick in ticks(step_x, max_x) {
        line(&mut svg, (x(tick), y(0.0)), (x(tick), y(max_y)));
        text(&mut svg, (x(tick), y(0.0) + 18.0), "middle", &tick.to_string());
    }
    for tick in ticks(step_y, max_y) {
        line(&mut svg, (x(0.0), y(tick)), (x(max_x), y(tick)));
        text(&mut svg, (x(0.0) - 8.0, y(tick) + 4.0), "end", &tick.to_string());
    }
    text(
        &mut svg,
        (x(max_x / 2.0), HEIGHT - 12.0),
        "middle",
        "interactivity: output tokens a second for one user (1 / median TPOT)",
    );
    text(&mut svg, (LEFT, TOP - 6.0), "start", "output tokens a second, all users");
    for (idx, Series { label, points }) in series.iter().enumerate() {
        let color = COLORS[idx % COLORS.len()];
        let path: Vec<String> = points.iter().map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1))).collect();
        push(
            &mut svg,
            format_args!(
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>\n",
                path.join(" ")
            ),
        );
        for (interactivity, throughput, name) in points {
            let (x, y) = (x(*interactivity), y(*throughput));
            push(&mut svg, format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{color}\"/>\n"));
            text(&mut svg, (x + 7.0, y - 6.0), "start", name);
        }
        let legend = TOP + 16.0 * idx as f64 + 14.0;
        push(
            &mut svg,
            format_args!("<circle cx=\"{}\" cy=\"{}\" r=\"4\" fill=\"{color}\"/>\n", WIDTH - 240.0, legend - 4.0),
        );
        text(&mut svg, (WIDTH - 230.0, legend), "start", label);
    }
    svg + "</svg>\n"
}

fn series(reports: &[Report]) -> Vec<Series> {
    let mut all: Vec<Series> = Vec::new();
    for report in reports {
        let Some(interactivity) = report.interactivity() else { continue };
        let point = (interactivity, report.output_throughput(), at_once(report));
        match all.iter_mut().find(|series| series.label == report.setup.label) {
            Some(series) => series.points.push(point),
            None => all.push(Series { label: report.setup.label.clone(), points: vec![point] }),
        }
    }
    all
}

/// A round step of which four to nine reach past `largest`, and where the last of them is.
fn scale(largest: f64) -> (f64, f64) {
    if largest <= 0.0 {
        return (1.0, 1.0);
    }
    let power = 10f64.powf(largest.log10().floor());
    let step = [0.1, 0.2, 0.5, 1.0, 2.0].map(|factor| factor * power).into_iter().find(|step| largest / step < 9.0);
    let step = step.unwrap_or(power * 2.0);
    (step, ((largest / step).floor() + 1.0) * step)
}

/// Multiples of the step, rounded to print well.
fn ticks(step: f64, max: f64) -> impl Iterator<Item = f64> {
    let count = (max / step).round() as u32;
    (0..=count).map(move |idx| (f64::from(idx) * step * 1e6).round() / 1e6)
}

fn push(svg: &mut String, arguments: std::fmt::Arguments<'_>) {
    svg.write_fmt(arguments).expect("a string takes all that is written");
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64)) {
    let ((x1, y1), (x2, y2)) = (from, to);
    push(svg, format_args!("<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" class=\"grid\"/>\n"));
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, text: &str) {
    push(svg, format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>\n", escaped(text)));
}

/// As text between tags or in quotes.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_reach_past_the_largest() {
        for largest in [0.0, 0.003, 0.9, 1.0, 7.2, 9.99, 10.0, 448.0, 12_345.6] {
            let (step, max) = scale(largest);
            let count = ticks(step, max).count();
            assert!(max > largest && (2..=11).contains(&count), "{largest}: {count} ticks of {step} to {max}");
        }
    }

    #[test]
    fn markup_is_escaped() {
        assert_eq!(escaped("<a & \"b\">"), "&lt;a &amp; &quot;b&quot;&gt;");
    }
}
