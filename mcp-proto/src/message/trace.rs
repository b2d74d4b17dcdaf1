//! The context trace: what happened to a task on its way, and to the tasks that its handlers sent.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use bytestring::ByteString;

use super::field::wire_enum;
use super::{Explanation, Outcome};
use crate::id::{ActionName, NodeId, TaskId};
use crate::limits::{MAX_DEPTH, MAX_HOPS, MAX_TRACE_BYTES};
use crate::trace_context::TraceId;
use crate::wire::{Field, Reader, WireError, Writer, part};

wire_enum! {
    /// How an attempt ended.
    HopEvent {
        /// The worker finished it: ok, or the handler's error.
        Completed = 1, "completed";
        /// The worker handed it back without starting it.
        Nacked = 2, "nacked";
        /// The worker was lost while it held it.
        WorkerLost = 3, "worker_lost";
        /// It was still running when the task expired.
        Expired = 4, "expired";
        /// It was still running when the task was cancelled.
        Cancelled = 5, "cancelled";
        /// It gave no sign of life for the task's attempt time-out.
        TimedOut = 6, "timed_out";
    }
}

/// What happened to a task: a hop for each attempt, oldest first.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct ContextTrace {
    /// The broker that took the task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_id: Option<NodeId>,
    /// From the arrival of SEND to the outcome, µs by the broker's clock.
    pub total_us: u64,
    /// µs in the broker's queue after the last hop; all the time when there is none.
    pub queue_us: u64,
    /// The attempts.
    #[serde(deserialize_with = "known_hops")]
    pub hops: Vec<Hop>,
    /// The tasks that its handlers sent, in the order in which they ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<Child>,
    /// Whether the oldest of its hops or children were left out: on the wire, a trace has at most
    /// [`MAX_HOPS`] hops and as many children in [`MAX_TRACE_BYTES`], those of its children
    /// included, which are nested at most [`MAX_DEPTH`] deep.
    pub truncated: bool,
    /// The trace that its client sent it in, if it did; else it is [`TraceId::of_task`]. Not told of
    /// children.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<TraceId>,
}

/// A task that was sent by a handler of another one, while that was in flight.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Child {
    /// Which.
    pub task_id: TaskId,
    /// What it asked for.
    pub action: ActionName,
    /// From the arrival of its parent's SEND to that of its own, µs.
    pub sent_us: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// What happened on its way.
    pub trace: ContextTrace,
}

/// One attempt. Its four durations add up to its share of the total, unless another one ran beside it.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Hop {
    /// The worker.
    pub node_id: NodeId,
    /// How it ended.
    pub event: HopEvent,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// Waited in the broker's queue before this attempt, µs.
    pub queue_us: u64,
    /// From ROUTE to the attempt's end by the broker's clock, less the worker's two, µs.
    pub network_us: u64,
    /// Waited inside the worker, as it reports, µs.
    pub worker_queue_us: u64,
    /// In the handler, as the worker reports, µs.
    pub work_us: u64,
    /// The policy that chose the worker.
    pub policy: ByteString,
    /// Workers with a free slot that it chose among.
    pub candidates: u32,
    /// Why there is another attempt after this one, or why this one did not end well.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub reason: ByteString,
    /// From SEND to ROUTE, µs, of a task that had two attempts at once. 0: not told; then its time in
    /// the queue began when the attempt before it had ended.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub began_us: u64,
    /// Why this worker was chosen; only of a task that [asked for it](super::Task::explain). Of more
    /// attempts than there is room for, the newest have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<Box<Explanation>>,
}

/// A context trace as it was made, or as it came: then it is decoded when somebody looks, which for
/// most tasks nobody does.
#[derive(Clone)]
pub enum LazyTrace {
    /// Made here.
    Decoded(ContextTrace),
    /// From a DELIVER, as large as the header may be. A slice of what was read.
    Encoded(Bytes),
}

impl LazyTrace {
    /// The trace. Of a malformed one, what is before the fault; hops that are odd are left out.
    pub fn decode(&self) -> Cow<'_, ContextTrace> {
        match self {
            LazyTrace::Decoded(trace) => Cow::Borrowed(trace),
            LazyTrace::Encoded(bytes) => Cow::Owned(ContextTrace::read(bytes)),
        }
    }

    /// The same by value: one that was made here is not copied.
    pub fn into_decoded(self) -> ContextTrace {
        match self {
            LazyTrace::Decoded(trace) => trace,
            LazyTrace::Encoded(bytes) => ContextTrace::read(&bytes),
        }
    }

    pub(super) fn write(&self, to: &mut Writer<'_>) {
        match self {
            LazyTrace::Decoded(trace) => trace.write(to),
            LazyTrace::Encoded(bytes) => to.0.extend_from_slice(bytes),
        }
    }
}

/// An empty one.
impl Default for LazyTrace {
    fn default() -> Self {
        LazyTrace::Encoded(Bytes::new())
    }
}

impl From<ContextTrace> for LazyTrace {
    fn from(trace: ContextTrace) -> Self {
        LazyTrace::Decoded(trace)
    }
}

impl fmt::Debug for LazyTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.decode().fmt(f)
    }
}

/// By what they say.
impl PartialEq for LazyTrace {
    fn eq(&self, other: &Self) -> bool {
        self.decode() == other.decode()
    }
}

impl ContextTrace {
    /// Adds a child that ended, and leaves the oldest hops and children out for which there is no
    /// room any more.
    pub fn add_child(&mut self, child: Child) {
        self.children.push(child);
        let fit = self.fit(&mut Room::default(), MAX_DEPTH);
        self.cut(&fit);
    }

    /// Hops and children that are odd are left out.
    fn read(it: &Bytes) -> Self {
        Self::read_within(it, it, &mut Room::default(), MAX_DEPTH)
    }

    /// The trace in `it`, a part of `whole`, as far as it can be read.
    fn read_within(whole: &Bytes, it: &[u8], room: &mut Room, levels: u8) -> Self {
        let mut trace = Self::default();
        let mut fields = Reader(it);
        while let Ok(Some(field)) = fields.next()
            && trace.read_field(whole, field, room, levels).is_ok()
        {}
        trace
    }

    fn read_field(
        &mut self,
        whole: &Bytes,
        field: Field<'_>,
        room: &mut Room,
        levels: u8,
    ) -> Result<(), WireError> {
        match field.number {
            1 => self.broker_id = NodeId::from_bytes(part(whole, field.bytes()?)).ok(),
            2 => self.total_us = field.uint()?,
            3 if room.hops > 0 => {
                if let Some(hop) = Hop::parse(whole, field.bytes()?)? {
                    room.hops -= 1;
                    self.hops.push(hop);
                }
            }
            6 if room.children > 0 && levels > 0 => {
                room.children -= 1;
                self.children.extend(Child::parse(whole, field.bytes()?, room, levels - 1)?);
            }
            3 | 6 => self.truncated = true,
            4 => self.truncated |= field.uint()? != 0,
            5 => self.queue_us = field.uint()?,
            7 => self.trace_id = field.bytes()?.try_into().ok().and_then(TraceId::from_bytes),
            _ => {}
        }
        Ok(())
    }

    fn write(&self, to: &mut Writer<'_>) {
        if self.children.is_empty() {
            // Most traces: nothing of a tree costs them anything.
            self.write_own(self.hops_that_fit(&mut Room::default()), 0, to);
        } else {
            self.write_fit(&self.fit(&mut Room::default(), MAX_DEPTH), to);
        }
        if let Some(trace_id) = self.trace_id {
            to.bytes(7, &trace_id.to_bytes());
        }
    }

    /// All but its children, of which so many are left out.
    #[inline(always)]
    fn write_own(&self, hops: usize, left_out: usize, to: &mut Writer<'_>) {
        if let Some(id) = &self.broker_id {
            to.bytes(1, id.as_bytes());
        }
        to.uint(2, self.total_us);
        for hop in &self.hops[self.hops.len() - hops..] {
            to.message(3, |to| hop.write(to));
        }
        to.uint(4, (self.truncated || hops < self.hops.len() || left_out > 0).into());
        to.uint(5, self.queue_us);
    }

    #[inline(never)]
    fn write_fit(&self, fit: &Fit, to: &mut Writer<'_>) {
        let (_, left_out) = fit.left_out(self);
        self.write_own(fit.hops, left_out, to);
        for (child, fit) in self.children[left_out..].iter().zip(fit.children.iter().rev()) {
            to.message(6, |to| child.write(fit, to));
        }
    }

    /// How many of its newest hops fit into `room`.
    #[inline]
    fn hops_that_fit(&self, room: &mut Room) -> usize {
        self.hops.iter().rev().take_while(|hop| room.takes_hop(hop)).count()
    }

    /// What fits into `room`: first its own hops, then child by child, the newest first, as its end
    /// is what the end of the whole waited for.
    fn fit(&self, room: &mut Room, levels: u8) -> Fit {
        let hops = self.hops_that_fit(room);
        let children = self.children.iter().rev().take_while(|_| levels > 0).map_while(|child| {
            room.takes_child(child).then(|| child.trace.fit(room, levels.saturating_sub(1)))
        });
        Fit { hops, children: children.collect() }
    }

    fn cut(&mut self, fit: &Fit) {
        let (hops, children) = fit.left_out(self);
        self.truncated |= hops + children > 0;
        self.hops.drain(..hops);
        self.children.drain(..children);
        for (child, fit) in self.children.iter_mut().zip(fit.children.iter().rev()) {
            child.trace.cut(fit);
        }
    }
}

/// What a tree of traces still has room for.
struct Room {
    hops: usize,
    children: usize,
    bytes: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self { hops: MAX_HOPS, children: MAX_HOPS, bytes: MAX_TRACE_BYTES }
    }
}

impl Room {
    fn takes_hop(&mut self, hop: &Hop) -> bool {
        take(&mut self.hops, &mut self.bytes, hop.max_bytes())
    }

    fn takes_child(&mut self, child: &Child) -> bool {
        take(&mut self.children, &mut self.bytes, child.max_bytes())
    }
}

/// Takes one and its bytes, if there are both.
fn take(count: &mut usize, bytes: &mut usize, needed: usize) -> bool {
    let fits = *count > 0 && *bytes >= needed;
    if fits {
        *count -= 1;
        *bytes -= needed;
    }
    fits
}

/// How much of a trace fits: so many of its newest hops, and of its newest children.
struct Fit {
    hops: usize,
    /// The newest first.
    children: Vec<Fit>,
}

impl Fit {
    /// How many hops and children of `trace` don't.
    fn left_out(&self, trace: &ContextTrace) -> (usize, usize) {
        (trace.hops.len() - self.hops, trace.children.len() - self.children.len())
    }
}

impl Child {
    fn parse(
        whole: &Bytes,
        it: &[u8],
        room: &mut Room,
        levels: u8,
    ) -> Result<Option<Self>, WireError> {
        let (mut task_id, mut action, mut sent_us, mut outcome) = (&[][..], &[][..], 0, 0);
        let mut trace = ContextTrace::default();
        let mut fields = Reader(it);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => task_id = field.bytes()?,
                2 => action = field.bytes()?,
                3 => sent_us = field.uint()?,
                4 => outcome = field.enumeration()?,
                5 => trace = ContextTrace::read_within(whole, field.bytes()?, room, levels),
                _ => {}
            }
        }
        let (Ok(task_id), Ok(action), Some(outcome)) = (
            TaskId::from_bytes(task_id),
            ActionName::from_bytes(part(whole, action)),
            Outcome::from_wire(outcome),
        ) else {
            return Ok(None);
        };
        Ok(Some(Self { task_id, action, sent_us, outcome, trace }))
    }

    fn write(&self, fit: &Fit, to: &mut Writer<'_>) {
        to.bytes(1, self.task_id.as_bytes());
        to.bytes(2, self.action.as_bytes());
        to.uint(3, self.sent_us);
        to.uint(4, self.outcome.to_wire() as u64);
        to.message(5, |to| self.trace.write_fit(fit, to));
    }

    /// No more than this on the wire, without the hops and children of its trace: its texts, and
    /// numbers and lengths at their longest.
    fn max_bytes(&self) -> usize {
        let broker = self.trace.broker_id.as_ref().map_or(0, |id| id.as_bytes().len());
        64 + self.task_id.as_bytes().len() + self.action.as_bytes().len() + broker
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Hops from JSON, without those of a later version, as [`Hop::parse`] has it.
fn known_hops<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<Hop>, D::Error> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Maybe {
        Known(Hop),
        Other(serde::de::IgnoredAny),
    }
    let hops = <Vec<Maybe> as serde::Deserialize>::deserialize(from)?;
    let known = |hop| match hop {
        Maybe::Known(hop) => Some(hop),
        Maybe::Other(_) => None,
    };
    Ok(hops.into_iter().filter_map(known).collect())
}

impl Hop {
    fn parse(whole: &Bytes, it: &[u8]) -> Result<Option<Self>, WireError> {
        let (mut node_id, mut event, mut policy, mut reason) = (&[][..], 0, &[][..], &[][..]);
        let (mut attempt, mut candidates, mut queue_us) = (0, 0, 0);
        let (mut network_us, mut worker_queue_us, mut work_us, mut began_us) = (0, 0, 0, 0);
        let mut explanation = None;
        let mut fields = Reader(it);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => node_id = field.bytes()?,
                2 => event = field.enumeration()?,
                3 => attempt = field.uint()? as u32,
                4 => queue_us = field.uint()?,
                5 => network_us = field.uint()?,
                6 => worker_queue_us = field.uint()?,
                7 => work_us = field.uint()?,
                8 => policy = field.bytes()?,
                9 => candidates = field.uint()? as u32,
                10 => reason = field.bytes()?,
                11 => began_us = field.uint()?,
                12 => explanation = Explanation::from_json(field.bytes()?),
                _ => {}
            }
        }
        let text = |it| ByteString::try_from(part(whole, it)).unwrap_or_default();
        let (Ok(node_id), Some(event)) =
            (NodeId::from_bytes(part(whole, node_id)), HopEvent::from_wire(event))
        else {
            return Ok(None);
        };
        Ok(Some(Self {
            node_id,
            event,
            attempt,
            queue_us,
            network_us,
            worker_queue_us,
            work_us,
            policy: text(policy),
            candidates,
            reason: text(reason),
            began_us,
            explanation: explanation.map(Box::new),
        }))
    }

    fn write(&self, to: &mut Writer<'_>) {
        to.bytes(1, self.node_id.as_bytes());
        to.uint(2, self.event.to_wire() as u64);
        to.uint(3, self.attempt.into());
        to.uint(4, self.queue_us);
        to.uint(5, self.network_us);
        to.uint(6, self.worker_queue_us);
        to.uint(7, self.work_us);
        to.bytes(8, self.policy.as_bytes());
        to.uint(9, self.candidates.into());
        to.bytes(10, self.reason.as_bytes());
        to.uint(11, self.began_us);
        if let Some(explanation) = &self.explanation {
            to.bytes(12, &explanation.to_json());
        }
    }

    /// No more than this on the wire: its texts, and numbers at their longest.
    fn max_bytes(&self) -> usize {
        let explanation = self.explanation.as_ref().map_or(0, |it| it.to_json().len());
        95 + self.node_id.as_bytes().len() + self.policy.len() + self.reason.len() + explanation
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    #[test]
    fn of_a_malformed_trace_what_is_before_the_fault_is_read() {
        let mut bytes = BytesMut::new();
        let mut to = Writer(&mut bytes);
        to.uint(2, 7);
        // A hop with a number where its node id belongs.
        to.message(3, |to| to.uint(1, 5));
        to.uint(5, 9);
        let trace = LazyTrace::Encoded(bytes.freeze());
        let expected = ContextTrace { total_us: 7, ..ContextTrace::default() };
        assert_eq!(*trace.decode(), expected);
        assert_eq!(LazyTrace::default(), ContextTrace::default().into());
    }
    #[test]
    fn a_trace_survives_json_and_a_hop_of_a_later_version_does_not() {
        let hop = Hop {
            node_id: NodeId::try_from("n-1").unwrap(),
            event: HopEvent::TimedOut,
            attempt: 1,
            queue_us: 2,
            network_us: 3,
            worker_queue_us: 4,
            work_us: 5,
            policy: "round_robin".into(),
            candidates: 6,
            reason: ByteString::new(),
            began_us: 0,
            explanation: Some(Box::default()),
        };
        let trace = ContextTrace { hops: vec![hop], total_us: 14, ..ContextTrace::default() };
        let json = serde_json::to_string(&trace).unwrap();
        assert_eq!(serde_json::from_str::<ContextTrace>(&json).unwrap(), trace);
        let later = json.replace("timed_out", "teleported");
        assert_eq!(serde_json::from_str::<ContextTrace>(&later).unwrap().hops, []);
    }
}
