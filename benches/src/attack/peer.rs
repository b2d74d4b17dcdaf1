//! A hostile peer: speaks QUIC, and frames when it pleases.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::BytesMut;
use mcp_proto::path::Path;
use mcp_proto::transport::{
    IDLE_TIMEOUT, MAX_UDP_PAYLOAD_BYTES, crypto_provider, transport_config,
};
use mcp_proto::{Frame, FrameCodec, Incoming, Limits, Message};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint, RecvStream, SendStream, VarInt};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Its own, so that a broker can tell it from honest peers.
const FROM: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// What it takes without reading: the smallest that is sensible, so that the broker keeps the rest.
const WINDOW_BYTES: u32 = 16 * 1024;

/// What dials.
pub(super) struct Dialler {
    endpoint: Endpoint,
    config: quinn::ClientConfig,
    broker: SocketAddr,
}

impl Dialler {
    pub(super) fn new(broker: SocketAddr, ca_pem: &str) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes())?)?;
        let mut tls = rustls::ClientConfig::builder_with_provider(crypto_provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![mcp_proto::ALPN.to_vec()];
        let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        let mut transport = transport_config(IDLE_TIMEOUT, MAX_UDP_PAYLOAD_BYTES, Path::Local);
        transport.stream_receive_window(VarInt::from_u32(WINDOW_BYTES));
        config.transport_config(Arc::new(transport));
        Ok(Self { endpoint: Endpoint::client((FROM, 0).into())?, config, broker })
    }

    pub(super) async fn dial(&self) -> Result<Connection> {
        let connecting =
            self.endpoint.connect_with(self.config.clone(), self.broker, "localhost")?;
        Ok(tokio::time::timeout(HANDSHAKE_TIMEOUT, connecting).await.context("no handshake")??)
    }
}

/// A connection's lane.
pub(super) struct Lane {
    pub(super) to: SendStream,
    from: RecvStream,
    codec: FrameCodec,
}

impl Lane {
    pub(super) async fn open(quic: &Connection) -> Result<Self> {
        let (to, from) = quic.open_bi().await?;
        Ok(Self { to, from, codec: FrameCodec::new(&Limits::default()) })
    }

    /// HELLO, and its ACK.
    pub(super) async fn greet(&mut self) -> Result<()> {
        self.to.write_all(&encoded(mcp_bench::hello(None))).await?;
        loop {
            let chunk = self.from.read_chunk(usize::MAX, true).await?.context("no ACK")?;
            match self.codec.decode(&mut { chunk.bytes })? {
                Some(Incoming::Frame(Frame { message: Message::Ack(_), .. })) => return Ok(()),
                None => {}
                Some(other) => bail!("no ACK but {other:?}"),
            }
        }
    }

    /// Reads, and does not look at it.
    pub(super) async fn read_on(from: &mut RecvStream) -> Result<()> {
        while from.read_chunk(usize::MAX, true).await?.is_some() {}
        bail!("the lane ended")
    }

    pub(super) fn split(self) -> (SendStream, RecvStream) {
        (self.to, self.from)
    }
}

pub(super) fn encoded(frame: Frame) -> BytesMut {
    let mut bytes = BytesMut::new();
    FrameCodec::encode(&frame, &mut bytes);
    bytes
}
