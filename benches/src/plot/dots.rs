//! Rows of dots: one or several figures of each of a few things, on an axis of their own for each
//! panel. Drawn on nothing and in colours of both a light and a dark page.

use std::fmt::{self, Write};

use super::Scale;
use super::svg::{FONT, text};

/// Several panels under one title.
#[derive(Debug, Clone)]
pub(crate) struct DotFigure {
    pub(crate) title: String,
    /// What the dots are, from the first on: the last of them is filled.
    pub(crate) dots: Vec<&'static str>,
    pub(crate) panels: Vec<DotPanel>,
    /// Panels in a row.
    pub(crate) columns: usize,
}

/// One axis.
#[derive(Debug, Clone)]
pub(crate) struct DotPanel {
    pub(crate) title: String,
    pub(crate) x: Scale,
    pub(crate) rows: Vec<DotRow>,
}

/// Some figures of one thing, joined by a line.
#[derive(Debug, Clone)]
pub(crate) struct DotRow {
    pub(crate) name: String,
    /// Whether it is ours, and not one of those it is compared with.
    pub(crate) is_ours: bool,
    pub(crate) values: Vec<f64>,
}

const AXIS_WIDTH: f64 = 300.0;
const ROW_HEIGHT: f64 = 22.0;
/// Around the axis, for names and ticks.
const LEFT: f64 = 176.0;
const RIGHT: f64 = 26.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 38.0;
/// Above all panels: the title and the legend.
const HEAD: f64 = 70.0;

/// Grey and, of Okabe and Ito's colours that anybody tells apart, blue and orange.
const STYLE: &str = "<style>\
    .ink{fill:#1f2328}.soft{fill:#59636e}.grid{stroke:#d1d9e0}\
    .ours{stroke:#0072b2;fill:#0072b2}.other{stroke:#c25400;fill:#c25400}\
    .paper{fill:#ffffff}\
    @media(prefers-color-scheme:dark){\
    .ink{fill:#f0f6fc}.soft{fill:#9198a1}.grid{stroke:#3d444d}\
    .ours{stroke:#56b4e9;fill:#56b4e9}.other{stroke:#e69f00;fill:#e69f00}\
    .paper{fill:#0d1117}}\
    </style>";

/// The figure as an SVG document.
pub(crate) fn dots_svg(figure: &DotFigure) -> String {
    let mut out = String::new();
    draw(figure, &mut out).unwrap_or_else(|_| unreachable!("a string takes everything"));
    out
}

fn draw(figure: &DotFigure, out: &mut String) -> fmt::Result {
    let columns = figure.columns.min(figure.panels.len()).max(1);
    let rows: Vec<_> = figure.panels.chunks(columns).collect();
    let width = columns as f64 * (LEFT + AXIS_WIDTH + RIGHT);
    let height = HEAD + rows.iter().map(|row| height_of(row)).sum::<f64>();
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" {FONT} font-size=\"13\">{STYLE}"
    )?;
    writeln!(out, "<rect width=\"100%\" height=\"100%\" class=\"paper\"/>")?;
    let bold = "class=\"ink\" font-size=\"18\" font-weight=\"600\"";
    text(out, (20.0, 28.0), "start", bold, &figure.title)?;
    legend(&figure.dots, out)?;
    let mut y = HEAD;
    for row in rows {
        for (column, panel) in row.iter().enumerate() {
            let x = LEFT + column as f64 * (LEFT + AXIS_WIDTH + RIGHT);
            writeln!(out, "<g transform=\"translate({x} {})\">", y + TOP)?;
            draw_panel(panel, out)?;
            writeln!(out, "</g>")?;
        }
        y += height_of(row);
    }
    writeln!(out, "</svg>")
}

fn height_of(panels: &[DotPanel]) -> f64 {
    let rows = panels.iter().map(|panel| panel.rows.len()).max().unwrap_or_default();
    TOP + rows as f64 * ROW_HEIGHT + BOTTOM
}

/// Which dot is which; where there is one kind, the title says it.
fn legend(dots: &[&str], out: &mut String) -> fmt::Result {
    if dots.len() < 2 {
        return Ok(());
    }
    let mut x = 28.0;
    for (index, name) in dots.iter().enumerate() {
        dot(out, (x, 50.0), "ours", index + 1 == dots.len())?;
        text(out, (x + 12.0, 54.5), "start", "class=\"ink\"", name)?;
        x += 36.0 + 8.0 * name.chars().count() as f64;
    }
    Ok(())
}

fn draw_panel(panel: &DotPanel, out: &mut String) -> fmt::Result {
    let height = panel.rows.len() as f64 * ROW_HEIGHT;
    text(out, (20.0 - LEFT, -12.0), "start", "class=\"ink\" font-weight=\"600\"", &panel.title)?;
    for (value, label) in panel.x.ticks() {
        let x = AXIS_WIDTH * panel.x.place(value);
        writeln!(out, "<path d=\"M{x:.1} 0V{height}\" class=\"grid\"/>")?;
        text(out, (x, height + 17.0), "middle", "class=\"soft\" font-size=\"12\"", &label)?;
    }
    for (index, row) in panel.rows.iter().enumerate() {
        let y = (index as f64 + 0.5) * ROW_HEIGHT;
        text(out, (-12.0, y + 4.5), "end", "class=\"ink\"", &row.name)?;
        draw_row(panel, row, y, out)?;
    }
    Ok(())
}

fn draw_row(panel: &DotPanel, row: &DotRow, y: f64, out: &mut String) -> fmt::Result {
    let class = if row.is_ours { "ours" } else { "other" };
    let places: Vec<_> = row.values.iter().map(|it| AXIS_WIDTH * panel.x.place(*it)).collect();
    if let (Some(first), Some(last)) = (places.first(), places.last()) {
        let line = format!("M{first:.1} {y}H{last:.1}");
        writeln!(out, "<path d=\"{line}\" class=\"{class}\" stroke-width=\"2.5\"/>")?;
    }
    for (index, x) in places.iter().enumerate() {
        dot(out, (*x, y), class, index + 1 == places.len())?;
    }
    Ok(())
}

fn dot(out: &mut String, (x, y): (f64, f64), class: &str, is_filled: bool) -> fmt::Result {
    let circle = format!("cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\" stroke-width=\"2\"");
    writeln!(out, "<circle {circle} class=\"{class}\"/>")?;
    if !is_filled {
        writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.6\" class=\"paper\"/>")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_its_name_and_its_dots() {
        let row = |name: &str, is_ours| DotRow {
            name: name.to_owned(),
            is_ours,
            values: vec![20.0, 90.0],
        };
        let panel = DotPanel {
            title: "load < 1".to_owned(),
            x: Scale::log([20.0, 90.0].into_iter()),
            rows: vec![row("p2c", true), row("random", false)],
        };
        let figure = DotFigure {
            title: "Latency".to_owned(),
            dots: vec!["p50", "p99"],
            panels: vec![panel],
            columns: 2,
        };
        let svg = dots_svg(&figure);
        for part in ["load &lt; 1", ">Latency<", ">p2c<", ">random<", ">p99<", "dark"] {
            assert!(svg.contains(part), "{part} is not in {svg}");
        }
        // Two rows of two and the legend's, and what makes those of the first kind hollow.
        assert_eq!(svg.matches("<circle").count(), 6 + 3);
        assert!(!svg.contains("NaN"));
    }
}
