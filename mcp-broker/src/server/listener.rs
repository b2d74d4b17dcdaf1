//! The loop that accepts connections within the limits.

use std::sync::{Arc, Mutex, PoisonError};

use quinn::Incoming;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::config::Config;
use super::connection::{self, Settings};
use super::places::{Full, Most, Places};
use super::quic::QuicServer;
use super::rates::{Rates, Verdict};
use super::refused::Refusal;
use super::shared::Shared;
use crate::broker::ConnectionId;

/// Who may come in, and what holds for them then.
#[derive(Clone)]
pub(super) struct Entrance {
    settings: Arc<Mutex<Arc<Settings>>>,
    connections: Arc<Places>,
    opening: Arc<Places>,
}

impl Entrance {
    pub(super) fn new(config: &Config) -> Self {
        let it = Self {
            settings: Arc::new(Mutex::new(Arc::new(Settings::of(config)))),
            connections: Arc::new(Places::new(0, Most::Share)),
            opening: Arc::new(Places::new(0, Most::Share)),
        };
        it.set_bounds(config);
        it
    }

    /// Other bounds and settings, for connections that come.
    pub(super) fn set_bounds(&self, config: &Config) {
        let limits = &config.limits;
        let most = Most::Count(limits.max_address_connections);
        self.connections.set_bounds(limits.max_connections, most);
        self.opening.set_bounds(limits.max_handshakes, Most::Share);
        let settings = Arc::new(Settings::of(config));
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    fn settings(&self) -> Arc<Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Accepts connections.
pub(super) struct Listener {
    pub(super) quic: QuicServer,
    pub(super) shared: Arc<Shared>,
    pub(super) entrance: Entrance,
    pub(super) tasks: TaskTracker,
    /// Ends the listening.
    pub(super) stop: CancellationToken,
}

impl Listener {
    /// Runs until stopped.
    pub(super) async fn run(self) {
        let mut next_id = 1;
        let mut rates = Rates::new();
        while let Some(Some(incoming)) = self.stop.run_until_cancelled(self.quic.next()).await {
            self.accept(ConnectionId(next_id), incoming, &mut rates);
            next_id += 1;
        }
    }

    fn accept(&self, id: ConnectionId, incoming: Incoming, rates: &mut Rates) {
        let peer = incoming.remote_address();
        let Entrance { connections, opening, .. } = &self.entrance;
        let settings = self.entrance.settings();
        let now = self.shared.clock.now().mono;
        let has_proved = incoming.remote_address_validated();
        let is_busy = opening.taken() >= settings.retry_handshakes;
        if is_busy && incoming.may_retry() {
            return prove(incoming);
        }
        match rates.take(now, peer.ip(), settings.rate, has_proved) {
            Verdict::Accept => {}
            Verdict::Prove if incoming.may_retry() => return prove(incoming),
            Verdict::Prove | Verdict::Refuse => {
                return self.refuse(incoming, Refusal::Rate);
            }
        }
        let connection = match connections.place(peer.ip()) {
            Ok(place) => place,
            Err(Full::All) => return self.refuse(incoming, Refusal::Connections),
            Err(Full::Address) => {
                return self.refuse(incoming, Refusal::AddressConnections);
            }
        };
        let Ok(place) = opening.place(peer.ip()) else {
            return self.refuse(incoming, Refusal::Opening);
        };
        let connecting = match self.quic.accept(incoming) {
            Ok(connecting) => connecting,
            Err(error) => {
                self.shared.note_refusal(peer, &error.to_string());
                return;
            }
        };
        let (shared, stop) = (self.shared.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            connection::run(shared, settings, id, connecting, place, stop).await;
            drop(connection);
        });
    }

    /// One packet, whatever is asked.
    fn refuse(&self, incoming: Incoming, why: Refusal) {
        self.shared.refused.count(why);
        self.shared.note_refusal(incoming.remote_address(), why.words());
        incoming.refuse();
    }
}

/// Has the peer come again, with a proof that its address is its own.
fn prove(incoming: Incoming) {
    // Fails only where it may not be asked, which was checked.
    let _ = incoming.retry();
}
