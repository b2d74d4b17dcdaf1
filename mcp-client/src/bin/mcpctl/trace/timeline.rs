//! When each hop of a trace began and ended, and which of them the end waited for.

use mcp_client::{Child, ContextTrace, Hop, HopEvent, Outcome};

/// One hop, or a task without any.
pub(super) struct Row {
    /// Which task, indented below its parent.
    pub(super) name: String,
    pub(super) worker: String,
    /// In the order of [`Part::ALL`].
    pub(super) us: [u64; 4],
    /// Since the root was sent.
    from_us: u64,
    pub(super) is_critical: bool,
    pub(super) is_truncated: bool,
}

/// What a hop's time went to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Queue,
    Network,
    WorkerQueue,
    Work,
}

impl Part {
    pub(super) const ALL: [Self; 4] = [Self::Queue, Self::Network, Self::WorkerQueue, Self::Work];

    pub(super) fn symbol(self) -> char {
        match self {
            Part::Queue => '·',
            Part::Network => '─',
            Part::WorkerQueue => '░',
            Part::Work => '█',
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Part::Queue => "queue",
            Part::Network => "network",
            Part::WorkerQueue => "worker's queue",
            Part::Work => "work",
        }
    }
}

impl Row {
    /// Whether a worker had it.
    pub(super) fn has_worker(&self) -> bool {
        !self.worker.is_empty()
    }

    /// Its parts, each with its begin and end since the root was sent, µs. Of the time on the
    /// network one half is before the work and one after it, as nobody knows better.
    pub(super) fn spans(&self) -> impl Iterator<Item = (Part, u64, u64)> {
        let [queue, network, worker_queue, work] = self.us;
        let spans = [
            (Part::Queue, queue),
            (Part::Network, network / 2),
            (Part::WorkerQueue, worker_queue),
            (Part::Work, work),
            (Part::Network, network - network / 2),
        ];
        let mut at = self.from_us;
        spans.into_iter().filter(|(_, us)| *us > 0).map(move |(part, us)| {
            let from = at;
            at = at.saturating_add(us);
            (part, from, at)
        })
    }
}

/// A task in the tree.
struct Task<'a> {
    action: &'a str,
    outcome: Outcome,
    trace: &'a ContextTrace,
    sent_us: u64,
    is_critical: bool,
}

/// The rows of a trace, from the root down; children in the order in which they were sent.
pub(super) fn rows(action: &str, outcome: Outcome, trace: &ContextTrace) -> Vec<Row> {
    let root = Task { action, outcome, trace, sent_us: 0, is_critical: true };
    let mut rows = Vec::new();
    add(&root, ["", ""], &mut rows);
    rows
}

/// `lead` is what stands before the task's own rows, and before those below it.
fn add(task: &Task<'_>, lead: [&str; 2], rows: &mut Vec<Row>) {
    let Task { action, outcome, trace, sent_us, is_critical } = *task;
    let ended = if outcome == Outcome::Ok { String::new() } else { format!(" {outcome}") };
    let row = |name, worker: &str, us, from_us| Row {
        name,
        worker: worker.to_owned(),
        us,
        from_us,
        is_critical,
        is_truncated: trace.truncated,
    };
    // The hops end with the trace; when the oldest were left out, they begin later than that. Those
    // that were not one after the other say themselves when they began.
    let known_us =
        trace.hops.iter().fold(trace.queue_us, |sum, hop| sum.saturating_add(sum_of(hop)));
    let mut at = sent_us.saturating_add(trace.total_us.saturating_sub(known_us));
    if trace.hops.iter().any(|hop| hop.began_us > 0) {
        at = sent_us;
    }
    for (index, hop) in trace.hops.iter().enumerate() {
        let mut name = format!("{}{action}", lead[usize::from(index > 0)]);
        if trace.hops.len() > 1 || hop.attempt > 1 {
            name.push_str(&format!(" #{}", hop.attempt));
        }
        if hop.event != HopEvent::Completed {
            name.push_str(&format!(" {}", hop.event));
        } else if index + 1 == trace.hops.len() {
            name.push_str(&ended);
        }
        let us = [hop.queue_us, hop.network_us, hop.worker_queue_us, hop.work_us];
        if hop.began_us > 0 {
            at = sent_us.saturating_add(hop.began_us.saturating_sub(hop.queue_us));
        }
        rows.push(row(name, hop.node_id.as_str(), us, at));
        at = at.saturating_add(sum_of(hop));
    }
    if trace.hops.is_empty() || trace.queue_us > 0 {
        let lead = lead[usize::from(!trace.hops.is_empty())];
        rows.push(row(format!("{lead}{action}{ended}"), "", [trace.queue_us, 0, 0, 0], at));
    }

    let mut children: Vec<&Child> = trace.children.iter().collect();
    let critical = critical(&children, trace.total_us);
    children.sort_by_key(|child| child.sent_us);
    for (index, child) in children.iter().enumerate() {
        let (own, below) =
            if index + 1 < children.len() { ("├─ ", "│  ") } else { ("└─ ", "   ") };
        let below_lead = format!("{}{below}", lead[1]);
        let task = Task {
            action: child.action.as_str(),
            outcome: child.outcome,
            trace: &child.trace,
            sent_us: sent_us.saturating_add(child.sent_us),
            is_critical: is_critical && critical.contains(&std::ptr::from_ref(*child)),
        };
        add(&task, [&format!("{}{own}", lead[1]), &below_lead], rows);
    }
}

/// The children that the end waited for, as far as times can tell: the last to end, then the last
/// that had ended when that one was sent, and so on.
fn critical(children: &[&Child], end_us: u64) -> Vec<*const Child> {
    let mut before = end_us;
    let mut chain = Vec::new();
    while let Some(child) = children
        .iter()
        .filter(|child| ended_us(child) <= before && !chain.contains(&std::ptr::from_ref(**child)))
        .max_by_key(|child| ended_us(child))
    {
        before = child.sent_us;
        chain.push(std::ptr::from_ref(*child));
    }
    chain
}

fn ended_us(child: &Child) -> u64 {
    child.sent_us.saturating_add(child.trace.total_us)
}

fn sum_of(hop: &Hop) -> u64 {
    [hop.queue_us, hop.network_us, hop.worker_queue_us, hop.work_us]
        .into_iter()
        .fold(0, u64::saturating_add)
}
