//! The UDP socket of an endpoint whose peers are [watched](crate::unreachable).

use std::fmt::Debug;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, Runtime, UdpPoller};

use crate::busy_poll::BusyPoll;

/// The most that the kernel takes, or gives, in one call: what an IPv4 packet has room for.
const MOST_BYTES_A_CALL: usize = 65_507;

/// Asked for, each way; the system gives what it permits (Linux: `net.core.rmem_max`, `wmem_max`). What
/// does not fit of a burst is lost, and sent again.
const BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// How often an error is taken for an earlier packet's: reports come one by one.
const ATTEMPTS: usize = 2;

/// Gives a socket to QUIC, so that no report costs a packet, that packets can be as large as is
/// [accepted](crate::transport::MAX_UDP_PAYLOAD_BYTES), and that the system keeps a burst of them.
///
/// A socket that asks for reports gets each of them as the error of its next call as well, which then
/// does nothing else. QUIC takes that for a packet that was lost. It can be the same one again and again:
/// the packet that looks whether a peer has moved follows the one that looks whether it is still where
/// it was, and is answered with a report.
///
/// QUIC gives up to ten packets at a time, which can be more than one call takes.
///
/// `busy_poll` hears of packets that come, on Linux.
///
/// # Errors
/// As of [`Runtime::wrap_udp_socket`].
pub fn quic_socket(
    socket: UdpSocket,
    max_udp_payload_bytes: u16,
    runtime: &dyn Runtime,
    busy_poll: Option<Arc<BusyPoll>>,
) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    let sending = socket.try_clone()?;
    let inner = runtime.wrap_udp_socket(socket)?;
    let state = UdpSocketState::new((&sending).into())?;
    // What it has will do, too.
    let _ = state.set_recv_buffer_size((&sending).into(), BUFFER_BYTES);
    let _ = state.set_send_buffer_size((&sending).into(), BUFFER_BYTES);
    if cfg!(not(target_os = "linux")) {
        return Ok(inner);
    }
    Ok(Arc::new(Watched { inner, sending, state, max_udp_payload_bytes, busy_poll }))
}

#[derive(Debug)]
struct Watched {
    inner: Arc<dyn AsyncUdpSocket>,
    /// The same socket.
    sending: UdpSocket,
    state: UdpSocketState,
    max_udp_payload_bytes: u16,
    busy_poll: Option<Arc<BusyPoll>>,
}

impl Watched {
    /// Sends what one call takes.
    fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        for _ in 0..ATTEMPTS {
            match self.state.try_send((&self.sending).into(), transmit) {
                Ok(()) => return Ok(()),
                // The inner one notes that, too.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // If it is of this packet, it comes again.
                Err(_) => {}
            }
        }
        self.inner.try_send(transmit)
    }
}

impl AsyncUdpSocket for Watched {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    /// Where the socket takes no more, all of it comes once more: what has gone already is void then.
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let Transmit { destination, ecn, contents, segment_size, src_ip } = *transmit;
        let Some(segment) = segment_size.filter(|_| contents.len() > MOST_BYTES_A_CALL) else {
            return self.send(transmit);
        };
        let segments = (MOST_BYTES_A_CALL / segment).max(1);
        contents.chunks(segments * segment).try_for_each(|contents| {
            self.send(&Transmit { destination, ecn, contents, segment_size, src_ip })
        })
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = self.inner.poll_recv(cx, buffers, meta);
        if let (Some(busy_poll), Poll::Ready(Ok(_))) = (&self.busy_poll, &received) {
            busy_poll.note();
        }
        received
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// QUIC keeps room for so many packets of the largest size, 32 times: for as much as can come at once.
    fn max_receive_segments(&self) -> usize {
        let most = MOST_BYTES_A_CALL.div_ceil(self.max_udp_payload_bytes.into());
        self.inner.max_receive_segments().min(most)
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::transport::MAX_UDP_PAYLOAD_BYTES;
    use crate::unreachable::Unreachable;

    #[tokio::test]
    async fn a_report_costs_no_packet() {
        let any = || UdpSocket::bind("127.0.0.1:0").unwrap();
        let (socket, peer) = (any(), any());
        let gone = any().local_addr().unwrap();
        let _reports = Unreachable::watch(&socket).unwrap();
        let socket =
            quic_socket(socket, MAX_UDP_PAYLOAD_BYTES, &quinn::TokioRuntime, None).unwrap();
        let send = |destination, contents: &[u8]| {
            let transmit =
                Transmit { destination, ecn: None, contents, segment_size: None, src_ip: None };
            socket.try_send(&transmit).unwrap();
        };
        let peer_address = peer.local_addr().unwrap();
        for number in 0..10 {
            send(gone, b"x");
            send(peer_address, &[number]);
            let mut packet = [0; 2];
            assert_eq!(peer.recv(&mut packet).unwrap(), 1);
            assert_eq!(packet[0], number);
        }
    }

    #[tokio::test]
    async fn more_than_one_call_takes_goes_in_several() {
        let any = || UdpSocket::bind("127.0.0.1:0").unwrap();
        let (socket, peer) = (any(), any());
        let destination = peer.local_addr().unwrap();
        let socket =
            quic_socket(socket, MAX_UDP_PAYLOAD_BYTES, &quinn::TokioRuntime, None).unwrap();
        let segment = usize::from(MAX_UDP_PAYLOAD_BYTES);
        // Those before the last are full, as QUIC makes them.
        let contents: Vec<u8> =
            (0..=5).flat_map(|at| vec![at; segment]).take(5 * segment + 7).collect();
        let segment_size = Some(segment);
        let transmit =
            Transmit { destination, ecn: None, contents: &contents, segment_size, src_ip: None };
        socket.try_send(&transmit).unwrap();
        let mut packet = vec![0; segment + 1];
        for expected in contents.chunks(segment) {
            let bytes = peer.recv(&mut packet).unwrap();
            assert!(packet[..bytes] == *expected, "{bytes} bytes");
        }
    }
}
