//! A peer that sends what it is told, right or wrong.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use mcp_broker::Broker;
use mcp_proto::path::Path;
use mcp_proto::transport::{MAX_UDP_PAYLOAD_BYTES, crypto_provider, transport_config};
use mcp_proto::{
    Ack, ActionName, AgentId, ErrorCode, ErrorInfo, Executed, Frame, FrameCodec, Hello, Incoming,
    InstanceId, Labels, Limits, Message, Outcome, Readiness, Route, Send, Task, TaskId, TaskResult,
    Token, WorkerHello,
};
use quinn::crypto::ClientConfig;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    Connection, ConnectionError, Endpoint, ReadError, RecvStream, SendStream, TransportErrorCode,
    VarInt,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;

use super::authority::Pem;
use super::lying::{Lie, Lying};
use super::within;

/// Where a broker is, and the authority of its certificate, PEM.
pub(crate) trait Dialled {
    fn address(&self) -> SocketAddr;
    fn authority(&self) -> String;
}

impl Dialled for Broker {
    fn address(&self) -> SocketAddr {
        self.local_addr()
    }

    fn authority(&self) -> String {
        self.ca_pem().unwrap().to_owned()
    }
}

/// A dialled connection with its lane.
pub(crate) struct RawPeer {
    pub(crate) quic: Connection,
    pub(crate) lane: SendStream,
    recv: RecvStream,
    codec: FrameCodec,
    buffer: BytesMut,
    /// Kept: dropping it would end the connection.
    _endpoint: Endpoint,
}

/// How a broker is dialled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct How {
    pub(crate) alpn: &'static [u8],
    /// What the broker can send before anything is read here.
    pub(crate) window_bytes: u32,
    pub(crate) from: Ipv4Addr,
    /// What its handshake lies about.
    pub(crate) lie: Option<Lie>,
    /// What it proves with who it is.
    pub(crate) certificate: Option<&'static Pem>,
}

impl How {
    pub(crate) const USUAL: Self = Self {
        alpn: mcp_proto::ALPN,
        window_bytes: 1024 * 1024,
        from: Ipv4Addr::LOCALHOST,
        lie: None,
        certificate: None,
    };

    pub(crate) fn with(certificate: Pem) -> Self {
        Self { certificate: Some(Box::leak(Box::new(certificate))), ..Self::USUAL }
    }
}

/// Dials a broker.
pub(crate) async fn dial(
    broker: &impl Dialled,
    how: How,
) -> Result<(Endpoint, Connection), ConnectionError> {
    let mut roots = rustls::RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(broker.authority().as_bytes()).unwrap();
    roots.add(ca).unwrap();
    let tls = rustls::ClientConfig::builder_with_provider(crypto_provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut tls = match how.certificate {
        Some(Pem { cert, key }) => {
            let cert = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            tls.with_client_auth_cert(vec![cert], key).unwrap()
        }
        None => tls.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![how.alpn.to_vec()];
    let mut crypto: Arc<dyn ClientConfig> = Arc::new(QuicClientConfig::try_from(tls).unwrap());
    if let Some(lie) = how.lie {
        crypto = Arc::new(Lying(crypto, lie));
    }
    let mut config = quinn::ClientConfig::new(crypto);
    let mut transport = transport_config(super::PATIENCE, MAX_UDP_PAYLOAD_BYTES, Path::Network);
    transport.stream_receive_window(VarInt::from_u32(how.window_bytes));
    config.transport_config(Arc::new(transport));

    let endpoint = Endpoint::client((how.from, 0).into()).unwrap();
    let connecting = endpoint.connect_with(config, broker.address(), "localhost").unwrap();
    let quic = within("the handshake", connecting).await?;
    Ok((endpoint, quic))
}

impl RawPeer {
    /// Connected, and nothing sent.
    pub(crate) async fn connect(broker: &impl Dialled) -> Self {
        Self::connect_as(broker, How::USUAL).await
    }

    pub(crate) async fn connect_as(broker: &impl Dialled, how: How) -> Self {
        let (endpoint, quic) = dial(broker, how).await.unwrap();
        let (lane, recv) = within("room for a stream", quic.open_bi()).await.unwrap();
        Self {
            quic,
            lane,
            recv,
            codec: FrameCodec::new(&Limits::default()),
            buffer: BytesMut::new(),
            _endpoint: endpoint,
        }
    }

    /// A client with an open session.
    pub(crate) async fn client(broker: &impl Dialled) -> Self {
        let mut peer = Self::connect(broker).await;
        peer.open(hello()).await;
        peer
    }

    /// A client whose HELLO has a token.
    pub(crate) async fn client_with(broker: &impl Dialled, token: &str) -> Self {
        let mut peer = Self::connect(broker).await;
        peer.open(with_token(hello(), token)).await;
        peer
    }

    /// A worker whose HELLO has a token.
    pub(crate) async fn worker_with(
        broker: &impl Dialled,
        token: &str,
        agent: &str,
        action: &str,
    ) -> Self {
        let mut peer = Self::connect(broker).await;
        peer.open(with_token(worker_hello(agent, action, 1), token)).await;
        peer
    }

    /// What a function of the broker's own answers, or the error that it fails with.
    pub(crate) async fn ask(&mut self, function: &str, body: &str) -> Result<Value, ErrorInfo> {
        self.send(send("ask", &format!("mcp.admin.{function}")), body.to_owned()).await;
        let (deliver, body) = self.receive_deliver().await;
        match deliver.error {
            None => Ok(serde_json::from_slice(&body).unwrap()),
            Some(error) => Err(*error),
        }
    }

    /// A registered worker.
    pub(crate) async fn worker(
        broker: &impl Dialled,
        agent: &str,
        action: &str,
        slots: u32,
    ) -> Self {
        let mut peer = Self::connect(broker).await;
        peer.open(worker_hello(agent, action, slots)).await;
        peer
    }

    /// Sends HELLO and takes ACK.
    pub(crate) async fn open(&mut self, hello: Hello) -> Ack {
        self.send(Message::Hello(Box::new(hello)), "").await;
        match self.receive().await.message {
            Message::Ack(ack) => *ack,
            other => panic!("not an ACK: {other:?}"),
        }
    }

    pub(crate) async fn send(&mut self, message: Message, body: impl Into<Bytes>) {
        let mut bytes = BytesMut::new();
        FrameCodec::encode(&Frame { message, body: body.into() }, &mut bytes);
        self.send_bytes(&bytes).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        within("room to write", self.lane.write_all(bytes)).await.unwrap();
    }

    /// The next frame. PINGs are answered on the way.
    pub(crate) async fn receive(&mut self) -> Frame {
        match self.next().await {
            Ok(frame) => frame,
            Err(error) => panic!("no frame but {error}"),
        }
    }

    /// The next frame, or how the connection ended.
    pub(crate) async fn next(&mut self) -> Result<Frame, ConnectionError> {
        loop {
            while let Some(incoming) = self.codec.decode(&mut self.buffer).unwrap() {
                match incoming {
                    Incoming::Frame(Frame { message: Message::Ping(ping), .. }) => {
                        self.send(Message::Pong(ping.seq), "").await;
                    }
                    Incoming::Frame(frame) => return Ok(frame),
                    other => panic!("the broker sent {other:?}"),
                }
            }
            match within("a frame", self.recv.read_chunk(usize::MAX, true)).await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk.bytes),
                Ok(None) => return Err(within("the close", self.quic.closed()).await),
                Err(ReadError::ConnectionLost(error)) => return Err(error),
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(crate) async fn receive_error(&mut self) -> ErrorInfo {
        match self.receive().await.message {
            Message::Error(error) => *error,
            other => panic!("not an ERROR: {other:?}"),
        }
    }

    /// ERROR with this code, then nothing but a close with it. Returns the error's message.
    pub(crate) async fn expect_refusal(&mut self, code: ErrorCode) -> String {
        let error = self.receive_error().await;
        assert_eq!(error.code, code, "{error}");
        self.expect_close(code).await;
        error.message
    }

    /// A close with this code, without a frame before it.
    pub(crate) async fn expect_close(&mut self, code: ErrorCode) {
        match self.next().await {
            Err(ConnectionError::ApplicationClosed(close)) => {
                assert_eq!(close.error_code, VarInt::from_u32(code as u32), "{close}");
            }
            other => panic!("not a close with {code}: {other:?}"),
        }
    }

    /// A close with this code, whatever was sent before it. Where its packet is lost, as it may be in a
    /// flood, a later one of ours is answered by a stateless reset.
    pub(crate) async fn expect_closed(&self, code: ErrorCode) {
        match within("the close", self.quic.closed()).await {
            ConnectionError::ApplicationClosed(close) => {
                assert_eq!(close.error_code, VarInt::from_u32(code as u32), "{close}");
            }
            ConnectionError::Reset => {}
            other => panic!("not a close with {code}: {other}"),
        }
    }

    /// A close by QUIC itself; or a reset, as above.
    pub(crate) async fn expect_violation(&self, code: TransportErrorCode) {
        match within("the close", self.quic.closed()).await {
            ConnectionError::ConnectionClosed(close) => assert_eq!(close.error_code, code),
            ConnectionError::Reset => {}
            other => panic!("not a close with {code}: {other}"),
        }
    }

    /// The connection is alive: PING is answered next.
    pub(crate) async fn expect_alive(&mut self) {
        self.send(Message::Ping(mcp_proto::Ping::probe(4711)), "").await;
        assert_eq!(self.receive().await.message, Message::Pong(4711));
    }

    /// The end of a task, and its body.
    pub(crate) async fn receive_deliver(&mut self) -> (mcp_proto::Deliver, Bytes) {
        match self.receive().await {
            Frame { message: Message::Deliver(deliver), body } => (*deliver, body),
            other => panic!("not a DELIVER: {other:?}"),
        }
    }

    /// The end of a task, which was not ok: its outcome, error code, and whether it ran.
    pub(crate) async fn receive_failure(&mut self) -> (Outcome, ErrorCode, Executed) {
        let (deliver, _) = self.receive_deliver().await;
        (deliver.outcome, deliver.error.map(|error| error.code).unwrap(), deliver.executed)
    }

    pub(crate) async fn receive_route(&mut self) -> (Route, Bytes) {
        match self.receive().await {
            Frame { message: Message::Route(route), body } => (route, body),
            other => panic!("not a ROUTE: {other:?}"),
        }
    }

    /// Sends the same for ever, and reads all that comes or none of it.
    pub(crate) async fn flood(self, bytes: &[u8], reads: bool) {
        let Self { mut lane, mut recv, quic: _quic, _endpoint, .. } = self;
        let write = async { while lane.write_all(bytes).await.is_ok() {} };
        let read = async { while reads && recv.read_chunk(usize::MAX, true).await.is_ok() {} };
        tokio::join!(write, read);
    }

    /// Tells the broker that nothing will be read any more.
    pub(crate) fn stop_reading(&mut self) {
        self.recv.stop(VarInt::from_u32(7)).unwrap();
    }

    /// An orderly end.
    pub(crate) fn close(&self) {
        self.quic.close(VarInt::from_u32(0), b"");
    }
}

/// HELLO of a client.
pub(crate) fn hello() -> Hello {
    Hello {
        mcp_version: mcp_proto::MCP_VERSION.into(),
        sdk: "raw".into(),
        features: Vec::new(),
        client: true,
        session_id: None,
        token: None,
        worker: None,
    }
}

pub(crate) fn with_token(hello: Hello, token: &str) -> Hello {
    Hello { token: Some(Token::try_from(token).unwrap()), ..hello }
}

/// HELLO of a worker.
pub(crate) fn worker_hello(agent: &str, action: &str, slots: u32) -> Hello {
    Hello {
        client: false,
        worker: Some(WorkerHello {
            agent_id: AgentId::try_from(agent).unwrap(),
            instance_id: InstanceId::try_from(format!("{agent}-1")).unwrap(),
            service_type: "test".into(),
            labels: Labels::default(),
            actions: vec![ActionName::try_from(action).unwrap()],
            slots,
            prefetch: 0,
            weight: 1,
            held: Vec::new(),
            received: None,
            readiness: Readiness::Ready,
        }),
        ..hello()
    }
}

/// SEND of a task that has half a minute.
pub(crate) fn send(id: &str, action: &str) -> Message {
    let task = Task::new(TaskId::try_from(id).unwrap(), ActionName::try_from(action).unwrap());
    Message::Send(Send::new(task.encode(), 30_000))
}

/// RESULT of a task that went well.
pub(crate) fn result(route: &Route) -> Message {
    Message::Result(TaskResult {
        content_type: "text/plain".into(),
        queue_us: 1,
        work_us: 2,
        ..TaskResult::new(route.attempt_id, Outcome::Ok, Executed::Yes)
    })
}
