//! What can be asked: `/livez`, `/readyz`, `/metrics`.

use std::sync::Arc;

use axum::Router;
use axum::body::HttpBody;
use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, CONTENT_TYPE, HeaderName};
use axum::http::{StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::super::shared::Shared;
use super::exposition;

type Answer = (StatusCode, [(HeaderName, &'static str); 1], String);

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .fallback(unknown)
        .layer(middleware::from_fn(refuse_body))
        .with_state(shared)
}

/// Whether the broker shall be left running: its core has not failed.
async fn livez(State(shared): State<Arc<Shared>>) -> Answer {
    match shared.look(|_, _| ()) {
        Some(()) => text(StatusCode::OK, "ok\n"),
        None => text(StatusCode::SERVICE_UNAVAILABLE, "the core has failed\n"),
    }
}

/// Whether the broker takes connections and tasks.
async fn readyz(State(shared): State<Arc<Shared>>) -> Answer {
    let reason = match shared.look(|core, _| core.is_shutting_down()) {
        Some(false) => None,
        Some(true) => Some("draining"),
        None => Some("failed"),
    };
    let (status, body) = match reason {
        None => (StatusCode::OK, serde_json::json!({ "ready": true })),
        Some(reason) => {
            let body = serde_json::json!({ "ready": false, "reason": reason });
            (StatusCode::SERVICE_UNAVAILABLE, body)
        }
    };
    (status, [(CONTENT_TYPE, "application/json")], format!("{body}\n"))
}

/// Everything that is measured.
async fn metrics(State(shared): State<Arc<Shared>>) -> Answer {
    let Some(metrics) = shared.look(|core, now| core.metrics(now)) else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "the core has failed\n");
    };
    // Up to some milliseconds for many actions, in which the runtime has other things to do.
    let text = tokio::task::spawn_blocking(|| exposition::encode(metrics)).await;
    match text {
        Ok(Ok(body)) => (StatusCode::OK, [(CONTENT_TYPE, exposition::CONTENT_TYPE)], body),
        Ok(Err(_)) | Err(_) => {
            self::text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics can't be written\n")
        }
    }
}

async fn unknown(uri: Uri) -> Answer {
    let known = format!("there is no {}; there are /livez, /readyz and /metrics\n", uri.path());
    text(StatusCode::NOT_FOUND, known)
}

/// Nothing here takes a body; one is refused unread, and the connection ended.
async fn refuse_body(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let answer = text(StatusCode::PAYLOAD_TOO_LARGE, "no body is taken here\n");
    ([(CONNECTION, "close")], answer).into_response()
}

fn text(status: StatusCode, body: impl Into<String>) -> Answer {
    (status, [(CONTENT_TYPE, "text/plain; charset=utf-8")], body.into())
}

#[cfg(test)]
mod tests {
    use std::thread;

    use axum::body::{Body, to_bytes};
    use hyper::service::Service;
    use hyper_util::service::TowerToHyperService;
    use mcp_proto::NodeId;

    use super::super::super::clock::Clock;
    use super::super::super::journal;
    use super::super::super::shared::Outbox;
    use super::*;
    use crate::broker::{Core, CoreConfig};

    #[tokio::test]
    async fn a_broker_whose_core_failed_is_neither_live_nor_ready() {
        let config = CoreConfig::new(NodeId::try_from("b").unwrap(), 1, 1);
        let (to_journal, _entries) = journal::entries();
        let shared = Arc::new(Shared::new(Core::new(config), Clock::start(), to_journal, 1));
        let fail = || shared.hold(&mut Outbox::default(), |_, _| panic!("a fault"));
        assert!(thread::scope(|scope| scope.spawn(fail).join().is_err()));

        let router = TowerToHyperService::new(router(shared));
        for (path, expected) in [
            ("/livez", "the core has failed\n"),
            ("/readyz", "{\"ready\":false,\"reason\":\"failed\"}\n"),
            ("/metrics", "the core has failed\n"),
        ] {
            let request = Request::builder().uri(path).body(Body::empty()).unwrap();
            let answer = router.call(request).await.unwrap();
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
            let body = to_bytes(answer.into_body(), 1_000).await.unwrap();
            assert_eq!(body, expected, "{path}");
        }
    }
}
