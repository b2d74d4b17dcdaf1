//! A network between peers and a broker: forwards UDP. It can be cut, it can be bad, and it can give
//! the peers behind it new addresses, as a NAT does that forgot them.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// The largest that UDP carries.
const MAX_PACKET_BYTES: usize = 65_536;

/// Where proxies are: what comes from there or goes there is not known to stay within this machine, and
/// treated as of any network.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// What the network does to packets, in each direction.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    /// The share of packets that are lost, and of those that come twice.
    pub(crate) lost: f64,
    pub(crate) twice: f64,
    /// Each packet is late by up to this, and so overtaken by others.
    pub(crate) jitter: Duration,
    /// Larger packets are lost.
    pub(crate) most_bytes: Option<usize>,
    /// It looks as if it were no network, but within this machine.
    pub(crate) seems_local: bool,
}

impl Weather {
    pub(crate) const BAD: Self = Self {
        lost: 0.05,
        twice: 0.05,
        jitter: Duration::from_millis(50),
        most_bytes: None,
        seems_local: false,
    };

    pub(crate) const LOSSLESS: Self = Self { lost: 0.0, ..Self::BAD };

    /// A socket of a proxy.
    async fn socket(&self) -> UdpSocket {
        let ip = if self.seems_local { Ipv4Addr::LOCALHOST } else { ELSEWHERE };
        UdpSocket::bind((ip, 0)).await.unwrap()
    }
}

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    network: Arc<Network>,
}

impl Proxy {
    pub(crate) async fn start(broker: &str) -> Self {
        Self::start_in(broker, Weather::default(), 0).await
    }

    /// What befalls which packet is up to the seed.
    pub(crate) async fn start_in(broker: &str, weather: Weather, seed: u64) -> Self {
        let broker: SocketAddr = broker.parse().unwrap();
        let socket = Arc::new(weather.socket().await);
        let address = socket.local_addr().unwrap();
        let network = Arc::new(Network { weather, ..Network::default() });
        tokio::spawn(forward(socket, broker, Course::new(&network, seed)));
        Self { address, network }
    }

    pub(crate) fn cut(&self) {
        self.network.is_cut.store(true, Ordering::SeqCst);
    }

    pub(crate) fn mend(&self) {
        self.network.is_cut.store(false, Ordering::SeqCst);
    }

    /// The peers' next packets come from other ports, and what is sent to the old ones is lost. If
    /// they are to be `closed`, the host says so to whoever sends to them.
    pub(crate) fn rebind(&self, closed: bool) {
        self.network.closes_old.store(closed, Ordering::SeqCst);
        self.network.bindings.fetch_add(1, Ordering::SeqCst);
    }

    /// Connections that peers have begun.
    pub(crate) fn dialled(&self) -> usize {
        self.network.dialled.lock().unwrap().len()
    }

    /// Packets that it lost.
    pub(crate) fn lost(&self) -> u64 {
        self.network.lost.load(Ordering::SeqCst)
    }

    /// Whether all that its weather does to packets has happened.
    pub(crate) fn did_its_worst(&self) -> bool {
        let Network { weather, lost, doubled, overtaken, .. } = &*self.network;
        [
            (weather.lost > 0.0, lost),
            (weather.twice > 0.0, doubled),
            (!weather.jitter.is_zero(), overtaken),
        ]
        .into_iter()
        .all(|(is_meant, count)| !is_meant || count.load(Ordering::SeqCst) > 0)
    }
}

#[derive(Default)]
struct Network {
    weather: Weather,
    is_cut: AtomicBool,
    /// How often the peers got other ports.
    bindings: AtomicU64,
    closes_old: AtomicBool,
    /// The ids that peers gave to their connections.
    dialled: Mutex<HashSet<Vec<u8>>>,
    lost: AtomicU64,
    doubled: AtomicU64,
    overtaken: AtomicU64,
}

/// One direction, of one binding.
struct Course {
    network: Arc<Network>,
    rng: Rng,
    /// When the latest packet arrives.
    latest: Instant,
}

impl Course {
    fn new(network: &Arc<Network>, seed: u64) -> Self {
        Self { network: network.clone(), rng: Rng::with_seed(seed), latest: Instant::now() }
    }

    async fn pass(&mut self, packet: &[u8], from: &Arc<UdpSocket>, to: SocketAddr) {
        let Network { weather, is_cut, lost, doubled, .. } = &*self.network;
        if is_cut.load(Ordering::SeqCst) {
            return;
        }
        let is_too_large = weather.most_bytes.is_some_and(|most| packet.len() > most);
        if is_too_large || self.rng.f64() < weather.lost {
            lost.fetch_add(1, Ordering::SeqCst);
            return;
        }
        let copies = if self.rng.f64() < weather.twice { 2 } else { 1 };
        doubled.fetch_add(copies - 1, Ordering::SeqCst);
        for _ in 0..copies {
            if weather.jitter.is_zero() {
                let _ = from.send_to(packet, to).await;
                continue;
            }
            let at = Instant::now() + weather.jitter.mul_f64(self.rng.f64());
            if at < self.latest {
                self.network.overtaken.fetch_add(1, Ordering::SeqCst);
            }
            self.latest = self.latest.max(at);
            let (packet, from) = (packet.to_owned(), from.clone());
            tokio::spawn(async move {
                sleep_until(at).await;
                let _ = from.send_to(&packet, to).await;
            });
        }
    }
}

/// What a peer is to the broker.
struct Binding {
    number: u64,
    socket: Arc<UdpSocket>,
    back: JoinHandle<()>,
}

async fn forward(socket: Arc<UdpSocket>, broker: SocketAddr, mut course: Course) {
    let network = course.network.clone();
    let mut bindings: HashMap<SocketAddr, Binding> = HashMap::new();
    let mut packet = vec![0; MAX_PACKET_BYTES];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut packet).await else { continue };
        let packet = &packet[..length];
        if let Some(id) = dialled_as(packet) {
            network.dialled.lock().unwrap().insert(id.to_owned());
        }
        let number = network.bindings.load(Ordering::SeqCst);
        if bindings.get(&from).is_none_or(|binding| binding.number != number) {
            let outside = Arc::new(network.weather.socket().await);
            let course = Course::new(&network, course.rng.u64(..));
            let back = tokio::spawn(back(outside.clone(), number, socket.clone(), from, course));
            let old = bindings.insert(from, Binding { number, socket: outside, back });
            if let Some(old) = old.filter(|_| network.closes_old.load(Ordering::SeqCst)) {
                old.back.abort();
            }
        }
        course.pass(packet, &bindings[&from].socket, broker).await;
    }
}

async fn back(
    outside: Arc<UdpSocket>,
    number: u64,
    socket: Arc<UdpSocket>,
    to: SocketAddr,
    mut course: Course,
) {
    let mut packet = vec![0; MAX_PACKET_BYTES];
    loop {
        // An error is a port that nobody listens on for now.
        let Ok((length, _)) = outside.recv_from(&mut packet).await else { continue };
        if course.network.bindings.load(Ordering::SeqCst) == number {
            course.pass(&packet[..length], &socket, to).await;
        }
    }
}

/// The id that a peer gives to the connection that it begins with this packet: a QUIC Initial's
/// source connection id (RFC 9000, 17.2.2).
fn dialled_as(packet: &[u8]) -> Option<&[u8]> {
    let [kind, _, _, _, _, rest @ ..] = packet else { return None };
    if kind & 0xf0 != 0xc0 {
        return None;
    }
    let (destination_bytes, rest) = rest.split_first()?;
    let (source_bytes, rest) = rest.get(usize::from(*destination_bytes)..)?.split_first()?;
    rest.get(..usize::from(*source_bytes))
}
