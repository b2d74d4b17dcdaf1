//! Connections between peers and the broker.
//!
//! Each has two ways. On either frames arrive in their order, after some time, unless the way is
//! blocked; on different connections in any order. A connection that breaks loses whatever has not
//! arrived, and each end notices by itself, soon or late; until then it writes into the void.

use std::collections::{BTreeMap, VecDeque};

use mcp_proto::{ErrorCode, Frame};

use crate::sim::{Event, World};

/// Who dials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    Client(usize),
    Worker(usize),
}

/// To the broker, or from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    Up,
    Down,
}

/// What travels on a connection.
#[derive(Debug)]
pub(crate) enum Item {
    /// The connection itself.
    Open,
    Frame(Frame),
    /// The other end has closed it.
    Close(Option<ErrorCode>),
}

/// A connection. Its number is that of the core's connection.
pub(crate) type LinkId = u64;

#[derive(Debug, Default)]
pub(crate) struct Network {
    links: BTreeMap<LinkId, Link>,
    dialled: u64,
    /// How many partitions block a peer's way.
    blocked: BTreeMap<(Peer, Way), u32>,
    /// Added to every delay.
    pub(crate) lag_us: u64,
}

#[derive(Debug)]
struct Link {
    peer: Peer,
    up: Pipe,
    down: Pipe,
}

/// One way of a connection.
#[derive(Debug, Default)]
struct Pipe {
    items: VecDeque<(u64, Item)>,
    last_us: u64,
    /// Nothing more gets onto it.
    is_cut: bool,
    /// Who reads it has given the connection up.
    is_left: bool,
}

impl Way {
    pub(crate) fn back(self) -> Self {
        match self {
            Way::Up => Way::Down,
            Way::Down => Way::Up,
        }
    }
}

impl Link {
    fn pipe(&mut self, way: Way) -> &mut Pipe {
        match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        }
    }
}

impl Network {
    /// Nothing is slower than it should be. What is blocked will be free by itself.
    pub(crate) fn heal(&mut self) {
        self.lag_us = 0;
    }
}

/// QUIC's idle time-out at both ends.
const IDLE_US: u64 = 30_000_000;

impl World {
    /// A new connection, whose first flight goes up.
    pub(crate) fn dial(&mut self, peer: Peer) -> LinkId {
        self.net.dialled += 1;
        let id = self.net.dialled;
        self.net.links.insert(id, Link { peer, up: Pipe::default(), down: Pipe::default() });
        self.push(id, Way::Up, Item::Open);
        id
    }

    pub(crate) fn send(&mut self, link: LinkId, way: Way, frame: Frame) {
        self.push(link, way, Item::Frame(frame));
    }

    /// One end closes the connection. What was sent before mostly arrives, but the close may overtake
    /// some of it, or be lost itself: then the other end notices in its own time.
    pub(crate) fn close(
        &mut self,
        link: LinkId,
        way: Way,
        code: Option<ErrorCode>,
        is_flushed: bool,
    ) {
        let overtakes = !is_flushed && self.rng.chance(30);
        let is_lost = self.rng.chance(10);
        let Some(it) = self.net.links.get_mut(&link) else { return };
        if overtakes {
            let pipe = it.pipe(way);
            let keep = self.rng.index(pipe.items.len() + 1);
            pipe.items.truncate(keep);
        }
        if is_lost && !is_flushed {
            self.cut(link, way);
        } else {
            self.push(link, way, Item::Close(code));
            if let Some(it) = self.net.links.get_mut(&link) {
                it.pipe(way).is_cut = true;
            }
        }
        self.leave(link, way.back());
    }

    /// The end that reads this way lets the connection go without a word.
    pub(crate) fn give_up(&mut self, link: LinkId, way: Way) {
        self.cut(link, way.back());
        self.leave(link, way);
    }

    fn push(&mut self, link: LinkId, way: Way, item: Item) {
        let delay = self.delay_us();
        let Some(it) = self.net.links.get_mut(&link) else { return };
        let pipe = it.pipe(way);
        if pipe.is_cut || pipe.is_left {
            return;
        }
        pipe.last_us = pipe.last_us.max(self.now_us + delay);
        pipe.items.push_back((pipe.last_us, item));
        let at = pipe.last_us;
        self.at(at, Event::Arrive(link, way));
    }

    fn delay_us(&mut self) -> u64 {
        let range = self.plan.delay_us.clone();
        self.rng.time_us(range) + self.net.lag_us
    }

    /// What has arrived, if it may.
    pub(crate) fn arrived(&mut self, link: LinkId, way: Way) -> Option<(Peer, Item)> {
        let now = self.now_us;
        let it = self.net.links.get_mut(&link)?;
        let peer = it.peer;
        if self.net.blocked.get(&(peer, way)).is_some_and(|count| *count > 0) {
            return None;
        }
        let pipe = it.pipe(way);
        if pipe.is_left || pipe.items.front()?.0 > now {
            return None;
        }
        let (_, item) = pipe.items.pop_front()?;
        Some((peer, item))
    }

    fn leave(&mut self, link: LinkId, way: Way) {
        if let Some(it) = self.net.links.get_mut(&link) {
            let pipe = it.pipe(way);
            pipe.is_left = true;
            pipe.items.clear();
            if it.up.is_left && it.down.is_left {
                self.net.links.remove(&link);
            }
        }
    }

    /// Who is at the other end.
    pub(crate) fn peer_of(&self, link: LinkId) -> Option<Peer> {
        self.net.links.get(&link).map(|it| it.peer)
    }

    /// A connection breaks: of each way some more arrives, and then nothing.
    pub(crate) fn break_link(&mut self, link: LinkId) {
        self.cut(link, Way::Up);
        self.cut(link, Way::Down);
    }

    /// Nothing more gets onto this way, and of what is on it only some arrives. Who reads it notices
    /// some time.
    pub(crate) fn cut(&mut self, link: LinkId, way: Way) {
        let within = if self.rng.chance(70) { 1_000_000 } else { IDLE_US };
        let after = self.rng.time_us(1_000..within);
        let Some(it) = self.net.links.get_mut(&link) else { return };
        let pipe = it.pipe(way);
        if pipe.is_cut {
            return;
        }
        pipe.is_cut = true;
        let keep = self.rng.index(pipe.items.len() + 1);
        pipe.items.truncate(keep);
        self.log(|| format!("net: #{link} {way:?} is cut, which is noticed in {after} us"));
        self.after(after, Event::Notice(link, way));
    }

    /// The connections that the broker has.
    pub(crate) fn links(&self) -> Vec<LinkId> {
        let links = self.net.links.iter();
        links.filter(|(_, it)| !it.up.is_left).map(|(id, _)| *id).collect()
    }

    /// Holds up all that goes this way between a peer and the broker. QUIC keeps it and sends it again,
    /// until the end that hears nothing gives up.
    pub(crate) fn block(&mut self, peer: Peer, way: Way) {
        *self.net.blocked.entry((peer, way)).or_default() += 1;
        let links: Vec<LinkId> = self.links_of(peer);
        for link in links {
            self.after(IDLE_US, Event::Idle(link, way));
        }
    }

    pub(crate) fn unblock(&mut self, peer: Peer, way: Way) {
        let Some(count) = self.net.blocked.get_mut(&(peer, way)) else { return };
        *count = count.saturating_sub(1);
        if *count > 0 {
            return;
        }
        for link in self.links_of(peer) {
            let Some(it) = self.net.links.get_mut(&link) else { continue };
            let count = it.pipe(way).items.len();
            for index in 0..count {
                let delay = self.delay_us();
                let Some(it) = self.net.links.get_mut(&link) else { continue };
                let pipe = it.pipe(way);
                let at = (self.now_us + delay).max(pipe.last_us);
                pipe.last_us = at;
                pipe.items[index].0 = at;
                self.at(at, Event::Arrive(link, way));
            }
        }
    }

    /// Whether a way has been blocked until now, so that who reads it has given the connection up.
    pub(crate) fn is_blocked(&self, link: LinkId, way: Way) -> bool {
        self.peer_of(link)
            .and_then(|peer| self.net.blocked.get(&(peer, way)))
            .is_some_and(|count| *count > 0)
    }

    fn links_of(&self, peer: Peer) -> Vec<LinkId> {
        let links = self.net.links.iter();
        links.filter(|(_, it)| it.peer == peer).map(|(id, _)| *id).collect()
    }
}
