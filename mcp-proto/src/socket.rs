//! The UDP socket of an endpoint whose peers are [watched](crate::unreachable).

use std::fmt::Debug;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, Runtime, UdpPoller};

/// How often an error is taken for an earlier packet's: reports come one by one.
const ATTEMPTS: usize = 2;

/// Gives a socket to QUIC, so that no report costs a packet.
///
/// A socket that asks for reports gets each of them as the error of its next call as well, which then
/// does nothing else. QUIC takes that for a packet that was lost. It can be the same one again and again:
/// the packet that looks whether a peer has moved follows the one that looks whether it is still where
/// it was, and is answered with a report.
///
/// # Errors
/// As of [`Runtime::wrap_udp_socket`].
pub fn quic_socket(
    socket: UdpSocket,
    runtime: &dyn Runtime,
) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    if cfg!(not(target_os = "linux")) {
        return runtime.wrap_udp_socket(socket);
    }
    let sending = socket.try_clone()?;
    let inner = runtime.wrap_udp_socket(socket)?;
    let state = UdpSocketState::new((&sending).into())?;
    Ok(Arc::new(Watched { inner, sending, state }))
}

#[derive(Debug)]
struct Watched {
    inner: Arc<dyn AsyncUdpSocket>,
    /// The same socket.
    sending: UdpSocket,
    state: UdpSocketState,
}

impl AsyncUdpSocket for Watched {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
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

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(cx, buffers, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::unreachable::Unreachable;

    #[tokio::test]
    async fn a_report_costs_no_packet() {
        let any = || UdpSocket::bind("127.0.0.1:0").unwrap();
        let (socket, peer) = (any(), any());
        let gone = any().local_addr().unwrap();
        let _reports = Unreachable::watch(&socket).unwrap();
        let socket = quic_socket(socket, &quinn::TokioRuntime).unwrap();
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
}
