use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::super::source::Update;
use super::super::view::tests::{press, snapshot};
use super::*;

/// What is on a screen of this size, line by line.
fn drawn(view: &mut View, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, view)).unwrap();
    let buffer = terminal.backend().buffer();
    let symbols: Vec<_> = buffer.content().iter().map(|cell| cell.symbol()).collect();
    symbols.chunks(width.into()).map(|line| line.concat().trim_end().to_owned()).collect()
}

fn view() -> View {
    let mut it = snapshot(&["lower", "review", "upper"], &["a-1", "b-1"]);
    let review = &mut it.overview.actions[1];
    (review.queued, review.ready, review.oldest_ms) = (7, 0, Some(192_000));
    View::new("broker.example.org:7447".into(), it)
}

#[test]
fn a_small_screen_has_all_that_counts() {
    let expected = "
 mcpctl top  broker-1 at broker.example.org:7447           ready, up 3 min 12 s
tasks   12 waiting (3.4 KiB, the oldest for 3 min 12 s), 1 delayed, 5 running
rates   120/s taken; 118/s ok, 1.2/s error, 0/s cancelled, 0.04/s rejected
agents  4 ready, 1 standby; 5 of 12 slots in use
durable 3 in flight, 10 kept outcomes, 12 KiB; 0 dead letters
! review: 7 tasks wait and no worker is ready; the oldest for 3 min 12 s
 Actions 3 of 3 ────────────────────────────────────────────────────────────────
ACTION            WAIT  OLDEST RUN/SLOTS   IN/S   OK/S  ERR/S     P50     P99
review               7   3m12s       2/8    120    118    1.2 1.50 ms 75.0 ms
lower                0       -       2/8    120    118    1.2 1.50 ms 75.0 ms
upper                0       -       2/8    120    118    1.2 1.50 ms 75.0 ms
";
    let lines = drawn(&mut view(), 80, 24);
    assert_eq!(lines[..11].join("\n"), expected.trim_matches('\n'));
    assert!(lines[23].starts_with("q quit  Tab agents"), "{}", lines[23]);
    let mut agents = view();
    press(&mut agents, "\t");
    let lines = drawn(&mut agents, 80, 24);
    assert!(lines[6].starts_with(" Agents 2 of 2 "), "{lines:#?}");
    let row: Vec<_> = lines[9].split_whitespace().collect();
    assert_eq!(row, ["b-1", "ready", "25%", "1/4", "ok", "250", "ms", "upper,lower"]);
}

#[test]
fn a_large_screen_has_both_tables() {
    let lines = drawn(&mut view(), 200, 50);
    let at = |text: &str| lines.iter().position(|it| it.starts_with(text));
    assert!(at(" Actions 3 of 3") < at(" Agents 2 of 2"), "{lines:#?}");
    assert!(lines[8].contains("READY") || lines[7].contains("READY"), "{lines:#?}");
    assert!(lines.iter().any(|it| it.contains("gpu=a100")), "{lines:#?}");
}

#[test]
fn every_size_is_drawn() {
    let mut view = view();
    press(&mut view, "?");
    for (width, height) in [(1, 1), (3, 7), (10, 4), (40, 12), (79, 23), (300, 100)] {
        assert_eq!(drawn(&mut view, width, height).len(), usize::from(height));
        press(&mut view, "\t");
    }
}

#[test]
fn the_help_names_the_keys() {
    let mut view = view();
    press(&mut view, "?");
    let lines = drawn(&mut view, 80, 24).join("\n");
    for (key, what) in HELP {
        assert!(lines.contains(key) && lines.contains(what), "{lines}");
    }
}

#[test]
fn a_lost_broker_and_a_pause_are_in_the_first_line() {
    let mut view = view();
    let now = Instant::now();
    view.take(Update::Lost("no answer for 3s".into()), now);
    view.tick(now + Duration::from_secs(5));
    assert!(drawn(&mut view, 80, 24)[0].contains("LOST for 5.00 s: no answer"));
    view.take(Update::Snapshot(snapshot(&[], &[])), now);
    assert!(drawn(&mut view, 80, 24)[0].contains("connected again"));
    press(&mut view, "p");
    assert!(drawn(&mut view, 80, 24)[0].ends_with("PAUSED"));
}

#[test]
fn scrolling_ends_with_the_last_row() {
    let names: Vec<_> = (0..50).map(|number| format!("a{number:02}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let mut view = View::new("b:1".into(), snapshot(&names, &[]));
    view.actions.from = 1_000;
    let lines = drawn(&mut view, 80, 24);
    assert!(lines[22].starts_with("a49"), "{lines:#?}");
    press(&mut view, "k");
    assert!(drawn(&mut view, 80, 24)[22].starts_with("a48"));
}

#[test]
fn agents_that_are_not_all_there_or_may_not_be_seen_are_told() {
    let mut view = view();
    press(&mut view, "\t");
    let list = view.snapshot.agents.as_mut().unwrap();
    (list.next, list.matching) = (Some("b-1".try_into().unwrap()), 5_000);
    let lines = drawn(&mut view, 80, 24);
    assert!(lines[6].starts_with(" Agents 2 of 5000: filter for others "), "{lines:#?}");
    view.snapshot.agents = Err("FORBIDDEN: agents.list".into());
    let lines = drawn(&mut view, 80, 24);
    assert!(lines[6].starts_with(" Agents: FORBIDDEN: agents.list "), "{lines:#?}");
}

#[test]
fn what_is_typed_is_seen() {
    let mut view = view();
    press(&mut view, "/up");
    let lines = drawn(&mut view, 80, 24);
    assert!(lines[23].starts_with("filter: up_"), "{lines:#?}");
    press(&mut view, "\n");
    let lines = drawn(&mut view, 80, 24);
    assert!(
        lines[23].contains("/ filter: up  ") && lines[6].contains("Actions 1 of 3"),
        "{lines:#?}"
    );
}
