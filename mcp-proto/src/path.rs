//! What is known of the way to a peer before anything has gone over it.

use std::net::SocketAddr;

/// The way to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// What it carries is yet to be found out.
    Network,
    /// Within this machine, and it carries [`LOCAL_UDP_PAYLOAD_BYTES`]: the kernel says so, which TCP
    /// goes by, too.
    ///
    /// [`LOCAL_UDP_PAYLOAD_BYTES`]: crate::transport::LOCAL_UDP_PAYLOAD_BYTES
    Local,
}

impl Path {
    /// The way to `peer`, as the kernel's routes are now. Sends nothing. Outside Linux nothing is known of
    /// any.
    pub fn to(peer: SocketAddr) -> Self {
        #[cfg(target_os = "linux")]
        if linux::is_local(peer) {
            return Self::Local;
        }
        #[cfg(not(target_os = "linux"))]
        let _ = peer;
        Self::Network
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};

    use nix::sys::socket::{getsockopt, sockopt::IpMtu};

    use crate::transport::LOCAL_UDP_PAYLOAD_BYTES;

    /// Headers of IPv6 and UDP.
    const HEADER_BYTES: i32 = 48;

    /// Whether a packet to `peer` comes from the address that it goes to, and that route carries as much.
    pub(super) fn is_local(peer: SocketAddr) -> bool {
        let ip = match peer.ip().to_canonical() {
            IpAddr::V4(ip) => ip,
            // The same interface. There is no safe call for the MTU of a route of IPv6.
            IpAddr::V6(ip) if ip.is_loopback() => Ipv4Addr::LOCALHOST,
            IpAddr::V6(_) => return false,
        };
        route(SocketAddrV4::new(ip, peer.port())).is_ok_and(|(from, mtu)| {
            from == ip && mtu >= i32::from(LOCAL_UDP_PAYLOAD_BYTES) + HEADER_BYTES
        })
    }

    /// Where packets to `peer` come from, and how large they may be.
    fn route(peer: SocketAddrV4) -> io::Result<(IpAddr, i32)> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(peer)?;
        Ok((socket.local_addr()?.ip(), getsockopt(&socket, IpMtu)?))
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_within_this_machine_and_a_test_network_is_not() {
        for (peer, path) in [
            ("127.0.0.1:7777", Path::Local),
            ("[::1]:7777", Path::Local),
            ("[::ffff:127.0.0.1]:7777", Path::Local),
            // Of no machine (RFC 5737, RFC 3849).
            ("192.0.2.1:7777", Path::Network),
            ("[2001:db8::1]:7777", Path::Network),
        ] {
            assert_eq!(Path::to(peer.parse().unwrap()), path, "{peer}");
        }
    }
}
