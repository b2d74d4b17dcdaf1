//! QUIC settings that both sides share.
//!
//! Figures behind the choices are in ARCHITECTURE.md, "Transport".

use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::{
    AckFrequencyConfig, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt,
};

use crate::path::Path;

/// A connection without any packet for this long is dropped by QUIC itself.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// A packet is sent this often to keep an idle connection and its NAT entries alive.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Largest UDP payload that path MTU discovery tries. Networks mostly carry 1452; jumbo networks more.
///
/// Discovery halves the distance to the smallest payload, and 1200 + (5232 - 1200) / 16 is 1452. So
/// it meets what Ethernet carries in few steps, each of which costs both sides: quinn takes the
/// padding of a probe for frames, of a byte each.
const DISCOVERED_UDP_PAYLOAD_BYTES: u16 = 5232;

/// UDP payload on a [path within this machine](Path::Local), from the first packet on, without discovery:
/// what a packet costs besides its bytes is paid a third as often. Four of them are the most that the
/// kernel takes in one call (65,507 bytes).
pub const LOCAL_UDP_PAYLOAD_BYTES: u16 = 16_368;

/// Largest UDP payload sent or accepted.
pub const MAX_UDP_PAYLOAD_BYTES: u16 = LOCAL_UDP_PAYLOAD_BYTES;

/// Path MTU discovery ends with steps smaller than this part of its range: the fourth halving, which
/// meets Ethernet, is the last.
const MTU_STEPS: u16 = 20;

/// Smaller steps of path MTU discovery than this gain nothing. quinn's own.
const MIN_MTU_STEP_BYTES: u16 = 20;

/// What may be under way before anything is acknowledged: so many datagrams of the largest size, a
/// little more than RFC 9002 (7.2) has for smaller ones. quinn's own 12,000 bytes are less than two
/// of the size that discovery finds: while a probe is under way nothing could be sent, not even a
/// CONNECTION_CLOSE that waits behind data, which is then never sent.
const INITIAL_WINDOW_DATAGRAMS: u64 = 3;

/// Packets that may come before one is acknowledged at once. Fewer acknowledgements are fewer packets
/// and system calls; a lost packet is still noticed, by the next one that comes out of order.
const ACK_EVERY_PACKETS: u32 = 10;

/// The same where packets are [larger](LOCAL_UDP_PAYLOAD_BYTES): about as many bytes.
const ACK_EVERY_LOCAL_PACKETS: u32 = 3;

/// Receive window of a stream: what a peer may send before it is read.
pub const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;

/// What is buffered for sending before writes block.
pub const SEND_WINDOW_BYTES: u64 = 1024 * 1024;

/// Smallest UDP payload that every network of QUIC's must carry (RFC 9000, section 14).
pub const MIN_UDP_PAYLOAD_BYTES: u16 = 1200;

/// Settings of one connection. The dialling side opens the one lane; nothing else is allowed.
///
/// UDP payloads are up to `max_udp_payload_bytes`, to what the peer says it accepts, and to what the path
/// carries.
pub fn transport_config(
    idle_timeout: Duration,
    max_udp_payload_bytes: u16,
    path: Path,
) -> TransportConfig {
    let mut config = TransportConfig::default();
    let (most, ack_every) = match path {
        Path::Network => (DISCOVERED_UDP_PAYLOAD_BYTES, ACK_EVERY_PACKETS),
        Path::Local => (LOCAL_UDP_PAYLOAD_BYTES, ACK_EVERY_LOCAL_PACKETS),
    };
    let mut congestion = CubicConfig::default();
    congestion.initial_window(INITIAL_WINDOW_DATAGRAMS * u64::from(most));
    let most = most.min(max_udp_payload_bytes);
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(most);
    let range = most.saturating_sub(MIN_UDP_PAYLOAD_BYTES);
    mtu.minimum_change((range / MTU_STEPS).max(MIN_MTU_STEP_BYTES));
    if path == Path::Local {
        config.initial_mtu(most);
    }
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(ack_every));
    config
        .ack_frequency_config(Some(acks))
        .congestion_controller_factory(Arc::new(congestion))
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(2 * STREAM_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(IdleTimeout::try_from(idle_timeout).ok())
        .keep_alive_interval(Some(KEEP_ALIVE_INTERVAL.min(idle_timeout / 3)))
        .mtu_discovery_config(Some(mtu));
    config
}

/// Settings of an endpoint: accepts UDP payloads of up to `max_udp_payload_bytes`, which bounds what
/// the other side discovers.
pub fn endpoint_config(max_udp_payload_bytes: u16) -> EndpointConfig {
    let mut config = EndpointConfig::default();
    // Fails only below what QUIC allows.
    let _ = config.max_udp_payload_size(max_udp_payload_bytes.max(MIN_UDP_PAYLOAD_BYTES));
    config
}

/// The cryptography that both sides use: ring.
pub fn crypto_provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
