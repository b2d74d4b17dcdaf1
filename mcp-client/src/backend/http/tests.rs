use mcp_proto::InputLength;

use super::*;
use crate::backend::testing::server::HttpServer;
use crate::backend::testing::{call, job, job_of, soon, until_emitted};
use crate::worker::Line;

#[tokio::test]
async fn bodies_and_content_types_go_both_ways() {
    let server = HttpServer::start().await;
    let http = Http::new(&server.url("/work")).unwrap();
    let (reply, ()) = tokio::join!(call(&http, job_of("hello", "text/plain")), async {
        let mut exchange = server.accept().await;
        assert_eq!(
            (&exchange.body[..], exchange.header("content-type")),
            (&b"hello"[..], Some("text/plain"))
        );
        exchange.answer("200 OK\r\nContent-Type: image/png", "PNG").await;
    });
    assert_eq!(reply.unwrap(), HandlerReply::new("PNG").content_type("image/png"));

    let (reply, ()) = tokio::join!(call(&http, job("")), async {
        let mut exchange = server.accept().await;
        assert_eq!(exchange.header("content-type"), None);
        exchange.answer("201 Created\r\nConnection: close", "").await;
    });
    assert_eq!(reply.unwrap(), HandlerReply::default());
}

#[tokio::test]
async fn an_answer_is_emitted_as_it_comes() {
    let server = HttpServer::start().await;
    let job = job("");
    let line = job.line.clone();
    let running = tokio::spawn(Http::new(&server.url("/")).unwrap().call(job));
    let mut exchange = server.accept().await;
    exchange.begin("text/plain").await;
    for part in ["one", "two"] {
        exchange.chunk(part).await;
        until_emitted(&line, part).await;
    }
    exchange.end().await;
    let reply = soon(running).await.unwrap().unwrap();
    assert_eq!(reply, HandlerReply::default().content_type("text/plain"));
}

#[tokio::test]
async fn an_endless_answer_fails_and_is_closed() {
    let server = HttpServer::start().await;
    let http = Http::new(&server.url("/")).unwrap();
    let (reply, ()) = tokio::join!(call(&http, job("")), async {
        let mut exchange = server.accept().await;
        exchange.begin("text/plain").await;
        for _ in 0..5 {
            exchange.chunk([7; 16 * 1024]).await;
        }
        exchange.until_closed().await;
    });
    let error = reply.unwrap_err();
    assert!(error.info().message.contains("longer than 65536 bytes"), "{error}");
}

#[tokio::test]
async fn a_content_type_that_is_no_header_is_refused() {
    let http = Http::new("http://127.0.0.1:1/").unwrap();
    let error = call(&http, job_of("", "text\nplain")).await.unwrap_err();
    assert!(error.info().message.contains("header value"), "{error}");
}

#[tokio::test]
async fn dropped_it_closes_its_connection_at_once() {
    let server = HttpServer::start().await;
    // Before there is an answer, and in the middle of it.
    for is_answering in [false, true] {
        let job = job("");
        let line = job.line.clone();
        let running = tokio::spawn(Http::new(&server.url("/")).unwrap().call(job));
        let mut exchange = server.accept().await;
        if is_answering {
            exchange.begin("text/plain").await;
            exchange.chunk("some").await;
            until_emitted(&line, "some").await;
        }
        running.abort();
        exchange.until_closed().await;
    }
}

#[tokio::test]
async fn a_long_input_is_posted_as_it_comes() {
    let server = HttpServer::start().await;
    let http = Http::new(&server.url("/")).unwrap();
    let job = Job { line: Line::dead_with_input(InputLength::Bytes(16)), ..job("once ") };
    let line = job.line.clone();
    line.chunk(0, false, "upon ");
    line.chunk(1, true, "a time");
    let (reply, ()) = tokio::join!(call(&http, job), async {
        let mut exchange = server.accept().await;
        assert_eq!(exchange.header("content-length"), Some("16"));
        assert_eq!(&exchange.body[..], b"once upon a time");
        exchange.answer("200 OK", "done").await;
    });
    assert_eq!(reply.unwrap().body, "done");
}
