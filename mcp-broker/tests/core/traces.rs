//! Which tasks are recorded as traces, and what is told of them.

use mcp_broker::broker::{ConnectionId, TraceRules};
use mcp_proto::{ContextTrace, ErrorCode, Outcome, Route, Task, TraceContext, TraceId};

use crate::fixture::{Fixture, failed_result, idempotent, task, task_id};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn core(sample_ratio: f64, tells_all: bool) -> Fixture {
    Fixture::with(|config| {
        config.tracing = TraceRules { is_on: true, sample_ratio, tells_all };
    })
}

fn traced(id: &str, flags: &str) -> Task {
    Task { traceparent: format!("00-{TRACE}-{SPAN}-{flags}").into(), ..idempotent(id) }
}

/// Sends a task and has it done. Its route, and the trace that its client is told.
fn done(
    it: &mut Fixture,
    client: ConnectionId,
    worker: ConnectionId,
    task: Task,
) -> (Route, ContextTrace) {
    let id = task.id.clone();
    it.send_task(client, task, 60_000);
    let route = it.expect_route(worker);
    it.advance(5);
    it.result(worker, route.attempt_id);
    let deliver = it.expect_deliver(client, id.as_str());
    (route, deliver.trace.into_decoded())
}

#[test]
fn the_clients_decision_counts_and_else_a_share_is_recorded() {
    let mut it = core(0.0, false);
    let (client, worker) = (it.client(), it.worker("w", 1));
    let given: TraceId = TRACE.parse().unwrap();

    let (route, told) = done(&mut it, client, worker, traced("sampled", "01"));
    let [trace] = &it.traces[..] else { panic!("{:?}", it.traces) };
    assert_eq!((trace.trace_id, trace.task_id.as_str()), (given, "sampled"));
    assert_eq!(trace.parent.map(|span| span.to_string()).as_deref(), Some(SPAN));
    assert_eq!((trace.outcome, trace.is_sampled), (Outcome::Ok, true));
    assert_eq!(route.span_id, Some(trace.attempt_span(1)));
    assert_eq!((&trace.trace, told.trace_id), (&told, Some(given)));

    // Known by its trace, and not recorded.
    let (route, told) = done(&mut it, client, worker, traced("unsampled", "00"));
    assert_eq!((route.span_id, told.trace_id, it.traces.len()), (None, Some(given), 1));
    let (route, told) = done(&mut it, client, worker, task("plain"));
    assert_eq!((route.span_id, told.trace_id, it.traces.len()), (None, None, 1));

    let mut it = core(1.0, false);
    let (client, worker) = (it.client(), it.worker("w", 1));
    let (route, told) = done(&mut it, client, worker, task("plain"));
    assert_eq!(
        (it.traces[0].trace_id, it.traces[0].parent),
        (TraceId::of_task(&task_id("plain")), None)
    );
    assert_eq!((route.span_id, told.trace_id), (Some(it.traces[0].attempt_span(1)), None));
    done(&mut it, client, worker, traced("unsampled", "00"));
    assert_eq!(it.traces.len(), 1, "its client has decided");
}

#[test]
fn a_share_is_a_share() {
    let mut it = core(0.25, false);
    let (client, worker) = (it.client(), it.worker("w", 1));
    for number in 0..1000 {
        let (route, _) = done(&mut it, client, worker, task(&format!("t-{number}")));
        let recorded = it.traces.last().filter(|it| it.task_id.as_str() == format!("t-{number}"));
        assert_eq!(route.span_id, recorded.map(|trace| trace.attempt_span(1)));
    }
    assert!((180..320).contains(&it.traces.len()), "{}", it.traces.len());
}

#[test]
fn without_an_exporter_nothing_is_recorded_but_for_the_log() {
    let mut it = Fixture::new();
    let (client, worker) = (it.client(), it.worker("w", 1));
    let (route, told) = done(&mut it, client, worker, traced("t", "01"));
    assert_eq!((route.span_id, it.traces.len()), (None, 0));
    assert_eq!(told.trace_id, TRACE.parse().ok());

    let mut it = core(0.0, true);
    let (client, worker) = (it.client(), it.worker("w", 1));
    let (route, _) = done(&mut it, client, worker, task("t"));
    assert_eq!((route.span_id, it.traces[0].is_sampled), (None, false));
}

#[test]
fn each_attempt_has_a_span_of_its_own() {
    let mut it = core(0.0, false);
    let (client, worker) = (it.client(), it.worker("w", 1));
    let retry = mcp_proto::Retry { max_attempts: 2, ..Default::default() };
    it.send_task(client, Task { retry: Some(retry), ..traced("t", "01") }, 60_000);
    let first = it.expect_route(worker);
    it.give_result(worker, failed_result(first.attempt_id));
    it.advance(100);
    let second = it.expect_route(worker);
    it.give_result(worker, failed_result(second.attempt_id));
    it.expect_end(client, "t");
    let trace = &it.traces[0];
    assert_eq!(trace.error_code, Some(ErrorCode::HandlerFailed));
    let spans = [trace.attempt_span(1), trace.attempt_span(2)];
    assert_eq!([first.span_id, second.span_id], spans.map(Some));
    let all = [trace.span_id, spans[0], spans[1], trace.queue_span(0), trace.queue_span(1)];
    let distinct: std::collections::HashSet<_> = all.into_iter().collect();
    assert_eq!(distinct.len(), all.len());
}

#[test]
fn a_trace_that_is_not_valid_is_none() {
    let mut it = core(1.0, false);
    let (client, worker) = (it.client(), it.worker("w", 1));
    let odd = Task { traceparent: "00-a-b-01".into(), ..task("t") };
    assert!(TraceContext::parse(odd.traceparent.as_bytes()).is_none());
    let (route, told) = done(&mut it, client, worker, odd);
    assert_eq!((told.trace_id, it.traces[0].trace_id), (None, TraceId::of_task(&task_id("t"))));
    assert_eq!(route.task.decode().unwrap().traceparent, "00-a-b-01");
}
