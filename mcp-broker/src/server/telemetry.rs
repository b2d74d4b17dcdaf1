//! What is told of single tasks once they have ended: a log line, and spans for OpenTelemetry. The core
//! tells of those that are sampled, or of all while somebody reads such lines.

use mcp_proto::{Hop, HopEvent, NodeId, Outcome, SpanId};
use mcp_telemetry::{Exported, Exporter, Kind, Span};

use super::config::{ConfigError, TelemetryConfig};
use crate::broker::{TaskTrace, TraceRules};

/// Of the log lines of single tasks.
const TARGET: &str = "mcp_broker::tasks";

/// Where what is told goes.
#[derive(Debug, Default)]
pub(super) struct Telemetry {
    exporter: Option<Exporter>,
}

impl Telemetry {
    /// # Panics
    /// Outside a tokio runtime.
    pub(super) fn start(config: &TelemetryConfig, broker_id: &NodeId) -> Result<Self, ConfigError> {
        let resource = || {
            vec![
                ("service.name", "mcp-broker".into()),
                ("service.version", env!("CARGO_PKG_VERSION").into()),
                ("service.instance.id", broker_id.as_str().into()),
            ]
        };
        let endpoint = config.endpoint()?;
        Ok(Self { exporter: endpoint.map(|endpoint| Exporter::start(endpoint, resource())) })
    }

    /// What the core is to tell of.
    pub(super) fn rules(&self, config: &TelemetryConfig) -> TraceRules {
        TraceRules {
            is_on: self.exporter.is_some(),
            sample_ratio: config.sample_ratio,
            tells_all: tracing::enabled!(target: TARGET, tracing::Level::DEBUG),
        }
    }

    pub(super) fn ended(&self, task: &TaskTrace) {
        tracing::debug!(
            target: TARGET,
            trace_id = %task.trace_id,
            task_id = %task.task_id,
            action = task.action.as_str(),
            outcome = task.outcome.name(),
            error_code = task.error_code.map(|code| code.name()),
            attempts = task.trace.hops.len(),
            total_us = task.trace.total_us,
            "task ended"
        );
        if task.is_sampled
            && let Some(exporter) = &self.exporter
        {
            spans(task, |span| exporter.export(span));
        }
    }

    pub(super) fn exported(&self) -> Option<Exported> {
        self.exporter.as_ref().map(Exporter::exported)
    }

    /// Waits until the last ones are sent, for some seconds at most.
    pub(super) async fn flush(&self) {
        if let Some(exporter) = &self.exporter {
            exporter.flush().await;
        }
    }
}

/// The spans of a task: `route` from SEND to its outcome, in it a `queue` and an `attempt` for each
/// attempt. What its worker does is below the attempt.
fn spans(task: &TaskTrace, mut to: impl FnMut(Span)) {
    let end_us = task.ended_wall_ms * 1000;
    let start_us = end_us.saturating_sub(task.trace.total_us);
    let action = task.action.as_str();
    let span = |name: &str, span_id: SpanId, parent, kind, start_us: u64, us: u64| {
        let span = Span {
            trace_id: task.trace_id,
            span_id,
            parent,
            name: format!("{name} {action}"),
            kind,
            start_us,
            end_us: start_us.saturating_add(us),
            attributes: Vec::new(),
            error: None,
        };
        span.with("messaging.system", "mcp")
            .with("messaging.destination.name", action)
            .with("messaging.operation.name", name)
    };
    let mut at_us = start_us;
    for (index, hop) in task.trace.hops.iter().enumerate() {
        if hop.began_us > 0 {
            at_us = (start_us + hop.began_us).saturating_sub(hop.queue_us);
        }
        let waited = task.queue_span(index);
        to(span("queue", waited, Some(task.span_id), Kind::Internal, at_us, hop.queue_us));
        at_us += hop.queue_us;
        let us = hop.network_us + hop.worker_queue_us + hop.work_us;
        let attempt = task.attempt_span(hop.attempt);
        let attempt = span("attempt", attempt, Some(task.span_id), Kind::Client, at_us, us);
        to(described(attempt, hop));
        at_us += us;
    }
    if task.trace.queue_us > 0 {
        let waited = task.queue_span(task.trace.hops.len());
        let us = task.trace.queue_us;
        to(span("queue", waited, Some(task.span_id), Kind::Internal, at_us, us));
    }
    let whole =
        span("route", task.span_id, task.parent, Kind::Server, start_us, task.trace.total_us);
    let mut whole = whole
        .with("messaging.message.id", task.task_id.as_str())
        .with("mcp_broker.outcome", task.outcome.name())
        .with("mcp_broker.priority", task.priority.name())
        .with("mcp_broker.delivery", if task.is_durable { "durable" } else { "fast" })
        .with("mcp_broker.attempts", task.trace.hops.len() as u64);
    if let Some(fallback) = &task.fallback {
        whole = whole.with("mcp_broker.fallback", &**fallback);
    }
    if task.outcome != Outcome::Ok {
        let code = task.error_code.map_or(task.outcome.name(), |code| code.name());
        whole = whole.with("error.type", code);
        whole.error = Some(code.to_owned());
    }
    to(whole);
}

fn described(span: Span, hop: &Hop) -> Span {
    let mut span = span
        .with("mcp_broker.node_id", hop.node_id.as_str())
        .with("mcp_broker.attempt", u64::from(hop.attempt))
        .with("mcp_broker.event", hop.event.name())
        .with("mcp_broker.policy", &*hop.policy)
        .with("mcp_broker.candidates", u64::from(hop.candidates))
        .with("mcp_broker.worker_queue_us", hop.worker_queue_us)
        .with("mcp_broker.work_us", hop.work_us);
    if !hop.reason.is_empty() {
        span = span.with("mcp_broker.reason", &*hop.reason);
    }
    if hop.event != HopEvent::Completed {
        span = span.with("error.type", hop.event.name());
        span.error = Some(hop.event.name().to_owned());
    }
    span
}
