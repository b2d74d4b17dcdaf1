//! Plots, as SVG that any browser shows: panels side by side, with lines and markers or with rows of
//! dots, and one legend.

mod dots;
mod scale;
mod svg;

pub(crate) use dots::{DotFigure, DotPanel, DotRow, dots_svg};
pub(crate) use scale::Scale;
pub(crate) use svg::svg;

/// Several panels under one title.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    pub(crate) title: String,
    /// What every panel's axes are, with their units.
    pub(crate) x_label: String,
    pub(crate) y_label: String,
    pub(crate) panels: Vec<Panel>,
    /// Panels in a row.
    pub(crate) columns: usize,
}

/// One pair of axes.
#[derive(Debug, Clone)]
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) x: Scale,
    pub(crate) y: Scale,
    pub(crate) lines: Vec<Line>,
}

/// A line, with a marker at each point.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// In the legend, once for all panels.
    pub(crate) name: String,
    pub(crate) style: Style,
    pub(crate) points: Vec<(f64, f64)>,
}

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Style {
    /// Which colour and marker.
    pub(crate) index: usize,
    pub(crate) is_dashed: bool,
    pub(crate) has_markers: bool,
}
