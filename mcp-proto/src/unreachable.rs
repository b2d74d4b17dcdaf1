//! Peers whose host says that nothing listens at their port any more.
//!
//! A process that is killed sends nothing, and QUIC notices by silence alone. But its host answers
//! the next packet with ICMP "port unreachable", which Linux reports on sockets that ask for it
//! (`IP_RECVERR`, see ip(7)): milliseconds instead of seconds. A report is a hint, not a proof: it is
//! not authenticated, though it must quote a packet that this socket sent.
//!
//! On other systems nothing is ever reported.

use std::io;
use std::net::{SocketAddr, UdpSocket};

/// Reports of a UDP socket.
#[derive(Debug)]
pub struct Unreachable {
    #[cfg(target_os = "linux")]
    errors: linux::ErrorQueue,
}

impl Unreachable {
    /// Asks for the reports of `socket`, which may be given to QUIC afterwards.
    ///
    /// # Errors
    /// When the system does not let it. The socket works without.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn watch(socket: &UdpSocket) -> io::Result<Self> {
        #[cfg(not(target_os = "linux"))]
        let _ = socket;
        Ok(Self {
            #[cfg(target_os = "linux")]
            errors: linux::ErrorQueue::open(socket)?,
        })
    }

    /// Forgets what was reported until now. For who has just heard from where it matters: a dialler,
    /// for one, causes more reports than it looks at.
    pub fn discard(&self) {
        #[cfg(target_os = "linux")]
        self.errors.discard();
    }

    /// The next address where nothing listens. Cancel-safe.
    ///
    /// # Errors
    /// When reading reports fails, which it then does for good.
    pub async fn next(&self) -> io::Result<SocketAddr> {
        #[cfg(target_os = "linux")]
        return self.errors.next().await;
        #[cfg(not(target_os = "linux"))]
        std::future::pending().await
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io::{self, IoSliceMut};
    use std::net::{IpAddr, SocketAddr, UdpSocket};
    use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

    use nix::cmsg_space;
    use nix::errno::Errno;
    use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
    use nix::sys::socket::sockopt::{Ipv4RecvErr, Ipv6RecvErr};
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt};
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    /// Room for a report (some 50 bytes), and for what else QUIC asked to be told with packets.
    const CONTROL_BYTES: usize = 512;

    /// The error queue of a socket.
    #[derive(Debug)]
    pub(super) struct ErrorQueue {
        socket: OwnedFd,
        signal: AsyncFd<Signal>,
    }

    /// Readable while the error queue is not empty. An epoll instance that waits for nothing but
    /// errors: so packets, which come to the same socket a million times as often, wake nobody here.
    #[derive(Debug)]
    struct Signal(Epoll);

    impl AsRawFd for Signal {
        fn as_raw_fd(&self) -> RawFd {
            self.0.0.as_raw_fd()
        }
    }

    impl ErrorQueue {
        pub(super) fn open(socket: &UdpSocket) -> io::Result<Self> {
            if socket.local_addr()?.is_ipv4() {
                setsockopt(socket, Ipv4RecvErr, &true)?;
            } else {
                setsockopt(socket, Ipv6RecvErr, &true)?;
                // For IPv4 peers, where it takes them.
                let _ = setsockopt(socket, Ipv4RecvErr, &true);
            }
            let socket = socket.as_fd().try_clone_to_owned()?;
            let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
            epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLET, 0))?;
            // SAFETY: the signal owns its descriptor, always gives out the same one, and closes it
            // only when it is dropped, which is after it was deregistered.
            #[allow(unsafe_code)]
            let signal =
                unsafe { AsyncFd::register_with_interest(Signal(epoll), Interest::READABLE)? };
            Ok(Self { socket, signal })
        }

        pub(super) async fn next(&self) -> io::Result<SocketAddr> {
            loop {
                // Asks the system only after it said that there is something.
                let mut ready = self.signal.readable().await?;
                match self.take() {
                    Ok(Some(address)) => return Ok(address),
                    Ok(None) => {}
                    Err(Errno::EAGAIN) => {
                        let epoll = &self.signal.get_ref().0;
                        epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::ZERO)?;
                        ready.clear_ready();
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }

        pub(super) fn discard(&self) {
            // As many as the system keeps for a socket; it fails when there are none left.
            while self.take().is_ok() {}
        }

        /// Takes a report. `None`: one of something else.
        fn take(&self) -> Result<Option<SocketAddr>, Errno> {
            let mut control = cmsg_space!([u8; CONTROL_BYTES]);
            let mut payload = [0; 1];
            let mut payload = [IoSliceMut::new(&mut payload)];
            let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
            let report = recvmsg::<SockaddrStorage>(
                self.socket.as_raw_fd(),
                &mut payload,
                Some(&mut control),
                flags,
            )?;
            let says_so = report.cmsgs()?.any(|message| match message {
                ControlMessageOwned::Ipv4RecvErr(error, _)
                | ControlMessageOwned::Ipv6RecvErr(error, _) => {
                    error.ee_errno == Errno::ECONNREFUSED as u32
                }
                _ => false,
            });
            Ok(report.address.filter(|_| says_so).and_then(|address| socket_address(&address)))
        }
    }

    /// Where the packet went that was answered so.
    fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
        let v4 = address.as_sockaddr_in().map(|it| (IpAddr::from(it.ip()), it.port()));
        let v6 = address.as_sockaddr_in6().map(|it| (it.ip().to_canonical(), it.port()));
        v4.or(v6).map(|(ip, port)| SocketAddr::new(ip, port))
    }

    #[cfg(test)]
    mod tests {
        use std::time::Duration;

        use futures_util::FutureExt;

        use super::*;

        async fn report_of(any: &str) {
            let socket = UdpSocket::bind(any).unwrap();
            socket.set_nonblocking(true).unwrap();
            let errors = ErrorQueue::open(&socket).unwrap();
            let gone = UdpSocket::bind(any).unwrap().local_addr().unwrap();
            for _ in 0..2 {
                // An earlier report may be told by the send itself.
                let _ = socket.send_to(b"x", gone);
                let report = tokio::time::timeout(Duration::from_secs(10), errors.next());
                assert_eq!(report.await.unwrap().unwrap(), gone);
            }
        }

        #[tokio::test]
        async fn what_was_reported_before_is_forgotten() {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_nonblocking(true).unwrap();
            let errors = ErrorQueue::open(&socket).unwrap();
            let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            for is_discarded in [false, true] {
                for _ in 0..8 {
                    let _ = socket.send_to(b"x", gone);
                }
                assert_eq!(errors.next().await.unwrap(), gone);
                if is_discarded {
                    errors.discard();
                }
                // Whether there is one more.
                assert_eq!(errors.next().now_or_never().is_none(), is_discarded);
            }
        }

        #[tokio::test]
        async fn a_port_that_nobody_listens_at_is_reported() {
            report_of("127.0.0.1:0").await;
            if UdpSocket::bind("[::1]:0").is_ok() {
                report_of("[::1]:0").await;
            }
        }
    }
}
