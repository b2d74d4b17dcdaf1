//! The UDP socket, and the loop that accepts connections within the limits.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mcp_proto::ErrorCode;
use mcp_proto::socket::quic_socket;
use mcp_proto::transport::transport_config;
use mcp_proto::unreachable::Unreachable;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, Incoming, ServerConfig, VarInt};
use ring::hkdf::{HKDF_SHA256, Prk, Salt};
use socket2::{Domain, Protocol, Socket, Type};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::config::Config;
use super::connection::{self, Settings};
use super::drivers::TrackedRuntime;
use super::error::{StartError, TlsError};
use super::places::{Full, Most, Places};
use super::random::random;
use super::rates::{Rates, Verdict};
use super::refused::Refusal;
use super::reset::ResetKey;
use super::shared::Shared;
use crate::broker::ConnectionId;

/// Asked for; the system gives what it permits (Linux: `net.core.rmem_max`). A burst that does not
/// fit is lost and sent again.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// What a peer may send before its HELLO is taken, which has 64 KiB at most.
const OPENING_WINDOW_BYTES: u32 = 128 * 1024;

/// What is kept of a connection that is not accepted yet, which happens at once: a few packets.
const INCOMING_BYTES: u64 = 16 * 1024;

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
    pub(super) endpoint: Endpoint,
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
        while let Some(Some(incoming)) = self.stop.run_until_cancelled(self.endpoint.accept()).await
        {
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
        let connecting = match incoming.accept() {
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

/// Settings of QUIC.
pub(super) struct Transport {
    idle_timeout: Duration,
    max_udp_payload_bytes: u16,
    /// Connections that wait to be accepted.
    max_incoming: usize,
}

impl Transport {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            idle_timeout: Duration::from_millis(config.timing.idle_timeout_ms),
            max_udp_payload_bytes: config.limits.max_udp_payload_bytes,
            max_incoming: config.limits.max_handshakes,
        }
    }
}

/// A certificate and how it is used, for QUIC.
#[derive(Clone)]
pub(super) struct Crypto {
    tls: Arc<QuicServerConfig>,
    /// Of the tokens by which peers prove their addresses.
    token_key: Arc<Prk>,
}

impl Crypto {
    pub(super) fn new(tls: rustls::ServerConfig) -> Result<Self, StartError> {
        let secret: [u8; 32] = random()?;
        let token_key = Salt::new(HKDF_SHA256, &[]).extract(&secret);
        Ok(Self { tls: quic_tls(tls)?, token_key: Arc::new(token_key) })
    }

    /// With another certificate. Who is about to prove its address by a token still can.
    pub(super) fn replaced(&self, tls: rustls::ServerConfig) -> Result<Self, StartError> {
        Ok(Self { tls: quic_tls(tls)?, token_key: self.token_key.clone() })
    }
}

fn quic_tls(tls: rustls::ServerConfig) -> Result<Arc<QuicServerConfig>, TlsError> {
    let tls = QuicServerConfig::try_from(tls);
    tls.map(Arc::new).map_err(|error| TlsError::Unusable(error.to_string()))
}

/// What holds for connections that come.
pub(super) fn server_config(crypto: &Crypto, transport: &Transport) -> ServerConfig {
    let mut config = ServerConfig::new(crypto.tls.clone(), crypto.token_key.clone());
    let mut settings = transport_config(transport.idle_timeout, transport.max_udp_payload_bytes);
    settings.receive_window(VarInt::from_u32(OPENING_WINDOW_BYTES));
    config
        .transport_config(Arc::new(settings))
        .max_incoming(transport.max_incoming)
        .incoming_buffer_size(INCOMING_BYTES)
        .incoming_buffer_size_total(INCOMING_BYTES * transport.max_incoming as u64);
    config
}

/// Opens the endpoint, and the reports about its peers where the system gives them.
pub(super) fn bind(
    address: SocketAddr,
    crypto: &Crypto,
    transport: &Transport,
    reset_key: &ResetKey,
    drivers: TaskTracker,
) -> Result<(Endpoint, Option<Unreachable>), StartError> {
    let config = server_config(crypto, transport);
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => StartError::AddressInUse { address },
        _ => StartError::Bind { address, source },
    };
    let socket = socket(address).map_err(failed)?;
    let reports = Unreachable::watch(&socket);
    if let Err(error) = &reports {
        tracing::debug!(%error, "lost workers are noticed by their silence only");
    }
    let runtime = Arc::new(TrackedRuntime(drivers));
    let socket = quic_socket(socket, &*runtime).map_err(failed)?;
    let settings = reset_key.endpoint_config(transport.max_udp_payload_bytes);
    let endpoint = Endpoint::new_with_abstract_socket(settings, Some(config), socket, runtime);
    Ok((endpoint.map_err(failed)?, reports.ok()))
}

fn socket(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // `[::]` is for IPv4 too. Where the system can't, it is not.
        let _ = socket.set_only_v6(false);
    }
    for set in [Socket::set_recv_buffer_size, Socket::set_send_buffer_size] {
        if let Err(error) = set(&socket, SOCKET_BUFFER_BYTES) {
            tracing::debug!(%error, "socket buffers stay as they are");
        }
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Ends the endpoint, and with it every connection that is left.
pub(super) fn close(endpoint: &Endpoint, code: ErrorCode, message: &str) {
    endpoint.close(super::connections::close_code(Some(code)), message.as_bytes());
}
