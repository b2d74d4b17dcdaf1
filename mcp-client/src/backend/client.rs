//! The HTTP client that the backends share: HTTP/1.1, TLS by rustls, no redirects.

#[cfg(test)]
mod tests;
mod url;

use std::error::Error;
use std::fmt;
use std::io;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Request, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use mcp_proto::limits::MAX_TTL_MS;
use mcp_proto::transport;
use rustls::{ClientConfig, RootCertStore};

use super::InvalidBackend;
use crate::worker::{HandlerError, HandlerReply, InputError, Job};

pub(super) use url::Url;

/// Until there is a connection, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection is kept for the next request. Shorter than the servers keep it (gunicorn
/// 2 s, uvicorn and Node.js 5 s), so that no request meets one that is just being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// Bounds the head of an answer, and what is read of its body at once.
const MAX_READ_BYTES: usize = 64 * 1024;

/// How much of a refusal is told.
const REFUSAL_BYTES: usize = 1024;

/// Posts to one URL. A request ends, and its connection is closed, when what it returned is dropped.
#[derive(Clone)]
pub(super) struct HttpClient {
    url: Url,
    client: Client<TimeoutConnector<HttpsConnector<HttpConnector>>, RequestBody>,
}

/// There from the beginning, or coming in.
type RequestBody = UnsyncBoxBody<Bytes, InputError>;

/// Why there is no answer, or not all of it.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    #[error("can't connect to {url} ({problem}): check that the server runs there")]
    Connect { url: String, problem: String },
    #[error("{url} did not answer: {problem}")]
    NoAnswer { url: String, problem: String },
    #[error("{url} answered {status}{}", told(.body))]
    Refused { url: String, status: StatusCode, body: String },
    #[error("the answer of {url} was cut off: {problem}")]
    Cut { url: String, problem: String },
}

impl HttpClient {
    /// Trusts the authorities that this machine trusts: those of `SSL_CERT_FILE` and
    /// `SSL_CERT_DIR`, or else the system's.
    pub(super) fn new(url: Url) -> Result<Self, InvalidBackend> {
        let tls = ClientConfig::builder_with_provider(transport::crypto_provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| InvalidBackend::new("TLS", error))?;
        let tls = if url.is_https() {
            tls.with_native_roots().map_err(|error| {
                let problem = format!("finds no authority to trust ({error}): set SSL_CERT_FILE");
                InvalidBackend::new("TLS", problem)
            })?
        } else {
            // There need not be any authorities on this machine.
            tls.with_root_certificates(RootCertStore::empty())
        };
        Ok(Self::with_tls(url, tls.with_no_client_auth()))
    }

    fn with_tls(url: Url, tls: ClientConfig) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        let mut connector = TimeoutConnector::new(connector.wrap_connector(tcp));
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .http1_max_buf_size(MAX_READ_BYTES)
            .build(connector);
        Self { url, client }
    }

    /// Posts `body` for a task, with its id and trace context. An answer that is not a success is an
    /// error: pushback when it says when to try again.
    pub(super) async fn post(
        &self,
        job: &Job,
        body: Bytes,
        headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
    ) -> Result<Answer, HandlerError> {
        let length = body.len() as u64;
        let body = Full::new(body).map_err(|never| match never {}).boxed_unsync();
        self.request(job, body, Some(length), headers).await
    }

    /// The same with the task's whole input, as it comes.
    pub(super) async fn post_input(
        &self,
        job: &Job,
        headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
    ) -> Result<Answer, HandlerError> {
        if job.input_bytes() == Some(job.body.len() as u64) {
            return self.post(job, job.body.clone(), headers).await;
        }
        let input = stream::iter([Ok(job.body.clone())]).chain(job.input());
        let body = StreamBody::new(input.map_ok(Frame::data)).boxed_unsync();
        self.request(job, body, job.input_bytes(), headers).await
    }

    async fn request(
        &self,
        job: &Job,
        body: RequestBody,
        length: Option<u64>,
        headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
    ) -> Result<Answer, HandlerError> {
        let mut request = Request::post(self.url.uri()).body(body)?;
        // hyper leaves it out when it is 0, which some servers refuse.
        let length = length.map(|length| (CONTENT_LENGTH, HeaderValue::from(length)));
        request.headers_mut().extend(task_headers(job).chain(length).chain(headers));
        let answer = self.client.request(request).await.map_err(|error| {
            let url = self.url.to_string();
            let cause = root_cause(&error);
            if !error.is_connect() {
                return HttpError::NoAnswer { url, problem: cause.to_string() };
            }
            let problem = match cause.downcast_ref::<io::Error>() {
                // The connector's own time-out.
                Some(error) if error.kind() == io::ErrorKind::TimedOut => {
                    format!("no connection within {CONNECT_TIMEOUT:?}")
                }
                _ => cause.to_string(),
            };
            HttpError::Connect { url, problem }
        })?;
        let (head, body) = answer.into_parts();
        let mut answer = Answer { url: self.url.clone(), headers: head.headers, body };
        if head.status.is_success() { Ok(answer) } else { Err(answer.refusal(head.status).await) }
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HttpClient").field(&self.url).finish()
    }
}

/// What the server knows the task by: its id, as other systems' request ids, and its W3C trace
/// context.
fn task_headers(job: &Job) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    let texts = [
        ("x-request-id", job.task.id.as_str()),
        ("traceparent", &job.task.traceparent),
        ("tracestate", &job.task.tracestate),
    ];
    let agent = HeaderValue::from_static(concat!("mcp-client/", env!("CARGO_PKG_VERSION")));
    let texts = texts.into_iter().filter(|(_, text)| !text.is_empty());
    let headers = texts.filter_map(|(name, text)| {
        Some((HeaderName::from_static(name), HeaderValue::from_str(text).ok()?))
    });
    headers.chain([(USER_AGENT, agent)])
}

/// A successful answer, as far as it has come.
#[derive(Debug)]
pub(super) struct Answer {
    url: Url,
    headers: HeaderMap,
    body: Incoming,
}

impl Answer {
    /// Empty when it has none.
    pub(super) fn content_type(&self) -> &str {
        self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// What comes next of its body. None at its end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, HttpError> {
        while let Some(frame) = self.body.frame().await {
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) => return Ok(Some(data)),
                // Trailers.
                Ok(Err(_)) => {}
                Err(error) => {
                    let (url, problem) = (self.url.to_string(), root_cause(&error).to_string());
                    return Err(HttpError::Cut { url, problem });
                }
            }
        }
        Ok(None)
    }

    /// Emits its body as it comes.
    pub(super) async fn emit_all(mut self, job: &Job) -> Result<HandlerReply, HandlerError> {
        while let Some(chunk) = self.chunk().await? {
            job.emit(chunk).await?;
        }
        Ok(HandlerReply::default().content_type(self.content_type()))
    }

    /// The beginning of its body, as text.
    pub(super) async fn excerpt(&mut self) -> String {
        let mut start = Vec::new();
        // What came before it broke is told.
        while let Ok(Some(chunk)) = self.chunk().await {
            let room = REFUSAL_BYTES - start.len();
            start.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if start.len() == REFUSAL_BYTES {
                break;
            }
        }
        String::from_utf8_lossy(&start).trim().to_owned()
    }

    async fn refusal(&mut self, status: StatusCode) -> HandlerError {
        let error =
            HttpError::Refused { url: self.url.to_string(), status, body: self.excerpt().await };
        let is_pushback =
            matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        match retry_after(&self.headers, SystemTime::now()) {
            Some(after) if is_pushback => HandlerError::busy(error.to_string(), after),
            _ => error.into(),
        }
    }
}

/// When to try again, as RFC 9110, 10.2.3 has it: in seconds, or at a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let after = match text.parse() {
        Ok(secs) => Duration::from_secs(secs),
        Err(_) => {
            httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or(Duration::ZERO)
        }
    };
    // No task lives longer.
    Some(after.min(Duration::from_millis(MAX_TTL_MS)))
}

fn told(body: &str) -> String {
    if body.is_empty() { String::new() } else { format!(": {body}") }
}

/// The outer errors only say at what the inner one happened.
fn root_cause<'a>(mut error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    while let Some(source) = error.source() {
        error = source;
    }
    error
}
