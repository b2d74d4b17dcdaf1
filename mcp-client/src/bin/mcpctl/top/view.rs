//! What is looked at, and how keys change that. It neither asks nor draws.

use std::time::{Duration, Instant};

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use mcp_client::AgentInfo;
use mcp_client::overview::ActionOverview;

use super::columns::{self, Columns};
use super::source::{Snapshot, Update};

/// For how long something that happened is told.
const NOTE: Duration = Duration::from_secs(10);

/// Longest filter; names are no longer.
const MAX_FILTER_CHARS: usize = 128;

/// One of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tab {
    Actions,
    Agents,
}

/// How a table is sorted, and from which row on it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Looked {
    pub(super) sorted: usize,
    pub(super) is_reversed: bool,
    pub(super) from: usize,
    /// Rows that were shown last, for PgDn.
    pub(super) rows: usize,
}

/// What a key asks of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pressed {
    Quit,
    /// The filter is another.
    Filter,
    Other,
}

/// Since when there is no answer, and why.
#[derive(Debug)]
pub(super) struct Lost {
    since: Instant,
    pub(super) why: String,
}

pub(super) struct View {
    pub(super) address: String,
    pub(super) snapshot: Snapshot,
    pub(super) lost: Option<Lost>,
    pub(super) tab: Tab,
    pub(super) actions: Looked,
    pub(super) agents: Looked,
    filter: String,
    pub(super) is_typing: bool,
    pub(super) is_paused: bool,
    pub(super) is_help: bool,
    note: Option<(Instant, String)>,
    now: Instant,
}

impl View {
    pub(super) fn new(address: String, snapshot: Snapshot) -> Self {
        let looked = |sorted| Looked { sorted, is_reversed: false, from: 0, rows: 1 };
        Self {
            address,
            snapshot,
            lost: None,
            tab: Tab::Actions,
            actions: looked(columns::OLDEST),
            agents: looked(0),
            filter: String::new(),
            is_typing: false,
            is_paused: false,
            is_help: false,
            note: None,
            now: Instant::now(),
        }
    }

    pub(super) fn filter(&self) -> &str {
        &self.filter
    }

    pub(super) fn tick(&mut self, now: Instant) {
        self.now = now;
        self.note.take_if(|(since, _)| now.saturating_duration_since(*since) > NOTE);
    }

    /// What happened lately.
    pub(super) fn note(&self) -> Option<&str> {
        self.note.as_ref().map(|(_, text)| text.as_str())
    }

    /// How long the broker has not answered.
    pub(super) fn lost_for(&self) -> Option<Duration> {
        self.lost.as_ref().map(|it| self.now.saturating_duration_since(it.since))
    }

    /// The broker answered, or did not.
    pub(super) fn take(&mut self, update: Update, now: Instant) {
        match update {
            Update::Lost(why) => {
                let since = self.lost.as_ref().map_or(now, |it| it.since);
                self.lost = Some(Lost { since, why });
            }
            Update::Snapshot(snapshot) => {
                if self.lost.take().is_some() {
                    let is_another = self.snapshot.overview.epoch != snapshot.overview.epoch;
                    let restarted = if is_another { ": the broker was restarted" } else { "" };
                    let text = format!("connected again{restarted}");
                    self.note = Some((now, text));
                }
                if !self.is_paused {
                    self.snapshot = snapshot;
                }
            }
        }
    }

    pub(super) fn press(&mut self, key: KeyEvent) -> Pressed {
        if key.kind == KeyEventKind::Release {
            return Pressed::Other;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c' | 'd') => Pressed::Quit,
                _ => Pressed::Other,
            };
        }
        if self.is_typing {
            return self.type_filter(key.code);
        }
        if self.is_help {
            self.is_help = false;
            return Pressed::Other;
        }
        let (looked, columns) = match self.tab {
            Tab::Actions => (&mut self.actions, columns::ACTIONS.len()),
            Tab::Agents => (&mut self.agents, columns::AGENTS.len()),
        };
        match key.code {
            KeyCode::Char('q') => return Pressed::Quit,
            KeyCode::Esc if self.filter.is_empty() => return Pressed::Quit,
            KeyCode::Esc => {
                self.filter.clear();
                return Pressed::Filter;
            }
            KeyCode::Tab | KeyCode::BackTab => {
                self.tab = if self.tab == Tab::Actions { Tab::Agents } else { Tab::Actions };
            }
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Char('p' | ' ') => self.is_paused = !self.is_paused,
            KeyCode::Char('?' | 'h') => self.is_help = true,
            KeyCode::Right => looked.sorted = (looked.sorted + 1) % columns,
            KeyCode::Left => looked.sorted = (looked.sorted + columns - 1) % columns,
            KeyCode::Char('r') => looked.is_reversed = !looked.is_reversed,
            KeyCode::Down | KeyCode::Char('j') => looked.from += 1,
            KeyCode::Up | KeyCode::Char('k') => looked.from = looked.from.saturating_sub(1),
            KeyCode::PageDown => looked.from += looked.rows,
            KeyCode::PageUp => looked.from = looked.from.saturating_sub(looked.rows),
            KeyCode::Home => looked.from = 0,
            // What is too far is put right when it is drawn.
            KeyCode::End => looked.from = usize::MAX / 2,
            _ => {}
        }
        Pressed::Other
    }

    fn type_filter(&mut self, key: KeyCode) -> Pressed {
        match key {
            KeyCode::Enter => {
                self.is_typing = false;
                return Pressed::Other;
            }
            KeyCode::Esc => {
                self.is_typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(c) if self.filter.chars().count() < MAX_FILTER_CHARS => {
                self.filter.push(c);
            }
            _ => return Pressed::Other,
        }
        (self.actions.from, self.agents.from) = (0, 0);
        Pressed::Filter
    }

    /// The actions that the filter leaves, sorted.
    pub(super) fn actions(&self) -> Vec<&ActionOverview> {
        let all = self.snapshot.overview.actions.iter();
        let mut rows: Vec<_> = all.filter(|it| self.matches(&it.action)).collect();
        sort(&mut rows, columns::ACTIONS, self.actions);
        rows
    }

    /// The agents that the filter leaves, sorted.
    pub(super) fn agents(&self) -> Vec<&AgentInfo> {
        let all = self.snapshot.agents.as_ref().map(|it| &it.agents[..]).unwrap_or_default();
        let matching = |it: &&AgentInfo| self.matches(&it.agent_id) || self.matches(&it.node_id);
        let mut rows: Vec<_> = all.iter().filter(matching).collect();
        sort(&mut rows, columns::AGENTS, self.agents);
        rows
    }

    fn matches(&self, name: &str) -> bool {
        self.filter.is_empty() || name.to_lowercase().contains(&self.filter.to_lowercase())
    }
}

fn sort<T>(rows: &mut [&T], columns: Columns<T>, looked: Looked) {
    rows.sort_by(|a, b| {
        let ordering = columns[looked.sorted].compare(a, b);
        let ordering = if looked.is_reversed { ordering.reverse() } else { ordering };
        // By name where all else is the same, so that rows stay where they are.
        ordering.then_with(|| columns[0].compare(a, b))
    });
}

#[cfg(test)]
pub(super) mod tests {
    use mcp_client::AgentList;

    use super::*;
    use crate::attention::tests::overview;

    pub(crate) fn agent(name: &str, in_flight: u32) -> AgentInfo {
        AgentInfo { agent_id: name.to_owned(), in_flight, ..crate::agents::tests::agent() }
    }

    pub(crate) fn snapshot(actions: &[&str], agents: &[&str]) -> Snapshot {
        let agents: Vec<_> = agents.iter().zip(0..).map(|(name, held)| agent(name, held)).collect();
        let total = agents.len() as u64;
        let agents = Ok(AgentList { agents, next: None, matching: total, total });
        Snapshot { overview: Box::new(overview(actions)), agents }
    }

    pub(crate) fn press(view: &mut View, keys: &str) -> Pressed {
        let of = |c| KeyEvent::new(c, KeyModifiers::NONE);
        let key = |c| match c {
            '\n' => of(KeyCode::Enter),
            '\t' => of(KeyCode::Tab),
            '>' => of(KeyCode::Right),
            '<' => of(KeyCode::Left),
            '\u{8}' => of(KeyCode::Backspace),
            '\u{1b}' => of(KeyCode::Esc),
            c => of(KeyCode::Char(c)),
        };
        keys.chars().map(|c| view.press(key(c))).last().unwrap()
    }

    fn names(view: &View) -> Vec<&str> {
        view.actions().into_iter().map(|it| it.action.as_str()).collect()
    }

    #[test]
    fn keys_sort_by_another_column_and_the_other_way_round() {
        let mut it = snapshot(&["b", "a", "c"], &["x", "y"]);
        it.overview.actions[2].oldest_ms = Some(10);
        it.overview.actions[1].queued = 7;
        let mut view = View::new("b:1".into(), it);
        assert_eq!(names(&view), ["c", "a", "b"]);
        press(&mut view, "r");
        assert_eq!(names(&view), ["a", "b", "c"]);
        press(&mut view, "r<");
        assert_eq!(names(&view), ["a", "b", "c"]);
        press(&mut view, "<r");
        assert_eq!(names(&view), ["c", "b", "a"]);
        press(&mut view, "<");
        assert_eq!(columns::ACTIONS[view.actions.sorted].title, "STATE");
        press(&mut view, "\t>>");
        assert_eq!(columns::AGENTS[view.agents.sorted].title, "LOAD");
        assert_eq!(view.agents()[0].agent_id, "y");
    }

    #[test]
    fn a_filter_is_typed_kept_and_dropped() {
        let mut view = View::new("b:1".into(), snapshot(&["review", "upper"], &["Up-1", "b"]));
        assert_eq!(press(&mut view, "/UQ"), Pressed::Filter);
        assert_eq!((view.filter(), view.is_typing), ("UQ", true));
        press(&mut view, "\u{8}p\n");
        assert_eq!((view.filter(), view.is_typing, view.is_paused), ("Up", false, false));
        assert_eq!(names(&view), ["upper"]);
        assert_eq!(view.agents().len(), 1);
        assert_eq!(press(&mut view, "\u{1b}"), Pressed::Filter);
        assert_eq!(names(&view).len(), 2);
        press(&mut view, &format!("/{}", "x".repeat(1_000)));
        assert_eq!(view.filter().len(), MAX_FILTER_CHARS);
    }

    #[test]
    fn keys_quit() {
        let mut view = View::new("b:1".into(), snapshot(&[], &[]));
        assert_eq!(press(&mut view, "?"), Pressed::Other);
        assert_eq!(press(&mut view, "q"), Pressed::Other, "it only ends the help");
        for keys in ["q", "\u{1b}"] {
            assert_eq!(press(&mut view, keys), Pressed::Quit);
        }
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        press(&mut view, "/");
        assert_eq!(view.press(interrupt), Pressed::Quit);
    }

    #[test]
    fn while_it_is_paused_nothing_changes_but_whether_there_is_an_answer() {
        let mut view = View::new("b:1".into(), snapshot(&["a"], &[]));
        let now = Instant::now();
        press(&mut view, "p");
        view.take(Update::Snapshot(snapshot(&["b"], &[])), now);
        assert_eq!(names(&view), ["a"]);
        view.take(Update::Lost("gone".into()), now);
        assert!(view.lost.is_some());
        press(&mut view, "p");
        view.take(Update::Snapshot(snapshot(&["b"], &[])), now);
        assert_eq!(names(&view), ["b"]);
    }

    #[test]
    fn a_broker_that_was_lost_is_told_and_that_it_is_back() {
        let mut view = View::new("b:1".into(), snapshot(&["a"], &[]));
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        view.take(Update::Lost("gone".into()), at(1));
        view.take(Update::Lost("still gone".into()), at(4));
        view.tick(at(5));
        assert_eq!(view.lost_for(), Some(Duration::from_secs(4)));
        assert_eq!(view.lost.as_ref().unwrap().why, "still gone");
        let mut again = snapshot(&["a"], &[]);
        view.take(Update::Snapshot(again.clone()), at(6));
        assert_eq!((view.note(), view.lost_for()), (Some("connected again"), None));
        view.take(Update::Lost("gone".into()), at(7));
        again.overview.epoch += 1;
        view.take(Update::Snapshot(again), at(8));
        assert_eq!(view.note(), Some("connected again: the broker was restarted"));
        view.tick(at(30));
        assert_eq!(view.note(), None);
    }
}
