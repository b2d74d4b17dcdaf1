//! Posts each task to a server.

#[cfg(test)]
mod tests;

use http::header::{CONTENT_TYPE, HeaderValue};

use super::InvalidBackend;
use super::client::{HttpClient, Url};
use crate::worker::{Handler, HandlerError, HandlerFuture, HandlerReply, Job};

/// A handler that posts the input of each task to a URL, with its content type; the body of the
/// answer is the result, emitted as it comes.
///
/// * An input of any size is posted as it comes, with its length if the client said it, chunked if not.
/// * A status other than success: the task fails with the status and the first KiB of the answer.
///   Redirects are not followed.
/// * 429 or 503 with `Retry-After`: pushback, see [`HandlerError::busy`].
/// * At cancel or deadline, and when the worker stops, the request is ended and its connection
///   closed. There is no other limit of time, but for 5 s to connect.
///
/// The server is told the task's id as `X-Request-Id`, and its `traceparent` and `tracestate`.
#[derive(Debug, Clone)]
pub struct Http {
    client: HttpClient,
}

impl Http {
    /// Posts to `url`, `http` or `https`. Authorities to trust are those of `SSL_CERT_FILE` and
    /// `SSL_CERT_DIR`, or else the system's.
    pub fn new(url: &str) -> Result<Self, InvalidBackend> {
        Ok(Self { client: HttpClient::new(Url::parse(url)?)? })
    }

    async fn run(self, job: Job) -> Result<HandlerReply, HandlerError> {
        let content_type = Some(&job.task.content_type).filter(|it| !it.is_empty());
        let content_type = content_type.map(|it| HeaderValue::from_str(it)).transpose()?;
        let headers = content_type.map(|it| (CONTENT_TYPE, it));
        self.client.post_input(&job, headers).await?.emit_all(&job).await
    }
}

impl Handler for Http {
    fn call(&self, job: Job) -> HandlerFuture {
        Box::pin(self.clone().run(job))
    }
}
