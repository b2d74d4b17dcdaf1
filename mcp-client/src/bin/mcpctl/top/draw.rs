//! Draws what is looked at.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Clear, Paragraph, Row, Table};

use mcp_client::AgentInfo;
use mcp_client::overview::ActionOverview;

use super::columns::{self, Columns};
use super::view::{Looked, Tab, View};
use crate::attention::{self, Matter};
use crate::figures::age;
use crate::status;

/// From this height on there is room for both tables.
const BOTH_HEIGHT: u16 = 30;

/// Matters that are listed: on a small screen, and where there is room.
const MATTERS: [usize; 2] = [1, 5];

const HELP: &[(&str, &str)] = &[
    ("q, Esc, Ctrl-C", "quit"),
    ("Tab", "the other table"),
    ("left, right", "sort by another column"),
    ("r", "the other way round"),
    ("up, down, k, j", "scroll"),
    ("PgUp, PgDn", "scroll by a page"),
    ("Home, End", "the first, the last"),
    ("/", "filter by name; Enter keeps it, Esc drops it"),
    ("p, space", "pause"),
    ("?, h", "this; any key ends it"),
];

pub(super) fn draw(frame: &mut Frame<'_>, view: &mut View) {
    let area = frame.area();
    let is_large = area.height >= BOTH_HEIGHT;
    let matters = attention::matters(&view.snapshot.overview);
    let shown = matters.len().min(MATTERS[usize::from(is_large)]) as u16;
    let [head, look, body, foot] = Layout::vertical([
        Constraint::Length(5),
        Constraint::Length(shown),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(area);
    draw_head(frame, view, head);
    draw_matters(frame, &matters, look);
    if is_large {
        // As many as there are actions need, but never more than half.
        let rows = view.actions().len().max(1) as u16 + 2;
        let actions = rows.clamp(5, body.height / 2);
        let [actions, agents] =
            Layout::vertical([Constraint::Length(actions), Constraint::Min(0)]).areas(body);
        draw_actions(frame, view, actions);
        draw_agents(frame, view, agents);
    } else if view.tab == Tab::Actions {
        draw_actions(frame, view, body);
    } else {
        draw_agents(frame, view, body);
    }
    draw_foot(frame, view, foot);
    if view.is_help {
        draw_help(frame, area);
    }
}

fn draw_head(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let it = &view.snapshot.overview;
    let title = format!(" mcpctl top  {} at {}", it.broker_id, view.address);
    let (state, style) = match &view.lost {
        Some(lost) => {
            let since = view.lost_for().unwrap_or_default().as_secs() * 1_000;
            (format!("  LOST for {}: {} ", age(since), lost.why), bad())
        }
        None if view.is_paused => ("  PAUSED ".to_owned(), warn()),
        None if it.is_shutting_down => ("  STOPPING ".to_owned(), bad()),
        None => match view.note() {
            Some(note) => (format!("  {note} "), warn()),
            None => (format!("  ready, up {} ", age(it.uptime_ms)), Style::new()),
        },
    };
    let style = style.reversed();
    let width = (state.chars().count() as u16).min(area.width);
    let lines = Layout::vertical([Constraint::Length(1); 5]).split(area);
    let [left, right] =
        Layout::horizontal([Constraint::Min(0), Constraint::Length(width)]).areas(lines[0]);
    frame.render_widget(Paragraph::new(title).style(style), left);
    frame.render_widget(Paragraph::new(state).style(style), right);
    let durable = match it.durable.is_available {
        true => Style::new(),
        false => warn(),
    };
    let told = [
        ("tasks", status::tasks(it), Style::new()),
        ("rates", status::rates(&it.rates.s10), Style::new()),
        ("agents", status::agents(it), Style::new()),
        ("durable", status::durable(it), durable),
    ];
    for ((name, value, style), line) in told.into_iter().zip(lines.iter().skip(1)) {
        let line_of = Line::from(vec![format!("{name:<8}").dim(), Span::styled(value, style)]);
        frame.render_widget(line_of, *line);
    }
}

fn draw_matters(frame: &mut Frame<'_>, matters: &[Matter], area: Rect) {
    let lines = Layout::vertical(vec![Constraint::Length(1); area.height.into()]).split(area);
    for (index, (matter, line)) in matters.iter().zip(lines.iter()).enumerate() {
        let left = matters.len() - index - 1;
        let is_last = index + 1 == lines.len();
        let more = if is_last && left > 0 { format!("  (+{left} more)") } else { String::new() };
        let text = format!("! {}: {}{more}", matter.about, matter.what);
        let style = if matter.is_bad { bad() } else { warn() };
        frame.render_widget(Line::styled(text, style), *line);
    }
}

fn draw_actions(frame: &mut Frame<'_>, view: &mut View, area: Rect) {
    let rows = view.actions();
    let all = view.snapshot.overview.actions.len();
    let more = if view.snapshot.overview.more_actions { ", and more" } else { "" };
    let title = format!(" Actions {} of {all}{more} ", rows.len());
    let style = |it: &ActionOverview| match attention::state(it) {
        _ if attention::is_stuck(it) => bad(),
        state if state == "ok" => Style::new(),
        _ => warn(),
    };
    let is_focused = view.tab == Tab::Actions;
    let table = Listing { columns: columns::ACTIONS, looked: view.actions, title, is_focused };
    view.actions = table.draw(frame, area, &rows, style);
}

fn draw_agents(frame: &mut Frame<'_>, view: &mut View, area: Rect) {
    let rows = view.agents();
    let title = match &view.snapshot.agents {
        Ok(list) if list.next.is_some() => {
            format!(" Agents {} of {}: filter for others ", rows.len(), list.matching)
        }
        Ok(list) => format!(" Agents {} of {} ", rows.len(), list.agents.len()),
        Err(why) => format!(" Agents: {why} "),
    };
    let style = |it: &AgentInfo| match it.state.as_str() {
        "ready" if it.health == "ok" => Style::new(),
        "suspect" | "ejected" | "lost" => bad(),
        _ => warn(),
    };
    let is_focused = view.tab == Tab::Agents;
    let table = Listing { columns: columns::AGENTS, looked: view.agents, title, is_focused };
    view.agents = table.draw(frame, area, &rows, style);
}

/// A table.
struct Listing<T: 'static> {
    columns: Columns<T>,
    looked: Looked,
    title: String,
    is_focused: bool,
}

impl<T> Listing<T> {
    /// Where it is scrolled to, which is not behind its end.
    fn draw(
        self,
        frame: &mut Frame<'_>,
        area: Rect,
        rows: &[&T],
        style: impl Fn(&T) -> Style,
    ) -> Looked {
        let Self { columns, mut looked, title, is_focused } = self;
        looked.rows = usize::from(area.height.saturating_sub(2)).max(1);
        looked.from = looked.from.min(rows.len().saturating_sub(looked.rows));
        let title = if is_focused { title.bold() } else { title.dim() };
        let block = Block::new().borders(Borders::TOP).title(title);
        let fitting = columns::fitting(columns, looked.sorted, area.width);
        let cell = |at: usize, text: String| {
            let column = &columns[at];
            let alignment = if column.is_number() { Alignment::Right } else { Alignment::Left };
            Line::from(text).alignment(alignment)
        };
        let header = fitting.iter().map(|at| {
            let title = cell(*at, columns[*at].title.to_owned());
            match *at == looked.sorted {
                true => title.reversed(),
                false => title.dim(),
            }
        });
        let shown = rows.iter().skip(looked.from).take(looked.rows).map(|it| {
            let cells = fitting.iter().map(|at| cell(*at, (columns[*at].cell)(it)));
            Row::new(cells).style(style(it))
        });
        let names = rows.iter().map(|it| (columns[0].cell)(it).chars().count()).max();
        let widths = columns::widths(columns, &fitting, names.unwrap_or(0), area.width);
        let table = Table::new(shown, widths).header(Row::new(header)).block(block);
        frame.render_widget(table, area);
        looked
    }
}

fn draw_foot(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let line = if view.is_typing {
        Line::from(format!("filter: {}_   Enter keeps it, Esc drops it", view.filter()))
    } else {
        let filter = match view.filter() {
            "" => "/ filter".to_owned(),
            filter => format!("/ filter: {filter}"),
        };
        Line::from(format!(
            "q quit  Tab {}  left/right sort  r reverse  {filter}  p pause  ? help",
            if view.tab == Tab::Actions { "agents" } else { "actions" }
        ))
        .dim()
    };
    frame.render_widget(line, area);
}

fn draw_help(frame: &mut Frame<'_>, area: Rect) {
    let lines: Vec<_> =
        HELP.iter().map(|(key, what)| Line::from(format!(" {key:<16} {what}"))).collect();
    let (width, height) = (66, HELP.len() as u16 + 2);
    let area = area.centered(Constraint::Max(width), Constraint::Max(height));
    frame.render_widget(Clear, area);
    let block = Block::bordered().title(" Keys ");
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn bad() -> Style {
    Style::new().fg(Color::Red)
}

fn warn() -> Style {
    Style::new().fg(Color::Yellow)
}

#[cfg(test)]
mod tests;
