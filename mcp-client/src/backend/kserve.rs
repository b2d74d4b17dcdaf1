//! Sends each task to a model behind the KServe v2 protocol: Triton, KServe, MLServer and others.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use serde::de::IgnoredAny;
use serde_json::json;

use super::client::{HttpClient, Url};
use super::{InvalidBackend, MAX_WHOLE_INPUT_BYTES};
use crate::worker::{Handler, HandlerError, HandlerFuture, HandlerReply, Job};

/// The tensor that a plain text becomes, as Triton's text models name it.
const TEXT_INPUT: &str = "text_input";

/// A handler that has a model infer: the [KServe v2 protocol][kserve] over HTTP.
///
/// A task's body is an inference request, a JSON object with `inputs`, which is passed on as it is;
/// or else, as everything of content type `text/plain` is, a text, which becomes one BYTES tensor
/// `text_input` of shape `[1]`. The result is the inference response, JSON. Refusals, cancellation
/// and time-outs are as with [`Http`](super::http::Http).
///
/// [kserve]: https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
#[derive(Debug, Clone)]
pub struct KServe {
    client: HttpClient,
}

/// A task that is no request.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum RequestError {
    #[error(
        "the task says it is JSON, but it is no object with `inputs`, an inference request (to have \
         it taken as a text, say content type text/plain)"
    )]
    NoInputs,
    #[error("the task is neither JSON nor UTF-8 text")]
    NotText,
}

impl KServe {
    /// Uses `model` of the server at `url`, such as `http://127.0.0.1:8000`. The model's name has
    /// only letters, digits and `-`, `.`, `_`, `~`.
    pub fn new(url: &str, model: &str) -> Result<Self, InvalidBackend> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if model.is_empty() || !model.bytes().all(is_plain) {
            let problem = format!("{model:?} is not a name of letters, digits, '-', '.', '_', '~'");
            return Err(InvalidBackend::new("the model", problem));
        }
        let url = Url::parse(url)?.join(&format!("/v2/models/{model}/infer"))?;
        Ok(Self { client: HttpClient::new(url)? })
    }

    async fn run(self, mut job: Job) -> Result<HandlerReply, HandlerError> {
        job.body = job.read_all(MAX_WHOLE_INPUT_BYTES).await?;
        let request = request(&job)?;
        let json = HeaderValue::from_static("application/json");
        let answer = self.client.post(&job, request, [(CONTENT_TYPE, json)]).await?;
        answer.emit_all(&job).await
    }
}

impl Handler for KServe {
    fn call(&self, job: Job) -> HandlerFuture {
        Box::pin(self.clone().run(job))
    }
}

fn request(job: &Job) -> Result<Bytes, RequestError> {
    let is_of_type = |media_type| super::is_of_type(&job.task.content_type, media_type);
    let object = serde_json::from_slice::<HashMap<Cow<'_, str>, IgnoredAny>>(&job.body);
    if !is_of_type("text/plain") && object.is_ok_and(|object| object.contains_key("inputs")) {
        return Ok(job.body.clone());
    }
    if is_of_type("application/json") {
        return Err(RequestError::NoInputs);
    }
    let text = str::from_utf8(&job.body).map_err(|_| RequestError::NotText)?;
    let tensor = json!({ "name": TEXT_INPUT, "datatype": "BYTES", "shape": [1], "data": [text] });
    Ok(json!({ "inputs": [tensor] }).to_string().into())
}
