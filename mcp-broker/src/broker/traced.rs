//! Which tasks are recorded as traces: those that their clients record, and a share of the others.
//! Of most tasks nothing is: that costs them a comparison.

use mcp_proto::{
    ActionName, ContextTrace, Deliver, ErrorCode, Outcome, Priority, SpanId, TaskHead, TaskId,
    TraceContext, TraceId,
};

use super::hash::avalanche;
use super::inflight::{Extras, Task};
use super::{Core, Now, Output};

/// Which tasks are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct TraceRules {
    /// Whether spans are made of sampled tasks: of those whose client says so in `traceparent`, and
    /// of a share of those without one.
    pub is_on: bool,
    /// That share, 0 to 1.
    pub sample_ratio: f64,
    /// Whether the ends of all tasks are told, for the log.
    pub tells_all: bool,
}

impl TraceRules {
    /// Of hashes that are spread evenly, this share is below it.
    fn threshold(&self) -> u64 {
        match self.is_on {
            // Saturates at both ends.
            true => (self.sample_ratio * 2_f64.powi(64)) as u64,
            false => 0,
        }
    }
}

/// Of a task that came with a trace, or is recorded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Traced {
    pub(super) trace_id: TraceId,
    /// Whether it came with `trace_id`.
    is_given: bool,
    /// The client's span.
    parent: Option<SpanId>,
    is_sampled: bool,
    is_told: bool,
    /// What the ids of its spans are made of.
    seed: u64,
}

/// How a recorded task went.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskTrace {
    /// Its trace.
    pub trace_id: TraceId,
    /// The span that sent it, if its client told.
    pub parent: Option<SpanId>,
    /// Its own.
    pub span_id: SpanId,
    /// Whether spans are to be made of it.
    pub is_sampled: bool,
    /// Which.
    pub task_id: TaskId,
    /// What its client asked for.
    pub action: ActionName,
    /// Its priority.
    pub priority: Priority,
    /// Whether it was kept in the journal.
    pub is_durable: bool,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, for all but ok.
    pub error_code: Option<ErrorCode>,
    /// The step of the fallback chain that its outcome is of.
    pub fallback: Option<Box<str>>,
    /// What happened on its way.
    pub trace: ContextTrace,
    /// When it ended, ms since 1970.
    pub ended_wall_ms: u64,
    seed: u64,
}

impl TaskTrace {
    /// The span of an attempt, as its ROUTE told it.
    pub fn attempt_span(&self, attempt: u32) -> SpanId {
        span(self.seed, attempt)
    }

    /// The span of the wait before the hop of this index, or after the last one.
    pub fn queue_span(&self, index: usize) -> SpanId {
        // Beyond all attempts.
        span(self.seed, u32::MAX - index as u32)
    }
}

impl Traced {
    /// What its ROUTE says of an attempt.
    pub(super) fn route_span(&self, attempt: u32) -> Option<SpanId> {
        self.is_sampled.then(|| span(self.seed, attempt))
    }

    /// Told with its outcome, to those who can't know it.
    pub(super) fn given_id(&self) -> Option<TraceId> {
        self.is_given.then_some(self.trace_id)
    }
}

/// 0 is the task's own, the others are of its attempts.
fn span(seed: u64, number: u32) -> SpanId {
    let numbered = avalanche(seed.wrapping_add(u64::from(number)));
    SpanId::new(numbered).unwrap_or_else(|| span(!seed, number))
}

impl Task {
    /// The trace that it belongs to, recorded or not.
    pub(super) fn trace_id(&self) -> TraceId {
        self.traced().map_or_else(|| TraceId::of_task(&self.id), |traced| traced.trace_id)
    }

    pub(super) fn traced(&self) -> Option<&Traced> {
        self.extras.as_ref()?.traced.as_ref()
    }
}

impl Core {
    /// Notes what is to be known of a task's trace, if anything is.
    #[inline]
    pub(super) fn trace(
        &self,
        now: Now,
        head: &TaskHead<'_>,
        name_hash: u64,
        extras: &mut Option<Box<Extras>>,
    ) {
        if head.traceparent.is_empty() && name_hash >= self.sampled_below {
            return;
        }
        self.trace_for_sure(now, head, name_hash, extras);
    }

    #[cold]
    fn trace_for_sure(
        &self,
        now: Now,
        head: &TaskHead<'_>,
        name_hash: u64,
        extras: &mut Option<Box<Extras>>,
    ) {
        let rules = &self.config.tracing;
        let given = TraceContext::parse(head.traceparent);
        let is_sampled = match given {
            Some(given) => rules.is_on && given.is_sampled,
            None => name_hash < rules.threshold(),
        };
        let is_told = is_sampled || rules.tells_all;
        if given.is_none() && !is_told {
            return;
        }
        extras.get_or_insert_default().traced = Some(Traced {
            trace_id: given.map_or_else(|| TraceId::of_task(&head.id), |given| given.trace_id),
            is_given: given.is_some(),
            parent: given.map(|given| given.span_id),
            is_sampled,
            is_told,
            seed: avalanche(name_hash ^ now.mono.0.rotate_left(32)),
        });
    }

    /// Below this, a task's hash says that something is to be known of its trace.
    pub(super) fn sampled_below(rules: &TraceRules) -> u64 {
        if rules.tells_all { u64::MAX } else { rules.threshold() }
    }

    /// Tells how a task went that is recorded.
    pub(super) fn tell_trace(
        &mut self,
        now: Now,
        traced: &Traced,
        deliver: &Deliver,
        task: (&ActionName, Priority, bool),
    ) {
        if !traced.is_told {
            return;
        }
        let (action, priority, is_durable) = task;
        self.outputs.push_back(Output::Traced(Box::new(TaskTrace {
            trace_id: traced.trace_id,
            parent: traced.parent,
            span_id: span(traced.seed, 0),
            is_sampled: traced.is_sampled,
            task_id: deliver.task_id.clone(),
            action: action.clone(),
            priority,
            is_durable,
            outcome: deliver.outcome,
            error_code: deliver.error.as_ref().map(|error| error.code),
            fallback: deliver.fallback.clone(),
            trace: deliver.trace.decode().into_owned(),
            ended_wall_ms: now.wall_ms,
            seed: traced.seed,
        })));
    }
}
