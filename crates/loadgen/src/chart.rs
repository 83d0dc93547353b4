//! Throughput against interactivity as SVG: each point is a number of requests at a time; further up and right is better.

use std::error::Error;

use plotters::prelude::*;

use crate::Report;
use crate::table::at_once;

const SIZE: (u32, u32) = (860, 460);
const COLORS: [RGBColor; 6] = [
    RGBColor(31, 111, 235),
    RGBColor(209, 36, 47),
    RGBColor(26, 127, 55),
    RGBColor(130, 80, 223),
    RGBColor(191, 135, 0),
    RGBColor(87, 96, 106),
];
const FONT: (&str, i32) = ("sans-serif", 13);

/// One line of the chart: reports of one label, as (interactivity, throughput, what stands beside the point).
struct Series<'a> {
    label: &'a str,
    points: Vec<(f64, f64, String)>,
}

/// The whole file; empty axes where no report has both numbers.
pub fn chart(reports: &[Report]) -> String {
    let mut svg = String::new();
    draw(&mut svg, &series(reports)).expect("a string takes all that is drawn");
    svg
}

fn draw(svg: &mut String, series: &[Series<'_>]) -> Result<(), Box<dyn Error>> {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let largest = |of: fn(&(f64, f64, String)) -> f64| {
        let largest = series.iter().flat_map(|series| &series.points).map(of).fold(0.0, f64::max);
        if largest > 0.0 { largest * 1.1 } else { 1.0 }
    };
    let mut chart = ChartBuilder::on(&area)
        .margin(15)
        .x_label_area_size(45)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..largest(|point| point.0), 0.0..largest(|point| point.1))?;
    chart
        .configure_mesh()
        .max_light_lines(0)
        .label_style(FONT)
        .x_desc("interactivity: output tokens a second for one user (1 / median TPOT)")
        .y_desc("output tokens a second, all users")
        .draw()?;
    for (Series { label, points }, color) in series.iter().zip(COLORS.iter().cycle()) {
        let line = LineSeries::new(points.iter().map(|(x, y, _)| (*x, *y)), color.stroke_width(2));
        let legend = move |(x, y)| Circle::new((x + 8, y), 4, color.filled());
        chart.draw_series(line)?.label(*label).legend(legend);
        chart.draw_series(points.iter().map(|(x, y, at_once)| {
            EmptyElement::at((*x, *y))
                + Circle::new((0, 0), 4, color.filled())
                + Text::new(at_once.clone(), (7, -14), FONT)
        }))?;
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).label_font(FONT).draw()?;
    area.present()?;
    Ok(())
}

fn series(reports: &[Report]) -> Vec<Series<'_>> {
    let mut all: Vec<Series<'_>> = Vec::new();
    for report in reports {
        let Some(interactivity) = report.interactivity() else { continue };
        let point = (interactivity, report.output_throughput(), at_once(report));
        match all.iter_mut().find(|series| series.label == report.setup.label) {
            Some(series) => series.points.push(point),
            None => all.push(Series { label: &report.setup.label, points: vec![point] }),
        }
    }
    all
}
