use mcp_proto::ErrorCode;

use super::*;
use crate::backend::testing::job;
use crate::backend::testing::server::{Exchange, HttpServer};

fn client(server: &HttpServer) -> HttpClient {
    HttpClient::new(Url::parse(&server.url("/path?query=1")).unwrap()).unwrap()
}

/// What becomes of a request, given what the server does about it.
async fn post(
    serve: impl AsyncFnOnce(Exchange),
) -> Result<Result<HandlerReply, HandlerError>, HandlerError> {
    let server = HttpServer::start().await;
    let (client, job) = (client(&server), job(""));
    let posting = async {
        let answer = client.post(&job, "hello".into(), []).await?;
        Ok(answer.emit_all(&job).await)
    };
    let (posted, ()) = tokio::join!(posting, async { serve(server.accept().await).await });
    posted
}

async fn refused(head: &str, body: &str) -> mcp_proto::ErrorInfo {
    let refused = post(async |mut exchange: Exchange| exchange.answer(head, body).await).await;
    refused.unwrap_err().into_info()
}

#[tokio::test]
async fn the_server_learns_the_tasks_id_and_trace() {
    let server = HttpServer::start().await;
    let mut job = job("");
    job.task.traceparent = "00-1-2-01".into();
    job.task.tracestate = "bad\nvalue".into();
    let client = client(&server);
    let posting = client.post(&job, "hello".into(), []);
    let (_, ()) = tokio::join!(posting, async {
        let mut exchange = server.accept().await;
        assert!(exchange.head.starts_with("POST /path?query=1 HTTP/1.1\r\n"), "{}", exchange.head);
        assert_eq!(exchange.body, b"hello");
        assert_eq!(exchange.header("x-request-id"), Some("t-1"));
        assert_eq!(exchange.header("traceparent"), Some("00-1-2-01"));
        assert_eq!(exchange.header("tracestate"), None);
        exchange.answer("204 No Content", "").await;
    });
}

#[tokio::test]
async fn a_refusal_is_told_with_its_status_and_the_start_of_its_body() {
    let info = refused("500 Oops", "out of memory\n").await;
    assert_eq!(info.code, ErrorCode::HandlerFailed);
    assert!(info.message.ends_with("answered 500 Internal Server Error: out of memory"), "{info}");
    assert!(!info.message.contains("query"), "{info}");
    let info = refused("404 Not Found", &"x".repeat(100_000)).await;
    assert_eq!(info.message.matches('x').count(), 1024, "{info}");
    let info = refused("302 Found\r\nLocation: http://127.0.0.1:1/", "").await;
    assert!(info.message.ends_with("answered 302 Found"), "{info}");
}

#[tokio::test]
async fn too_many_requests_is_pushback_when_it_says_until_when() {
    for status in ["429 Too Many Requests", "503 Service Unavailable"] {
        let info = refused(&format!("{status}\r\nRetry-After: 7"), "full").await;
        assert_eq!((info.code, info.retry_after_ms), (ErrorCode::AllBusy, Some(7_000)));
        assert!(info.message.ends_with(&format!("{status}: full")), "{info}");
        let info = refused(status, "").await;
        assert_eq!((info.code, info.retry_after_ms), (ErrorCode::HandlerFailed, None));
    }
    let info = refused("500 Oops\r\nRetry-After: 7", "").await;
    assert_eq!((info.code, info.retry_after_ms), (ErrorCode::HandlerFailed, None));
}

#[test]
fn the_time_to_try_again_is_seconds_or_a_date() {
    let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
    let after = |text: &'static str| {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]);
        retry_after(&headers, now).map(|after| after.as_secs())
    };
    assert_eq!(after("0"), Some(0));
    assert_eq!(after(" 120 "), Some(120));
    assert_eq!(after("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
    assert_eq!(after("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
    assert_eq!(after("99999999999"), Some(MAX_TTL_MS / 1000));
    for no_time in ["", "soon", "-1", "1.5", "99999999999999999999999"] {
        assert_eq!(after(no_time), None, "{no_time}");
    }
}

#[tokio::test]
async fn connections_are_used_again() {
    let server = HttpServer::start().await;
    let (client, job) = (client(&server), job(""));
    let posting = async {
        for _ in 0..2 {
            let answer = client.post(&job, Bytes::new(), []).await.unwrap();
            answer.emit_all(&job).await.unwrap();
        }
    };
    tokio::join!(posting, async {
        let mut exchange = server.accept().await;
        exchange.answer("200 OK", "one").await;
        let mut exchange = exchange.next().await;
        exchange.answer("200 OK", "two").await;
    });
}

#[tokio::test]
async fn tls_is_checked_against_the_authorities() {
    let (server, trusting) = HttpServer::start_tls().await;
    let url = Url::parse(&server.url("/")).unwrap();
    let (client, job) = (HttpClient::with_tls(url.clone(), trusting), job(""));
    let posting = client.post(&job, Bytes::new(), []);
    let (answer, ()) = tokio::join!(posting, async {
        server.accept().await.answer("200 OK", "").await;
    });
    answer.unwrap();

    let (_, of_another) = HttpServer::start_tls().await;
    let client = HttpClient::with_tls(url, of_another);
    // It fails there, too.
    let accepting = tokio::spawn(async move { drop(server.accept().await) });
    let error = client.post(&job, Bytes::new(), []).await.unwrap_err();
    assert!(error.info().message.contains("can't connect to https://localhost"), "{error}");
    assert!(error.info().message.contains("invalid peer certificate"), "{error}");
    assert!(accepting.await.unwrap_err().is_panic());
}

/// Time passes at once when there is nothing else to do.
#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_shake_hands_is_given_up() {
    let (server, trusting) = HttpServer::start_tls().await;
    let client = HttpClient::with_tls(Url::parse(&server.url("/")).unwrap(), trusting);
    let error = client.post(&job(""), Bytes::new(), []).await.unwrap_err();
    assert!(error.info().message.contains("no connection within 5s"), "{error}");
}

#[tokio::test]
async fn where_nothing_listens_it_says_so() {
    let server = HttpServer::start().await;
    let (client, job) = (client(&server), job(""));
    drop(server);
    let error = client.post(&job, Bytes::new(), []).await.unwrap_err();
    assert!(error.info().message.contains("can't connect to http://127.0.0.1:"), "{error}");
    assert!(error.info().message.contains("refused"), "{error}");
}

#[tokio::test]
async fn what_is_no_answer_says_so() {
    for nonsense in ["", "SSH-2.0-OpenSSH\r\n", "HTTP/1.1 200 OK\r\nContent-Le"] {
        let posted = post(async |mut exchange: Exchange| exchange.send(nonsense).await).await;
        let error = posted.unwrap_err();
        assert!(error.info().message.contains("/path did not answer: "), "{error}");
    }
    // An endless head.
    let posted = post(async |mut exchange: Exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nX: ").await;
        exchange.send("x".repeat(2 * MAX_READ_BYTES)).await;
    });
    let error = posted.await.unwrap_err();
    assert!(error.info().message.contains("did not answer: "), "{error}");
}

#[tokio::test]
async fn an_answer_that_breaks_off_says_so() {
    let posted = post(async |mut exchange: Exchange| {
        exchange.begin("text/plain").await;
        exchange.chunk("some").await;
    });
    let error = posted.await.unwrap().unwrap_err();
    assert!(error.info().message.contains("/path was cut off: "), "{error}");
    let posted = post(async |mut exchange: Exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsome").await;
    });
    let error = posted.await.unwrap().unwrap_err();
    assert!(error.info().message.contains("/path was cut off: "), "{error}");
}
