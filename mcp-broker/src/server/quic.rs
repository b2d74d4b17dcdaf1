//! QUIC on the broker's UDP socket, and its settings.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mcp_proto::ErrorCode;
use mcp_proto::busy_poll::BusyPoll;
use mcp_proto::path::Path;
use mcp_proto::socket::quic_socket;
use mcp_proto::transport::transport_config;
use mcp_proto::unreachable::Unreachable;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connecting, ConnectionError, Endpoint, Incoming, ServerConfig, VarInt};
use ring::hkdf::{HKDF_SHA256, Prk, Salt};
use socket2::{Domain, Protocol, Socket, Type};
use tokio_util::task::TaskTracker;

use super::config::Config;
use super::connections::close_code;
use super::drivers::TrackedRuntime;
use super::error::{StartError, TlsError};
use super::random::random;
use super::reset::ResetKey;

/// What a peer may send before its HELLO is taken, which has 64 KiB at most.
const OPENING_WINDOW_BYTES: u32 = 128 * 1024;

/// What is kept of a connection that is not accepted yet, which happens at once: a few packets.
const INCOMING_BYTES: u64 = 16 * 1024;

/// Takes connections. Clones are the same one.
#[derive(Clone)]
pub(super) struct QuicServer {
    endpoint: Endpoint,
    /// What holds for peers on this machine; the endpoint has what holds for others.
    local: Arc<Mutex<Arc<ServerConfig>>>,
    pub(super) busy_poll: Arc<BusyPoll>,
}

impl QuicServer {
    /// Opens the socket, and the reports about its peers where the system gives them.
    pub(super) fn bind(
        address: SocketAddr,
        crypto: &Crypto,
        transport: &Transport,
        reset_key: &ResetKey,
        drivers: TaskTracker,
    ) -> Result<(Self, Option<Unreachable>), StartError> {
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
        let busy_poll = Arc::new(BusyPoll::default());
        let most = transport.max_udp_payload_bytes;
        let socket =
            quic_socket(socket, most, &*runtime, Some(busy_poll.clone())).map_err(failed)?;
        let settings = reset_key.endpoint_config(most);
        let config = server_config(crypto, transport, Path::Network);
        let endpoint = Endpoint::new_with_abstract_socket(settings, Some(config), socket, runtime)
            .map_err(failed)?;
        let local = Arc::new(server_config(crypto, transport, Path::Local));
        let local = Arc::new(Mutex::new(local));
        Ok((Self { endpoint, local, busy_poll }, reports.ok()))
    }

    /// # Errors
    /// When the system does not say.
    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// The next one that wants to connect; none once it is closed.
    pub(super) async fn next(&self) -> Option<Incoming> {
        self.endpoint.accept().await
    }

    /// Begins a connection.
    pub(super) fn accept(&self, incoming: Incoming) -> Result<Connecting, ConnectionError> {
        match Path::to(incoming.remote_address()) {
            Path::Network => incoming.accept(),
            Path::Local => {
                let local = self.local.lock().unwrap_or_else(PoisonError::into_inner).clone();
                incoming.accept_with(local)
            }
        }
    }

    /// Other settings, for connections that come.
    pub(super) fn reconfigure(&self, crypto: &Crypto, transport: &Transport) {
        let local = Arc::new(server_config(crypto, transport, Path::Local));
        *self.local.lock().unwrap_or_else(PoisonError::into_inner) = local;
        self.endpoint.set_server_config(Some(server_config(crypto, transport, Path::Network)));
    }

    /// Takes no more connections; those that are there stay.
    pub(super) fn take_no_more(&self) {
        self.endpoint.set_server_config(None);
    }

    /// Ends the endpoint, and with it every connection that is left.
    pub(super) fn close(&self, code: ErrorCode, message: &str) {
        self.endpoint.close(close_code(Some(code)), message.as_bytes());
    }
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

/// What holds for connections that come by such a path.
fn server_config(crypto: &Crypto, transport: &Transport, path: Path) -> ServerConfig {
    let mut config = ServerConfig::new(crypto.tls.clone(), crypto.token_key.clone());
    let mut settings =
        transport_config(transport.idle_timeout, transport.max_udp_payload_bytes, path);
    settings.receive_window(VarInt::from_u32(OPENING_WINDOW_BYTES));
    config
        .transport_config(Arc::new(settings))
        .max_incoming(transport.max_incoming)
        .incoming_buffer_size(INCOMING_BYTES)
        .incoming_buffer_size_total(INCOMING_BYTES * transport.max_incoming as u64);
    config
}

fn socket(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // `[::]` is for IPv4 too. Where the system can't, it is not.
        let _ = socket.set_only_v6(false);
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}
