//! The attempts that a worker holds: waiting, running, and finished but not confirmed.
//! Synchronous: told the time, pushes frames to an [`Outbox`], returns the jobs to start.
//!
//! ```text
//!   ROUTE ──▶ waiting ──▶ running ──▶ RESULT ─┐
//!     │          │                            ├──▶ finished ── PONG ──▶ (gone)
//!     └──────────┴─────── NACK ───────────────┘
//! ```
//!
//! A running one whose handler waits for other tasks is parked: it takes no slot meanwhile.
//!
//! What is finished is kept until the broker is known to have it: a PONG to a PING that followed
//! it. Over a broken connection, waiting and running attempts stay, and finished ones are sent
//! again, as far as the broker wants to keep them.

mod ending;
mod finished;
mod parking;
mod parts;
mod signs;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use foldhash::fast::RandomState;
use mcp_proto::limits::MAX_AGENT_ATTEMPTS;
use mcp_proto::{
    Ack, AttemptId, CancelReason, Credit, ErrorCode, ErrorInfo, Executed, InvalidMessage, Message,
    Nack, Outcome, Ping, Readiness, RoutesReceived, Subject, TaskResult,
};

use super::handler::Handler;
use super::inlet::Told;
use super::job::Job;
use super::line::Line;
use super::stats::WorkerStats;
use crate::connection::Outbox;
pub(super) use ending::Completion;
use ending::{Ending, Verdict, ended_by, expired};
use finished::{Ended, Finished};
use parking::Slot;
pub(super) use parts::Emitted;
use parts::Parts;
use signs::Signs;
pub(super) use signs::{Sign, Signed};

/// Deadlines are looked at in steps of this.
const STEP: Duration = Duration::from_millis(20);

/// A job to start now: its handler is to be run, and [`Attempts::complete`] called once it ended.
pub(super) struct Start {
    pub(super) id: AttemptId,
    pub(super) handler: Arc<dyn Handler>,
    pub(super) job: Job,
}

/// A ROUTE, its task looked into.
pub(super) struct Routed {
    pub(super) id: AttemptId,
    pub(super) job: Result<Job, InvalidMessage>,
    /// None: it is not served.
    pub(super) handler: Option<Arc<dyn Handler>>,
    pub(super) arrived_at: Instant,
    /// See [`mcp_proto::Route::stream_window_bytes`].
    pub(super) stream_window_bytes: u32,
}

/// The attempts that a worker holds.
pub(super) struct Attempts {
    slots: usize,
    capacity: usize,
    /// Apart from the table: one that comes lies where another has just ended, which the processor still
    /// has in its caches.
    held: HashMap<AttemptId, Box<Attempt>, RandomState>,
    /// Attempts of `held` that wait for a slot, oldest first.
    waiting: VecDeque<Start>,
    /// Handlers that run and are not parked, those of abandoned attempts included.
    running: usize,
    /// Handlers that were parked and want to go on, the first first. While there are any, all slots
    /// are taken.
    returning: VecDeque<AttemptId>,
    finished: Finished,
    /// No deadline is earlier than this.
    earliest: Option<Instant>,
    /// No sign of life that waits is to be sent earlier.
    sign_at: Option<Instant>,
    connection: Option<Connected>,
    /// On the latest connection.
    received: Option<RoutesReceived>,
    /// Of the broker that the attempts are from.
    epoch: Option<u64>,
    max_body_bytes: usize,
    is_draining: bool,
    stats: WorkerStats,
}

/// What belongs to one connection.
struct Connected {
    ping_interval: Duration,
    ping_at: Instant,
}

struct Attempt {
    line: Line,
    deadline: Instant,
    arrived_at: Instant,
    started_at: Option<Instant>,
    ending: Option<Ending>,
    /// Set when the client takes the result in parts.
    parts: Option<Box<Parts>>,
    /// None before its handler gave any.
    signs: Option<Box<Signs>>,
    /// Once it has started.
    slot: Slot,
    has_parked: bool,
}

impl Attempts {
    pub(super) fn new(slots: u32, prefetch: u32) -> Self {
        Self {
            slots: slots as usize,
            capacity: slots as usize + prefetch as usize,
            held: HashMap::default(),
            waiting: VecDeque::new(),
            running: 0,
            returning: VecDeque::new(),
            finished: Finished::default(),
            earliest: None,
            sign_at: None,
            connection: None,
            received: None,
            epoch: None,
            max_body_bytes: 0,
            is_draining: false,
            stats: WorkerStats::default(),
        }
    }

    pub(super) fn stats(&self) -> WorkerStats {
        WorkerStats {
            running: self.running as u32,
            waiting: self.waiting.len() as u32,
            parked: self.parked() as u32,
            ..self.stats
        }
    }

    /// Whether nothing is left to do or to be confirmed.
    pub(super) fn is_idle(&self) -> bool {
        self.held.is_empty() && self.finished.is_empty()
    }

    /// Whether the broker owes a PONG, or there is work that is in vain without it.
    pub(super) fn is_owed(&self) -> bool {
        self.finished.is_owed() || !self.held.is_empty()
    }

    pub(super) fn readiness(&self) -> Readiness {
        if self.is_draining { Readiness::Draining } else { Readiness::Ready }
    }

    /// What to list in HELLO: everything whose RESULT or NACK may not have arrived.
    pub(super) fn held_for_hello(&self) -> Vec<AttemptId> {
        let mut ids = self.held_ids();
        let room = (MAX_AGENT_ATTEMPTS as usize).saturating_sub(ids.len());
        ids.extend(self.finished.newest_ids().take(room));
        ids
    }

    /// What the HELLO of a worker tells that comes back.
    pub(super) fn received(&self) -> Option<RoutesReceived> {
        self.received
    }

    fn note_route(&mut self) {
        if let Some(received) = &mut self.received {
            received.routes += 1;
        }
    }

    fn held_ids(&self) -> Vec<AttemptId> {
        let is_ours = |attempt: &Attempt| attempt.ending != Some(Ending::Abandoned);
        self.held.iter().filter(|(_, it)| is_ours(it)).map(|(id, _)| *id).collect()
    }

    /// There is a connection: drops what the broker does not keep, sends again what it does.
    pub(super) fn connected(
        &mut self,
        ack: &Ack,
        now: Instant,
        mut out: impl Outbox,
        starts: &mut Vec<Start>,
    ) {
        let ping_interval = Duration::from_millis(u64::from(ack.ping_interval_ms.max(100)));
        self.connection = Some(Connected { ping_interval, ping_at: now + ping_interval });
        self.received =
            Some(RoutesReceived { epoch: ack.epoch, generation: ack.generation, routes: 0 });
        self.max_body_bytes = ack.limits.max_body_bytes as usize;
        self.stats.connections += 1;

        // Attempts of an earlier epoch of the broker are nobody's.
        let is_same_epoch = self.epoch.replace(ack.epoch) == Some(ack.epoch);
        let keep: HashSet<AttemptId> =
            if is_same_epoch { ack.keep.iter().copied().collect() } else { HashSet::new() };
        let dropped: Vec<_> = self.held.keys().filter(|id| !keep.contains(id)).copied().collect();
        for id in dropped {
            self.abandon(id);
        }
        for (id, attempt) in &self.held {
            if let Some(parts) = attempt.parts.as_ref().filter(|_| keep.contains(id)) {
                parts.resend(*id, &mut out);
            }
            if let Some(inlet) = attempt.line.inlet().filter(|_| keep.contains(id)) {
                push_input_credit(*id, inlet.told(), &mut out);
            }
        }
        self.park_again(&mut out);
        self.finished.resend(&keep, &mut out);
        if self.is_draining {
            self.report(&mut out);
        }
        self.start_waiting(now, &mut out, starts);
    }

    pub(super) fn disconnected(&mut self) {
        self.connection = None;
        self.finished.disconnected();
    }

    fn abandon(&mut self, id: AttemptId) {
        let Some(attempt) = self.held.get_mut(&id) else { return };
        if attempt.ending == Some(Ending::Abandoned) {
            return;
        }
        self.stats.abandoned += 1;
        if attempt.started_at.is_some() {
            attempt.ending = Some(Ending::Abandoned);
            attempt.line.end();
        } else {
            self.remove_waiting(id);
        }
    }

    fn remove_waiting(&mut self, id: AttemptId) -> Option<Box<Attempt>> {
        self.waiting.retain(|waiting| waiting.id != id);
        self.held.remove(&id)
    }

    /// ROUTE. Returns whether the next time-out may be earlier than it was.
    pub(super) fn route(
        &mut self,
        routed: Routed,
        now: Instant,
        mut out: impl Outbox,
        starts: &mut Vec<Start>,
    ) -> bool {
        let Routed { id, job, handler, arrived_at, stream_window_bytes } = routed;
        self.note_route();
        if self.held.contains_key(&id) {
            tracing::warn!(attempt = %id, "the broker routes an attempt that is held already");
            return false;
        }
        self.stats.received += 1;
        let job = match job {
            Ok(job) => job,
            Err(invalid) => {
                let error = ErrorInfo::new(ErrorCode::InvalidTask, invalid.to_string());
                self.finish_unstarted(id, Outcome::Failed, error, 0, &mut out);
                return false;
            }
        };
        if self.is_draining {
            self.nack(id, ErrorCode::ShuttingDown, "the worker is leaving", &mut out);
            return false;
        }
        let Some(handler) = handler else {
            let message = format!("the worker does not serve {}", job.task.action);
            self.nack(id, ErrorCode::UnknownAction, &message, &mut out);
            return false;
        };
        let is_full = self.held_count() >= self.capacity;
        if is_full || self.held.len() >= MAX_AGENT_ATTEMPTS as usize {
            self.nack(id, ErrorCode::AllBusy, "all slots of the worker are taken", &mut out);
            return false;
        }
        let (line, deadline) = (job.line.clone(), job.deadline);
        let start = Start { id, handler, job };
        let parts = (stream_window_bytes > 0).then(|| Box::new(Parts::new(stream_window_bytes)));
        let mut attempt = Box::new(Attempt {
            line,
            deadline,
            arrived_at,
            started_at: None,
            ending: None,
            parts,
            signs: None,
            slot: Slot::Taken,
            has_parked: false,
        });
        let is_startable = self.waiting.is_empty() && self.may_start() && now < deadline;
        if is_startable {
            attempt.started_at = Some(now);
            self.running += 1;
            begin(start, &mut out, starts);
        } else {
            self.waiting.push_back(start);
        }
        self.held.insert(id, attempt);
        if !is_startable {
            self.start_waiting(now, &mut out, starts);
        }
        let is_earliest = self.earliest.is_none_or(|earliest| deadline < earliest);
        if is_earliest {
            self.earliest = Some(deadline);
        }
        is_earliest
    }

    /// Those that count towards slots and prefetch. What was ever parked does not: the broker may
    /// have routed another one before it knew that the handler goes on.
    fn held_count(&self) -> usize {
        if self.held.len() < self.capacity {
            return self.held.len();
        }
        let counts =
            |attempt: &Attempt| attempt.ending != Some(Ending::Abandoned) && !attempt.has_parked;
        self.held.values().filter(|attempt| counts(attempt)).count()
    }

    /// ROUTE with a body over the limit.
    pub(super) fn route_too_large(&mut self, id: AttemptId, bytes: usize, mut out: impl Outbox) {
        self.note_route();
        self.stats.received += 1;
        let message = format!("its body has {bytes} bytes, more than the worker can take");
        let error = ErrorInfo::new(ErrorCode::BodyTooLarge, message);
        self.finish_unstarted(id, Outcome::Failed, error, 0, &mut out);
    }

    /// Whether there is a slot. Without a connection nothing is started: the broker may be giving
    /// it to somebody else.
    fn may_start(&self) -> bool {
        self.running < self.slots && self.connection.is_some()
    }

    /// Starts what waits, as far as there are slots. Handlers that were parked go first.
    fn start_waiting(&mut self, now: Instant, out: &mut impl Outbox, starts: &mut Vec<Start>) {
        self.end_parking();
        while self.may_start() {
            let Some(start) = self.waiting.pop_front() else { return };
            let id = start.id;
            let Some(attempt) = self.held.get_mut(&id) else { continue };
            if attempt.deadline <= now {
                let queue_us = micros(now - attempt.arrived_at);
                self.held.remove(&id);
                self.finish_unstarted(id, Outcome::Expired, expired(), queue_us, out);
            } else {
                attempt.started_at = Some(now);
                self.running += 1;
                begin(start, out, starts);
            }
        }
    }

    /// CANCEL.
    pub(super) fn cancel(
        &mut self,
        id: AttemptId,
        reason: CancelReason,
        now: Instant,
        mut out: impl Outbox,
    ) {
        // Unknown: it is finished, and the broker will see.
        let Some(attempt) = self.held.get_mut(&id) else { return };
        if attempt.started_at.is_some() {
            if attempt.ending.is_none() {
                attempt.ending = Some(Ending::Cancelled(reason));
                attempt.line.end();
            }
            return;
        }
        if let Some(attempt) = self.remove_waiting(id) {
            let (outcome, error) = ended_by(Ending::Cancelled(reason));
            let queue_us = micros(now - attempt.arrived_at);
            self.finish_unstarted(id, outcome, error, queue_us, &mut out);
        }
    }

    /// A handler gives out a part of its result: sends as much as it may, from the front of `part`.
    /// Without a connection it is sent once there is one.
    pub(super) fn emit(&mut self, id: AttemptId, part: &mut Bytes, out: impl Outbox) -> Emitted {
        let mut out = self.connection.is_some().then_some(out);
        match self.held.get_mut(&id).map(|attempt| &mut **attempt) {
            Some(Attempt { parts: Some(parts), ending: None, .. }) => {
                parts.emit(id, part, &mut out)
            }
            Some(_) | None => Emitted::Over,
        }
    }

    /// CREDIT.
    pub(super) fn credit(&mut self, id: AttemptId, next_seq: u32, limit_bytes: u64) {
        // Unknown: it is finished.
        if let Some(attempt) = self.held.get_mut(&id)
            && let Some(parts) = &mut attempt.parts
        {
            parts.credit(next_seq, limit_bytes);
            attempt.line.wake();
        }
    }

    /// CHUNK: more of an attempt's input.
    pub(super) fn input(&self, id: AttemptId, seq: u32, is_last: bool, body: Bytes) {
        // Unknown: it is finished.
        if let Some(inlet) = self.held.get(&id).and_then(|attempt| attempt.line.inlet()) {
            inlet.chunk(seq, is_last, body);
        }
    }

    /// A handler has read some of its input. Without a connection it is told once there is one.
    pub(super) fn credit_input(&self, id: AttemptId, told: Told, mut out: impl Outbox) {
        if self.connection.is_some() && self.held.contains_key(&id) {
            push_input_credit(id, told, &mut out);
        }
    }

    /// A handler ended.
    pub(super) fn complete(
        &mut self,
        id: AttemptId,
        completion: Completion,
        now: Instant,
        mut out: impl Outbox,
        starts: &mut Vec<Start>,
    ) {
        let Some(mut attempt) = self.held.remove(&id) else { return };
        self.leave_slot(id, mem::take(&mut attempt.slot));
        if attempt.parts.is_some() {
            // What the handler left behind may wait for credit.
            attempt.line.wake();
        }
        if matches!(completion, Completion::Panicked(_)) {
            self.stats.panics += 1;
        }
        if let (Completion::Failed(error), None) = (&completion, attempt.ending)
            && error.is_busy()
        {
            self.hand_back(id, error.info().clone(), &mut out);
        } else if attempt.ending != Some(Ending::Abandoned) {
            let started_at = attempt.started_at.unwrap_or(now);
            let Verdict { outcome, error, permanent, reply } =
                completion.judge(attempt.ending, self.max_body_bytes);
            let chunks = attempt.parts.as_ref().map_or(0, |parts| parts.count());
            let result = TaskResult {
                chunks,
                content_type: reply.content_type,
                error,
                queue_us: micros(started_at - attempt.arrived_at),
                work_us: micros(now - started_at),
                permanent,
                headers: (!reply.headers.is_empty()).then(|| Box::new(reply.headers)),
                ..TaskResult::new(id, outcome, Executed::Yes)
            };
            self.finish(result, reply.body, attempt.parts, &mut out);
        }
        self.start_waiting(now, &mut out, starts);
    }

    fn finish_unstarted(
        &mut self,
        id: AttemptId,
        outcome: Outcome,
        error: ErrorInfo,
        queue_us: u64,
        out: &mut impl Outbox,
    ) {
        let result = TaskResult {
            error: Some(Box::new(error)),
            queue_us,
            // It would not be read, or be too large, once more.
            permanent: outcome == Outcome::Failed,
            ..TaskResult::new(id, outcome, Executed::No)
        };
        self.finish(result, Bytes::new(), None, out);
    }

    fn finish(
        &mut self,
        result: TaskResult,
        body: Bytes,
        parts: Option<Box<Parts>>,
        out: &mut impl Outbox,
    ) {
        match result.outcome {
            Outcome::Ok => self.stats.ok += 1,
            Outcome::Expired => self.stats.expired += 1,
            Outcome::Cancelled => self.stats.cancelled += 1,
            Outcome::Failed | Outcome::Rejected | Outcome::Lost => self.stats.failed += 1,
        }
        let ended = Ended { id: result.attempt_id, message: Message::Result(result), body, parts };
        self.push_finished(ended, out);
    }

    fn nack(&mut self, id: AttemptId, code: ErrorCode, message: &str, out: &mut impl Outbox) {
        self.hand_back(id, ErrorInfo::new(code, message), out);
    }

    fn hand_back(&mut self, id: AttemptId, error: ErrorInfo, out: &mut impl Outbox) {
        self.stats.nacked += 1;
        let message = Message::Nack(Nack { attempt_id: id, error: Some(Box::new(error)) });
        let ended = Ended { id, message, body: Bytes::new(), parts: None };
        self.push_finished(ended, out);
    }

    fn push_finished(&mut self, ended: Ended, out: &mut impl Outbox) {
        let is_connected = self.connection.is_some();
        if is_connected {
            out.push(&ended.message, &ended.body);
        }
        self.finished.add(ended);
        let is_last = self.is_draining && self.held_ids().is_empty();
        if is_connected && (is_last || self.finished.wants_ping()) {
            let seq = self.finished.ping();
            out.push(&Message::Ping(Ping::probe(seq)), &Bytes::new());
        }
    }

    /// PING with all that a worker says in it.
    fn report(&mut self, out: &mut impl Outbox) {
        let held = self.held_ids();
        let readiness = Some(self.readiness());
        let Some(RoutesReceived { routes: routes_received, .. }) = self.received else { return };
        if self.connection.is_none() {
            return;
        }
        let seq = self.finished.ping();
        out.push(&Message::Ping(Ping { seq, readiness, routes_received, held }), &Bytes::new());
    }

    /// PONG.
    pub(super) fn pong(&mut self, seq: u64) {
        self.finished.pong(seq);
    }

    /// When to call [`timeout`](Self::timeout) next.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let ping_at = self.connection.as_ref().map(|connection| connection.ping_at);
        let sign_at = self.sign_at.filter(|_| self.connection.is_some());
        [self.earliest, ping_at, sign_at].into_iter().flatten().min()
    }

    /// Ends what has run out of time, and says PING when that is due.
    pub(super) fn timeout(&mut self, now: Instant, mut out: impl Outbox) {
        if self.earliest.is_some_and(|earliest| earliest <= now) {
            let due: Vec<_> = self
                .held
                .iter()
                .filter(|(_, attempt)| attempt.ending.is_none() && attempt.deadline <= now)
                .map(|(id, _)| *id)
                .collect();
            for id in due {
                self.cancel(id, CancelReason::Expired, now, &mut out);
            }
            let open = self.held.values().filter(|attempt| attempt.ending.is_none());
            let earliest = open.map(|attempt| attempt.deadline).min();
            self.earliest = earliest.map(|earliest| earliest.max(now + STEP));
        }
        self.send_signs(now, &mut out);
        if let Some(connection) = &mut self.connection
            && connection.ping_at <= now
        {
            connection.ping_at = now + connection.ping_interval;
            self.report(&mut out);
        }
    }

    /// Takes nothing new from now on.
    pub(super) fn begin_drain(&mut self, mut out: impl Outbox) {
        if !self.is_draining {
            self.is_draining = true;
            self.report(&mut out);
        }
    }

    /// Hands back what never started, and cancels the rest.
    pub(super) fn end_drain(&mut self, mut out: impl Outbox) {
        while let Some(Start { id, .. }) = self.waiting.pop_front() {
            self.held.remove(&id);
            self.nack(id, ErrorCode::ShuttingDown, "the worker is leaving", &mut out);
        }
        for attempt in self.held.values_mut() {
            attempt.ending.get_or_insert(Ending::Leaving);
            attempt.line.end();
        }
    }

    /// The worker has ended: stops all handlers.
    pub(super) fn stop(&mut self) {
        self.disconnected();
        let all: Vec<_> = self.held.keys().copied().collect();
        for id in all {
            self.abandon(id);
        }
    }
}

fn push_input_credit(id: AttemptId, told: Told, out: &mut impl Outbox) {
    let Told { next_seq, limit_bytes } = told;
    let credit = Credit { of: Subject::Attempt(id), next_seq, limit_bytes };
    out.push(&Message::Credit(credit), &Bytes::new());
}

/// Has a job started, and tells so where the broker waits for a sign of life.
fn begin(start: Start, out: &mut impl Outbox, starts: &mut Vec<Start>) {
    if start.job.task.attempt_timeout_ms > 0 {
        out.push(&Message::Started(start.id), &Bytes::new());
    }
    starts.push(start);
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros() as u64
}
