//! What goes wrong, and that it heals.

use std::collections::BTreeMap;

use crate::network::{Peer, Way};
use crate::plan::{FAULTS, Fault};
use crate::sim::{Event, Sim, World};

/// What ends some time after it began.
#[derive(Debug, Clone)]
pub(crate) enum Chaos {
    Unblock(Peer, Way),
    NoLag,
    /// The host of a killed worker reports that nobody listens.
    Unreachable(u64),
    /// Of a start of the broker: it ends while its journal writes.
    Crash(u64),
}

/// Whose processes do nothing, and until when.
#[derive(Debug, Default)]
pub(crate) struct Stalled {
    broker_us: u64,
    peers_us: BTreeMap<Peer, u64>,
}

impl Stalled {
    /// When something that happens to a process is dealt with.
    fn until_us(&self, event: &Event, world: &World) -> u64 {
        let of_peer = |peer| self.peers_us.get(&peer).copied().unwrap_or_default();
        match event {
            Event::Arrive(_, Way::Up) | Event::Notice(_, Way::Up) | Event::Idle(_, Way::Up) => {
                self.broker_us
            }
            Event::Timer(_) | Event::Synced(_) | Event::Stop(_) => self.broker_us,
            Event::Arrive(link, Way::Down)
            | Event::Notice(link, Way::Down)
            | Event::Idle(link, Way::Down) => world.peer_of(*link).map_or(0, of_peer),
            Event::Client(index, ..) => of_peer(Peer::Client(*index)),
            Event::Worker(index, ..) => of_peer(Peer::Worker(*index)),
            Event::Start | Event::Fault(_) | Event::Chaos(_) => 0,
        }
    }
}

impl Sim {
    /// Whether something has to wait until its process goes on.
    pub(crate) fn is_put_off(&mut self, event: &Event) -> bool {
        let until_us = self.stalled.until_us(event, &self.world);
        let is_put_off = until_us > self.world.now_us;
        if is_put_off {
            self.world.at(until_us, event.clone());
        }
        is_put_off
    }

    pub(crate) fn begin_trouble(&mut self) {
        for fault in FAULTS {
            self.next_fault(fault);
        }
    }

    fn next_fault(&mut self, fault: Fault) {
        let world = &mut self.world;
        if let Some(every_us) = world.plan.every_us(fault)
            && !world.is_healed
        {
            let after = world.rng.until_us(every_us);
            world.after(after, Event::Fault(fault));
        }
    }

    fn any_peer(&mut self) -> Peer {
        let clients = self.clients.len();
        match self.world.rng.index(clients + self.workers.len()) {
            index if index < clients => Peer::Client(index),
            index => Peer::Worker(index - clients),
        }
    }

    pub(crate) fn fault(&mut self, fault: Fault) {
        if self.world.is_healed {
            return;
        }
        self.next_fault(fault);
        match fault {
            Fault::Break => {
                let links = self.world.links();
                if !links.is_empty() {
                    let link = self.world.rng.pick(&links);
                    self.world.log(|| format!("net: #{link} breaks"));
                    self.world.break_link(link);
                }
            }
            Fault::Partition => self.partition(),
            Fault::Silence => self.silence(),
            Fault::Lag => {
                let lag_us = self.world.rng.time_us(10_000..5_000_000);
                self.world.log(|| format!("net: {lag_us} us slower"));
                self.world.net.lag_us = lag_us;
                let lasts_us = self.world.rng.time_us(100_000..10_000_000);
                self.world.after(lasts_us, Event::Chaos(Chaos::NoLag));
            }
            Fault::ClientCrash | Fault::ClientLeave => {
                let index = self.world.rng.index(self.clients.len());
                self.clients[index].end(fault == Fault::ClientLeave, &mut self.world);
            }
            Fault::WorkerCrash => {
                let index = self.world.rng.index(self.workers.len());
                if let Some(link) = self.workers[index].link()
                    && self.world.rng.chance(50)
                {
                    for _ in 0..2 {
                        let after = self.world.rng.time_us(1_000..300_000);
                        self.world.after(after, Event::Chaos(Chaos::Unreachable(link)));
                    }
                }
                self.workers[index].die(&mut self.world);
            }
            Fault::WorkerLeave => {
                let index = self.world.rng.index(self.workers.len());
                self.workers[index].leave(&mut self.world);
            }
            // While its journal writes, there is more to go wrong.
            Fault::BrokerCrash if self.world.rng.chance(50) => self.broker.crash_in_batch(),
            Fault::BrokerCrash => {
                let loses_power = self.world.rng.chance(50);
                self.broker.crash(loses_power, &mut self.world);
            }
            Fault::BrokerShutdown => self.broker.shut_down(&mut self.world),
            Fault::DiskFailure => {
                let after = self.world.rng.between(0..5);
                let lasts = self.world.rng.pick(&[1, 1, 3, u64::MAX]);
                self.world.log(|| format!("disk: {lasts} operations fail after {after}"));
                self.broker.disk.fail(after, lasts);
            }
            Fault::WallJump => {
                let ahead_ms = self.world.rng.between(0..360_000) as i64 - 180_000;
                self.broker.set_clock(ahead_ms, &mut self.world);
            }
            Fault::Operator => self.operate(),
            Fault::BrokerStall => {
                let lasts_us = self.world.rng.time_us(10_000..10_000_000);
                self.world.log(|| format!("broker: does nothing for {lasts_us} us"));
                let until_us = self.world.now_us + lasts_us;
                self.stalled.broker_us = self.stalled.broker_us.max(until_us);
            }
            Fault::PeerStall => {
                let peer = self.any_peer();
                let lasts_us = self.world.rng.time_us(10_000..20_000_000);
                self.world.log(|| format!("{peer:?}: does nothing for {lasts_us} us"));
                let until_us = self.world.now_us + lasts_us;
                let stalled_us = self.stalled.peers_us.entry(peer).or_default();
                *stalled_us = until_us.max(*stalled_us);
            }
        }
    }

    /// Some peers hear nothing of the broker, or it of them, or both, for a while.
    fn partition(&mut self) {
        let peers = 1 + self.world.rng.index(3);
        let lasts_us = self.world.rng.time_us(100_000..40_000_000);
        for _ in 0..peers {
            let peer = self.any_peer();
            let ways: &[Way] =
                self.world.rng.pick(&[&[Way::Up][..], &[Way::Down], &[Way::Up, Way::Down]]);
            for way in ways {
                // They come back one by one.
                let until = lasts_us + self.world.rng.between(0..2_000_000);
                self.world.log(|| format!("net: {peer:?} {way:?} is blocked for {until} us"));
                self.world.block(peer, *way);
                self.world.after(until, Event::Chaos(Chaos::Unblock(peer, *way)));
            }
        }
    }

    /// The broker hears nothing of a worker, or of any, for longer than it waits for an answer, and not
    /// so long that they give up their connections.
    fn silence(&mut self) {
        let mut silent: Vec<usize> = (0..self.workers.len()).collect();
        if self.world.rng.chance(50) {
            silent.retain(|index| self.workers[*index].is_busy());
            silent.truncate(1);
        }
        let about_us = self.world.rng.between(2_500_000..6_000_000);
        for index in silent {
            let lasts_us = about_us + self.world.rng.between(0..500_000);
            self.world.log(|| format!("net: nothing of worker {index} arrives for {lasts_us} us"));
            let peer = Peer::Worker(index);
            self.world.block(peer, Way::Up);
            self.world.after(lasts_us, Event::Chaos(Chaos::Unblock(peer, Way::Up)));
            // So that the first that is heard of it again may be that it leaves.
            if self.world.rng.chance(50) {
                self.workers[index].leave(&mut self.world);
            }
        }
    }

    pub(crate) fn chaos(&mut self, chaos: Chaos) {
        match chaos {
            Chaos::Unblock(peer, way) => {
                self.world.log(|| format!("net: {peer:?} {way:?} is free again"));
                self.world.unblock(peer, way);
            }
            Chaos::NoLag => self.world.net.lag_us = 0,
            Chaos::Crash(start) => self.broker.crash_of(start, &mut self.world),
            Chaos::Unreachable(link) => self.broker.unreachable(link, &mut self.world),
        }
    }
}
