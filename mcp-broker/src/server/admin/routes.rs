//! What can be asked: `/livez`, `/readyz`, `/metrics`, the console and what it is made of.

use std::sync::Arc;

use axum::body::HttpBody;
use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use axum::http::{StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use serde_json::json;

use super::super::shared::Shared;
use super::access::{self, Access};
use super::api;
use super::console;
use super::exposition::{self, ServerFigures};
use super::live::{self, Live};

/// What can be required of a broker that is ready.
const DURABLE: &str = "require=durable";

/// In place of a reason.
const NOT_TOLD: &str = "the broker's log says why";

type Answer = (StatusCode, [(HeaderName, &'static str); 1], String);

pub(super) fn router(shared: Arc<Shared>, access: Access) -> Router {
    let access = Arc::new(access);
    let live = Router::new()
        .route("/api/v1/live", get(live::live))
        .with_state(Arc::new(Live::new(shared.clone())));
    let api = Router::new()
        .route("/api/v1/{*function}", get(api::call).post(api::call))
        .with_state(shared.clone())
        .merge(live)
        .layer(middleware::from_fn_with_state(access.clone(), access::operators));
    let ready =
        Router::new().route("/readyz", get(readyz)).with_state((shared.clone(), access.clone()));
    let metrics = Router::new()
        .route("/metrics", get(metrics))
        .layer(middleware::from_fn_with_state(access.clone(), access::scrapers));
    let console = console::router().layer(middleware::from_fn_with_state(access, access::visitors));
    Router::new()
        .route("/livez", get(livez))
        .merge(metrics)
        .merge(console)
        .fallback(unknown)
        .layer(middleware::from_fn(refuse_body))
        .with_state(shared)
        .merge(ready)
        .merge(api)
        .layer(middleware::map_response(secure))
}

/// What browsers are told with every answer.
async fn secure(mut response: Response) -> Response {
    for (name, value) in console::HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Whether the broker shall be left running: its core has not failed.
async fn livez(State(shared): State<Arc<Shared>>) -> Answer {
    match shared.look(|_, _| ()) {
        Some(()) => text(StatusCode::OK, "ok\n"),
        None => text(StatusCode::SERVICE_UNAVAILABLE, "the core has failed\n"),
    }
}

/// Whether the broker takes connections and tasks. One that refuses durable tasks is ready for all
/// others, and says so; with `require=durable` it is not. Why something is not well is for operators and
/// this machine: it has paths and addresses in it.
async fn readyz(
    State((shared, access)): State<(Arc<Shared>, Arc<Access>)>,
    peer: Option<Extension<api::From>>,
    headers: HeaderMap,
    uri: Uri,
) -> Answer {
    let asked: Vec<_> = uri.query().into_iter().flat_map(|query| query.split('&')).collect();
    if let Some(unknown) = asked.iter().find(|it| !matches!(**it, "" | DURABLE)) {
        let problem = format!("there is no ?{unknown}; there is ?{DURABLE}\n");
        return text(StatusCode::BAD_REQUEST, problem);
    }
    let is_told = access.tells_why(&headers, peer.map(|Extension(api::From(peer))| peer.ip()));
    let told = |why: String| if is_told { why } else { NOT_TOLD.to_owned() };
    let is_required = asked.contains(&DURABLE);
    let looked = shared.look(|core, _| (core.is_shutting_down(), core.why_not_durable()));
    let not_ready = |reason| json!({ "ready": false, "reason": reason });
    let (is_ready, mut body) = match looked {
        None => (false, not_ready("failed".to_owned())),
        Some((true, _)) => (false, not_ready("draining".to_owned())),
        Some((false, Some(why))) if is_required => (false, not_ready(told(why))),
        // Where there was not to be a journal, there is nothing to tell.
        Some((false, Some(why))) if shared.journal.is_some() => {
            (true, json!({ "ready": true, "durable": false, "reason": told(why) }))
        }
        Some((false, _)) => (true, json!({ "ready": true })),
    };
    // Those who were verified before are let in, so it is ready.
    if let Some(why) = shared.auth.outage() {
        body["authentication"] = json!({ "offline": true, "reason": told(why) });
    }
    let reloads = shared.reloads.figures();
    if let Some(error) = reloads.error {
        body["config_refused"] = told(error).into();
    }
    if !reloads.needs_restart.is_empty() {
        body["needs_restart"] = reloads.needs_restart.into();
    }
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(CONTENT_TYPE, "application/json")], format!("{body}\n"))
}

/// Everything that is measured.
async fn metrics(State(shared): State<Arc<Shared>>) -> Answer {
    let Some(metrics) = shared.look(|core, now| core.metrics(now)) else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "the core has failed\n");
    };
    let journal = shared.journal.as_ref().map(|it| it.figures());
    let audit = shared.audit.is_on().then(|| shared.audit.figures());
    let exported = shared.telemetry.exported();
    let auth = shared.auth.figures();
    let server = ServerFigures {
        refused: shared.refused.counts(),
        reloads: shared.reloads.figures(),
        busy_poll: shared.busy_poll.waited(),
    };
    // Up to some milliseconds for many actions, in which the runtime has other things to do.
    let encode = move || exposition::encode(metrics, journal, audit, auth, server, exported);
    let text = tokio::task::spawn_blocking(encode).await;
    match text {
        Ok(Ok(body)) => (StatusCode::OK, [(CONTENT_TYPE, exposition::CONTENT_TYPE)], body),
        Ok(Err(_)) | Err(_) => {
            self::text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics can't be written\n")
        }
    }
}

async fn unknown(uri: Uri) -> Answer {
    let path = uri.path();
    let known = format!(
        "there is no {path}; there are / (the console), /api/v1/..., /livez, /readyz and /metrics\n"
    );
    text(StatusCode::NOT_FOUND, known)
}

/// Only acts take a body; another one is refused unread, and the connection ended.
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

    use super::super::super::audit::Audit;
    use super::super::super::clock::Clock;
    use super::super::super::journal;
    use super::super::super::outgoing::Outgoing;
    use super::super::super::shared::Outbox;
    use super::super::access::Rules;
    use super::*;
    use crate::broker::{Core, CoreConfig};

    #[tokio::test]
    async fn a_broker_whose_core_failed_is_neither_live_nor_ready() {
        let config = CoreConfig::new(NodeId::try_from("b").unwrap(), 1, 1);
        let (to_journal, _entries) = journal::entries();
        let shared = Arc::new(Shared::new(
            Core::new(config),
            Clock::start(),
            to_journal,
            None,
            Outgoing::new(1, 1, 1),
            Audit::start(None).unwrap().0,
            Arc::default(),
        ));
        let fail = || shared.hold(&mut Outbox::default(), |_, _| panic!("a fault"));
        assert!(thread::scope(|scope| scope.spawn(fail).join().is_err()));

        let rules = Rules { token: None, is_remote: false, metrics_public: false };
        let access = Access::new(rules, shared.audit.clone());
        let router = TowerToHyperService::new(router(shared, access));
        for (path, expected) in [
            ("/livez", "the core has failed\n"),
            ("/readyz", "{\"ready\":false,\"reason\":\"failed\"}\n"),
            ("/metrics", "the core has failed\n"),
        ] {
            let request = Request::builder().uri(path).header("host", "localhost");
            let request = request.body(Body::empty()).unwrap();
            let answer = router.call(request).await.unwrap();
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
            let body = to_bytes(answer.into_body(), 1_000).await.unwrap();
            assert_eq!(body, expected, "{path}");
        }
    }
}
