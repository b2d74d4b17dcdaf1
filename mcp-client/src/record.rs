//! What a client and a worker record of single tasks: log lines, for who wants to read each, and spans,
//! of tasks that are sampled. A task that is neither costs a look at two flags.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

#[cfg(feature = "otlp")]
use mcp_proto::Outcome;
use mcp_proto::{ActionName, AttemptId, SpanId, Task, TaskId, TraceContext, TraceId};
#[cfg(feature = "otlp")]
use mcp_telemetry::{Exporter, Kind, Span};

/// Of the log lines of single tasks.
const TARGET: &str = "mcp_client::tasks";

/// What is recorded, and where it goes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recorder {
    #[cfg(feature = "otlp")]
    exporter: Option<Exporter>,
    /// Of the tasks that are sent without a trace, the share that is recorded.
    #[cfg(feature = "otlp")]
    sample_ratio: f64,
}

/// A task that was sent, until its end.
#[derive(Debug)]
pub(crate) struct Sent {
    trace_id: TraceId,
    task_id: TaskId,
    action: ActionName,
    #[cfg(feature = "otlp")]
    span: Option<Recording>,
}

/// An attempt that a handler works on.
#[derive(Debug)]
pub(crate) struct Processing {
    trace_id: TraceId,
    task_id: TaskId,
    action: ActionName,
    attempt: u32,
    /// µs since 1970; 0: not yet.
    began_us: AtomicU64,
    #[cfg(feature = "otlp")]
    span: Option<Recording>,
}

/// A span that has begun.
#[cfg(feature = "otlp")]
#[derive(Debug)]
struct Recording {
    exporter: Exporter,
    span_id: SpanId,
    parent: Option<SpanId>,
    start_us: u64,
}

impl Recorder {
    /// Spans go there.
    #[cfg(feature = "otlp")]
    pub(crate) fn new(exporter: Exporter, sample_ratio: f64) -> Self {
        Self { exporter: Some(exporter), sample_ratio }
    }

    /// A task is about to be sent: gives it a span, if it is sampled.
    pub(crate) fn sending(&self, task: &mut Task) -> Option<Box<Sent>> {
        let is_logged = tracing::enabled!(target: TARGET, tracing::Level::DEBUG);
        #[cfg(feature = "otlp")]
        let span = self.begin(task);
        #[cfg(feature = "otlp")]
        let is_wanted = is_logged || span.is_some();
        #[cfg(not(feature = "otlp"))]
        let is_wanted = is_logged;
        if !is_wanted {
            return None;
        }
        let sent = Sent {
            trace_id: task.trace_id(),
            task_id: task.id.clone(),
            action: task.action.clone(),
            #[cfg(feature = "otlp")]
            span,
        };
        let (trace_id, task_id, action) = (sent.trace_id, &sent.task_id, sent.action.as_str());
        tracing::debug!(target: TARGET, %trace_id, %task_id, action, "task sent");
        Some(Box::new(sent))
    }

    #[cfg(feature = "otlp")]
    fn begin(&self, task: &mut Task) -> Option<Recording> {
        let exporter = self.exporter.as_ref()?;
        // Its own, whatever trace it is in.
        let number = own_number(&task.id);
        let given = TraceContext::parse(task.traceparent.as_bytes());
        let is_sampled = match given {
            Some(given) => given.is_sampled,
            None => (number as f64) < self.sample_ratio * 2_f64.powi(64),
        };
        if !is_sampled {
            return None;
        }
        let (trace_id, span_id) = (task.trace_id(), span_of(number));
        task.traceparent = TraceContext { trace_id, span_id, is_sampled }.to_string().into();
        let parent = given.map(|given| given.span_id);
        Some(Recording { exporter: exporter.clone(), span_id, parent, start_us: now_us() })
    }

    /// An attempt came: what its handler sends on is to be below it.
    pub(crate) fn arrived(
        &self,
        task: &mut Task,
        attempt: (AttemptId, u32),
        routed: Option<SpanId>,
    ) -> Option<Box<Processing>> {
        let is_logged = tracing::enabled!(target: TARGET, tracing::Level::DEBUG);
        if !is_logged && routed.is_none() && task.traceparent.is_empty() {
            return None;
        }
        let trace_id = task.trace_id();
        #[cfg(feature = "otlp")]
        let span = self.process(task, attempt.0, routed);
        #[cfg(feature = "otlp")]
        let (own, is_wanted) =
            (span.as_ref().map(|span| span.span_id), is_logged || span.is_some());
        #[cfg(not(feature = "otlp"))]
        let (own, is_wanted) = (None, is_logged);
        if let Some(span_id) = own.or(routed) {
            let context = TraceContext { trace_id, span_id, is_sampled: true };
            task.traceparent = context.to_string().into();
        }
        is_wanted.then(|| {
            Box::new(Processing {
                trace_id,
                task_id: task.id.clone(),
                action: task.action.clone(),
                attempt: attempt.1,
                began_us: AtomicU64::new(0),
                #[cfg(feature = "otlp")]
                span,
            })
        })
    }

    /// A span of an attempt, below the broker's, or the client's if the broker records nothing.
    #[cfg(feature = "otlp")]
    fn process(
        &self,
        task: &Task,
        attempt_id: AttemptId,
        routed: Option<SpanId>,
    ) -> Option<Recording> {
        let given = TraceContext::parse(task.traceparent.as_bytes());
        let sender = given.filter(|given| given.is_sampled).map(|given| given.span_id);
        let (parent, exporter) = routed.or(sender).zip(self.exporter.as_ref())?;
        Some(Recording {
            exporter: exporter.clone(),
            span_id: span_of(own_number(&task.id) ^ attempt_id.0),
            parent: Some(parent),
            start_us: 0,
        })
    }
}

impl Sent {
    /// It has ended so, or nobody waits for it any more.
    pub(crate) fn ended(self, end: Option<&mcp_proto::Deliver>) {
        let Self { trace_id, task_id, action, .. } = &self;
        let outcome = end.map_or("not awaited", |end| end.outcome.name());
        let error_code = end.and_then(|end| end.error.as_ref()).map(|error| error.code.name());
        let action = action.as_str();
        tracing::debug!(target: TARGET, %trace_id, %task_id, action, outcome, error_code, "task ended");
        #[cfg(feature = "otlp")]
        if let Some(recording) = &self.span {
            let kind = if end.is_some() { Kind::Client } else { Kind::Producer };
            let is_failed = end.is_some_and(|end| end.outcome != Outcome::Ok);
            let why = is_failed.then(|| error_code.unwrap_or(outcome));
            let span = recording.span((*trace_id, task_id, action), "send", kind, now_us(), why);
            recording.exporter.export(span.with("mcp_broker.outcome", outcome));
        }
    }
}

impl Processing {
    /// Its handler begins.
    pub(crate) fn begins(&self) {
        self.began_us.store(now_us(), Ordering::Relaxed);
    }

    /// Its handler is done, and why it did not end well if that is so.
    pub(crate) fn ended(&self, why: Option<&str>) {
        let Self { trace_id, task_id, action, attempt, .. } = self;
        let (action, outcome) = (action.as_str(), why.unwrap_or("ok"));
        tracing::debug!(target: TARGET, %trace_id, %task_id, action, attempt, outcome, "attempt ended");
        #[cfg(feature = "otlp")]
        if let Some(recording) = &self.span {
            let end_us = now_us();
            let mut span = recording.span(
                (*trace_id, task_id, action),
                "process",
                Kind::Consumer,
                end_us,
                why,
            );
            span.start_us = self.began_us.load(Ordering::Relaxed).min(end_us);
            recording.exporter.export(span.with("mcp_broker.attempt", u64::from(*attempt)));
        }
    }
}

#[cfg(feature = "otlp")]
impl Recording {
    fn span(
        &self,
        (trace_id, task_id, action): (TraceId, &TaskId, &str),
        operation: &'static str,
        kind: Kind,
        end_us: u64,
        why: Option<&str>,
    ) -> Span {
        let span = Span {
            trace_id,
            span_id: self.span_id,
            parent: self.parent,
            name: format!("{operation} {action}"),
            kind,
            start_us: self.start_us,
            end_us,
            attributes: Vec::new(),
            error: why.map(str::to_owned),
        };
        let span = span
            .with("messaging.system", "mcp")
            .with("messaging.destination.name", action)
            .with("messaging.operation.name", operation)
            .with("messaging.operation.type", operation)
            .with("messaging.message.id", task_id.as_str());
        match why {
            Some(why) => span.with("error.type", why),
            None => span,
        }
    }
}

/// Puts a task into the trace of the one whose handler sends it. Where that is not recorded, this is not
/// either.
pub(crate) fn follow(task: &mut Task, parent: &Task) {
    task.traceparent = match TraceContext::parse(parent.traceparent.as_bytes()) {
        Some(_) => parent.traceparent.clone(),
        None => {
            let span_id = span_of(own_number(&parent.id));
            let context = TraceContext { trace_id: parent.trace_id(), span_id, is_sampled: false };
            context.to_string().into()
        }
    };
    task.tracestate = parent.tracestate.clone();
}

/// Of a task, spread evenly: its id is a UUID with 62 random bits at the end, or a hash of any text.
fn own_number(id: &TaskId) -> u64 {
    let [.., a, b, c, d, e, f, g, h] = TraceId::of_task(id).to_bytes();
    mix(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
}

fn span_of(number: u64) -> SpanId {
    SpanId::new(mix(number)).unwrap_or_else(|| span_of(number ^ 1))
}

/// MurmurHash3's `fmix64`. Source: Appleby, <https://github.com/aappleby/smhasher>.
fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    number = (number ^ (number >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    number ^ (number >> 33)
}

fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> Task {
        Task::new("t-1".try_into().unwrap(), "a".try_into().unwrap())
    }

    #[test]
    fn a_child_is_in_its_parents_trace() {
        let (mut parent, mut child) = (task(), Task { id: "c".try_into().unwrap(), ..task() });
        follow(&mut child, &parent);
        assert_eq!(child.trace_id(), parent.trace_id());
        assert!(!TraceContext::parse(child.traceparent.as_bytes()).unwrap().is_sampled);
        parent.traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into();
        follow(&mut child, &parent);
        assert_eq!(child.traceparent, parent.traceparent);
    }

    #[test]
    fn what_an_attempt_sends_on_is_below_it() {
        let (mut routed, mut plain) = (task(), task());
        let span_id = SpanId::new(7);
        let recorder = Recorder::default();
        assert!(recorder.arrived(&mut routed, (AttemptId(1), 1), span_id).is_none());
        let context = TraceContext::parse(routed.traceparent.as_bytes()).unwrap();
        assert_eq!(context.trace_id, plain.trace_id());
        assert_eq!((Some(context.span_id), context.is_sampled), (span_id, true));
        assert!(recorder.arrived(&mut plain, (AttemptId(1), 1), None).is_none());
        assert_eq!(plain, task());
    }

    #[cfg(feature = "otlp")]
    #[tokio::test]
    async fn a_client_records_what_it_samples_and_no_more() {
        let exporter = Exporter::start("http://127.0.0.1:9".parse().unwrap(), Vec::new());
        let all = Recorder::new(exporter.clone(), 1.0);
        let mut sampled = task();
        assert!(all.sending(&mut sampled).is_some());
        let context = TraceContext::parse(sampled.traceparent.as_bytes()).unwrap();
        assert_eq!((context.trace_id, context.is_sampled), (task().trace_id(), true));
        // It goes on where its caller is.
        let mut below = Task { traceparent: sampled.traceparent.clone(), ..task() };
        below.id = "other".try_into().unwrap();
        assert!(all.sending(&mut below).is_some());
        let other = TraceContext::parse(below.traceparent.as_bytes()).unwrap();
        assert_eq!(other.trace_id, context.trace_id);
        assert_ne!(other.span_id, context.span_id);
        // Its caller's decision holds.
        let unsampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        let mut told = Task { traceparent: unsampled.into(), ..task() };
        assert!(all.sending(&mut told).is_none());
        assert_eq!(told.traceparent, unsampled);
        let none = Recorder::new(exporter, 0.0);
        let mut plain = task();
        assert!(none.sending(&mut plain).is_none());
        assert_eq!(plain, task());
    }
}
