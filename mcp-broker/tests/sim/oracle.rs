//! What everybody knows together, and what must hold of it after each step.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bytes::Bytes;
use mcp_broker::broker::{ConnectionId, Core, Mono, Now};
use mcp_proto::{
    AttemptId, Deliver, ErrorCode, Executed, Outcome, Readiness, RouteHead, TaskState as Told,
    WorkerHello,
};

use crate::asks::Asks;

/// The outcome of a task, as far as it is promised to be the same for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) outcome: Outcome,
    pub(crate) executed: Executed,
    pub(crate) code: Option<ErrorCode>,
    pub(crate) body: Bytes,
}

impl End {
    pub(crate) fn of(deliver: &Deliver, body: &Bytes) -> Self {
        Self {
            outcome: deliver.outcome,
            executed: deliver.executed,
            code: deliver.error.as_ref().map(|error| error.code),
            body: body.clone(),
        }
    }

    /// What a client says itself, when nobody knows.
    pub(crate) fn lost() -> Self {
        let (outcome, executed) = (Outcome::Lost, Executed::Maybe);
        Self { outcome, executed, code: Some(ErrorCode::BrokerLost), body: Bytes::new() }
    }

    /// The broker did not take the task: nothing is known of it afterwards.
    fn is_refusal(&self) -> bool {
        self.outcome == Outcome::Rejected
            && (self.executed == Executed::No || self.code == Some(ErrorCode::DurableUnavailable))
    }
}

/// From when on a task may be routed, and by when it is to be done.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: Mono,
    deadline: Mono,
}

/// All that is known of a task.
#[derive(Debug)]
struct Task {
    asks: Rc<Asks>,
    /// As this epoch took it.
    span: Option<Span>,
    /// The record that it was taken, of this epoch.
    taken: Option<u64>,
    /// The record that it has ended, of this epoch, and how.
    ended: Option<(u64, End)>,
    is_accepted: bool,
    is_settled: bool,
    told: Option<End>,
    /// It was told after the journal had failed: a restart knows nothing of it.
    is_told_in_vain: bool,
    /// Attempts since it was taken, or since it was told to have ended unexecuted.
    attempts: Vec<AttemptId>,
    starts: u32,
}

/// All that is known of an attempt.
#[derive(Debug)]
struct Attempt {
    task: String,
    worker: usize,
    epoch: u64,
    is_started: bool,
    /// The broker was told that it was not started.
    is_handed_back: bool,
    /// The broker has given it up.
    is_over: bool,
    /// Whether it was over when its first RESULT came.
    has_late_result: Option<bool>,
    /// Its task was told not to have run.
    must_not_start: bool,
}

/// What an agent's connection is to the core.
#[derive(Debug, Default)]
struct Agent {
    connection: Option<ConnectionId>,
    is_ready: bool,
    is_lost: bool,
    /// Slots and prefetch.
    room: u32,
}

/// Sees every step.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    tasks: BTreeMap<String, Task>,
    attempts: BTreeMap<AttemptId, Attempt>,
    agents: BTreeMap<usize, Agent>,
    epoch: u64,
    is_stopping: bool,
    /// The journal can't be used any more.
    has_failed: bool,
    /// The last record that is on disk.
    synced: u64,
}

/// Whether only one of several sessions has this outcome.
fn is_own(deliver: &Deliver) -> bool {
    let Some(error) = &deliver.error else { return false };
    matches!(error.code, ErrorCode::DuplicateMismatch | ErrorCode::LimitExceeded)
        || error.message.contains("so it goes on")
}

impl Oracle {
    pub(crate) fn knows(&mut self, asks: Rc<Asks>) {
        let id = asks.id.to_string();
        let task = Task {
            asks,
            span: None,
            taken: None,
            ended: None,
            is_accepted: false,
            is_settled: false,
            told: None,
            is_told_in_vain: false,
            attempts: Vec::new(),
            starts: 0,
        };
        assert!(self.tasks.insert(id, task).is_none());
    }

    /// A core begins, and knows only what is in the journal.
    pub(crate) fn began(&mut self, epoch: u64) {
        assert!(epoch > self.epoch);
        self.epoch = epoch;
        (self.is_stopping, self.has_failed, self.synced) = (false, false, 0);
        self.agents.clear();
        for task in self.tasks.values_mut() {
            (task.span, task.taken, task.ended) = (None, None, None);
            if !task.asks.is_durable {
                task.told = None;
                task.attempts.clear();
            } else if std::mem::take(&mut task.is_told_in_vain) {
                task.told = None;
            }
        }
        for attempt in self.attempts.values_mut() {
            attempt.is_over = true;
        }
    }

    pub(crate) fn stops(&mut self) {
        self.is_stopping = true;
    }

    /// The journal is on disk up to this record.
    pub(crate) fn synced(&mut self, up_to: u64) {
        self.synced = up_to;
    }

    /// The journal failed.
    pub(crate) fn failed(&mut self) {
        self.has_failed = true;
    }

    /// The core reads SEND.
    pub(crate) fn sent(&mut self, id: &str, now: Now, ttl_ms: u64, delay_ms: u64) {
        let task = self.task(id);
        if task.told.as_ref().is_some_and(End::is_refusal) {
            (task.told, task.is_accepted, task.span) = (None, false, None);
            task.attempts.clear();
        }
        if task.asks.is_durable && task.span.is_none() && !task.is_accepted {
            // What ran before a crash that took it is nothing that the broker can know.
            task.attempts.clear();
        }
        let (start, deadline) = (now.mono.plus_ms(delay_ms), now.mono.plus_ms(ttl_ms));
        task.span.get_or_insert(Span { start, deadline });
    }

    /// The core takes a task from the journal.
    pub(crate) fn restored(&mut self, id: &str, now: Now, start_wall_ms: u64, deadline_wall_ms: u64) {
        let at = |wall_ms: u64| now.mono.plus_ms(wall_ms.saturating_sub(now.wall_ms));
        let span = Span { start: at(start_wall_ms), deadline: at(deadline_wall_ms) };
        self.task(id).span = Some(span);
    }

    pub(crate) fn settled(&mut self, id: &str) {
        let task = self.task(id);
        task.is_settled |= task.told.is_some();
    }

    /// The record goes to the journal that it was taken.
    pub(crate) fn taken(&mut self, id: &str, seq: u64) {
        let task = self.task(id);
        assert!(task.asks.is_durable, "{id} is fast and in the journal");
        task.taken = Some(seq);
    }

    /// The record goes to the journal that it has ended.
    pub(crate) fn ended(&mut self, id: &str, seq: u64, end: End, now: Now) {
        self.check_end(id, &end, now);
        self.task(id).ended = Some((seq, end));
    }

    /// The core takes an outcome from the journal.
    pub(crate) fn found(&mut self, id: &str, end: &End) {
        let task = self.task(id);
        let is_same = task.told.as_ref().is_none_or(|told| told == end);
        assert!(is_same, "{id} has another outcome than was told: {end:?}: {task:?}");
        task.ended = Some((0, end.clone()));
    }

    /// ACCEPTED goes out.
    pub(crate) fn accepted(&mut self, id: &str) {
        let synced = self.synced;
        let task = self.task(id);
        assert!(task.asks.is_durable, "{id} is fast and ACCEPTED");
        let is_kept = task.taken.is_none_or(|seq| seq <= synced);
        assert!(is_kept, "{id} is ACCEPTED before it is on disk");
        task.is_accepted = true;
    }

    /// STATUS goes out.
    pub(crate) fn status(&mut self, id: &str, state: Told) {
        let task = self.task(id);
        if state == Told::Unknown {
            let is_kept = task.is_accepted && !task.is_settled;
            assert!(!is_kept, "{id} was ACCEPTED and is not known: {task:?}");
            let is_here = task.span.is_some() && task.told.is_none();
            assert!(!is_here, "{id} was sent and is not known: {task:?}");
        } else {
            assert!(task.told.is_none(), "{id} has ended and is said not to have: {task:?}");
        }
    }

    /// ROUTE goes out.
    pub(crate) fn routed(&mut self, id: &str, route: &RouteHead, worker: usize, to: ConnectionId, now: Now) {
        let agent = &self.agents[&worker];
        let is_there = agent.connection == Some(to) && agent.is_ready && !agent.is_lost;
        assert!(is_there, "{id} is routed to {worker} at {to:?}: {agent:?}");
        assert!(!self.is_stopping, "{id} is routed while the broker stops");
        let epoch = self.epoch;
        let task = self.tasks.get(id).unwrap();
        assert!(task.told.is_none(), "{id} is routed after its outcome was told: {task:?}");
        task.check_times(route, now);
        if !task.asks.may_run_twice() {
            let mut before = task.attempts.iter().map(|id| &self.attempts[id]);
            let is_back = before.all(|it| it.is_handed_back);
            assert!(is_back, "{id} may not run twice and is routed again: {task:?}");
        }
        let attempt = Attempt {
            task: id.to_owned(),
            worker,
            epoch,
            is_started: false,
            is_handed_back: false,
            is_over: false,
            has_late_result: None,
            must_not_start: false,
        };
        let before = self.attempts.insert(route.attempt_id, attempt);
        assert!(before.is_none(), "{:?} is there twice", route.attempt_id);
        self.task(id).attempts.push(route.attempt_id);
    }

    /// A handler starts.
    pub(crate) fn started(&mut self, attempt: AttemptId) {
        let it = self.attempts.get_mut(&attempt).unwrap();
        assert!(!it.is_started, "{attempt:?} is started twice");
        assert!(!it.must_not_start, "{} was told not to have run, and does", it.task);
        it.is_started = true;
        let id = it.task.clone();
        let task = self.task(&id);
        task.starts += 1;
        assert!(task.asks.may_run_twice() || task.starts == 1, "{id} ran twice: {task:?}");
    }

    /// The broker reads that an attempt was not started.
    pub(crate) fn handed_back(&mut self, attempt: AttemptId) {
        if let Some(it) = self.attempts.get_mut(&attempt) {
            it.is_handed_back = true;
        }
    }

    /// The broker reads RESULT.
    pub(crate) fn result(&mut self, attempt: AttemptId) {
        if let Some(it) = self.attempts.get_mut(&attempt) {
            it.has_late_result.get_or_insert(it.is_over);
        }
    }

    /// The broker has told a worker that an attempt is over.
    pub(crate) fn given_up(&mut self, attempt: AttemptId) {
        if let Some(it) = self.attempts.get_mut(&attempt) {
            it.is_over = true;
        }
    }

    /// Which attempts a worker may go on with on a new connection; the others are over.
    pub(crate) fn kept(&mut self, worker: usize, keep: &[AttemptId]) {
        let keep: BTreeSet<_> = keep.iter().collect();
        for (id, it) in self.attempts.iter_mut().filter(|(_, it)| it.worker == worker) {
            assert!(!keep.contains(id) || it.epoch == self.epoch, "{id:?} is of another epoch");
            it.is_over |= !keep.contains(id);
        }
    }

    /// HELLO of a worker comes.
    pub(crate) fn registers(&mut self, worker: usize, at: ConnectionId, hello: &WorkerHello) {
        let agent = Agent {
            connection: Some(at),
            is_ready: hello.readiness == Readiness::Ready,
            is_lost: false,
            room: hello.slots + hello.prefetch,
        };
        self.agents.insert(worker, agent);
    }

    /// A worker says whether it takes tasks.
    pub(crate) fn reports(&mut self, worker: usize, at: ConnectionId, readiness: Readiness) {
        let agent = self.agents.get_mut(&worker).filter(|agent| agent.connection == Some(at));
        if let Some(agent) = agent {
            agent.is_ready = readiness == Readiness::Ready;
        }
    }

    /// The broker says that a worker is lost, or no longer.
    pub(crate) fn lost(&mut self, worker: usize, is_lost: bool) {
        if let Some(agent) = self.agents.get_mut(&worker) {
            agent.is_lost = is_lost;
        }
    }

    /// The core has no such connection any more.
    pub(crate) fn closed(&mut self, connection: ConnectionId) {
        for agent in self.agents.values_mut().filter(|it| it.connection == Some(connection)) {
            agent.connection = None;
        }
    }

    /// After each step.
    pub(crate) fn check(&self, core: &Core, now: Now) {
        for agent in core.agents(now, true) {
            let worker: usize = agent.agent_id.as_str()[1..].parse().unwrap();
            let room = self.agents[&worker].room;
            assert!(agent.in_flight <= room, "{agent:?} has room for {room}");
        }
    }

    /// DELIVER goes out.
    pub(crate) fn told(&mut self, deliver: &Deliver, body: &Bytes, now: Now) {
        if is_own(deliver) {
            return;
        }
        let id = deliver.task_id.as_str();
        let end = End::of(deliver, body);
        if end.code == Some(ErrorCode::Settled) {
            let task = &self.tasks[id];
            let executed = task.told.as_ref().map(|told| told.executed);
            assert!(task.is_settled, "{id} is said to be settled, and is not: {task:?}");
            assert_eq!(executed, Some(end.executed), "{id}");
            return;
        }
        let task = &self.tasks[id];
        if let Some(told) = &task.told {
            let is_refused_again = told.is_refusal() && end.is_refusal();
            let is_same = *told == end || is_refused_again;
            assert!(is_same, "{id} has two outcomes: {end:?} after {told:?}: {task:?}");
            return;
        }
        match &task.ended {
            Some((seq, ended)) => {
                let is_kept = *seq <= self.synced || self.has_failed;
                assert!(is_kept, "{id} is told its outcome before that is on disk: {task:?}");
                assert_eq!(*ended, end, "{id} is told another outcome than is on disk");
            }
            None => self.check_end(id, &end, now),
        }
        let has_failed = self.has_failed;
        let task = self.tasks.get_mut(id).unwrap();
        task.is_told_in_vain = has_failed && task.asks.is_durable;
        let may_run_later = task.is_told_in_vain && task.is_accepted && task.ended.is_none();
        let promises_not_to = end.executed == Executed::No;
        assert!(!(may_run_later && promises_not_to), "{id} may run after a restart: {end:?}");
        let attempts = task.attempts.clone();
        if end.executed == Executed::No {
            for attempt in &attempts {
                let it = self.attempts.get_mut(attempt).unwrap();
                assert!(!it.is_started, "{id} was started, and is said not to have run: {end:?}");
                it.must_not_start = true;
            }
        }
        task.told = Some(end);
    }

    fn check_end(&self, id: &str, end: &End, now: Now) {
        let task = &self.tasks[id];
        match end.outcome {
            Outcome::Ok => {
                let attempt = Asks::attempt_of(&end.body).unwrap();
                let it = &self.attempts[&attempt];
                assert!(it.is_started && it.task == id, "{end:?} is not a result of {id}: {it:?}");
                let is_late = it.has_late_result != Some(false);
                assert!(!is_late, "{id} has the result of an attempt that was over: {it:?}");
            }
            Outcome::Expired => {
                // A worker's time to live is what was left, without parts of a millisecond.
                let is_due = task.span.is_none_or(|span| now.mono + 1_000 > span.deadline);
                assert!(is_due, "{id} expires too early: {now:?} {task:?}");
            }
            Outcome::Rejected if task.is_accepted => {
                panic!("{id} was ACCEPTED and is {end:?}: {task:?}");
            }
            Outcome::Cancelled => assert!(task.asks.is_cancelled.get(), "{id}: {end:?}"),
            Outcome::Failed | Outcome::Rejected | Outcome::Lost => {}
        }
    }

    /// The durable tasks that were ACCEPTED.
    pub(crate) fn accepted_tasks(&self) -> Vec<Rc<Asks>> {
        let accepted = self.tasks.values().filter(|task| task.is_accepted);
        accepted.map(|task| task.asks.clone()).collect()
    }

    /// The outcome that was told to anybody.
    pub(crate) fn end_of(&self, id: &str) -> Option<&End> {
        self.tasks[id].told.as_ref()
    }

    pub(crate) fn is_settled(&self, id: &str) -> bool {
        self.tasks[id].is_settled
    }

    fn task(&mut self, id: &str) -> &mut Task {
        self.tasks.get_mut(id).unwrap()
    }
}

impl Task {
    fn check_times(&self, route: &RouteHead, now: Now) {
        let Span { start, deadline } = self.span.unwrap();
        assert!(now.mono >= start, "it is routed before its time: {now:?} {self:?}");
        assert!(now.mono < deadline, "it is routed after its deadline: {now:?} {self:?}");
        let at_most = deadline.max(now.mono.plus_ms(1));
        let is_within = now.mono.plus_ms(route.ttl_ms) <= at_most;
        assert!(is_within, "it is given too much time: {route:?} {now:?} {self:?}");
    }
}
