//! A context trace as a tree of hops on a common time line.

mod timeline;

use std::env;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use console::Term;
use mcp_client::{ActionName, TaskEnd};

use crate::latency::show;
use timeline::{Part, Row, rows};

/// Where there is no terminal.
const WIDTH: usize = 100;

/// With less than this for the time line, numbers have to do.
const MIN_BAR: usize = 10;

/// Names are cut to this, rather than the time line.
const MAX_NAME: usize = 36;

const HEADER: [&str; 6] = ["TASK", "WORKER", "QUEUE", "NETWORK", "W-QUEUE", "WORK"];

/// Draws a task's trace on stderr: as wide as the terminal, in color unless NO_COLOR says no.
pub(crate) fn print(action: &ActionName, end: &TaskEnd) {
    let mut stderr = io::stderr().lock();
    let is_terminal = stderr.is_terminal();
    let size = Term::stderr().size_checked().filter(|_| is_terminal);
    let style = Style {
        width: size.map_or(WIDTH, |(_, width)| width.into()),
        has_color: is_terminal && env::var_os("NO_COLOR").is_none_or(|it| it.is_empty()),
    };
    // Nothing can be told when nobody listens.
    let _ = stderr.write_all(draw(action.as_str(), end, style).as_bytes());
}

/// How to draw.
#[derive(Debug, Clone, Copy)]
struct Style {
    /// In columns.
    width: usize,
    has_color: bool,
}

fn draw(action: &str, end: &TaskEnd, style: Style) -> String {
    let trace = &end.trace.decode();
    let rows = rows(action, end.outcome, trace);
    let mut table: Vec<[String; 6]> = vec![HEADER.map(str::to_owned)];
    table.extend(rows.iter().map(|row| {
        let us = |us| if row.has_worker() { show(Duration::from_micros(us)) } else { "-".into() };
        [
            cut(&row.name, MAX_NAME),
            row.worker.clone(),
            show(Duration::from_micros(row.us[0])),
            us(row.us[1]),
            us(row.us[2]),
            us(row.us[3]),
        ]
    }));
    let widths: Vec<usize> = (0..HEADER.len())
        .map(|column| table.iter().map(|it| columns(&it[column])).max().unwrap_or(0))
        .collect();
    let bar = style.width.saturating_sub(2 + widths.iter().map(|width| width + 2).sum::<usize>());
    let bar = if bar < MIN_BAR { 0 } else { bar };
    let total_us = trace.total_us.max(1);

    let mut text = String::new();
    for (index, cells) in table.iter().enumerate() {
        let row = index.checked_sub(1).and_then(|index| rows.get(index));
        let is_critical = row.is_some_and(|row| row.is_critical);
        let mut line = String::from(if is_critical { "* " } else { "  " });
        for (column, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            let padding = " ".repeat(width - columns(cell));
            match column {
                0 | 1 => line.extend([cell, &padding, "  "]),
                _ => line.extend([&padding, cell, "  "]),
            }
        }
        match row {
            Some(row) => line.push_str(&bar_of(row, total_us, bar)),
            None if bar > 0 => line.push_str(&scale(total_us, bar)),
            None => {}
        }
        let line = cut(line.trim_end(), style.width);
        let (on, off) = match row {
            Some(row) if style.has_color && row.is_critical => ("\x1b[1m", "\x1b[0m"),
            Some(_) if style.has_color => ("\x1b[2m", "\x1b[0m"),
            _ => ("", ""),
        };
        text.push_str(&format!("{on}{line}{off}\n"));
    }
    let legend = Part::ALL.map(|part| format!("{} {}", part.symbol(), part.name()));
    let bars = if bar > 0 { format!("   {}", legend.join("  ")) } else { String::new() };
    let legend = format!("* what the end waited for{bars}");
    text.push_str(&format!("{}\n", cut(&legend, style.width)));
    if rows.iter().any(|row| row.is_truncated) {
        text.push_str("… the oldest attempts or children were left out\n");
    }
    text
}

/// All that is drawn is one column wide: names are ASCII.
fn columns(text: &str) -> usize {
    text.chars().count()
}

fn cut(text: &str, max: usize) -> String {
    if columns(text) <= max {
        return text.to_owned();
    }
    text.chars().take(max.saturating_sub(1)).chain(['…']).collect()
}

/// `0` and the end of the time line.
fn scale(total_us: u64, width: usize) -> String {
    let end = show(Duration::from_micros(total_us));
    let space = width.saturating_sub(1 + columns(&end));
    format!("0{}{end}", " ".repeat(space))
}

/// A row's part of the time line: in each column, what took most of its time.
fn bar_of(row: &Row, total_us: u64, width: usize) -> String {
    let begin = |column: usize| total_us as f64 * column as f64 / width as f64;
    let symbols = (0..width).map(|column| {
        let shares = row.spans().map(|(part, from, to)| {
            (part, begin(column + 1).min(to as f64) - begin(column).max(from as f64))
        });
        let most = shares.filter(|(_, us)| *us > 0.0).max_by(|(_, a), (_, b)| a.total_cmp(b));
        most.map_or(' ', |(part, _)| part.symbol())
    });
    symbols.collect()
}

#[cfg(test)]
mod tests;
