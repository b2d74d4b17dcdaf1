//! Has a language model answer each task: chat completions as OpenAI's API has them, which vLLM,
//! llama.cpp, Ollama, TGI, SGLang and many others serve.

mod completion;
mod request;
mod sse;
#[cfg(test)]
mod tests;

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};

use super::client::{Answer, HttpClient, Url};
use super::{InvalidBackend, MAX_WHOLE_INPUT_BYTES};
use crate::worker::{Handler, HandlerError, HandlerFuture, HandlerReply, Job};
use completion::{Completion, CompletionError};

const EVENT_STREAM: &str = "text/event-stream";

/// A handler that has a language model answer: a [chat completion][chat], streamed.
///
/// A task's body is one of
///
/// * a text, as everything of content type `text/plain` is: the prompt,
/// * `{"prompt": "…", "context": {"history": [{"role": "…", "content": "…"}, …]}}`, the context if
///   there is one; what else the object has, such as `max_tokens`, goes into the request,
/// * a request of that API, with `messages`. It is streamed whatever it says. `n` above 1 and
///   `tools` are refused: there is one answer, a text.
///
/// The text of the answer is the result, emitted piece by piece as the model makes it. The reply's
/// headers are, as far as the server tells them, `model`, `finish_reason`, `prompt_tokens`,
/// `completion_tokens` and `total_tokens`.
///
/// An answer that breaks off before its end fails the task, as does an error within it. Refusals,
/// cancellation and time-outs are as with [`Http`](super::http::Http): a task that is cancelled
/// closes its request at once, so the model stops.
///
/// [chat]: https://platform.openai.com/docs/api-reference/chat-streaming
#[derive(Debug, Clone)]
pub struct OpenAi {
    client: HttpClient,
    model: Option<String>,
    /// Sensitive: not in its `Debug`.
    authorization: Option<HeaderValue>,
}

impl OpenAi {
    /// Uses the server whose API is at `url`, such as `http://127.0.0.1:8000/v1`.
    pub fn new(url: &str) -> Result<Self, InvalidBackend> {
        let url = Url::parse(url)?.join("/chat/completions")?;
        Ok(Self { client: HttpClient::new(url)?, model: None, authorization: None })
    }

    /// The model, whatever the task says. When not said it is the task's, or else the server's
    /// default if it has one.
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.model = Some(model.into());
        self
    }

    /// The key that the server asks for. It is sent to the server and shown nowhere.
    pub fn api_key(mut self, key: &str) -> Result<Self, InvalidBackend> {
        let mut value = HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| {
            InvalidBackend::new("the API key", "has characters that no HTTP header can have")
        })?;
        value.set_sensitive(true);
        self.authorization = Some(value);
        Ok(self)
    }

    async fn run(self, mut job: Job) -> Result<HandlerReply, HandlerError> {
        job.body = job.read_all(MAX_WHOLE_INPUT_BYTES).await?;
        let request = request::of(&job, self.model.as_deref())?;
        let headers = [
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (ACCEPT, HeaderValue::from_static(EVENT_STREAM)),
        ];
        let authorization = self.authorization.map(|value| (AUTHORIZATION, value));
        let headers = headers.into_iter().chain(authorization);
        let mut answer = self.client.post(&job, request, headers).await?;
        if !super::is_of_type(answer.content_type(), EVENT_STREAM) {
            return Err(not_a_stream(answer).await.into());
        }

        let mut events = sse::Parser::default();
        let mut completion = Completion::default();
        while let Some(chunk) = answer.chunk().await? {
            let mut rest = &chunk[..];
            while let Some(event) = events.next(&mut rest)? {
                if completion::is_end(&event) {
                    return Ok(completion.reply());
                }
                if let Some(text) = completion.add(&event)? {
                    job.emit(text).await?;
                }
            }
        }
        Err(CompletionError::Cut.into())
    }
}

impl Handler for OpenAi {
    fn call(&self, job: Job) -> HandlerFuture {
        Box::pin(self.clone().run(job))
    }
}

async fn not_a_stream(mut answer: Answer) -> CompletionError {
    let content_type = answer.content_type().to_owned();
    CompletionError::NotAStream { content_type, body: answer.excerpt().await }
}
