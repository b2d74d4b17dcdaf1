//! Drawing.

use std::fmt::{self, Write};

use super::{Figure, Line, Panel, Style};

const PANEL_WIDTH: f64 = 360.0;
const PANEL_HEIGHT: f64 = 250.0;
/// Around a panel, for its title and ticks.
const LEFT: f64 = 78.0;
const RIGHT: f64 = 22.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 58.0;
/// Above all panels: the title and the legend.
const HEAD: f64 = 76.0;

/// Of the fonts, on average and a little more.
const CHARACTER_WIDTH: f64 = 7.6;
const TITLE_CHARACTER_WIDTH: f64 = 10.5;

/// Okabe and Ito, "Color Universal Design" (2008): told apart by people with any colour vision.
const COLOURS: [&str; 7] =
    ["#0072b2", "#56b4e9", "#d55e00", "#e69f00", "#009e73", "#cc79a7", "#000000"];

pub(super) const FONT: &str = "font-family=\"system-ui, 'DejaVu Sans', Arial, sans-serif\"";

/// The figure as an SVG document.
pub(crate) fn svg(figure: &Figure) -> String {
    let mut out = String::new();
    draw(figure, &mut out).unwrap_or_else(|_| unreachable!("a string takes everything"));
    out
}

fn draw(figure: &Figure, out: &mut String) -> fmt::Result {
    let columns = figure.columns.min(figure.panels.len()).max(1);
    let rows = figure.panels.len().div_ceil(columns);
    let legend = legend_of(figure);
    let legend_width: f64 = legend.iter().map(|line| legend_entry_width(line)).sum();
    let width = (columns as f64 * (LEFT + PANEL_WIDTH + RIGHT))
        .max(20.0 + legend_width)
        .max(40.0 + TITLE_CHARACTER_WIDTH * figure.title.chars().count() as f64);
    let height = HEAD + rows as f64 * (TOP + PANEL_HEIGHT + BOTTOM);
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" {FONT} font-size=\"13\" fill=\"#222\">"
    )?;
    writeln!(out, "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>")?;
    text(out, (20.0, 28.0), "start", "font-size=\"18\" font-weight=\"600\"", &figure.title)?;
    draw_legend(&legend, out)?;
    for (index, panel) in figure.panels.iter().enumerate() {
        let x = LEFT + (index % columns) as f64 * (LEFT + PANEL_WIDTH + RIGHT);
        let y = HEAD + TOP + (index / columns) as f64 * (TOP + PANEL_HEIGHT + BOTTOM);
        writeln!(out, "<g transform=\"translate({x} {y})\">")?;
        axes(figure, panel, out)?;
        for it in &panel.lines {
            line(panel, it, out)?;
        }
        writeln!(out, "</g>")?;
    }
    writeln!(out, "</svg>")
}

/// A line of each name.
fn legend_of(figure: &Figure) -> Vec<&Line> {
    let mut shown: Vec<&Line> = Vec::new();
    for line in figure.panels.iter().flat_map(|panel| &panel.lines) {
        if !shown.iter().any(|it| it.name == line.name) {
            shown.push(line);
        }
    }
    shown.sort_by_key(|line| line.style.index);
    shown
}

fn legend_entry_width(line: &Line) -> f64 {
    66.0 + CHARACTER_WIDTH * line.name.chars().count() as f64
}

fn draw_legend(legend: &[&Line], out: &mut String) -> fmt::Result {
    let mut x = 20.0;
    for line in legend {
        path(out, "M0 0H34", line.style, (x, 54.0))?;
        if line.style.has_markers {
            marker(out, (x + 17.0, 54.0), line.style)?;
        }
        text(out, (x + 42.0, 58.5), "start", "", &line.name)?;
        x += legend_entry_width(line);
    }
    Ok(())
}

fn axes(figure: &Figure, panel: &Panel, out: &mut String) -> fmt::Result {
    let middle = PANEL_WIDTH / 2.0;
    text(out, (middle, -12.0), "middle", "font-weight=\"600\"", &panel.title)?;
    for (value, label) in panel.y.ticks() {
        let y = PANEL_HEIGHT * (1.0 - panel.y.place(value));
        writeln!(out, "<path d=\"M0 {y:.1}H{PANEL_WIDTH}\" stroke=\"#dddddd\"/>")?;
        text(out, (-8.0, y + 4.5), "end", "", &label)?;
    }
    for (value, label) in panel.x.ticks() {
        let x = PANEL_WIDTH * panel.x.place(value);
        writeln!(out, "<path d=\"M{x:.1} 0V{PANEL_HEIGHT}\" stroke=\"#eeeeee\"/>")?;
        text(out, (x, PANEL_HEIGHT + 19.0), "middle", "", &label)?;
    }
    writeln!(out, "<path d=\"M0 0V{PANEL_HEIGHT}H{PANEL_WIDTH}\" stroke=\"#555\" fill=\"none\"/>")?;
    text(out, (middle, PANEL_HEIGHT + 40.0), "middle", "fill=\"#555\"", &figure.x_label)?;
    let y = PANEL_HEIGHT / 2.0;
    let turned = format!("fill=\"#555\" transform=\"rotate(-90 -58 {y})\"");
    text(out, (-58.0, y), "middle", &turned, &figure.y_label)
}

fn line(panel: &Panel, line: &Line, out: &mut String) -> fmt::Result {
    let place = |(x, y): &(f64, f64)| {
        (PANEL_WIDTH * panel.x.place(*x), PANEL_HEIGHT * (1.0 - panel.y.place(*y)))
    };
    let mut steps = String::new();
    for (index, (x, y)) in line.points.iter().map(place).enumerate() {
        write!(steps, "{}{x:.1} {y:.1}", if index == 0 { 'M' } else { 'L' })?;
    }
    path(out, &steps, line.style, (0.0, 0.0))?;
    if line.style.has_markers {
        for point in line.points.iter().map(place) {
            marker(out, point, line.style)?;
        }
    }
    Ok(())
}

fn path(out: &mut String, steps: &str, style: Style, at: (f64, f64)) -> fmt::Result {
    let dash = if style.is_dashed { " stroke-dasharray=\"6 4\"" } else { "" };
    let width = if style.index == 0 { 3.0 } else { 2.0 };
    writeln!(
        out,
        "<path d=\"{steps}\" transform=\"translate({} {})\" fill=\"none\" stroke=\"{}\" \
         stroke-width=\"{width}\" stroke-linejoin=\"round\"{dash}/>",
        at.0,
        at.1,
        colour(style)
    )
}

/// A shape of its own for each line, for those who print it in grey.
fn marker(out: &mut String, (x, y): (f64, f64), style: Style) -> fmt::Result {
    let shape = match style.index % 6 {
        0 => "<circle r=\"5\"/>",
        1 => "<circle r=\"4\" fill=\"#ffffff\"/>",
        2 => "<path d=\"M-4.5-4.5h9v9h-9z\"/>",
        3 => "<path d=\"M-4-4h8v8h-8z\" fill=\"#ffffff\"/>",
        4 => "<path d=\"M0-6L5.5 4.5h-11z\"/>",
        _ => "<path d=\"M0-6L6 0L0 6L-6 0z\"/>",
    };
    let colour = colour(style);
    writeln!(
        out,
        "<g transform=\"translate({x:.1} {y:.1})\" fill=\"{colour}\" stroke=\"{colour}\" \
         stroke-width=\"2\">{shape}</g>"
    )
}

fn colour(style: Style) -> &'static str {
    COLOURS[style.index % COLOURS.len()]
}

pub(super) fn text(
    out: &mut String,
    (x, y): (f64, f64),
    anchor: &str,
    attributes: &str,
    content: &str,
) -> fmt::Result {
    let content = content.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {attributes}>{content}</text>"
    )
}

#[cfg(test)]
mod tests {
    use super::super::Scale;
    use super::*;

    #[test]
    fn a_figure_has_its_labels_its_legend_once_and_all_points_within_it() {
        let style = Style { index: 0, is_dashed: false, has_markers: true };
        let points = vec![(1.0, 10.0), (64.0, 90.0)];
        let panel = Panel {
            title: "a < b".to_owned(),
            x: Scale::Categories(vec![1.0, 64.0]),
            y: Scale::linear([90.0].into_iter()),
            lines: vec![Line { name: "ours".to_owned(), style, points }],
        };
        let figure = Figure {
            title: "Throughput".to_owned(),
            x_label: "tasks in flight".to_owned(),
            y_label: "tasks/s".to_owned(),
            panels: vec![panel.clone(), panel],
            columns: 2,
        };
        let svg = svg(&figure);
        for part in ["a &lt; b", "Throughput", ">tasks in flight<", ">tasks/s<", "#0072b2"] {
            assert!(svg.contains(part), "{part} is not in {svg}");
        }
        assert_eq!(svg.matches(">ours<").count(), 1);
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
        assert_eq!(svg.matches("<g ").count(), svg.matches("</g>").count());
    }
}
