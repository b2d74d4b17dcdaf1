use mcp_proto::ErrorCode;
use serde_json::json;

use super::sse::MAX_EVENT_BYTES;
use super::*;
use crate::backend::testing::server::{Exchange, HttpServer};
use crate::backend::testing::{call, job, soon, until_emitted};

fn delta(content: &str) -> String {
    let choice = json!({ "index": 0, "delta": { "content": content }, "finish_reason": null });
    format!("data: {}\n\n", json!({ "model": "smol", "choices": [choice] }))
}

/// What becomes of a task, given what the server does about it.
async fn complete(serve: impl AsyncFnOnce(Exchange)) -> Result<HandlerReply, HandlerError> {
    let server = HttpServer::start().await;
    let openai = OpenAi::new(&server.url("/v1")).unwrap();
    let serving = async { serve(server.accept().await).await };
    tokio::join!(call(&openai, job("hello")), serving).0
}

/// The message of the failure that a stream ends in. It begins with one delta.
async fn failure(stream: &str) -> String {
    let failed = complete(async |mut exchange: Exchange| {
        exchange.begin(EVENT_STREAM).await;
        exchange.chunk(delta("some")).await;
        exchange.chunk(stream).await;
        exchange.end().await;
    });
    let info = failed.await.unwrap_err().into_info();
    assert_eq!(info.code, ErrorCode::HandlerFailed);
    info.message
}

#[tokio::test]
async fn each_delta_is_emitted_at_once_and_usage_follows_in_headers() {
    let server = HttpServer::start().await;
    let openai = OpenAi::new(&server.url("/v1/")).unwrap().model("smol").api_key("key").unwrap();
    let job = job("hello");
    let line = job.line.clone();
    let running = tokio::spawn(openai.call(job));

    let mut exchange = server.accept().await;
    assert!(exchange.head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"));
    assert_eq!(exchange.header("authorization"), Some("Bearer key"));
    assert_eq!(exchange.header("accept"), Some(EVENT_STREAM));
    let request = exchange.json();
    assert_eq!((&request["model"], &request["stream"]), (&json!("smol"), &json!(true)));
    assert_eq!(request["stream_options"], json!({ "include_usage": true }));

    exchange.begin("text/event-stream; charset=utf-8").await;
    exchange.chunk(": keep-alive\n\n").await;
    for text in ["Hi", " thé", "re"] {
        exchange.chunk(delta(text)).await;
        until_emitted(&line, text).await;
    }
    // In one chunk, and in pieces that cut a character.
    let rest = format!("{}{}", delta("!\n"), delta("Grüße"));
    let cut = rest.find('ü').unwrap() + 1;
    exchange.chunk(&rest.as_bytes()[..cut]).await;
    until_emitted(&line, "!\n").await;
    exchange.chunk(&rest.as_bytes()[cut..]).await;
    until_emitted(&line, "Grüße").await;

    let finish = json!({ "choices": [{ "delta": {}, "finish_reason": "length" }] });
    let usage = json!({ "prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14 });
    exchange.chunk(format!("data: {finish}\n\n")).await;
    exchange.chunk(format!("data: {}\n\n", json!({ "choices": [], "usage": usage }))).await;
    exchange.chunk("data: [DONE]\n\n").await;
    let reply = soon(running).await.unwrap().unwrap();
    let headers = reply.headers.iter().map(|(key, value)| (&key[..], &value[..]));
    let expected = [
        ("completion_tokens", "5"),
        ("finish_reason", "length"),
        ("model", "smol"),
        ("prompt_tokens", "9"),
        ("total_tokens", "14"),
    ];
    assert_eq!(headers.collect::<Vec<_>>(), expected);
    assert_eq!((&reply.body[..], &*reply.content_type), (&b""[..], "text/plain"));
}

#[tokio::test]
async fn an_error_in_the_stream_fails_the_task() {
    let message =
        failure("data: {\"error\":{\"message\":\"out of memory\",\"code\":500}}\n\n").await;
    assert_eq!(message, "the server broke its answer off with an error: out of memory");
    let message = failure("event: error\ndata: {\"message\":\"overloaded\"}\n\n").await;
    assert_eq!(message, "the server broke its answer off with an error: overloaded");
}

#[tokio::test]
async fn a_stream_that_breaks_off_fails_the_task() {
    // An orderly end of the answer, but not of the stream.
    let message = failure("data: {}").await;
    assert!(message.contains("before the end of its answer, [DONE]"), "{message}");
    let broken = complete(async |mut exchange: Exchange| {
        exchange.begin(EVENT_STREAM).await;
        exchange.chunk(delta("some")).await;
    });
    let error = broken.await.unwrap_err();
    assert!(error.info().message.contains("was cut off"), "{error}");
}

#[tokio::test]
async fn what_is_no_event_fails_the_task() {
    let message = failure("data: {\"choices\":[7]}\n\n").await;
    assert!(message.contains("no chat completion chunk") && message.contains("[7]"), "{message}");
    let message = failure(&format!("data: {}", "x".repeat(MAX_EVENT_BYTES))).await;
    assert!(message.contains("an event of more than 65536 bytes"), "{message}");
}

#[tokio::test]
async fn what_is_no_event_stream_fails_the_task() {
    let refused = complete(async |mut exchange: Exchange| {
        exchange.answer("200 OK\r\nContent-Type: text/html", "<h1>Welcome").await;
    });
    let message = refused.await.unwrap_err().into_info().message;
    assert!(message.contains("\"text/html\" instead of an event stream"), "{message}");
    assert!(message.ends_with(": <h1>Welcome"), "{message}");
}

#[tokio::test]
async fn pushback_and_refusals_are_told() {
    let refused = complete(async |mut exchange: Exchange| {
        exchange.answer("429 Too Many Requests\r\nRetry-After: 2", "slow down").await;
    });
    let info = refused.await.unwrap_err().into_info();
    assert_eq!((info.code, info.retry_after_ms), (ErrorCode::AllBusy, Some(2_000)));
    let refused = complete(async |mut exchange: Exchange| {
        exchange.answer("401 Unauthorized", "no key").await;
    });
    let message = refused.await.unwrap_err().into_info().message;
    assert!(
        message.ends_with("/v1/chat/completions answered 401 Unauthorized: no key"),
        "{message}"
    );
}

#[tokio::test]
async fn a_task_that_is_no_request_never_reaches_the_server() {
    let openai = OpenAi::new("http://127.0.0.1:1").unwrap();
    let error = call(&openai, job(&b"\xff"[..])).await.unwrap_err();
    assert!(error.info().message.contains("UTF-8"), "{error}");
}

#[tokio::test]
async fn dropped_it_closes_its_request_at_once() {
    let server = HttpServer::start().await;
    let openai = OpenAi::new(&server.url("/v1")).unwrap();
    // While the prompt is worked on, between two tokens, and after the last one.
    for text in ["", "some"] {
        let job = job("hello");
        let line = job.line.clone();
        let running = tokio::spawn(openai.call(job));
        let mut exchange = server.accept().await;
        if !text.is_empty() {
            exchange.begin(EVENT_STREAM).await;
            exchange.chunk(delta(text)).await;
            until_emitted(&line, text).await;
        }
        running.abort();
        exchange.until_closed().await;
    }
}

#[test]
fn the_key_is_not_shown() {
    let openai = OpenAi::new("http://host?key=secret").unwrap().api_key("secret").unwrap();
    assert!(!format!("{openai:?}").contains("secret"), "{openai:?}");
    let error = openai.api_key("secret\n").unwrap_err();
    assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
}
