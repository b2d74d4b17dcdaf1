//! Sends spans to a collector: OTLP over HTTP/1.1, protobuf. In the background, a batch at a time.
//! Nobody waits for it: what does not fit into its queue, or can't be sent, is counted and lost.

#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Body;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use prost::Message as _;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::otlp::ExportTraceServiceRequest;
use super::span::{Span, Value};

/// Spans that wait to be sent: some seconds' worth, about 2 MB.
const QUEUE_SPANS: usize = 4096;

/// Spans that are sent at once, as OpenTelemetry's own exporters have it.
const BATCH_SPANS: usize = 512;

/// How long the first span of a batch waits for others.
const BATCH_WAIT: Duration = Duration::from_millis(500);

/// How long a collector may take for one batch, connecting included.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest answer of a collector that is read.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// The path of traces at a collector.
const PATH: &str = "/v1/traces";

/// Where a collector is: `http://HOST:PORT`, with a path if it is not at `/v1/traces`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtlpEndpoint {
    host: String,
    path: String,
}

/// Why a text is not the address of a collector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is not http://HOST:PORT, such as http://127.0.0.1:4318")]
pub struct InvalidEndpoint;

impl FromStr for OtlpEndpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let rest = text.strip_prefix("http://").ok_or(InvalidEndpoint)?;
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let port = host.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
        let is_plain = |text: &str| text.bytes().all(|it| it.is_ascii_graphic() && it != b'@');
        let (Some(Ok(1..)), true, true) = (port, is_plain(host), is_plain(path)) else {
            return Err(InvalidEndpoint);
        };
        let path = if path.len() <= 1 { PATH } else { path };
        Ok(Self { host: host.to_owned(), path: path.to_owned() })
    }
}

impl fmt::Display for OtlpEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.host, self.path)
    }
}

/// Takes spans. Cheap to clone; the last one dropped ends it, after what it was given.
#[derive(Debug, Clone)]
pub struct Exporter {
    queue: mpsc::Sender<Item>,
    counts: Arc<Counts>,
}

enum Item {
    Span(Box<Span>),
    Flush(oneshot::Sender<()>),
}

#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    lost: AtomicU64,
}

/// Spans since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exported {
    /// Those that a collector took.
    pub sent: u64,
    /// Those that were too many at once, or that no collector took.
    pub lost: u64,
}

impl Exporter {
    /// Sends spans of this process from now on, described by resource attributes such as
    /// `service.name`.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(endpoint: OtlpEndpoint, resource: Vec<(&'static str, Value)>) -> Self {
        let (queue, items) = mpsc::channel(QUEUE_SPANS);
        let counts = Arc::new(Counts::default());
        let sender = Sender { endpoint, resource, counts: counts.clone(), connection: None };
        tokio::spawn(sender.run(items));
        Self { queue, counts }
    }

    /// Takes a span, or counts it as lost.
    pub fn export(&self, span: Span) {
        if self.queue.try_send(Item::Span(Box::new(span))).is_err() {
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until what it was given before is sent or lost, at most some seconds. Cancel-safe.
    pub async fn flush(&self) {
        let (done, is_done) = oneshot::channel();
        let flushed = async {
            if self.queue.send(Item::Flush(done)).await.is_ok() {
                let _ = is_done.await;
            }
        };
        let _ = timeout(2 * EXPORT_TIMEOUT, flushed).await;
    }

    /// What became of them.
    pub fn exported(&self) -> Exported {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Exported { sent: of(&self.counts.sent), lost: of(&self.counts.lost) }
    }
}

struct Sender {
    endpoint: OtlpEndpoint,
    resource: Vec<(&'static str, Value)>,
    counts: Arc<Counts>,
    connection: Option<http1::SendRequest<Full<Bytes>>>,
}

impl Sender {
    async fn run(mut self, mut items: mpsc::Receiver<Item>) {
        let mut is_failing = false;
        while let Some(first) = items.recv().await {
            let (mut spans, mut waiting) = (Vec::new(), Vec::new());
            take(first, &mut spans, &mut waiting);
            let mut over = std::pin::pin!(sleep(BATCH_WAIT));
            while spans.len() < BATCH_SPANS && waiting.is_empty() {
                tokio::select! {
                    item = items.recv() => match item {
                        Some(item) => take(item, &mut spans, &mut waiting),
                        None => break,
                    },
                    () = &mut over => break,
                }
            }
            let count = spans.len() as u64;
            if count > 0 {
                let sent = timeout(EXPORT_TIMEOUT, self.send(spans)).await;
                let sent = sent.unwrap_or_else(|_| Err("it does not answer in time".into()));
                let counter = if sent.is_ok() { &self.counts.sent } else { &self.counts.lost };
                counter.fetch_add(count, Ordering::Relaxed);
                // Told once, until it works again.
                let was_failing = std::mem::replace(&mut is_failing, sent.is_err());
                match sent {
                    Ok(()) if was_failing => tracing::info!("the collector takes spans again"),
                    Err(error) if !was_failing => {
                        tracing::warn!(endpoint = %self.endpoint, %error, "spans are lost");
                    }
                    Ok(()) | Err(_) => {}
                }
            }
            for flushed in waiting {
                let _ = flushed.send(());
            }
        }
    }

    async fn send(
        &mut self,
        spans: Vec<Span>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let body = ExportTraceServiceRequest::new(&self.resource, spans).encode_to_vec();
        // Given back only when all went well.
        let mut connection = match self.connection.take() {
            Some(connection) if !connection.is_closed() => connection,
            _ => self.connect().await?,
        };
        connection.ready().await?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(self.endpoint.path.as_str())
            .header(header::HOST, self.endpoint.host.as_str())
            .header(header::CONTENT_TYPE, "application/x-protobuf")
            .body(Full::new(Bytes::from(body)))?;
        let answer = connection.send_request(request).await?;
        let status = answer.status();
        drain(answer.into_body()).await?;
        match status {
            StatusCode::OK | StatusCode::ACCEPTED | StatusCode::NO_CONTENT => {
                self.connection = Some(connection);
                Ok(())
            }
            _ => Err(format!("it answers {status}").into()),
        }
    }

    async fn connect(
        &self,
    ) -> Result<http1::SendRequest<Full<Bytes>>, Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect(&self.endpoint.host).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            // Whoever sends notices.
            let _ = connection.await;
        });
        Ok(sender)
    }
}

fn take(item: Item, spans: &mut Vec<Span>, waiting: &mut Vec<oneshot::Sender<()>>) {
    match item {
        Item::Span(span) => spans.push(*span),
        Item::Flush(done) => waiting.push(done),
    }
}

/// Reads an answer to its end, so that the connection can be used again.
async fn drain<B>(body: B) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    Limited::new(body, MAX_ANSWER_BYTES).collect().await.map(drop)
}
