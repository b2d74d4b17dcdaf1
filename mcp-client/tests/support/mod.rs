//! A broker that does what a test tells it to, over real connections.

#![allow(dead_code, unreachable_pub)]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mcp_client::{Client, Endpoint, ErrorCode, ErrorInfo, Executed, Outcome, Task, TaskId};
use mcp_proto::{
    ALPN, Ack, AttemptId, ContextTrace, Deliver, Frame, FrameCodec, Goaway, Hello, Incoming,
    Limits, Message, NodeId, Ping, Route, Send, SessionId, TaskResult, transport,
};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{ConnectionError, RecvStream, SendStream, VarInt};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Long enough for any machine; nothing waits for as long unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

/// A certificate authority, and a certificate by it.
pub struct Authority {
    pub ca_pem: String,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        Self::valid(name, [1975, 4096])
    }

    /// With a certificate that is valid from the beginning of one year to that of another.
    pub fn valid(name: &str, [from, to]: [i32; 2]) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let ca_pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(to, 1, 1);
        let certificate = params.signed_by(&key, &issuer);
        Self {
            ca_pem,
            chain: vec![certificate.unwrap().into()],
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        }
    }
}

pub struct FakeBroker {
    quic: quinn::Endpoint,
    pub ca_pem: String,
    pub address: SocketAddr,
}

impl FakeBroker {
    /// Nothing listens at its address any more, and nobody was told: as when it is killed.
    #[allow(dead_code, reason = "not every test file kills it")]
    pub fn vanish(&self) {
        // Twice: quinn holds on to the socket before.
        for _ in 0..2 {
            let elsewhere = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            self.quic.rebind(elsewhere).unwrap();
        }
    }

    pub fn start() -> Self {
        Self::start_with(&Authority::new("localhost"), ALPN, 0)
    }

    pub fn start_with(authority: &Authority, alpn: &[u8], port: u16) -> Self {
        let mut tls = rustls::ServerConfig::builder_with_provider(transport::crypto_provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(authority.chain.clone(), authority.key.clone_key())
            .unwrap();
        tls.alpn_protocols = vec![alpn.to_vec()];
        let tls = QuicServerConfig::try_from(tls).unwrap();
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
        // Without probes of the path in either direction: on a machine that is busy, one that comes
        // after a close is answered by a stateless reset, and quinn then tells that as the end.
        let mut transport_config = transport::transport_config(
            transport::IDLE_TIMEOUT,
            transport::MIN_UDP_PAYLOAD_BYTES,
            mcp_proto::path::Path::Network,
        );
        transport_config.mtu_discovery_config(None);
        config.transport_config(Arc::new(transport_config));
        let endpoint_config = transport::endpoint_config(transport::MIN_UDP_PAYLOAD_BYTES);
        let address: SocketAddr = (Ipv4Addr::LOCALHOST, port).into();
        let socket = std::net::UdpSocket::bind(address).unwrap();
        let quic = quinn::Endpoint::new(
            endpoint_config,
            Some(config),
            socket,
            Arc::new(quinn::TokioRuntime),
        )
        .unwrap();
        let address = quic.local_addr().unwrap();
        Self { quic, ca_pem: authority.ca_pem.clone(), address }
    }

    pub fn endpoint(&self) -> Endpoint {
        Endpoint::new(self.address.to_string()).server_name("localhost").ca_pem(&self.ca_pem)
    }

    /// The next one who knocks.
    pub async fn incoming(&self) -> Option<quinn::Incoming> {
        self.quic.accept().await
    }

    /// The next connection, up to its HELLO.
    pub async fn accept(&self) -> Peer {
        soon(async {
            let quic = self.quic.accept().await.unwrap().await.unwrap();
            let (send, recv) = quic.accept_bi().await.unwrap();
            let mut peer = Peer {
                quic,
                send,
                recv,
                codec: FrameCodec::new(&Limits::default()),
                buffer: BytesMut::new(),
                hello: None,
            };
            match peer.recv().await.message {
                Message::Hello(hello) => peer.hello = Some(*hello),
                other => panic!("{other:?}"),
            }
            peer
        })
        .await
    }

    /// The next connection, its session open.
    pub async fn accept_open(&self) -> Peer {
        let mut peer = self.accept().await;
        peer.ack(ack()).await;
        peer
    }

    /// A connected client, and the broker's side of it.
    pub async fn client(&self) -> (Client, Peer) {
        let connecting = Client::builder(self.endpoint()).connect();
        let (client, peer) = tokio::join!(connecting, self.accept_open());
        (client.unwrap(), peer)
    }
}

/// An ACK for a client or a worker.
pub fn ack() -> Ack {
    Ack {
        mcp_version: "1.0".into(),
        broker_id: NodeId::try_from("broker-1").unwrap(),
        epoch: 1,
        features: Vec::new(),
        limits: Limits::default(),
        node_id: NodeId::try_from("node-1").ok(),
        generation: 1,
        lease_ms: 30_000,
        ping_interval_ms: 10_000,
        keep: Vec::new(),
        session_id: SessionId::try_from("session-1").ok(),
        resumed: false,
        detach_ms: 30_000,
    }
}

/// The broker's side of a connection.
pub struct Peer {
    pub quic: quinn::Connection,
    send: SendStream,
    recv: RecvStream,
    codec: FrameCodec,
    buffer: BytesMut,
    hello: Option<Hello>,
}

impl Peer {
    pub fn hello(&self) -> &Hello {
        self.hello.as_ref().unwrap()
    }

    pub async fn ack(&mut self, ack: Ack) {
        self.send(Message::Ack(Box::new(ack)), "").await;
    }

    pub async fn send(&mut self, message: Message, body: impl Into<Bytes>) {
        let mut bytes = BytesMut::new();
        FrameCodec::encode(&Frame { message, body: body.into() }, &mut bytes);
        self.send_bytes(&bytes).await;
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        soon(self.send.write_all(bytes)).await.unwrap();
    }

    /// The next frame, or how the connection ended.
    pub async fn try_recv(&mut self) -> Result<Frame, ConnectionError> {
        soon(async {
            loop {
                match self.codec.decode(&mut self.buffer).unwrap() {
                    Some(Incoming::Frame(frame)) => return Ok(frame),
                    Some(other) => panic!("{other:?}"),
                    None => {}
                }
                match self.recv.read_chunk(64 * 1024, true).await {
                    Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk.bytes),
                    Ok(None) | Err(_) => return Err(self.quic.closed().await),
                }
            }
        })
        .await
    }

    pub async fn recv(&mut self) -> Frame {
        self.try_recv().await.expect("the connection is open")
    }

    pub async fn recv_task(&mut self) -> (Task, u64, Bytes) {
        match self.recv().await {
            Frame { message: Message::Send(Send { task, ttl_ms, .. }), body } => {
                (task.decode().unwrap(), ttl_ms, body)
            }
            other => panic!("{other:?}"),
        }
    }

    pub async fn recv_result(&mut self) -> (TaskResult, Bytes) {
        match self.recv().await {
            Frame { message: Message::Result(result), body } => (result, body),
            other => panic!("{other:?}"),
        }
    }

    /// The next PING that says something, others answered.
    pub async fn recv_report(&mut self) -> Ping {
        loop {
            match self.recv().await.message {
                Message::Ping(ping) => {
                    self.send(Message::Pong(ping.seq), "").await;
                    if ping.readiness.is_some() {
                        return ping;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Answers PINGs until the connection ends. Returns how, and what else came.
    pub async fn until_closed(mut self) -> (ConnectionError, Vec<Message>) {
        let mut others = Vec::new();
        loop {
            match self.try_recv().await {
                Ok(Frame { message: Message::Ping(ping), .. }) => {
                    self.send(Message::Pong(ping.seq), "").await;
                }
                Ok(frame) => others.push(frame.message),
                Err(end) => return (end, others),
            }
        }
    }

    pub async fn deliver_ok(&mut self, task_id: &TaskId, body: impl Into<Bytes>) {
        self.send(deliver(task_id, Outcome::Ok, Executed::Yes, None), body).await;
    }

    pub async fn goaway(&mut self, code: ErrorCode, reconnect: bool) {
        let message = "for a test".to_owned();
        self.send(Message::Goaway(Goaway { code, message, reconnect }), "").await;
    }

    pub async fn route(&mut self, id: u64, action: &str, ttl_ms: u64, body: &'static str) {
        self.send(Message::Route(route_of(id, task(id, action), ttl_ms)), body).await;
    }

    /// A ROUTE of a task with something that most tasks don't have.
    pub async fn route_task(&mut self, id: u64, change: impl FnOnce(&mut Task), action: &str) {
        let mut task = task(id, action);
        change(&mut task);
        self.send(Message::Route(route_of(id, task, 60_000)), "").await;
    }

    /// Ends the connection without a word on the lane.
    pub fn close(&self, code: u32) {
        self.quic.close(VarInt::from_u32(code), b"for a test");
    }
}

fn task(id: u64, action: &str) -> Task {
    Task::new(TaskId::try_from(format!("t-{id}")).unwrap(), action.try_into().unwrap())
}

fn route_of(id: u64, task: Task, ttl_ms: u64) -> Route {
    let attempt_id = AttemptId(id);
    let task = task.encode();
    Route {
        attempt_id,
        attempt: 1,
        ttl_ms,
        task,
        stream_window_bytes: 0,
        input_follows: None,
        span_id: None,
    }
}

pub fn deliver(
    task_id: &TaskId,
    outcome: Outcome,
    executed: Executed,
    code: Option<ErrorCode>,
) -> Message {
    Message::Deliver(Box::new(Deliver {
        content_type: "text/plain".into(),
        error: code.map(|code| Box::new(ErrorInfo::new(code, "for a test"))),
        trace: ContextTrace { total_us: 7, ..ContextTrace::default() }.into(),
        ..Deliver::new(task_id.clone(), outcome, executed)
    }))
}

/// The application's close code, if it was closed by the application.
pub fn close_code(end: &ConnectionError) -> Option<u64> {
    match end {
        ConnectionError::ApplicationClosed(close) => Some(close.error_code.into_inner()),
        _ => None,
    }
}
