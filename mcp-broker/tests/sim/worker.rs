//! A worker, as the specification has it.

use std::collections::BTreeMap;

use bytes::Bytes;
use mcp_proto::{
    Ack, AttemptId, Cancel, CancelReason, ErrorCode, ErrorInfo, Executed, Frame, Hello, InstanceId,
    MCP_VERSION, Message, Nack, Outcome, Ping, Readiness, Route, RoutesReceived, TaskResult,
    WorkerHello,
};

use crate::asks::{Asks, action};
use crate::network::{Item, LinkId, Peer, Way};
use crate::sim::{Event, World};
use crate::words::words;

/// What a worker does by itself.
#[derive(Debug, Clone)]
pub(crate) enum WorkerStep {
    Dial,
    /// No ACK has come on this connection.
    GiveUp(LinkId),
    /// Is the broker still there?
    Probe(LinkId),
    /// The time for a report.
    Report(LinkId),
    /// The handler of an attempt has an end.
    Finish(AttemptId, How),
    /// The time to live of an attempt is over.
    Expire(AttemptId),
    /// It has had enough time to leave.
    LeaveNow,
    /// It is there again after it was gone.
    Begin,
}

/// How a handler ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Ok,
    Failed,
    Permanent,
    Panic,
    GaveUp,
    Cancelled,
    Expired,
}

#[derive(Debug)]
enum State {
    Waiting,
    Running,
    /// Its RESULT, and on which connection it was written before which PING, if it was.
    Finished(Box<TaskResult>, Bytes, Option<u64>),
}

#[derive(Debug)]
struct Attempt {
    state: State,
    received_us: u64,
    started_us: u64,
    has_timeout: bool,
}

/// A worker.
pub(crate) struct Worker {
    index: usize,
    process: u32,
    is_up: bool,
    /// Another process takes its place.
    comes_back: bool,
    slots: u32,
    prefetch: u32,
    link: Option<LinkId>,
    is_open: bool,
    heard_us: u64,
    tries: u32,
    epoch: u64,
    ping_interval_us: u64,
    readiness: Readiness,
    /// On the latest connection that was opened.
    received: Option<RoutesReceived>,
    pings: u64,
    /// Waits for the PONG of this, to leave.
    last_ping: Option<u64>,
    attempts: BTreeMap<AttemptId, Attempt>,
    /// It does not keep attempts over a broken connection.
    is_simple: bool,
    /// It sends results that it was told to forget.
    is_rude: bool,
}

const ACK_US: u64 = 5_000_000;

impl Worker {
    pub(crate) fn new(index: usize, world: &mut World) -> Self {
        let it = Self {
            index,
            process: 0,
            is_up: true,
            comes_back: true,
            slots: world.rng.pick(&[1, 2, 3, 8]),
            prefetch: world.rng.pick(&[0, 0, 2]),
            link: None,
            is_open: false,
            heard_us: 0,
            tries: 0,
            epoch: 0,
            ping_interval_us: 10_000_000,
            readiness: Readiness::Ready,
            received: None,
            pings: 0,
            last_ping: None,
            attempts: BTreeMap::new(),
            is_simple: world.rng.chance(20),
            is_rude: world.rng.chance(20),
        };
        it.later(0, WorkerStep::Dial, world);
        it
    }

    fn later(&self, us: u64, step: WorkerStep, world: &mut World) {
        world.after(us, Event::Worker(self.index, self.process, step));
    }

    pub(crate) fn step(&mut self, process: u32, step: WorkerStep, world: &mut World) {
        if process != self.process {
            return;
        }
        match step {
            WorkerStep::Begin => self.begin(world),
            WorkerStep::Dial => self.dial(world),
            WorkerStep::GiveUp(link) => {
                if self.link == Some(link) && !self.is_open {
                    self.lost(link, world);
                }
            }
            WorkerStep::Probe(link) => self.probe(link, world),
            WorkerStep::Report(link) => {
                if self.link == Some(link) && self.is_open {
                    self.report(world);
                    self.later(self.ping_interval_us, WorkerStep::Report(link), world);
                }
            }
            WorkerStep::Finish(attempt, how) => self.finish(attempt, how, world),
            WorkerStep::Expire(attempt) => self.stop(attempt, How::Expired, world),
            WorkerStep::LeaveNow => self.hand_back(world),
        }
    }

    fn dial(&mut self, world: &mut World) {
        if self.link.is_some() || !self.is_up {
            return;
        }
        let link = world.dial(Peer::Worker(self.index));
        (self.link, self.is_open, self.heard_us) = (Some(link), false, world.now_us);
        if self.is_simple {
            self.attempts.clear();
        }
        let worker = WorkerHello {
            agent_id: format!("w{}", self.index).as_str().try_into().unwrap(),
            instance_id: InstanceId::try_from(format!("process-{}", self.process)).unwrap(),
            service_type: "sim".into(),
            labels: Default::default(),
            actions: vec![action()],
            slots: self.slots,
            prefetch: self.prefetch,
            weight: 1,
            held: self.attempts.keys().copied().collect(),
            received: self.received,
            readiness: self.readiness,
        };
        let hello = Hello {
            mcp_version: MCP_VERSION.into(),
            sdk: "sim".into(),
            features: Vec::new(),
            client: false,
            session_id: None,
            token: None,
            worker: Some(worker),
        };
        let message = Message::Hello(Box::new(hello));
        world.send(link, Way::Up, Frame { message, body: Bytes::new() });
        self.later(ACK_US, WorkerStep::GiveUp(link), world);
    }

    /// Its connection is gone. Handlers go on.
    pub(crate) fn lost(&mut self, link: LinkId, world: &mut World) {
        world.give_up(link, Way::Down);
        if self.link != Some(link) {
            return;
        }
        let index = self.index;
        world.log(|| format!("worker {index}: #{link} is gone"));
        (self.link, self.is_open, self.last_ping) = (None, false, None);
        if self.readiness == Readiness::Draining && self.attempts.is_empty() {
            return self.gone(world);
        }
        let wait_us = (100_000 << self.tries.min(4)).min(1_000_000);
        self.tries += 1;
        let jitter_us = world.rng.between(0..wait_us / 2);
        self.later(wait_us / 2 + jitter_us, WorkerStep::Dial, world);
    }

    fn probe(&mut self, link: LinkId, world: &mut World) {
        if self.link != Some(link) || !self.is_open {
            return;
        }
        let silent_us = world.now_us - self.heard_us;
        if silent_us > 6_000_000 && !self.attempts.is_empty() {
            return self.lost(link, world);
        }
        if silent_us > 1_000_000 && !self.attempts.is_empty() {
            self.ping(None, world);
        }
        self.later(1_000_000, WorkerStep::Probe(link), world);
    }

    fn write(&mut self, message: Message, body: Bytes, world: &mut World) {
        if let Some(link) = self.link.filter(|_| self.is_open) {
            world.send(link, Way::Up, Frame { message, body });
        }
    }

    fn report(&mut self, world: &mut World) {
        self.ping(Some(self.readiness), world);
    }

    fn ping(&mut self, readiness: Option<Readiness>, world: &mut World) {
        self.pings += 1;
        let is_held = |attempt: &Attempt| match &attempt.state {
            State::Waiting | State::Running => true,
            State::Finished(_, _, written) => written.is_none(),
        };
        let held = self.attempts.iter().filter(|(_, it)| is_held(it)).map(|(id, _)| *id);
        let ping = Ping {
            seq: self.pings,
            readiness,
            routes_received: self.received.map_or(0, |it| it.routes),
            held: held.collect(),
        };
        self.write(Message::Ping(ping), Bytes::new(), world);
    }

    pub(crate) fn arrive(&mut self, link: LinkId, item: Item, world: &mut World) {
        if self.link != Some(link) {
            return world.give_up(link, Way::Down);
        }
        let index = self.index;
        self.heard_us = world.now_us;
        let frame = match item {
            Item::Frame(frame) => frame,
            Item::Open => return,
            Item::Close(code) => {
                world.log(|| format!("worker {index}: #{link} is closed with {code:?}"));
                if code == Some(ErrorCode::Replaced) {
                    return self.die(world);
                }
                return self.lost(link, world);
            }
        };
        world.log(|| format!("worker {index} <- #{link}: {}", words(&frame)));
        match frame.message {
            Message::Ack(ack) => self.opened(link, &ack, world),
            Message::Ping(ping) => self.write(Message::Pong(ping.seq), Bytes::new(), world),
            Message::Pong(seq) => self.confirmed(seq, world),
            Message::Route(route) => self.routed(&route, world),
            Message::Cancel(Cancel::Attempt(id, reason)) => {
                let how = match reason {
                    CancelReason::Expired => How::Expired,
                    _ => How::Cancelled,
                };
                self.stop(id, how, world);
            }
            Message::Goaway(goaway) if !goaway.reconnect => self.die(world),
            _ => {}
        }
    }

    fn opened(&mut self, link: LinkId, ack: &Ack, world: &mut World) {
        (self.is_open, self.tries) = (true, 0);
        self.received =
            Some(RoutesReceived { epoch: ack.epoch, generation: ack.generation, routes: 0 });
        self.ping_interval_us = u64::from(ack.ping_interval_ms) * 1000;
        let is_new = std::mem::replace(&mut self.epoch, ack.epoch) != ack.epoch;
        assert!(!is_new || ack.keep.is_empty(), "a new epoch keeps {:?}", ack.keep);
        let given_up: Vec<AttemptId> =
            self.attempts.keys().filter(|id| !ack.keep.contains(id)).copied().collect();
        for id in given_up {
            if let Some(Attempt { state: State::Finished(result, body, _), .. }) =
                self.attempts.remove(&id)
                && self.is_rude
            {
                self.write(Message::Result(*result), body, world);
            }
        }
        let kept: Vec<AttemptId> = self.attempts.keys().copied().collect();
        kept.into_iter().for_each(|id| self.write_result(id, world));
        self.start_next(world);
        self.later(self.ping_interval_us, WorkerStep::Report(link), world);
        self.later(1_000_000, WorkerStep::Probe(link), world);
        self.leave_if_done(world);
    }

    fn routed(&mut self, route: &Route, world: &mut World) {
        if let Some(received) = &mut self.received {
            received.routes += 1;
        }
        let id = route.attempt_id;
        world.oracle.arrived(id);
        let is_held = |it: &&Attempt| !matches!(it.state, State::Finished(_, _, Some(_)));
        let held = self.attempts.values().filter(is_held).count() as u32;
        let room = self.slots + self.prefetch;
        assert!(held < room, "worker {} gets {id:?} and has {held} of {room}", self.index);
        let has_timeout = route.task.decode().unwrap().attempt_timeout_ms > 0;
        let is_leaving = self.readiness == Readiness::Draining && world.rng.chance(50);
        let nack_percent = if world.is_healed { 0 } else { world.plan.nack_percent };
        if is_leaving || world.rng.chance(nack_percent) {
            let code = if is_leaving { ErrorCode::ShuttingDown } else { ErrorCode::AllBusy };
            let error = ErrorInfo::new(code, "not now");
            let puts_off = !is_leaving && world.rng.chance(50);
            let error = if puts_off { error.retry_after_ms(500) } else { error };
            let nack = Nack { attempt_id: id, error: Some(Box::new(error)) };
            return self.write(Message::Nack(nack), Bytes::new(), world);
        }
        let attempt = Attempt {
            state: State::Waiting,
            received_us: world.now_us,
            started_us: world.now_us,
            has_timeout,
        };
        self.attempts.insert(id, attempt);
        self.later(route.ttl_ms * 1000, WorkerStep::Expire(id), world);
        self.start_next(world);
    }

    /// Starts handlers while there are slots.
    fn start_next(&mut self, world: &mut World) {
        loop {
            let running = self.attempts.values().filter(|it| matches!(it.state, State::Running));
            if running.count() as u32 >= self.slots {
                return;
            }
            let waits = |it: &&mut Attempt| matches!(it.state, State::Waiting);
            let next = self.attempts.iter_mut().find(|(_, it)| waits(it));
            let Some((&id, attempt)) = next else { return };
            (attempt.state, attempt.started_us) = (State::Running, world.now_us);
            let has_timeout = attempt.has_timeout;
            let index = self.index;
            world.log(|| format!("worker {index}: starts {id:?}"));
            world.oracle.started(id);
            if has_timeout {
                self.write(Message::Started(id), Bytes::new(), world);
            }
            let how = self.how(world);
            let takes_us = world.rng.time_us(world.plan.work_us.clone());
            self.later(takes_us, WorkerStep::Finish(id, how), world);
        }
    }

    fn how(&self, world: &mut World) -> How {
        if world.is_healed || !world.rng.chance(world.plan.fail_percent) {
            return How::Ok;
        }
        world.rng.pick(&[How::Failed, How::Failed, How::Permanent, How::Panic, How::GaveUp])
    }

    /// A handler ends, if it still runs.
    fn finish(&mut self, id: AttemptId, how: How, world: &mut World) {
        let Some(attempt) = self.attempts.get_mut(&id) else { return };
        let executed = match attempt.state {
            State::Running => Executed::Yes,
            State::Waiting => Executed::No,
            State::Finished(..) => return,
        };
        let (outcome, code) = match how {
            How::Ok => (Outcome::Ok, None),
            How::Failed | How::Permanent => (Outcome::Failed, Some(ErrorCode::HandlerFailed)),
            How::Panic => (Outcome::Failed, Some(ErrorCode::HandlerPanic)),
            How::GaveUp | How::Cancelled => (Outcome::Cancelled, Some(ErrorCode::Cancelled)),
            How::Expired => (Outcome::Expired, Some(ErrorCode::Expired)),
        };
        let result = TaskResult {
            error: code.map(|code| Box::new(ErrorInfo::new(code, "so it is"))),
            permanent: how == How::Permanent,
            queue_us: attempt.started_us - attempt.received_us,
            work_us: world.now_us - attempt.started_us,
            ..TaskResult::new(id, outcome, executed)
        };
        let body = if how == How::Ok { Asks::result(id) } else { Bytes::new() };
        attempt.state = State::Finished(Box::new(result), body, None);
        self.write_result(id, world);
        self.start_next(world);
        self.leave_if_done(world);
    }

    /// CANCEL, or the end of its time: the handler stops soon.
    fn stop(&mut self, id: AttemptId, how: How, world: &mut World) {
        let Some(attempt) = self.attempts.get(&id) else { return };
        match attempt.state {
            State::Waiting => self.finish(id, how, world),
            State::Running => {
                let after = world.rng.time_us(1..100_000);
                self.later(after, WorkerStep::Finish(id, how), world);
            }
            State::Finished(..) => {}
        }
    }

    /// RESULT, if it has an end and there is a connection.
    fn write_result(&mut self, id: AttemptId, world: &mut World) {
        if !self.is_open {
            return;
        }
        let pings = self.pings;
        let Some(Attempt { state: State::Finished(result, body, written), .. }) =
            self.attempts.get_mut(&id)
        else {
            return;
        };
        *written = Some(pings + 1);
        let (message, body) = (Message::Result((**result).clone()), body.clone());
        self.write(message, body, world);
        if world.rng.chance(20) {
            self.ping(None, world);
        }
    }

    /// PONG: what was written before its PING has arrived.
    fn confirmed(&mut self, seq: u64, world: &mut World) {
        let is_confirmed = |it: &Attempt| matches!(&it.state, State::Finished(_, _, Some(written)) if *written <= seq);
        self.attempts.retain(|_, it| !is_confirmed(it));
        if self.last_ping.is_some_and(|last| seq >= last)
            && let Some(link) = self.link
        {
            let index = self.index;
            world.log(|| format!("worker {index}: leaves"));
            world.close(link, Way::Up, None, true);
            self.gone(world);
        }
    }

    /// Asks for no more tasks, finishes what it has, and goes. Another process takes its place.
    pub(crate) fn leave(&mut self, world: &mut World) {
        if !self.is_up || self.readiness != Readiness::Ready {
            return;
        }
        let index = self.index;
        world.log(|| format!("worker {index}: drains"));
        self.readiness = Readiness::Draining;
        self.report(world);
        let after = world.rng.time_us(1..10_000_000);
        self.later(after, WorkerStep::LeaveNow, world);
        self.leave_if_done(world);
    }

    /// Its time to leave is over: what has not started goes back, what runs is stopped.
    fn hand_back(&mut self, world: &mut World) {
        let held: Vec<AttemptId> = self.attempts.keys().copied().collect();
        for id in held {
            match self.attempts[&id].state {
                State::Waiting if self.is_open => {
                    self.attempts.remove(&id);
                    let error = ErrorInfo::new(ErrorCode::ShuttingDown, "leaving");
                    let nack = Nack { attempt_id: id, error: Some(Box::new(error)) };
                    self.write(Message::Nack(nack), Bytes::new(), world);
                }
                State::Waiting | State::Running => self.finish(id, How::GaveUp, world),
                State::Finished(..) => {}
            }
        }
        self.leave_if_done(world);
    }

    fn leave_if_done(&mut self, world: &mut World) {
        let is_written = |it: &Attempt| matches!(it.state, State::Finished(_, _, Some(_)));
        let is_done = self.readiness == Readiness::Draining
            && self.is_open
            && self.last_ping.is_none()
            && self.attempts.values().all(is_written);
        if is_done {
            self.report(world);
            self.last_ping = Some(self.pings);
        }
    }

    /// Its process dies. Another one takes its place.
    pub(crate) fn die(&mut self, world: &mut World) {
        if !self.is_up {
            return;
        }
        let index = self.index;
        world.log(|| format!("worker {index}: dies"));
        if let Some(link) = self.link {
            world.give_up(link, Way::Down);
        }
        self.gone(world);
    }

    fn gone(&mut self, world: &mut World) {
        self.is_up = false;
        self.process += 1;
        self.received = None;
        (self.link, self.is_open, self.last_ping, self.tries) = (None, false, None, 0);
        self.attempts.clear();
        if self.comes_back {
            let after = world.rng.time_us(1_000..10_000_000);
            self.later(after, WorkerStep::Begin, world);
        }
    }

    fn begin(&mut self, world: &mut World) {
        let index = self.index;
        world.log(|| format!("worker {index}: begins"));
        (self.is_up, self.readiness) = (true, Readiness::Ready);
        self.later(0, WorkerStep::Dial, world);
    }

    /// It leaves in order, and no other process takes its place.
    pub(crate) fn leave_for_good(&mut self, world: &mut World) {
        self.comes_back = false;
        self.leave(world);
    }

    /// Its connection.
    pub(crate) fn link(&self) -> Option<LinkId> {
        self.link
    }

    pub(crate) fn is_open(&self) -> bool {
        self.is_open
    }

    pub(crate) fn is_up(&self) -> bool {
        self.is_up
    }

    /// Whether it is connected and holds attempts.
    pub(crate) fn is_busy(&self) -> bool {
        self.is_open && !self.attempts.is_empty()
    }
}
