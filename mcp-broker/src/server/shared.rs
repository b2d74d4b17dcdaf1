//! The core, shared by all connections, and the one way to use it: [`Shared::hold`].
//!
//! Whoever has something for the core (a connection's reader with a batch of frames, the timer, the
//! journal, an operator) locks it briefly and handles it in place, without a hop to another task.
//! What the core wants done is carried out in two steps:
//!
//! 1. while the lock is held, frames are pushed to the lanes of their destinations, so that the
//!    core's order is the order on every wire (a CANCEL can't overtake its ROUTE);
//! 2. after it is released, each touched lane is flushed once, events are logged, acts recorded,
//!    and traces told.
//!
//! **Order of locks: core → connection table → lane buffer, and sink → lane buffer; never back, and
//! none across an await.** Nobody holds a sink, that is: writes to the network, while holding the
//! core.

use std::net::SocketAddr;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use mcp_proto::Message;
use mcp_proto::busy_poll::BusyPoll;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::audit::{self, Audit};
use super::auth::Auth;
use super::clock::Clock;
use super::connections::{Connections, Link};
use super::journal::{Entry, Gauges};
use super::log::Log;
use super::outgoing::Outgoing;
use super::refused::Refused;
use super::reload;
use super::telemetry::Telemetry;
use super::unreachable::Addresses;
use crate::broker::{Act, ConnectionId, Core, Event, Mono, Now, Output, TaskTrace};

/// What all tasks of a broker share.
pub(super) struct Shared {
    held: Mutex<Held>,
    pub(super) connections: Connections,
    pub(super) addresses: Addresses,
    pub(super) clock: Clock,
    /// The core wants to be called earlier than the timer sleeps.
    pub(super) timer_moved: Notify,
    /// The timer task has had the core.
    pub(super) timer_turned: Notify,
    /// What operators have said is another now.
    pub(super) orders_changed: Notify,
    /// Cancelled when the broker is shutting down and every task has its outcome.
    pub(super) drained: CancellationToken,
    /// Cancelled when the core panicked: what it holds can't be trusted, and the broker ends.
    pub(super) failed: CancellationToken,
    /// Of the journal, if there is one.
    pub(super) journal: Option<Arc<Gauges>>,
    pub(super) outgoing: Outgoing,
    pub(super) audit: Audit,
    pub(super) auth: Arc<Auth>,
    pub(super) refused: Refused,
    pub(super) reloads: reload::Gauges,
    /// Off, when nobody says otherwise.
    pub(super) telemetry: Telemetry,
    /// Of the socket.
    pub(super) busy_poll: Arc<BusyPoll>,
    log: Log,
}

struct Held {
    core: Core,
    /// When the timer task wakes by itself.
    timer_at: Option<Mono>,
    is_draining: bool,
    /// None once the broker has ended.
    journal: Option<Sender<Entry>>,
}

/// Work that is left when the core is released. Reused, so that holding the core allocates nothing.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Lanes to flush. One may be here twice, which costs no more than a look at it.
    touched: Vec<Arc<Link>>,
    /// Peers for which more waits than may for any, perhaps.
    overflowing: Vec<ConnectionId>,
    events: Vec<(Event, Option<SocketAddr>)>,
    acts: Vec<(Act, Option<SocketAddr>)>,
    /// From where an operator acts who has no connection of the core's.
    operator: Option<SocketAddr>,
    traces: Vec<TaskTrace>,
}

impl Shared {
    pub(super) fn new(
        core: Core,
        clock: Clock,
        to_journal: Sender<Entry>,
        journal: Option<Arc<Gauges>>,
        outgoing: Outgoing,
        audit: Audit,
        auth: Arc<Auth>,
    ) -> Self {
        let held = Held { core, timer_at: None, is_draining: false, journal: Some(to_journal) };
        Self {
            held: Mutex::new(held),
            connections: Connections::new(),
            addresses: Addresses::default(),
            clock,
            timer_moved: Notify::new(),
            timer_turned: Notify::new(),
            orders_changed: Notify::new(),
            drained: CancellationToken::new(),
            failed: CancellationToken::new(),
            journal,
            outgoing,
            audit,
            auth,
            refused: Refused::default(),
            reloads: reload::Gauges::started(),
            telemetry: Telemetry::default(),
            busy_poll: Arc::default(),
            log: Log::default(),
        }
    }

    /// Gives the core to `act`, carries out what it then wants done, and returns what `act` did.
    ///
    /// # Panics
    /// When `act` or the core does, now or at an earlier time: the broker has then failed.
    pub(super) fn hold<R>(&self, outbox: &mut Outbox, act: impl FnOnce(&mut Core, Now) -> R) -> R {
        let mut held = self.lock();
        // Read under the lock, so that time never goes back for the core.
        let now = self.clock.now();
        let guard = FailOnPanic(&self.failed);
        let result = act(&mut held.core, now);
        self.carry_out(&mut held, now, outbox);
        std::mem::forget(guard);
        if let Some(at) = held.core.poll_timeout()
            && held.timer_at.is_none_or(|armed| at < armed)
        {
            held.timer_at = Some(at);
            self.timer_moved.notify_one();
        }
        if held.is_draining && held.core.is_drained() {
            self.drained.cancel();
        }
        drop(held);
        outbox.flush();
        for (event, peer) in outbox.events.drain(..) {
            self.log.event(now.mono, &event, peer);
        }
        for (act, peer) in outbox.acts.drain(..) {
            self.audit.record(audit::Event::of_core(act, peer));
        }
        for task in outbox.traces.drain(..) {
            self.telemetry.ended(&task);
        }
        result
    }

    /// Looks at the core without giving it anything to do.
    pub(super) fn view<R>(&self, look: impl FnOnce(&Core, Now) -> R) -> R {
        let held = self.lock();
        look(&held.core, self.clock.now())
    }

    /// Like [`Shared::view`]; none when the core has failed.
    pub(super) fn look<R>(&self, look: impl FnOnce(&Core, Now) -> R) -> Option<R> {
        let held = self.held.lock().ok()?;
        Some(look(&held.core, self.clock.now()))
    }

    /// Tells why somebody did not get as far as the core.
    pub(super) fn note_refusal(&self, peer: SocketAddr, why: &str) {
        self.log.refusal(self.clock.now().mono, peer, why);
        let event = audit::Event::new(audit::Kind::Refuse, "handshake");
        self.audit.record(event.from(peer).refused(why));
    }

    /// When the core wants to be called. The timer task sleeps until then.
    pub(super) fn arm_timer(&self) -> Option<Mono> {
        let mut held = self.lock();
        held.timer_at = held.core.poll_timeout();
        held.timer_at
    }

    /// Has the timer task take the core once more, and waits for that. Cancel-safe.
    pub(super) async fn turned(&self) {
        let turned = self.timer_turned.notified();
        self.timer_moved.notify_one();
        turned.await;
    }

    /// Tells the core to shut down; `drained` is cancelled once it has.
    pub(super) fn begin_shutdown(&self, drain_ms: u64) {
        self.lock().is_draining = true;
        self.hold(&mut Outbox::default(), |core, now| core.begin_shutdown(now, drain_ms));
    }

    /// Lets the journal's thread end after what it has been given.
    pub(super) fn end_journal(&self) {
        if let Ok(mut held) = self.held.lock() {
            held.journal = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(|_| panic!("the broker's core has failed"))
    }

    fn carry_out(&self, held: &mut Held, now: Now, outbox: &mut Outbox) {
        loop {
            while let Some(output) = held.core.poll_output() {
                self.carry_out_one(&held.journal, output, outbox);
            }
            // Only after all outputs: a frame for this connection must not follow its close.
            match outbox.overflowing.pop() {
                Some(id) => {
                    let tasks_bytes = held.core.attempts_bytes(id);
                    let overflows = |link: &Link| link.overflows(&self.outgoing, tasks_bytes);
                    if self.connections.get(&id).is_some_and(|link| overflows(&link)) {
                        held.core.handle_overflow(now, id);
                    }
                }
                None => return,
            }
        }
    }

    fn push(&self, to: ConnectionId, outbox: &mut Outbox, push: impl FnOnce(&Link)) {
        if let Some(link) = outbox.touch(to, &self.connections) {
            push(link);
            if self.outgoing.is_too_much(link.lane.queued_bytes()) {
                outbox.overflowing.push(to);
            }
        }
    }

    fn carry_out_one(&self, journal: &Option<Sender<Entry>>, output: Output, outbox: &mut Outbox) {
        match output {
            Output::Send { to, message } => {
                self.push(to, outbox, |link| link.lane.push(&message, &Bytes::new()));
            }
            Output::Route { to, route, payload } => {
                self.push(to, outbox, |link| link.lane.push_route(&route, &payload));
            }
            Output::Deliver { to, frame } => {
                self.push(to, outbox, |link| link.lane.push_encoded(&frame));
            }
            Output::Chunk { to, chunk, body } => {
                let message = Message::Chunk(*chunk);
                self.push(to, outbox, |link| link.lane.push(&message, &body));
            }
            Output::Close { connection, code, message } => {
                if let Some((_, link)) = self.connections.remove(&connection) {
                    link.close(code, message);
                    outbox.touched.push(link);
                }
            }
            Output::Journal { seq, record } => {
                if let Some(journal) = journal {
                    // Fails only when the thread is gone, which told the core so.
                    let _ = journal.send((seq, *record));
                }
            }
            Output::Audit(act) => {
                if self.audit.is_on() {
                    let link = act.connection();
                    let link = link.and_then(|id| outbox.touch(id, &self.connections));
                    let peer = link.map(Link::peer).or(outbox.operator);
                    outbox.acts.push((*act, peer));
                }
            }
            Output::Orders => self.orders_changed.notify_one(),
            Output::Traced(task) => outbox.traces.push(*task),
            Output::Event(event) => {
                if Log::takes(&event) {
                    let peer = match &*event {
                        Event::PeerRefused { connection, .. } => {
                            outbox.touch(*connection, &self.connections).map(Link::peer)
                        }
                        _ => None,
                    };
                    outbox.events.push((*event, peer));
                }
            }
        }
    }
}

impl Outbox {
    /// Of somebody at this address who has no connection of the core's.
    pub(super) fn of_operator(peer: Option<SocketAddr>) -> Self {
        Self { operator: peer, ..Self::default() }
    }

    /// The connection's link, to be flushed later. `None` when it is gone.
    fn touch(&mut self, id: ConnectionId, connections: &Connections) -> Option<&Link> {
        // A hold mostly touches the same few.
        const LOOK_BACK: usize = 8;
        let from = self.touched.len().saturating_sub(LOOK_BACK);
        let found = self.touched[from..].iter().rposition(|link| link.id == id);
        let at = match found {
            Some(at) => from + at,
            None => {
                self.touched.push(connections.get(&id)?.clone());
                self.touched.len() - 1
            }
        };
        Some(&self.touched[at])
    }

    fn flush(&mut self) {
        for link in self.touched.drain(..) {
            // A blocked lane wakes its writer task, and a closed one ends it.
            link.lane.flush();
        }
    }
}

/// Notices a panic of the core.
struct FailOnPanic<'a>(&'a CancellationToken);

impl Drop for FailOnPanic<'_> {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Barrier, mpsc};
    use std::thread;
    use std::time::Duration;

    use mcp_proto::NodeId;

    use super::*;
    use crate::broker::CoreConfig;

    fn shared() -> Shared {
        let config = CoreConfig::new(NodeId::try_from("b").unwrap(), 1, 1);
        let (journal, _) = super::super::journal::entries();
        let (audit, _) = Audit::start(None).unwrap();
        let outgoing = Outgoing::new(1, 1, 1);
        Shared::new(
            Core::new(config),
            Clock::start(),
            journal,
            None,
            outgoing,
            audit,
            Arc::default(),
        )
    }

    #[test]
    fn a_panic_in_the_core_ends_the_broker_and_is_not_gone_over() {
        let shared = shared();
        let panics = |shared: &Shared| {
            thread::scope(|scope| {
                let hold = || shared.hold(&mut Outbox::default(), |_, _| panic!("a fault"));
                scope.spawn(hold).join().is_err()
            })
        };
        shared.hold(&mut Outbox::default(), |_, _| ());
        assert!(!shared.failed.is_cancelled());
        assert!(panics(&shared));
        assert!(shared.failed.is_cancelled());
        assert_eq!(shared.look(|_, _| ()), None);
        assert!(thread::scope(|scope| scope.spawn(|| shared.view(|_, _| ())).join().is_err()));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_turns_while_nobody_keeps_the_core() {
        let shared = Arc::new(shared());
        let timer = tokio::spawn(super::super::timer::run(shared.clone()));
        shared.turned().await;
        shared.turned().await;

        let (kept, keep) = (shared.clone(), Arc::new(Barrier::new(2)));
        let (until, (has_it, it_has)) = (keep.clone(), mpsc::channel());
        let stuck = thread::spawn(move || {
            kept.hold(&mut Outbox::default(), |_, _| {
                has_it.send(()).unwrap();
                until.wait();
            });
        });
        it_has.recv().unwrap();
        // However long it is waited for.
        let waited = tokio::time::timeout(Duration::from_millis(50), shared.turned()).await;
        assert!(waited.is_err());
        keep.wait();
        shared.turned().await;
        stuck.join().unwrap();
        timer.abort();
    }

    #[test]
    fn it_is_drained_once_the_core_says_so() {
        let shared = shared();
        shared.hold(&mut Outbox::default(), |_, _| ());
        assert!(!shared.drained.is_cancelled());
        shared.begin_shutdown(0);
        assert!(shared.drained.is_cancelled());
    }
}
