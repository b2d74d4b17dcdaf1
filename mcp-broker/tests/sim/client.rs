//! A client, as the specification has it, with a ledger that outlives its process.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use mcp_proto::{
    Ack, Cancel, Deliver, ErrorCode, Frame, Hello, MCP_VERSION, Message, Outcome, Ping, SessionId,
    TaskId, TaskState,
};

use crate::asks::Asks;
use crate::network::{Item, LinkId, Peer, Way};
use crate::oracle::End;
use crate::sim::{Event, World};
use crate::words::words;

/// What a client does by itself.
#[derive(Debug, Clone)]
pub(crate) enum ClientStep {
    Dial,
    /// No ACK has come on this connection.
    GiveUp(LinkId),
    /// Is the broker still there?
    Probe(LinkId),
    /// A new task.
    Submit,
    Cancel(TaskId),
    Settle(TaskId),
    /// It sends a task that another client has sent as well.
    Join(Rc<Asks>),
    /// It is there again after it was gone.
    Begin,
}

/// What a client knows of a task.
#[derive(Debug)]
struct Entry {
    asks: Rc<Asks>,
    /// By its own clock.
    deadline_us: u64,
    start_us: u64,
    is_written: bool,
    is_accepted: bool,
    end: Option<End>,
}

/// A client.
pub(crate) struct Client {
    index: usize,
    process: u32,
    is_up: bool,
    /// On disk: every task that it ever sent, and what it knows of it.
    ledger: BTreeMap<TaskId, Entry>,
    session: Option<SessionId>,
    link: Option<LinkId>,
    is_open: bool,
    heard_us: u64,
    tries: u32,
    submitted: u64,
    /// Whether it asks a silent broker if it is there.
    probes: bool,
    settles: Settles,
}

/// When a client says that it is done with an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Settles {
    AtOnce,
    Later,
    Never,
}

const ACK_US: u64 = 5_000_000;

pub(crate) fn client_hello(session_id: Option<SessionId>) -> Message {
    Message::Hello(Box::new(Hello {
        mcp_version: MCP_VERSION.into(),
        sdk: "sim".into(),
        features: Vec::new(),
        client: true,
        session_id,
        token: None,
        worker: None,
    }))
}

impl Client {
    pub(crate) fn new(index: usize, world: &mut World) -> Self {
        let it = Self {
            index,
            process: 0,
            is_up: true,
            ledger: BTreeMap::new(),
            session: None,
            link: None,
            is_open: false,
            heard_us: 0,
            tries: 0,
            submitted: 0,
            probes: world.rng.chance(70),
            settles: world.rng.pick(&[Settles::AtOnce, Settles::Later, Settles::Never]),
        };
        it.later(0, ClientStep::Dial, world);
        it.later(0, ClientStep::Submit, world);
        it
    }

    fn later(&self, us: u64, step: ClientStep, world: &mut World) {
        world.after(us, Event::Client(self.index, self.process, step));
    }

    pub(crate) fn step(&mut self, process: u32, step: ClientStep, world: &mut World) {
        if process != self.process && !matches!(step, ClientStep::Join(_)) {
            return;
        }
        match step {
            ClientStep::Begin => self.begin(world),
            ClientStep::Dial => self.dial(world),
            ClientStep::GiveUp(link) => {
                if self.link == Some(link) && !self.is_open {
                    self.lost(link, world);
                }
            }
            ClientStep::Probe(link) => self.probe(link, world),
            ClientStep::Submit => self.submit(world),
            ClientStep::Cancel(id) => self.cancel(&id, world),
            ClientStep::Settle(id) => self.write(Message::Settle(id), Bytes::new(), world),
            ClientStep::Join(asks) => self.take_on(asks, world),
        }
    }

    fn dial(&mut self, world: &mut World) {
        if self.link.is_some() || !self.is_up {
            return;
        }
        let link = world.dial(Peer::Client(self.index));
        (self.link, self.is_open, self.heard_us) = (Some(link), false, world.now_us);
        let message = client_hello(self.session.clone());
        world.send(link, Way::Up, Frame { message, body: Bytes::new() });
        self.later(ACK_US, ClientStep::GiveUp(link), world);
    }

    /// Its connection is gone.
    pub(crate) fn lost(&mut self, link: LinkId, world: &mut World) {
        world.give_up(link, Way::Down);
        if self.link != Some(link) {
            return;
        }
        let index = self.index;
        world.log(|| format!("client {index}: #{link} is gone"));
        (self.link, self.is_open) = (None, false);
        let wait_us = (100_000 << self.tries.min(4)).min(1_000_000);
        self.tries += 1;
        let jitter_us = world.rng.between(0..wait_us / 2);
        self.later(wait_us / 2 + jitter_us, ClientStep::Dial, world);
    }

    fn probe(&mut self, link: LinkId, world: &mut World) {
        if self.link != Some(link) || !self.is_open {
            return;
        }
        let silent_us = world.now_us - self.heard_us;
        if silent_us > 6_000_000 {
            return self.lost(link, world);
        }
        if silent_us > 1_000_000 {
            self.write(Message::Ping(Ping::probe(world.now_us)), Bytes::new(), world);
        }
        self.later(1_000_000, ClientStep::Probe(link), world);
    }

    fn write(&mut self, message: Message, body: Bytes, world: &mut World) {
        if let Some(link) = self.link.filter(|_| self.is_open) {
            world.send(link, Way::Up, Frame { message, body });
        }
    }

    fn submit(&mut self, world: &mut World) {
        if world.is_healed || self.submitted >= world.plan.tasks {
            return;
        }
        let pause_us = world.rng.until_us(world.plan.pause_us);
        self.later(pause_us, ClientStep::Submit, world);
        if self.is_up {
            self.submit_one(world);
        }
    }

    /// A new task.
    pub(crate) fn submit_one(&mut self, world: &mut World) -> Rc<Asks> {
        let id = format!("c{}-{}", self.index, self.submitted);
        self.submitted += 1;
        let plan = world.plan.clone();
        let asks = Asks::new(id, &plan, &mut world.rng);
        world.oracle.knows(asks.clone());
        self.take_on(asks.clone(), world);
        if world.rng.chance(plan.cancel_percent) {
            let after = world.rng.time_us(1..5_000_000);
            self.later(after, ClientStep::Cancel(asks.id.clone()), world);
        }
        if plan.clients > 1 && asks.may_run_twice() && world.rng.chance(plan.shared_percent) {
            let other = (self.index + 1) % plan.clients;
            let after = world.rng.time_us(1..10_000_000);
            world.after(after, Event::Client(other, 0, ClientStep::Join(asks.clone())));
        }
        asks
    }

    /// A task is its own from now on.
    fn take_on(&mut self, asks: Rc<Asks>, world: &mut World) {
        let entry = Entry {
            deadline_us: world.now_us + asks.ttl_ms * 1000,
            start_us: world.now_us + asks.delay_ms * 1000,
            asks: asks.clone(),
            is_written: false,
            is_accepted: false,
            end: None,
        };
        self.ledger.insert(asks.id.clone(), entry);
        self.send(&asks.id, world);
    }

    /// SEND, if there is a connection.
    fn send(&mut self, id: &TaskId, world: &mut World) {
        if !self.is_open {
            return;
        }
        let Some(entry) = self.ledger.get_mut(id) else { return };
        let ttl_ms = entry.deadline_us.saturating_sub(world.now_us) / 1000;
        let delay_ms = entry.start_us.saturating_sub(world.now_us) / 1000;
        if ttl_ms == 0 {
            // One that is durable may have been taken when it was sent before.
            match entry.is_written {
                true => self.write(Message::Fetch(id.clone()), Bytes::new(), world),
                false => self.forget(id),
            }
            return;
        }
        entry.is_written = true;
        let message = Message::Send(entry.asks.send(ttl_ms, delay_ms.min(ttl_ms - 1)));
        let body = entry.asks.body();
        self.write(message, body, world);
    }

    /// The outcome can't be had any more.
    fn forget(&mut self, id: &TaskId) {
        if let Some(entry) = self.ledger.get_mut(id) {
            entry.end.get_or_insert(End::lost());
        }
    }

    fn cancel(&mut self, id: &TaskId, world: &mut World) {
        let Some(entry) = self.ledger.get(id).filter(|entry| entry.end.is_none()) else { return };
        if self.is_open {
            entry.asks.is_cancelled.set(true);
            self.write(Message::Cancel(Cancel::Task(id.clone())), Bytes::new(), world);
        }
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
                world.log(|| format!("client {index}: #{link} is closed with {code:?}"));
                return self.lost(link, world);
            }
        };
        world.log(|| format!("client {index} <- #{link}: {}", words(&frame)));
        match frame.message {
            Message::Ack(ack) => self.opened(link, &ack, world),
            Message::Ping(ping) => self.write(Message::Pong(ping.seq), Bytes::new(), world),
            Message::Deliver(deliver) => self.ended(&deliver, &frame.body, world),
            Message::Accepted(id) => {
                if let Some(entry) = self.ledger.get_mut(&id) {
                    entry.is_accepted = true;
                }
            }
            Message::Status(id, TaskState::Unknown) => self.is_unknown(&id, world),
            _ => {}
        }
    }

    fn opened(&mut self, link: LinkId, ack: &Ack, world: &mut World) {
        (self.is_open, self.tries) = (true, 0);
        self.session = ack.session_id.clone();
        if self.probes {
            self.later(1_000_000, ClientStep::Probe(link), world);
        }
        let open: Vec<(TaskId, bool)> = self
            .ledger
            .iter()
            .filter(|(_, entry)| entry.end.is_none())
            .map(|(id, it)| (id.clone(), it.is_written && (it.is_accepted || !it.asks.is_durable)))
            .collect();
        for (id, asks) in open {
            match asks {
                true => self.write(Message::Fetch(id), Bytes::new(), world),
                false => self.send(&id, world),
            }
        }
        if self.settles != Settles::Never {
            let done: Vec<TaskId> = self.done().collect();
            for id in done {
                if world.rng.chance(20) {
                    self.write(Message::Settle(id), Bytes::new(), world);
                }
            }
        }
    }

    /// Durable tasks of which it has the outcome.
    fn done(&self) -> impl Iterator<Item = TaskId> {
        let has_end = |entry: &&Entry| {
            let is_told = |end: &End| !matches!(end.outcome, Outcome::Rejected | Outcome::Lost);
            entry.asks.is_durable && entry.end.as_ref().is_some_and(is_told)
        };
        self.ledger.values().filter(has_end).map(|entry| entry.asks.id.clone())
    }

    fn ended(&mut self, deliver: &Deliver, body: &Bytes, world: &mut World) {
        let id = &deliver.task_id;
        let Some(entry) = self.ledger.get_mut(id).filter(|it| it.end.is_none()) else { return };
        let end = End::of(deliver, body);
        if end.code == Some(ErrorCode::ShuttingDown) && end.outcome == Outcome::Rejected {
            entry.is_written = false;
            return;
        }
        let is_durable = entry.asks.is_durable;
        let is_rejected = end.outcome == Outcome::Rejected;
        entry.end = Some(end);
        if !is_durable || is_rejected {
            return;
        }
        match self.settles {
            Settles::AtOnce => self.write(Message::Settle(id.clone()), Bytes::new(), world),
            Settles::Later => {
                let after = world.rng.time_us(1_000..20_000_000);
                self.later(after, ClientStep::Settle(id.clone()), world);
            }
            Settles::Never => {}
        }
    }

    /// STATUS UNKNOWN.
    fn is_unknown(&mut self, id: &TaskId, world: &mut World) {
        let Some(entry) = self.ledger.get_mut(id).filter(|it| it.end.is_none()) else { return };
        let is_over = entry.deadline_us < world.now_us + 1_000;
        if entry.asks.may_run_twice() && !is_over {
            self.send(id, world);
        } else {
            self.forget(id);
        }
    }

    /// Its process dies, or it leaves in order. It comes back.
    pub(crate) fn end(&mut self, is_orderly: bool, world: &mut World) {
        if !self.is_up {
            return;
        }
        let index = self.index;
        world.log(|| format!("client {index}: {}", if is_orderly { "leaves" } else { "dies" }));
        self.is_up = false;
        self.process += 1;
        if let Some(link) = self.link.take() {
            match is_orderly {
                true => world.close(link, Way::Up, None, false),
                false => world.give_up(link, Way::Down),
            }
        }
        (self.is_open, self.tries) = (false, 0);
        if is_orderly || world.rng.chance(50) {
            self.session = None;
        }
        let after = world.rng.time_us(1_000..10_000_000);
        self.later(after, ClientStep::Begin, world);
    }

    fn begin(&mut self, world: &mut World) {
        let index = self.index;
        world.log(|| format!("client {index}: begins"));
        self.is_up = true;
        self.later(0, ClientStep::Dial, world);
        self.later(0, ClientStep::Submit, world);
    }

    /// It has nothing more to do, says that it is done with what it has, and does not come back.
    pub(crate) fn leave_for_good(&mut self, world: &mut World) {
        let done: Vec<TaskId> = self.done().collect();
        for id in done {
            self.write(Message::Settle(id), Bytes::new(), world);
        }
        self.is_up = false;
        self.process += 1;
        if let Some(link) = self.link.take() {
            world.close(link, Way::Up, None, true);
        }
    }

    /// The outcome of a task, once it has that.
    pub(crate) fn end_of(&self, id: &TaskId) -> Option<&End> {
        self.ledger.get(id)?.end.as_ref()
    }

    pub(crate) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Tasks of which it waits for the outcome.
    pub(crate) fn waits(&self) -> Vec<&TaskId> {
        let open = self.ledger.iter().filter(|(_, entry)| entry.end.is_none());
        open.map(|(id, _)| id).collect()
    }
}
