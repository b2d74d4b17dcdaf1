//! An HTTP server that does what a test tells it to, byte by byte.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::soon;

pub(crate) struct HttpServer {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A request, and the connection that it came on.
pub(crate) struct Exchange {
    stream: Box<dyn Stream>,
    /// The request line and the headers, as they came.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl HttpServer {
    pub(crate) async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap(), tls: None }
    }

    /// With TLS, and what a client needs to trust it.
    pub(crate) async fn start_tls() -> (Self, ClientConfig) {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(params.self_signed(&key).unwrap().der().clone()).unwrap();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let chain = vec![params.signed_by(&key, &issuer).unwrap().into()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();

        let provider = mcp_proto::transport::crypto_provider;
        let server = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let client = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tls = Some(TlsAcceptor::from(Arc::new(server)));
        (Self { tls, ..Self::start().await }, client)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        let port = self.listener.local_addr().unwrap().port();
        match self.tls {
            Some(_) => format!("https://localhost:{port}{path}"),
            None => format!("http://127.0.0.1:{port}{path}"),
        }
    }

    /// The first request of the next connection.
    pub(crate) async fn accept(&self) -> Exchange {
        let (stream, _) = soon(self.listener.accept()).await.unwrap();
        match &self.tls {
            Some(tls) => Exchange::read(Box::new(soon(tls.accept(stream)).await.unwrap())).await,
            None => Exchange::read(Box::new(stream)).await,
        }
    }
}

impl Exchange {
    async fn read(mut stream: Box<dyn Stream>) -> Self {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(soon(stream.read_u8()).await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let mut it = Self { stream, head, body: Vec::new() };
        it.body.resize(it.header("content-length").unwrap().parse().unwrap(), 0);
        soon(it.stream.read_exact(&mut it.body)).await.unwrap();
        it
    }

    /// The next request of the same connection.
    pub(crate) async fn next(self) -> Self {
        Self::read(self.stream).await
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find_map(|(key, value)| key.eq_ignore_ascii_case(name).then_some(value))
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // The client may have gone.
        let _ = soon(self.stream.write_all(bytes.as_ref())).await;
        let _ = soon(self.stream.flush()).await;
    }

    /// All of an answer. `head` is its status line and what other headers there are.
    pub(crate) async fn answer(&mut self, head: &str, body: &str) {
        let length = body.len();
        self.send(format!("HTTP/1.1 {head}\r\nContent-Length: {length}\r\n\r\n{body}")).await;
    }

    /// The beginning of an answer that is sent in chunks.
    pub(crate) async fn begin(&mut self, content_type: &str) {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n");
        self.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n")).await;
    }

    pub(crate) async fn chunk(&mut self, data: impl AsRef<[u8]>) {
        let data = data.as_ref();
        self.send([format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat()).await;
    }

    pub(crate) async fn end(&mut self) {
        self.send("0\r\n\r\n").await;
    }

    /// Waits until the client closes the connection.
    pub(crate) async fn until_closed(mut self) {
        let mut rest = Vec::new();
        // A reset is an end, too.
        let _ = soon(self.stream.read_to_end(&mut rest)).await;
    }
}
