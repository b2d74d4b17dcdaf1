use mcp_proto::{SpanId, TraceId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::super::span::Kind;
use super::*;

fn span() -> Span {
    Span {
        trace_id: TraceId::of_task(&"t".try_into().unwrap()),
        span_id: SpanId::new(1).unwrap(),
        parent: None,
        name: "send a".into(),
        kind: Kind::Client,
        start_us: 1,
        end_us: 2,
        attributes: Vec::new(),
        error: None,
    }
}

fn endpoint(of: &TcpListener) -> OtlpEndpoint {
    format!("http://{}", of.local_addr().unwrap()).parse().unwrap()
}

async fn export(exporter: &Exporter, spans: usize) {
    (0..spans).for_each(|_| exporter.export(span()));
    exporter.flush().await;
}

/// Reads a request to its end.
async fn read_request(stream: &mut tokio::net::TcpStream) {
    let mut read = Vec::new();
    loop {
        let head_bytes = read.windows(4).position(|it| it == b"\r\n\r\n").map(|at| at + 4);
        if let Some(head_bytes) = head_bytes {
            let head = String::from_utf8_lossy(&read[..head_bytes]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if read.len() >= head_bytes + length.unwrap().parse::<usize>().unwrap() {
                return;
            }
        }
        assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0, "the request is cut");
    }
}

#[tokio::test]
async fn what_a_collector_refuses_is_lost_and_what_it_takes_later_is_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let exporter = Exporter::start(endpoint(&listener), Vec::new());
    let collector = tokio::spawn(async move {
        // After a refusal it is connected to again, after a good answer it is not.
        for answers in [&["503 Service Unavailable"][..], &["200 OK", "202 Accepted"]] {
            let (mut stream, _) = listener.accept().await.unwrap();
            for answer in answers {
                read_request(&mut stream).await;
                let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    export(&exporter, 1).await;
    assert_eq!(exporter.exported(), Exported { sent: 0, lost: 1 });
    export(&exporter, 2).await;
    export(&exporter, 3).await;
    assert_eq!(exporter.exported(), Exported { sent: 5, lost: 1 });
    collector.await.unwrap();
}

#[tokio::test]
async fn an_answer_without_end_is_not_read_to_its_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let exporter = Exporter::start(endpoint(&listener), Vec::new());
    let collector = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        // Until nobody reads any more.
        while stream.write_all(&[b'x'; 16 * 1024]).await.is_ok() {}
    });
    export(&exporter, 1).await;
    assert_eq!(exporter.exported(), Exported { sent: 0, lost: 1 });
    collector.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_says_nothing_delays_nobody_and_its_spans_are_lost() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let exporter = Exporter::start(endpoint(&listener), Vec::new());
    // Nobody accepts; the system connects all the same. All at once, without waiting.
    let beyond = 7;
    (0..QUEUE_SPANS + beyond).for_each(|_| exporter.export(span()));
    assert_eq!(exporter.exported(), Exported { sent: 0, lost: beyond as u64 });
    exporter.flush().await;
    let mut lost = exporter.exported().lost;
    while lost < (QUEUE_SPANS + beyond) as u64 {
        exporter.flush().await;
        let now = exporter.exported().lost;
        assert!(now > lost, "it goes on");
        lost = now;
    }
    assert_eq!(exporter.exported().sent, 0);
}

#[test]
fn where_a_collector_is() {
    for (text, shown) in [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("http://[::1]:4318/", "http://[::1]:4318/v1/traces"),
        ("http://otel.example:80/a/b", "http://otel.example:80/a/b"),
    ] {
        assert_eq!(text.parse::<OtlpEndpoint>().unwrap().to_string(), shown);
    }
    for wrong in [
        "",
        "127.0.0.1:4318",
        "https://a:1",
        "http://a",
        "http://a:0",
        "http://a:65536",
        "http://user@a:1",
        "http://a:1/b c",
        "http://a:1/\r\nx",
    ] {
        assert!(wrong.parse::<OtlpEndpoint>().is_err(), "{wrong:?}");
    }
}
