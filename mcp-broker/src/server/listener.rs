//! The UDP socket, and the loop that accepts connections within the limits.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mcp_proto::ErrorCode;
use mcp_proto::socket::quic_socket;
use mcp_proto::transport::transport_config;
use mcp_proto::unreachable::Unreachable;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, Incoming, ServerConfig, VarInt};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{self, Settings};
use super::drivers::TrackedRuntime;
use super::error::{StartError, TlsError};
use super::opening::Opening;
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

/// Accepts connections.
pub(super) struct Listener {
    pub(super) endpoint: Endpoint,
    pub(super) shared: Arc<Shared>,
    pub(super) settings: Arc<Settings>,
    pub(super) connections: Arc<Semaphore>,
    pub(super) opening: Arc<Opening>,
    /// With so many connections being opened, peers must prove their address.
    pub(super) retry_handshakes: usize,
    pub(super) tasks: TaskTracker,
    /// Ends the listening.
    pub(super) stop: CancellationToken,
}

impl Listener {
    /// Runs until stopped.
    pub(super) async fn run(self) {
        let mut next_id = 1;
        while let Some(Some(incoming)) = self.stop.run_until_cancelled(self.endpoint.accept()).await
        {
            let Ok(connection) = self.connections.clone().try_acquire_owned() else {
                self.refuse(incoming, "as many connections as allowed");
                continue;
            };
            self.accept(ConnectionId(next_id), incoming, connection);
            next_id += 1;
        }
    }

    fn accept(&self, id: ConnectionId, incoming: Incoming, connection: OwnedSemaphorePermit) {
        if self.opening.taken() >= self.retry_handshakes && incoming.may_retry() {
            // Fails only where it may not be asked, which was checked.
            let _ = incoming.retry();
            return;
        }
        let Some(place) = self.opening.place(incoming.remote_address().ip()) else {
            let why = "as many connections are being opened as allowed";
            self.refuse(incoming, why);
            return;
        };
        let peer = incoming.remote_address();
        let connecting = match incoming.accept() {
            Ok(connecting) => connecting,
            Err(error) => {
                self.shared.note_refusal(peer, &error.to_string());
                return;
            }
        };
        let (shared, settings) = (self.shared.clone(), self.settings.clone());
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            connection::run(shared, settings, id, connecting, place, stop).await;
            drop(connection);
        });
    }

    /// One packet, whatever is asked.
    fn refuse(&self, incoming: Incoming, why: &str) {
        self.shared.note_refusal(incoming.remote_address(), why);
        incoming.refuse();
    }
}

/// Settings of the endpoint.
pub(super) struct Transport {
    pub(super) idle_timeout: Duration,
    pub(super) max_udp_payload_bytes: u16,
    pub(super) reset_key: ResetKey,
    /// Connections that wait to be accepted.
    pub(super) max_incoming: usize,
}

/// Opens the endpoint, and the reports about its peers where the system gives them.
pub(super) fn bind(
    address: SocketAddr,
    tls: rustls::ServerConfig,
    transport: &Transport,
    drivers: TaskTracker,
) -> Result<(Endpoint, Option<Unreachable>), StartError> {
    let crypto =
        QuicServerConfig::try_from(tls).map_err(|error| TlsError::Unusable(error.to_string()))?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    let udp_payload = transport.max_udp_payload_bytes;
    let mut settings = transport_config(transport.idle_timeout, udp_payload);
    settings.receive_window(VarInt::from_u32(OPENING_WINDOW_BYTES));
    config
        .transport_config(Arc::new(settings))
        .max_incoming(transport.max_incoming)
        .incoming_buffer_size(INCOMING_BYTES)
        .incoming_buffer_size_total(INCOMING_BYTES * transport.max_incoming as u64);
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
    let settings = transport.reset_key.endpoint_config(udp_payload);
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
