use mcp_client::{Child, ContextTrace, Executed, Hop, HopEvent, Outcome, TaskId};

use super::*;

/// An attempt, with its times in ms.
fn hop(node: &str, event: HopEvent, attempt: u32, ms: [u64; 4]) -> Hop {
    Hop {
        node_id: node.try_into().unwrap(),
        event,
        attempt,
        queue_us: ms[0] * 1_000,
        network_us: ms[1] * 1_000,
        worker_queue_us: ms[2] * 1_000,
        work_us: ms[3] * 1_000,
        policy: "p".into(),
        candidates: 1,
        reason: Default::default(),
        began_us: 0,
        explanation: None,
    }
}

fn trace(hops: Vec<Hop>, queue_ms: u64, children: Vec<Child>) -> ContextTrace {
    let us = |hop: &Hop| hop.queue_us + hop.network_us + hop.worker_queue_us + hop.work_us;
    ContextTrace {
        total_us: hops.iter().map(us).sum::<u64>() + queue_ms * 1_000,
        queue_us: queue_ms * 1_000,
        hops,
        children,
        ..ContextTrace::default()
    }
}

fn child(action: &str, sent_ms: u64, outcome: Outcome, trace: ContextTrace) -> Child {
    Child {
        task_id: TaskId::try_from(action).unwrap(),
        action: ActionName::try_from(action).unwrap(),
        sent_us: sent_ms * 1_000,
        outcome,
        trace,
    }
}

fn end(outcome: Outcome, trace: ContextTrace) -> TaskEnd {
    TaskEnd {
        task_id: TaskId::try_from("t-1").unwrap(),
        outcome,
        executed: Executed::Yes,
        body: Default::default(),
        content_type: Default::default(),
        headers: Default::default(),
        fallback: None,
        error: None,
        trace: trace.into(),
    }
}

/// A plan that searches twice at once, the slower of which fetches, and then summarizes.
fn plan() -> TaskEnd {
    use HopEvent::{Completed, WorkerLost};
    let fetch = trace(vec![hop("n-3", Completed, 1, [2, 0, 0, 18])], 0, vec![]);
    let slow = trace(
        vec![hop("n-2", Completed, 1, [0, 4, 0, 36])],
        0,
        vec![child("fetch", 10, Outcome::Failed, fetch)],
    );
    let fast = trace(vec![hop("n-3", Completed, 1, [0, 0, 10, 10])], 0, vec![]);
    let summarize = trace(
        vec![hop("n-2", WorkerLost, 1, [0, 10, 0, 0]), hop("n-3", Completed, 2, [5, 0, 0, 15])],
        0,
        vec![],
    );
    let children = vec![
        child("search", 10, Outcome::Ok, fast),
        child("search", 10, Outcome::Ok, slow),
        child("summarize", 60, Outcome::Ok, summarize),
    ];
    let root = trace(vec![hop("n-1", Completed, 1, [0, 10, 0, 90])], 0, children);
    end(Outcome::Ok, root)
}

const PLAIN: Style = Style { width: 100, has_color: false };

#[test]
fn a_tree_is_drawn_on_one_time_line_with_what_the_end_waited_for() {
    let drawn = draw("plan", &plan(), PLAIN);
    let expected = "
  TASK                         WORKER    QUEUE  NETWORK  W-QUEUE     WORK  0                  100 ms
* plan                         n-1        0 µs  10.0 ms     0 µs  90.0 ms  ─███████████████████████─
  ├─ search                    n-3        0 µs     0 µs  10.0 ms  10.0 ms    ░░░███
* ├─ search                    n-2        0 µs  4.00 ms     0 µs  36.0 ms    ─█████████─
* │  └─ fetch failed           n-3     2.00 ms     0 µs     0 µs  18.0 ms       █████
* └─ summarize #1 worker_lost  n-2        0 µs  10.0 ms     0 µs     0 µs                 ───
*    summarize #2              n-3     5.00 ms     0 µs     0 µs  15.0 ms                   ··████
* what the end waited for   · queue  ─ network  ░ worker's queue  █ work
";
    assert_eq!(format!("\n{drawn}"), expected);
}

#[test]
fn attempts_at_once_are_drawn_one_below_the_other() {
    let first = hop("n-1", HopEvent::Cancelled, 1, [10, 90, 0, 0]);
    let second = hop("n-2", HopEvent::Completed, 2, [0, 2, 0, 18]);
    let hops = vec![Hop { began_us: 10_000, ..first }, Hop { began_us: 80_000, ..second }];
    let trace = ContextTrace { total_us: 100_000, hops, ..ContextTrace::default() };
    let drawn = draw("upper", &end(Outcome::Ok, trace), PLAIN);
    let expected = "
  TASK                WORKER    QUEUE  NETWORK  W-QUEUE     WORK  0                           100 ms
* upper #1 cancelled  n-1     10.0 ms  90.0 ms     0 µs     0 µs  ···───────────────────────────────
* upper #2            n-2        0 µs  2.00 ms     0 µs  18.0 ms                             ███████
";
    assert!(format!("\n{drawn}").starts_with(expected), "{drawn}");
}

#[test]
fn it_is_as_wide_as_the_terminal_and_does_without_bars_in_a_narrow_one() {
    for width in [1, 40, 80, 100, 200] {
        let style = Style { width, ..PLAIN };
        let drawn = draw("plan", &plan(), style);
        let widest = drawn.lines().map(columns).max().unwrap();
        assert!(widest <= width, "{widest} of {width}");
        let has_bars = drawn.lines().nth(1).is_some_and(|line| line.contains('█'));
        assert_eq!(has_bars, width >= 100, "{width}");
    }
}

#[test]
fn color_is_only_what_is_asked_for() {
    let style = Style { has_color: true, ..PLAIN };
    let colored = draw("plan", &plan(), style);
    assert!(colored.contains("\x1b[1m* plan"));
    assert_eq!(
        ["\x1b[0m", "\x1b[1m", "\x1b[2m"].iter().fold(colored, |it, code| it.replace(code, "")),
        draw("plan", &plan(), PLAIN)
    );
}

#[test]
fn a_task_that_no_worker_had_is_one_row() {
    let drawn = draw("upper", &end(Outcome::Rejected, trace(vec![], 5, vec![])), PLAIN);
    let row: Vec<_> = drawn.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..8], ["*", "upper", "rejected", "5.00", "ms", "-", "-", "-"]);
    let lost = end(Outcome::Lost, ContextTrace::default());
    assert!(draw("upper", &lost, PLAIN).contains("upper lost"));
}

#[test]
fn what_a_peer_makes_up_is_survived() {
    let huge = hop("n", HopEvent::Completed, u32::MAX, [u64::MAX / 1_000; 4]);
    let inner =
        ContextTrace { hops: vec![huge.clone(), huge], truncated: true, ..Default::default() };
    let mut it = child("a", u64::MAX / 1_000, Outcome::Ok, inner);
    for _ in 0..16 {
        let trace = ContextTrace { children: vec![it.clone(), it], ..Default::default() };
        it = Child { trace, ..child("deep", 1, Outcome::Ok, ContextTrace::default()) };
        it.trace.children.truncate(1);
    }
    let drawn = draw("a", &end(Outcome::Ok, it.trace), Style { width: 1, ..PLAIN });
    assert!(drawn.contains("left out"));
}
