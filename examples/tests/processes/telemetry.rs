//! One trace from the client through the broker to the worker, as a collector and as log lines.

use std::collections::HashMap;
use std::fs::File;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use prost::Message;
use serde_json::Value as Json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{BrokerProcess, Process, until, within};

/// Takes spans, as any OpenTelemetry collector does, and keeps them with their service's name.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<(String, Span)>>>);

impl Collector {
    async fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let collector = Self::default();
        let it = collector.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let it = it.clone();
                tokio::spawn(async move { it.serve(stream).await });
            }
        });
        (collector, endpoint)
    }

    /// One connection, until its peer closes.
    async fn serve(self, stream: TcpStream) -> Option<()> {
        let mut stream = BufReader::new(stream);
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if stream.read_line(&mut head).await.ok()? == 0 {
                    return None;
                }
            }
            let head = head.to_ascii_lowercase();
            assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
            assert!(head.contains("content-type: application/x-protobuf"), "{head}");
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.unwrap().parse().unwrap()];
            stream.read_exact(&mut body).await.ok()?;
            self.take(ExportTraceServiceRequest::decode(&body[..]).unwrap());
            let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\n\
                          content-length: 0\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.ok()?;
        }
    }

    fn take(&self, request: ExportTraceServiceRequest) {
        for of_process in request.resource_spans {
            let resource = of_process.resource.unwrap();
            let service = text(&resource.attributes, "service.name").unwrap();
            let spans = of_process.scope_spans.into_iter().flat_map(|scope| scope.spans);
            let mut all = self.0.lock().unwrap();
            all.extend(spans.map(|span| (service.clone(), span)));
        }
    }

    fn spans(&self) -> Vec<(String, Span)> {
        self.0.lock().unwrap().clone()
    }
}

fn attribute(attributes: &[KeyValue], name: &str) -> Option<Value> {
    attributes.iter().find(|it| it.key == name)?.value.clone()?.value
}

fn text(attributes: &[KeyValue], name: &str) -> Option<String> {
    match attribute(attributes, name) {
        Some(Value::StringValue(text)) => Some(text),
        _ => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The lines of a log that are of this trace.
fn lines(log: &str, trace_id: &str) -> Vec<Json> {
    let lines = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|it| panic!("{it}: {line}")));
    lines.filter(|line: &Json| line["trace_id"] == trace_id).collect()
}

#[tokio::test]
async fn one_trace_and_one_trace_id_from_client_to_worker() {
    let (collector, endpoint) = Collector::start().await;
    let config = format!(
        "[log]\nformat = 'json'\nlevel = 'debug'\n[telemetry]\notlp_endpoint = '{endpoint}'\n"
    );
    let mut broker = BrokerProcess::start_with(&config).await;
    let recording = ["--log", "debug", "--log-format", "json", "--otlp-endpoint", &endpoint];

    let worker_log = broker.state().join("worker.log");
    let mut worker = broker.mcpctl(&["worker", "--action", "work", "--agent-id", "w"]);
    worker.args(recording).args(["--exec", "sh", "-c", "cat; echo $TRACEPARENT"]);
    worker.stderr(File::create(&worker_log).unwrap());
    let mut worker = Process::start(&mut worker);
    let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap();
    until("the worker is registered", || async { read(&worker_log).contains("registered") }).await;

    let mut call = broker.mcpctl(&["call", "work", "--id", "t-1", "--data", "hello "]);
    call.args(recording).stdin(Stdio::null());
    let called = within("the call ends", call.output()).await.unwrap();
    assert!(called.status.success(), "{called:?}");
    let output = String::from_utf8(called.stdout).unwrap();

    let mut shown = broker.mcpctl(&["tasks", "show", "t-1", "-o", "json"]);
    let shown = within("it is shown", shown.output()).await.unwrap();
    let shown: Json = serde_json::from_slice(&shown.stdout).unwrap();
    let trace_id = shown["trace_id"].as_str().unwrap().to_owned();

    // Each flushes what it has when it ends.
    worker.signal(rustix::process::Signal::TERM);
    worker.ended().await;
    broker.terminate();
    broker.ended().await;

    let spans: Vec<_> = collector.spans();
    let spans: Vec<_> = spans.iter().filter(|it| hex(&it.1.trace_id) == trace_id).collect();
    let by_name: HashMap<_, _> = spans.iter().map(|it| (it.1.name.as_str(), *it)).collect();
    assert_eq!((spans.len(), by_name.len()), (5, 5), "{spans:#?}");
    let whole = [
        ("send work", "mcpctl", None, SpanKind::Client),
        ("route work", "mcp-broker", Some("send work"), SpanKind::Server),
        ("queue work", "mcp-broker", Some("route work"), SpanKind::Internal),
        ("attempt work", "mcp-broker", Some("route work"), SpanKind::Client),
        ("process work", "mcp-worker", Some("attempt work"), SpanKind::Consumer),
    ];
    for (name, service, parent, kind) in whole {
        let (of, span) = by_name[name];
        assert_eq!((of.as_str(), span.kind), (service, kind as i32), "{name}");
        let parent = parent.map(|parent| by_name[parent].1.span_id.clone()).unwrap_or_default();
        assert_eq!(span.parent_span_id, parent, "{name}");
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{name}");
        let said = |attribute: &str| text(&span.attributes, attribute);
        assert_eq!(said("messaging.system").as_deref(), Some("mcp"), "{name}");
        assert_eq!(said("messaging.destination.name").as_deref(), Some("work"), "{name}");
        let foreign = span.attributes.iter().find(|it| it.key.starts_with("mcp."));
        assert!(foreign.is_none(), "{foreign:?} is the Model Context Protocol's");
        assert!(span.status.is_none(), "{name}: {span:?}");
    }
    let (_, route) = by_name["route work"];
    for (name, value) in [
        ("messaging.message.id", "t-1"),
        ("messaging.operation.name", "route"),
        ("mcp_broker.outcome", "ok"),
        ("mcp_broker.priority", "normal"),
        ("mcp_broker.delivery", "fast"),
    ] {
        assert_eq!(text(&route.attributes, name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(attribute(&route.attributes, "mcp_broker.attempts"), Some(Value::IntValue(1)));

    // The program that the worker ran is told where it is.
    let process = hex(&by_name["process work"].1.span_id);
    assert_eq!(output.trim(), format!("hello 00-{trace_id}-{process}-01"));

    // One id finds every line of the task, wherever it was written.
    let logs = [
        ("mcpctl", String::from_utf8(called.stderr).unwrap(), &["task sent", "task ended"][..]),
        ("mcp-broker", broker.log(), &["task ended"]),
        ("mcp-worker", read(&worker_log), &["attempt ended"]),
    ];
    for (service, log, messages) in logs {
        let lines = lines(&log, &trace_id);
        let told: Vec<_> = lines.iter().filter_map(|line| line["message"].as_str()).collect();
        assert_eq!(told, messages, "{service}: {log}");
        for line in &lines {
            assert_eq!((&line["service_name"], &line["task_id"]), (&service.into(), &"t-1".into()));
            assert!(line["timestamp"].is_u64() && line["level"].is_string(), "{line}");
        }
    }
}
