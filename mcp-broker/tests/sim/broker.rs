//! The broker: the core, its journal on a disk, its clocks, and what the server around it does.

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;
use mcp_broker::broker::{
    ConnectionId, Core, Disconnect, Event as CoreEvent, Identity, Journal as _, Mono, Now, Output,
    Record,
};
use mcp_broker::journal::{ReadJournal, SegmentJournal};
use mcp_proto::{
    Cancel, EncodedTask, ErrorCode, Executed, Frame, FrameCodec, Incoming, Limits, Message, Route,
};

use crate::chaos::Chaos;
use crate::client::client_hello;
use crate::disk::Disk;
use crate::network::{Item, LinkId, Peer, Way};
use crate::oracle::End;
use crate::sim::{Event, Planted, World};
use crate::words::words;

/// A broker and what outlives its process.
pub(crate) struct Broker {
    pub(crate) disk: Disk,
    epoch: u64,
    /// What its clock on the wall is ahead.
    wall_ms: i64,
    /// How often it was started.
    starts: u64,
    pub(crate) running: Option<Running>,
    /// That were in the journal at the last start.
    pub(crate) records: usize,
}

/// A process of it.
pub(crate) struct Running {
    pub(crate) core: Core,
    began_us: u64,
    timer_us: Option<u64>,
    /// None once it has failed.
    journal: Option<SegmentJournal<Disk>>,
    /// Records for the journal.
    entries: VecDeque<(u64, Record)>,
    /// The journal does a batch now.
    batch: Option<Batch>,
    stops: Option<Stop>,
    /// What was sent to the observer.
    answers: Option<Vec<Frame>>,
    /// It ends within the next batch of its journal.
    crashes_in_batch: bool,
}

struct Batch {
    up_to: u64,
    result: std::io::Result<()>,
}

/// How far an orderly end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Draining,
    /// Only the journal still works.
    Closed,
}

/// The connection of who asks.
const OBSERVER: ConnectionId = ConnectionId(u64::MAX);

/// So short that segments are ended, emptied and used again all the time.
const SEGMENT_BYTES: u64 = 2_000;

/// Some day in 2026.
const WALL_MS: i64 = 1_780_000_000_000;

impl Broker {
    pub(crate) fn new(world: &mut World) -> Self {
        let disk = Disk::default();
        if world.planted == Some(Planted::LyingDisk) {
            disk.lie();
        }
        let mut it =
            Self { disk, epoch: 0, wall_ms: WALL_MS, starts: 0, running: None, records: 0 };
        it.start(world);
        it
    }

    pub(crate) fn start(&mut self, world: &mut World) {
        if self.running.is_some() {
            return;
        }
        self.epoch += 1;
        self.starts += 1;
        let config = world.plan.config(self.epoch, world.rng.next(), self.starts > 1);
        // Somebody saw to the disk, mostly.
        if world.is_healed || world.rng.chance(80) {
            self.disk.repair();
        }
        let mut read = ReadJournal::read(self.disk.clone()).unwrap_or_else(|it| panic!("{it}"));
        let records = read.take_records();
        self.records = records.len();
        let journal = read.begin_with(SEGMENT_BYTES);
        self.disk.settle();
        let unwritable = journal.as_ref().err().map(ToString::to_string);
        self.running = Some(Running {
            core: Core::new(config),
            began_us: world.now_us,
            timer_us: None,
            journal: journal.ok(),
            entries: VecDeque::new(),
            batch: None,
            stops: None,
            answers: None,
            crashes_in_batch: false,
        });
        let now = self.now(world);
        let epoch = self.epoch;
        world.log(|| format!("broker: starts with epoch {epoch} and {} records", records.len()));
        records.iter().for_each(|it| world.log(|| format!("broker: restores {it:?}")));
        world.oracle.began(epoch, now, &records, unwritable.is_none());
        if let Some(Running { core, .. }) = &mut self.running {
            if let Some(why) = unwritable {
                world.log(|| format!("broker: its journal can't be written to: {why}"));
                world.oracle.failed(false);
                core.journal_failed(now, &why);
            }
            core.restore_from_journal(now, records);
        }
        self.carry_out(world);
    }

    pub(crate) fn now(&self, world: &World) -> Now {
        let began_us = self.running.as_ref().map_or(world.now_us, |it| it.began_us);
        let wall_ms = self.wall_ms + (world.now_us / 1000) as i64;
        Now { mono: Mono(world.now_us - began_us), wall_ms: wall_ms.max(0) as u64 }
    }

    /// The clock on the wall is set.
    pub(crate) fn set_clock(&mut self, ahead_ms: i64, world: &mut World) {
        self.wall_ms = WALL_MS + ahead_ms;
        world.log(|| format!("broker: its clock is {ahead_ms} ms ahead"));
    }

    pub(crate) fn arrive(&mut self, link: LinkId, peer: Peer, item: Item, world: &mut World) {
        let now = self.now(world);
        let id = ConnectionId(link);
        let Some(Running { core, stops, .. }) = &mut self.running else {
            return world.give_up(link, Way::Up);
        };
        if *stops == Some(Stop::Closed) {
            return world.give_up(link, Way::Up);
        }
        match item {
            Item::Open => core.handle_connected(now, id, Identity::anonymous()),
            Item::Frame(frame) => {
                world.log(|| format!("broker <- {peer:?} #{link}: {}", words(&frame)));
                look_at(&frame, link, peer, now, world);
                let incoming = Incoming::Frame(frame);
                core.foresee(std::slice::from_ref(&incoming));
                core.handle_incoming(now, id, incoming);
            }
            Item::Close(code) => {
                world.log(|| format!("broker <- {peer:?} #{link}: closed with {code:?}"));
                let how = if code.is_none() { Disconnect::Orderly } else { Disconnect::Broken };
                world.oracle.closed(id);
                core.handle_disconnected(now, id, how);
                world.give_up(link, Way::Up);
            }
        }
        self.carry_out(world);
    }

    /// It notices that a connection is gone.
    pub(crate) fn lost(&mut self, link: LinkId, world: &mut World) {
        let now = self.now(world);
        world.give_up(link, Way::Up);
        let Some(Running { core, .. }) = &mut self.running else { return };
        world.log(|| format!("broker: #{link} is gone"));
        world.oracle.closed(ConnectionId(link));
        core.handle_disconnected(now, ConnectionId(link), Disconnect::Broken);
        self.carry_out(world);
    }

    /// The host of a peer says that nobody listens there.
    pub(crate) fn unreachable(&mut self, link: LinkId, world: &mut World) {
        let now = self.now(world);
        let Some(Running { core, .. }) = &mut self.running else { return };
        core.handle_unreachable(now, ConnectionId(link));
        self.carry_out(world);
    }

    pub(crate) fn timer(&mut self, start: u64, world: &mut World) {
        let now = self.now(world);
        let Some(running) = self.running.as_mut().filter(|_| start == self.starts) else { return };
        running.timer_us = None;
        running.core.handle_timeout(now);
        self.carry_out(world);
    }

    /// The journal has done a batch.
    pub(crate) fn synced(&mut self, start: u64, world: &mut World) {
        let now = self.now(world);
        let Some(running) = self.running.as_mut().filter(|_| start == self.starts) else { return };
        let Some(Batch { up_to, result }) = running.batch.take() else { return };
        self.disk.settle();
        match result {
            Ok(()) => {
                world.oracle.synced(up_to);
                world.log(|| format!("broker: the journal is on disk up to {up_to}"));
                running.core.journal_synced(now, up_to);
                let tidied = running.journal.as_mut().map_or(Ok(()), |journal| journal.tidy());
                self.disk.settle();
                if let Err(error) = tidied {
                    running.fails(&error, now, world);
                }
            }
            Err(error) => running.fails(&error, now, world),
        }
        self.carry_out(world);
    }

    /// What it says to somebody whose connection never fails: an operator, or the one who counts at
    /// the end. Nothing if it is down.
    pub(crate) fn ask(&mut self, message: Message, body: Bytes, world: &mut World) -> Vec<Frame> {
        let now = self.now(world);
        let Some(running) = self.running.as_mut().filter(|it| it.stops.is_none()) else {
            return Vec::new();
        };
        if running.answers.is_none() {
            running.core.handle_connected(now, OBSERVER, Identity::anonymous());
            let hello = Frame { message: client_hello(None), body: Bytes::new() };
            running.core.handle_incoming(now, OBSERVER, Incoming::Frame(hello));
            running.answers = Some(Vec::new());
            self.carry_out(world);
        }
        let Some(running) = &mut self.running else { return Vec::new() };
        running.answers = Some(Vec::new());
        let frame = Frame { message, body };
        if let Message::Settle(id) = &frame.message {
            world.oracle.settled(id.as_str());
        }
        world.log(|| format!("broker <- observer: {}", words(&frame)));
        running.core.handle_incoming(now, OBSERVER, Incoming::Frame(frame));
        self.carry_out(world);
        self.running.as_ref().and_then(|it| it.answers.clone()).unwrap_or_default()
    }

    /// It ends in order.
    pub(crate) fn shut_down(&mut self, world: &mut World) {
        let now = self.now(world);
        let Some(running) = self.running.as_mut().filter(|it| it.stops.is_none()) else { return };
        world.log(|| "broker: shuts down".to_owned());
        let drain_ms = world.plan.drain_ms;
        running.stops = Some(Stop::Draining);
        world.oracle.stops();
        running.core.begin_shutdown(now, drain_ms);
        world.after((drain_ms + 1_000) * 1_000, Event::Stop(self.starts));
        self.carry_out(world);
    }

    /// Its time to drain is over.
    pub(crate) fn stop(&mut self, start: u64, world: &mut World) {
        // It may have done nothing for so long that its timer is late.
        self.timer(start, world);
        let Some(running) = self.running.as_mut().filter(|_| start == self.starts) else { return };
        if running.stops == Some(Stop::Draining) {
            let stats = running.core.stats();
            let waits = running.batch.is_some() || !running.entries.is_empty();
            assert!(waits, "tasks are left after the drain time: {stats:?}");
            self.close(world);
        }
        self.carry_out(world);
    }

    /// It is killed, or its machine loses power.
    pub(crate) fn crash(&mut self, loses_power: bool, world: &mut World) {
        if self.running.is_none() {
            return;
        }
        world.log(|| format!("broker: {}", if loses_power { "loses power" } else { "is killed" }));
        if loses_power {
            self.disk.crash(&mut world.rng);
        } else {
            self.disk.kill(&mut world.rng);
        }
        self.end(world);
    }

    /// It ends while its journal writes the next time.
    pub(crate) fn crash_in_batch(&mut self) {
        if let Some(running) = &mut self.running {
            running.crashes_in_batch = true;
        }
    }

    /// It ends, if it is the one of that start, and things still go wrong.
    pub(crate) fn crash_of(&mut self, start: u64, world: &mut World) {
        if start == self.starts && !world.is_healed {
            let loses_power = world.rng.chance(75);
            self.crash(loses_power, world);
        }
    }

    fn end(&mut self, world: &mut World) {
        self.running = None;
        for link in world.links() {
            world.give_up(link, Way::Up);
        }
        let after = world.rng.time_us(1_000..5_000_000);
        world.after(after, Event::Start);
    }

    /// Does what the core wants done.
    fn carry_out(&mut self, world: &mut World) {
        let now = self.now(world);
        let Some(running) = &mut self.running else { return };
        while let Some(output) = running.core.poll_output() {
            running.carry_out_one(output, now, world);
        }
        world.oracle.check(&running.core, now);
        if running.stops == Some(Stop::Draining) && running.core.is_drained() {
            self.close(world);
        }
        self.keep(world);
        self.arm(world);
        let is_done = |it: &Running| it.stops == Some(Stop::Closed) && it.batch.is_none();
        if self.running.as_ref().is_some_and(is_done) {
            world.log(|| "broker: ends".to_owned());
            self.end(world);
        }
    }

    /// Every connection is closed; the journal still works.
    fn close(&mut self, world: &mut World) {
        let Some(running) = &mut self.running else { return };
        running.stops = Some(Stop::Closed);
        for link in world.links() {
            world.close(link, Way::Down, Some(ErrorCode::ShuttingDown), false);
        }
    }

    /// Gives the journal what has gathered, if it does nothing.
    fn keep(&mut self, world: &mut World) {
        let Some(running) = &mut self.running else { return };
        let Some(journal) = running.journal.as_mut().filter(|_| running.batch.is_none()) else {
            return;
        };
        let Some(&(up_to, _)) = running.entries.back() else { return };
        let mut entries = running.entries.drain(..);
        let result = entries.try_for_each(|(_, record)| journal.append(&record));
        drop(entries);
        let result = result.and_then(|()| journal.sync());
        let acks = result.is_ok() && world.planted == Some(Planted::AckBeforeSync);
        running.batch = Some(Batch { up_to, result });
        let after = world.rng.time_us(world.plan.sync_us.clone());
        world.after(after, Event::Synced(self.starts));
        if std::mem::take(&mut running.crashes_in_batch) {
            let within = world.rng.between(0..after);
            world.after(within, Event::Chaos(Chaos::Crash(self.starts)));
        }
        if acks {
            let now = self.now(world);
            world.oracle.synced(up_to);
            if let Some(Running { core, .. }) = &mut self.running {
                core.journal_synced(now, up_to);
            }
            self.carry_out(world);
        }
    }

    fn arm(&mut self, world: &mut World) {
        let Some(running) = &mut self.running else { return };
        let Some(Mono(at)) = running.core.poll_timeout() else { return };
        let late_us = world.rng.time_us(1..2_000);
        let at = (running.began_us + at).max(world.now_us) + late_us;
        if running.timer_us.is_none_or(|armed| at < armed) {
            running.timer_us = Some(at);
            world.at(at, Event::Timer(self.starts));
        }
    }
}

impl Running {
    /// Its journal can't be used any more.
    fn fails(&mut self, error: &io::Error, now: Now, world: &mut World) {
        self.journal = None;
        self.entries.clear();
        // Otherwise it says so.
        let is_taken_back = !error.to_string().contains("nor can what was not synced be removed");
        world.oracle.failed(is_taken_back);
        world.log(|| format!("broker: the journal failed: {error}"));
        self.core.journal_failed(now, &error.to_string());
    }

    fn carry_out_one(&mut self, output: Output, now: Now, world: &mut World) {
        let (to, frame) = match output {
            Output::Send { to, message } => (to, Frame { message, body: Bytes::new() }),
            Output::Route { to, route, payload } => {
                let task = EncodedTask(Bytes::copy_from_slice(payload.task()));
                let id = task.decode().unwrap().id;
                let Some(Peer::Worker(worker)) = world.peer_of(to.0) else {
                    panic!("{id} is routed to nobody: {to:?}");
                };
                world.oracle.routed(id.as_str(), &route, worker, to, now);
                let message = Message::Route(Route {
                    attempt_id: route.attempt_id,
                    attempt: route.attempt,
                    ttl_ms: route.ttl_ms,
                    task,
                    stream_window_bytes: route.stream_window_bytes,
                    input_follows: route.input_follows,
                    span_id: route.span_id,
                });
                (to, Frame { message, body: Bytes::copy_from_slice(payload.body()) })
            }
            Output::Deliver { to, frame } => {
                let decoded = FrameCodec::new(&Limits::default()).decode(&mut frame.to_bytes());
                let Ok(Some(Incoming::Frame(frame))) = decoded else {
                    panic!("not a frame: {decoded:?}");
                };
                (to, frame)
            }
            Output::Chunk { to, chunk, body } => {
                (to, Frame { message: Message::Chunk(*chunk), body })
            }
            Output::Close { connection, code, message } => {
                world.log(|| format!("broker: closes #{}: {code:?}, {message}", connection.0));
                world.oracle.closed(connection);
                return world.close(connection.0, Way::Down, code, false);
            }
            Output::Journal { seq, record } => {
                world.log(|| format!("broker: record {seq}: {record:?}"));
                assert!(
                    self.journal.is_some(),
                    "the journal has failed, and is to have {record:?}"
                );
                match &*record {
                    Record::Forgotten(name) => world.oracle.forgotten(name.task_id.as_str(), now),
                    Record::Accepted(name, task) => {
                        world.oracle.taken(name.task_id.as_str(), seq, task, now);
                    }
                    Record::Ended(name, ended) => {
                        let end = End::of(&ended.deliver, &ended.body);
                        world.oracle.ended(name.task_id.as_str(), seq, end, now);
                    }
                    _ => {}
                }
                return self.entries.push_back((seq, *record));
            }
            Output::Audit(_) | Output::Orders | Output::Traced(_) => return,
            Output::Event(event) => return happened(&event, world),
        };
        let link = to.0;
        world.log(|| format!("broker -> #{link}: {}", words(&frame)));
        match &frame.message {
            Message::Deliver(deliver) => world.oracle.told(to, deliver, &frame.body, now),
            Message::Accepted(id) => world.oracle.accepted(id.as_str()),
            Message::Status(id, state) => world.oracle.status(to, id.as_str(), *state, now),
            Message::Cancel(Cancel::Attempt(id, _)) => world.oracle.given_up(*id),
            Message::Ack(ack) => match world.peer_of(link) {
                Some(Peer::Worker(worker)) => world.oracle.kept(worker, &ack.keep),
                Some(Peer::Client(_)) => world.oracle.opened(to, ack),
                None => {}
            },
            _ => {}
        }
        match &mut self.answers {
            Some(answers) if to == OBSERVER => answers.push(frame),
            _ => world.send(link, Way::Down, frame),
        }
    }
}

/// What the broker is about to read.
fn look_at(frame: &Frame, link: LinkId, peer: Peer, now: Now, world: &mut World) {
    let oracle = &mut world.oracle;
    match (&frame.message, peer) {
        (Message::Send(send), _) => {
            let id = send.task.decode().unwrap().id;
            oracle.sent(id.as_str(), now, send.ttl_ms, send.delay_ms);
            oracle.asked(ConnectionId(link), id.as_str());
        }
        (Message::Fetch(id), _) => oracle.asked(ConnectionId(link), id.as_str()),
        (Message::Settle(id), _) => oracle.settled(id.as_str()),
        (Message::Nack(nack), _) => oracle.handed_back(nack.attempt_id),
        (Message::Result(result), _) => {
            oracle.result(result.attempt_id);
            if result.executed == Executed::No {
                oracle.handed_back(result.attempt_id);
            }
        }
        (Message::Hello(hello), Peer::Worker(worker)) => {
            if let Some(hello) = &hello.worker {
                oracle.registers(worker, ConnectionId(link), hello);
            }
        }
        (Message::Ping(ping), Peer::Worker(worker)) => {
            if let Some(readiness) = ping.readiness {
                oracle.reports(worker, ConnectionId(link), readiness);
            }
        }
        _ => {}
    }
}

fn happened(event: &CoreEvent, world: &mut World) {
    world.log(|| format!("broker: {event}"));
    let worker = |agent: &str| agent[1..].parse::<usize>().unwrap();
    match event {
        CoreEvent::AgentLost { agent_id, .. } => {
            world.oracle.lost(worker(agent_id.as_str()), true);
        }
        CoreEvent::AgentResumed { agent_id, .. } => {
            world.oracle.lost(worker(agent_id.as_str()), false);
        }
        _ => {}
    }
}
