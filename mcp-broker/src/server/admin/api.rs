//! `/api/v1/…`: the functions of `mcp.admin.*`, whose dots are slashes here. GET with arguments in the
//! query for those that look, POST with a JSON object for all.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Extension, Path, Query, Request, State};
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use mcp_proto::{ErrorCode, ErrorInfo};
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use super::super::shared::{Outbox, Shared};
use crate::broker::{AdminFunction, Asker};

/// The identity of whoever acts here.
const OPERATOR: &str = "console";

/// Of an answer: some thousand rows of a list.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// Of arguments, as in a task.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// For arguments to come.
const BODY_LIMIT: Duration = Duration::from_secs(5);

/// Where a request came from.
#[derive(Debug, Clone, Copy)]
pub(super) struct From(pub(super) SocketAddr);

type Answer = (StatusCode, [(HeaderName, &'static str); 1], Vec<u8>);

/// A function.
pub(super) async fn call(
    State(shared): State<Arc<Shared>>,
    Extension(From(peer)): Extension<From>,
    Path(path): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
    request: Request,
) -> Response {
    let Some(function) = AdminFunction::named(&path.replace('/', ".")) else {
        let paths = AdminFunction::ALL.iter().map(|it| it.name().replace('.', "/"));
        let known = paths.collect::<Vec<_>>().join(", ");
        let message = format!("there is no /api/v1/{path}; there are live, {known}");
        let error = ErrorInfo::new(ErrorCode::UnknownAction, message);
        return failure(StatusCode::NOT_FOUND, &error).into_response();
    };
    let arguments = match (request.method(), function.is_act()) {
        (&Method::POST, _) => posted(request.into_body()).await,
        (_, true) => {
            let error = ErrorInfo::new(ErrorCode::InvalidTask, "this is an act: POST it");
            return failure(StatusCode::METHOD_NOT_ALLOWED, &error).into_response();
        }
        (_, false) => queried(query),
    };
    let answer = arguments.and_then(|arguments| ask(&shared, Some(peer), function, &arguments));
    match answer {
        // Nothing is known of what was named.
        Ok(json) if json == b"null" => told(StatusCode::NOT_FOUND, json).into_response(),
        Ok(json) => told(StatusCode::OK, json).into_response(),
        Err(error) => failure(status(error.code), &error).into_response(),
    }
}

/// Asks the core, for somebody at this address.
pub(super) fn ask(
    shared: &Shared,
    peer: Option<SocketAddr>,
    function: AdminFunction,
    arguments: &[u8],
) -> Result<Vec<u8>, ErrorInfo> {
    if shared.failed.is_cancelled() {
        return Err(ErrorInfo::new(ErrorCode::Internal, "the core has failed"));
    }
    let asker = Asker { name: OPERATOR, connection: None, max_answer_bytes: MAX_ANSWER_BYTES };
    shared.hold(&mut Outbox::of_operator(peer), |core, now| {
        core.administer(now, asker, function, arguments)
    })
}

async fn posted(body: Body) -> Result<Vec<u8>, ErrorInfo> {
    let invalid = |problem: &str| ErrorInfo::new(ErrorCode::InvalidTask, problem);
    let read = timeout(BODY_LIMIT, to_bytes(body, MAX_BODY_BYTES)).await;
    let bytes = read.map_err(|_| invalid("the body did not come in time"))?;
    let bytes = bytes.map_err(|error| invalid(&format!("the body can't be read: {error}")))?;
    Ok(bytes.into())
}

/// Arguments in a query: `limit=10&label=gpu=a100`.
fn queried(query: Vec<(String, String)>) -> Result<Vec<u8>, ErrorInfo> {
    let invalid = |problem| ErrorInfo::new(ErrorCode::InvalidTask, problem);
    let mut arguments = Map::new();
    for (key, value) in query {
        let value = match key.as_str() {
            "limit" | "before" | "ttl_ms" => {
                let number: Result<u64, _> = value.parse();
                number.map_err(|_| invalid(format!("{key}={value} is no number")))?.into()
            }
            "shadow" => (value == "true").into(),
            "label" => {
                let Some((label, value)) = value.split_once('=') else {
                    return Err(invalid(format!("label={value}: label=KEY=VALUE is meant")));
                };
                let labels = arguments.entry("labels").or_insert_with(|| json!({}));
                let Some(labels) = labels.as_object_mut() else {
                    return Err(invalid("labels: label=KEY=VALUE is meant".to_owned()));
                };
                labels.insert(label.to_owned(), value.into());
                continue;
            }
            _ => Value::from(value),
        };
        if arguments.insert(key.clone(), value).is_some() {
            return Err(invalid(format!("{key} is there twice")));
        }
    }
    Ok(Value::Object(arguments).to_string().into_bytes())
}

fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::InvalidTask => StatusCode::BAD_REQUEST,
        ErrorCode::Internal | ErrorCode::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::CONFLICT,
    }
}

fn failure(status: StatusCode, error: &ErrorInfo) -> Answer {
    told(status, json!({ "error": error }).to_string().into_bytes())
}

fn told(status: StatusCode, json: Vec<u8>) -> Answer {
    (status, [(CONTENT_TYPE, "application/json")], json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_becomes_arguments() {
        let of = |query: &[(&str, &str)]| {
            let query = query.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            queried(query).map(|json| serde_json::from_slice::<Value>(&json).unwrap())
        };
        assert_eq!(of(&[]).unwrap(), json!({}));
        let query = [("limit", "5"), ("text", "7"), ("label", "gpu=a=b"), ("label", "rack=1")];
        let arguments = json!({"limit": 5, "text": "7", "labels": {"gpu": "a=b", "rack": "1"}});
        assert_eq!(of(&query).unwrap(), arguments);
        for wrong in [[("limit", "x")], [("limit", "-1")], [("label", "gpu")]] {
            assert!(of(&wrong).is_err(), "{wrong:?}");
        }
        for twice in [[("text", "a"), ("text", "b")], [("labels", "a"), ("label", "a=b")]] {
            assert!(of(&twice).is_err(), "{twice:?}");
        }
    }
}
