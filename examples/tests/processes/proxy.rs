//! A network that can be cut: forwards UDP between peers and a broker, or drops all of it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::UdpSocket;

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    is_cut: Arc<AtomicBool>,
}

impl Proxy {
    pub(crate) async fn start(broker: &str) -> Self {
        let broker: SocketAddr = broker.parse().unwrap();
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let address = socket.local_addr().unwrap();
        let is_cut = Arc::new(AtomicBool::new(false));
        tokio::spawn(forward(socket, broker, is_cut.clone()));
        Self { address, is_cut }
    }

    pub(crate) fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
    }

    pub(crate) fn mend(&self) {
        self.is_cut.store(false, Ordering::SeqCst);
    }
}

async fn forward(socket: Arc<UdpSocket>, broker: SocketAddr, is_cut: Arc<AtomicBool>) {
    let mut upstream: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut packet = vec![0; 65_536];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut packet).await else { continue };
        let to_broker = match upstream.get(&from) {
            Some(socket) => socket.clone(),
            None => {
                let to_broker = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
                to_broker.connect(broker).await.unwrap();
                upstream.insert(from, to_broker.clone());
                tokio::spawn(back(to_broker.clone(), socket.clone(), from, is_cut.clone()));
                to_broker
            }
        };
        if !is_cut.load(Ordering::SeqCst) {
            let _ = to_broker.send(&packet[..length]).await;
        }
    }
}

async fn back(
    from_broker: Arc<UdpSocket>,
    socket: Arc<UdpSocket>,
    to: SocketAddr,
    is_cut: Arc<AtomicBool>,
) {
    let mut packet = vec![0; 65_536];
    loop {
        // An error is a port that nobody listens on for now.
        let Ok(length) = from_broker.recv(&mut packet).await else { continue };
        if !is_cut.load(Ordering::SeqCst) {
            let _ = socket.send_to(&packet[..length], to).await;
        }
    }
}
