//! The pool's book-keeping. Synchronous; `C` is a connection, `W` tells one who waits.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::connect::Endpoint;

pub(super) struct Table<C, W> {
    max_open: usize,
    max_idle: usize,
    open: HashMap<Endpoint, Entry<C>>,
    /// Places given to those who waited and not taken yet: they count as open.
    granted: usize,
    /// In order of arrival, which is that of their tickets.
    waiters: VecDeque<Waiting<W>>,
    next_ticket: u64,
    next_number: u64,
    is_closed: bool,
    is_swept: bool,
}

struct Entry<C> {
    /// Tells it from an earlier one to the same broker.
    number: u64,
    connection: C,
    users: usize,
    idle_since: Option<Instant>,
}

struct Waiting<W> {
    ticket: u64,
    endpoint: Endpoint,
    waiter: W,
}

/// A place for a connection. Not a number of its own: one is like the other.
#[derive(Debug, Default)]
pub(super) struct Place(());

/// What asking for a connection comes to.
pub(super) enum Take<C, W> {
    Lent {
        number: u64,
        client: C,
        /// What had to go for it.
        evicted: Option<C>,
        /// Who waited for the same broker, and may look again.
        again: Vec<W>,
    },
    /// Until told, or [`Table::forget`].
    Wait {
        ticket: u64,
    },
    Closed,
}

impl<C: Clone, W> Table<C, W> {
    pub(super) fn new(max_open: usize, max_idle: usize) -> Self {
        Self {
            max_open,
            max_idle,
            open: HashMap::new(),
            granted: 0,
            waiters: VecDeque::new(),
            next_ticket: 0,
            next_number: 0,
            is_closed: false,
            is_swept: false,
        }
    }

    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    pub(super) fn idle(&self) -> usize {
        self.open.values().filter(|entry| entry.users == 0).count()
    }

    /// Lends a connection to `endpoint`, or makes `waiter` wait. With a `place` it was its turn.
    pub(super) fn take(
        &mut self,
        endpoint: &Endpoint,
        place: Option<Place>,
        is_usable: impl Fn(&C) -> bool,
        new: impl FnOnce() -> C,
        waiter: W,
    ) -> Take<C, W> {
        let has_place = place.is_some();
        if let Some(place) = place {
            self.give_up(place);
        }
        if self.is_closed {
            return Take::Closed;
        }
        if let Some(entry) = self.open.get_mut(endpoint) {
            if !is_usable(&entry.connection) {
                entry.connection = new();
            }
            entry.users += 1;
            entry.idle_since = None;
            let (number, client) = (entry.number, entry.connection.clone());
            return Take::Lent { number, client, evicted: None, again: Vec::new() };
        }
        let mut evicted = None;
        let is_turn = has_place || self.waiters.is_empty();
        if is_turn && self.open.len() + self.granted >= self.max_open {
            evicted = self.evict_oldest();
        }
        if !is_turn || self.open.len() + self.granted >= self.max_open {
            let ticket = self.next_ticket;
            self.next_ticket += 1;
            self.waiters.push_back(Waiting { ticket, endpoint: endpoint.clone(), waiter });
            return Take::Wait { ticket };
        }
        let number = self.next_number;
        self.next_number += 1;
        let client = new();
        let entry = Entry { number, connection: client.clone(), users: 1, idle_since: None };
        self.open.insert(endpoint.clone(), entry);
        let (same, others) = self.waiters.drain(..).partition(|it| it.endpoint == *endpoint);
        self.waiters = others;
        let same: VecDeque<_> = same;
        let again = same.into_iter().map(|it| it.waiter).collect();
        Take::Lent { number, client, evicted, again }
    }

    /// Ends one use. Returns connections to be closed.
    pub(super) fn give_back(
        &mut self,
        endpoint: &Endpoint,
        number: u64,
        now: Instant,
        is_usable: impl Fn(&C) -> bool,
    ) -> Vec<C> {
        let Some(entry) = self.open.get_mut(endpoint).filter(|entry| entry.number == number) else {
            return Vec::new();
        };
        entry.users -= 1;
        if entry.users > 0 {
            return Vec::new();
        }
        entry.idle_since = Some(now);
        let is_wanted = is_usable(&entry.connection) && !self.is_closed && self.waiters.is_empty();
        let gone = if !is_wanted {
            self.open.remove(endpoint).map(|entry| entry.connection)
        } else if self.idle() > self.max_idle {
            self.evict_oldest()
        } else {
            None
        };
        gone.into_iter().collect()
    }

    /// One who waited has gone, if it was not told before.
    pub(super) fn forget(&mut self, ticket: u64) {
        if let Ok(at) = self.waiters.binary_search_by_key(&ticket, |it| it.ticket) {
            self.waiters.remove(at);
        }
    }

    /// A place was not taken.
    pub(super) fn give_up(&mut self, _place: Place) {
        self.granted -= 1;
    }

    /// The next one who waits, when there is a place for it.
    pub(super) fn grant(&mut self) -> Option<(W, Place)> {
        if self.open.len() + self.granted >= self.max_open {
            return None;
        }
        let Waiting { waiter, .. } = self.waiters.pop_front()?;
        self.granted += 1;
        Some((waiter, Place(())))
    }

    /// Those idle for `idle_timeout` and more go.
    pub(super) fn expire(&mut self, now: Instant, idle_timeout: Duration) -> Vec<C> {
        let is_over = |entry: &Entry<C>| {
            entry.idle_since.is_some_and(|since| now.duration_since(since) >= idle_timeout)
        };
        let gone = self.open.extract_if(|_, entry| is_over(entry));
        gone.map(|(_, entry)| entry.connection).collect()
    }

    /// Since when the one that has been idle longest is.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        self.open.values().filter_map(|entry| entry.idle_since).min()
    }

    /// Whether a sweep is to be started: something is idle, and none is under way.
    pub(super) fn begin_sweep(&mut self) -> bool {
        let begins = !self.is_swept && self.idle_since().is_some();
        self.is_swept |= begins;
        begins
    }

    pub(super) fn end_sweep(&mut self) {
        self.is_swept = false;
    }

    /// Nothing is lent any more. Who waits is dropped; the idle ones are returned.
    pub(super) fn close(&mut self) -> Vec<C> {
        self.is_closed = true;
        self.waiters.clear();
        let idle = self.open.extract_if(|_, entry| entry.users == 0);
        idle.map(|(_, entry)| entry.connection).collect()
    }

    fn evict_oldest(&mut self) -> Option<C> {
        let idle = self.open.iter().filter(|(_, entry)| entry.users == 0);
        let oldest = idle.min_by_key(|(_, entry)| entry.idle_since)?.0.clone();
        self.open.remove(&oldest).map(|entry| entry.connection)
    }
}
