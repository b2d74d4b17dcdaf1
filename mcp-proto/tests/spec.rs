//! `proto/README.md` is the normative specification: its examples and tables are what this crate
//! does.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use mcp_proto::json::JsonTask;
use mcp_proto::{
    Ack, ActionName, AgentId, AttemptId, Cancel, CancelReason, Child, Chunk, ContextTrace, Credit,
    Deliver, ErrorCode, ErrorInfo, Executed, Frame, FrameCodec, Goaway, Hello, Hop, HopEvent,
    Incoming, InstanceId, Labels, Limits, Message, Nack, NodeId, Outcome, Park, Ping, Progress,
    Readiness, Resume, Route, Send, Subject, Task, TaskId, TaskResult, TaskState, Token,
    WorkerHello, limits,
};
use prost_reflect::prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};

const SPEC: &str = include_str!("../../proto/README.md");

const ATTEMPT: AttemptId = AttemptId(0x0003_0000_0000_0a11);

/// An example of the specification: a message in protobuf text format, and its frame.
struct Example {
    text: &'static str,
    frame: Vec<u8>,
}

#[test]
fn every_example_is_the_frame_of_its_message() {
    let pool = descriptors();
    let frame = pool.get_message_by_name("mcp.v1.Frame").unwrap();
    for Example { text, frame: bytes } in examples() {
        let decoded = decode(&bytes);
        let mut encoded = BytesMut::new();
        FrameCodec::encode(&decoded, &mut encoded);
        assert_eq!(hex(&encoded), hex(&bytes), "\n{text}");

        let header_bytes = bytes.len() - decoded.body.len() - 6;
        let documented = DynamicMessage::parse_text_format(frame.clone(), text).unwrap();
        assert_eq!(hex(&documented.encode_to_vec()), hex(&bytes[6..][..header_bytes]), "\n{text}");
    }
}

#[test]
fn every_example_is_read_as_what_it_says() {
    let expected = expected();
    let examples = examples();
    assert_eq!(examples.len(), expected.len());
    for (example, expected) in examples.iter().zip(expected) {
        assert_eq!(decode(&example.frame), expected, "\n{}", example.text);
    }
}

#[test]
fn every_kind_has_an_example() {
    let pool = descriptors();
    let frame = pool.get_message_by_name("mcp.v1.Frame").unwrap();
    let kinds: Vec<String> = examples()
        .iter()
        .map(|it| decode(&it.frame).message.kind().to_string().to_lowercase())
        .collect();
    for field in frame.fields() {
        assert!(kinds.iter().any(|kind| kind == field.name()), "{}", field.name());
    }
}

#[test]
fn reserved_kinds_are_unknown_and_survived() {
    let pool = descriptors();
    let frame = pool.get_message_by_name("mcp.v1.Frame").unwrap();
    let section = section("5.23 Reserved kinds");
    let mut reserved = 0;
    for (at, _) in section.match_indices('`') {
        let (before, after) = (&section[..at], &section[at + 1..]);
        let number = before.trim_end().rsplit([' ', '\n']).next().unwrap().parse::<u32>();
        let (Ok(number), Some((name, _))) = (number, after.split_once('`')) else { continue };
        assert!(frame.reserved_ranges().any(|range| range.contains(&number)), "{number}");
        assert!(frame.reserved_names().any(|it| it == name), "{name}");
        reserved += 1;

        // A header with that field, empty: the codec goes on with the next frame.
        let tag = (number << 3) | 2;
        let tag = [(tag & 0x7f) as u8 | 0x80, (tag >> 7) as u8];
        let tag = if number < 16 { vec![tag[0] & 0x7f] } else { tag.to_vec() };
        let mut bytes = BytesMut::from(&[0, 0, 0, 3 + tag.len() as u8, 0, 1 + tag.len() as u8][..]);
        bytes.extend_from_slice(&tag);
        bytes.extend_from_slice(&[0]);
        let incoming = codec().decode(&mut bytes).unwrap();
        assert!(matches!(incoming, Some(Incoming::Unknown { kind }) if kind == number));
    }
    assert_eq!(reserved, frame.reserved_names().count());
}

#[test]
fn the_error_table_has_exactly_the_codes() {
    let documented: Vec<(u32, &str)> =
        rows("10.2 Codes").iter().map(|row| (row[0].parse().unwrap(), row[1])).collect();
    let codes: Vec<(u32, &str)> =
        ErrorCode::ALL.iter().map(|code| (*code as u32, code.name())).collect();
    assert_eq!(documented, codes);

    let pool = descriptors();
    let in_proto: Vec<(u32, String)> = pool
        .get_enum_by_name("mcp.v1.ErrorCode")
        .unwrap()
        .values()
        .filter(|value| value.number() != 0)
        .map(|value| (value.number() as u32, value.name().replace("ERROR_CODE_", "")))
        .collect();
    let codes: Vec<(u32, String)> =
        codes.into_iter().map(|(code, name)| (code, name.to_owned())).collect();
    assert_eq!(in_proto, codes);
}

#[test]
fn codes_that_close_a_connection_are_below_32() {
    for row in rows("10.2 Codes") {
        let code: u32 = row[0].parse().unwrap();
        assert!(code < 32 || row[2] == "no", "{}", row[1]);
    }
}

#[test]
fn the_limits_table_has_exactly_the_limits() {
    let documented: BTreeMap<String, u64> = rows("11 Limits")
        .iter()
        .map(|row| (row[0].trim_matches('`').to_uppercase(), row[1].parse().unwrap()))
        .collect();
    let constants: BTreeMap<String, u64> = [
        ("MAX_HEADER_BYTES", limits::MAX_HEADER_BYTES as u64),
        ("MAX_BODY_BYTES", limits::MAX_BODY_BYTES as u64),
        ("MAX_DISCARDED_FRAME_BYTES", limits::MAX_DISCARDED_FRAME_BYTES as u64),
        ("MAX_TASK_BYTES", limits::MAX_TASK_BYTES as u64),
        ("MAX_TTL_MS", limits::MAX_TTL_MS),
        ("MAX_TASK_ID_BYTES", limits::MAX_TASK_ID_BYTES as u64),
        ("MAX_ACTION_BYTES", limits::MAX_ACTION_BYTES as u64),
        ("MAX_ID_BYTES", limits::MAX_ID_BYTES as u64),
        ("MAX_TEXT_BYTES", limits::MAX_TEXT_BYTES as u64),
        ("MAX_ERROR_MESSAGE_BYTES", limits::MAX_ERROR_MESSAGE_BYTES as u64),
        ("MAX_CAUSES", limits::MAX_CAUSES as u64),
        ("MAX_LABELS", limits::MAX_LABELS as u64),
        ("MAX_HEADERS", limits::MAX_HEADERS as u64),
        ("MAX_RESULT_HEADER_BYTES", limits::MAX_RESULT_HEADER_BYTES as u64),
        ("MAX_TOKEN_BYTES", limits::MAX_TOKEN_BYTES as u64),
        ("MAX_ACTIONS", limits::MAX_ACTIONS as u64),
        ("MAX_FEATURES", limits::MAX_FEATURES as u64),
        ("MAX_ATTEMPTS", u64::from(limits::MAX_ATTEMPTS)),
        ("MAX_RETRY_WAIT_MS", u64::from(limits::MAX_RETRY_WAIT_MS)),
        ("CHUNK_OVERHEAD_BYTES", limits::CHUNK_OVERHEAD_BYTES),
        ("MAX_STREAM_WINDOW_BYTES", u64::from(limits::MAX_STREAM_WINDOW_BYTES)),
        ("INPUT_WINDOW_BYTES", u64::from(limits::INPUT_WINDOW_BYTES)),
        ("MAX_DEPTH", u64::from(limits::MAX_DEPTH)),
        ("MAX_AGENT_ATTEMPTS", u64::from(limits::MAX_AGENT_ATTEMPTS)),
        ("MAX_HOPS", limits::MAX_HOPS as u64),
        ("MAX_TRACE_BYTES", limits::MAX_TRACE_BYTES as u64),
        ("MAX_EXPLANATION_BYTES", limits::MAX_EXPLANATION_BYTES as u64),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    assert_eq!(documented, constants);

    let source = include_str!("../src/limits.rs");
    let declared: Vec<_> =
        source.lines().filter_map(|line| line.strip_prefix("pub const ")).collect();
    assert_eq!(declared.len(), constants.len());
    for line in declared {
        let (name, _) = line.split_once(':').unwrap();
        assert!(constants.contains_key(name), "{name} is not in the specification");
    }
}

#[test]
fn the_version_is_the_documented_one() {
    assert!(
        SPEC.starts_with(&format!("# The MCP wire protocol, version {}\n", mcp_proto::MCP_VERSION))
    );
    let alpn = std::str::from_utf8(mcp_proto::ALPN).unwrap();
    assert!(section("2.1 QUIC").contains(&format!("`{alpn}`")));
    assert!(section("2.1 QUIC").contains(&format!("UDP {}", mcp_proto::DEFAULT_PORT)));
}

#[test]
fn the_json_message_is_read_and_written() {
    let section = section("14 The JSON form of a task");
    let message = fenced(section, "json")[0];
    let it = JsonTask::from_json(message).unwrap();
    assert_eq!(it.mcp_version, "1.0");
    assert_eq!(it.task.id.as_str(), "uuid-123abc");
    assert_eq!(it.task.action.as_str(), "generate");
    assert_eq!(it.ttl_ms, 300_000);
    assert_eq!(it.body, fenced(section, "text")[0].trim_end().as_bytes());
    assert!(section.contains(&format!("the {} bytes", it.body.len())));
    assert_eq!(it.to_json().unwrap(), message.replace("\n ", "").trim_end());
}

#[test]
fn the_json_fields_are_the_documented_ones() {
    // The error for an unknown field lists those that are known.
    let error = JsonTask::from_json(r#"{"no":1}"#).unwrap_err().to_string();
    let (_, allowed) = error.split_once("allowed are ").unwrap();
    let (allowed, _) = allowed.split_once(" and names").unwrap();
    let mut allowed: Vec<_> = allowed.split(", ").collect();
    let rows = rows("14 The JSON form of a task");
    let mut documented: Vec<_> =
        rows.iter().flat_map(|row| row[0].split(", ")).map(|name| name.trim_matches('`')).collect();
    allowed.sort_unstable();
    documented.sort_unstable();
    assert_eq!(documented, allowed);
}

#[test]
fn links_lead_to_sections() {
    let anchors: Vec<String> = SPEC
        .lines()
        .filter(|line| line.starts_with("##"))
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            title.replace(' ', "-").replace(['.', ',', '’', '\''], "")
        })
        .collect();
    for (at, _) in SPEC.match_indices("](#") {
        let (link, _) = SPEC[at + 3..].split_once(')').unwrap();
        assert!(anchors.iter().any(|anchor| anchor == link), "#{link}");
    }
}

/// The messages of the examples, in their order.
fn expected() -> Vec<Frame> {
    let task_id = |id: &str| TaskId::try_from(id).unwrap();
    let node_id = |id: &str| NodeId::try_from(id).unwrap();
    let id = task_id("uuid-123abc");
    let attempt = Subject::Attempt(ATTEMPT);
    let task_of = Subject::Task(id.clone(), 1);
    let mut task = Task::new(id.clone(), ActionName::try_from("upper").unwrap());
    task.idempotent = true;
    let hello = |client, token, worker| {
        Message::Hello(Box::new(Hello {
            mcp_version: "1.0".into(),
            sdk: "demo/1".into(),
            features: vec![],
            client,
            session_id: None,
            token,
            worker,
        }))
    };
    let worker = WorkerHello {
        agent_id: AgentId::try_from("agent-1").unwrap(),
        instance_id: InstanceId::try_from("9f2c").unwrap(),
        service_type: "".into(),
        labels: Labels([("lang".to_owned(), "en".to_owned())].into()),
        actions: vec![ActionName::try_from("upper").unwrap()],
        slots: 4,
        prefetch: 0,
        weight: 1,
        held: vec![],
        received: None,
        readiness: Readiness::Ready,
    };
    let unknown = ErrorInfo::new(ErrorCode::UnknownFrame, "frame kind 99 is not known");
    let frame = |message, body: &'static str| Frame { message, body: Bytes::from(body) };
    vec![
        frame(hello(true, None, None), ""),
        frame(hello(true, Some(Token::try_from("e30.e30.c2ln").unwrap()), None), ""),
        frame(hello(false, None, Some(worker)), ""),
        frame(
            Message::Ack(Box::new(Ack {
                mcp_version: "1.0".into(),
                broker_id: node_id("broker-1"),
                epoch: 3,
                features: vec![],
                limits: Limits {
                    max_header_bytes: 65_535,
                    max_body_bytes: 65_536,
                    max_session_tasks: 65_536,
                    max_agent_attempts: 4_096,
                    max_input_bytes: 1 << 30,
                },
                node_id: Some(node_id("n-5d41402abc4b")),
                generation: 12,
                lease_ms: 30_000,
                ping_interval_ms: 10_000,
                keep: vec![],
                session_id: None,
                resumed: false,
                detach_ms: 30_000,
            })),
            "",
        ),
        frame(
            Message::Ping(Ping {
                seq: 7,
                readiness: Some(Readiness::Ready),
                routes_received: 120,
                held: vec![ATTEMPT],
            }),
            "",
        ),
        frame(Message::Pong(7), ""),
        frame(
            Message::Goaway(Goaway {
                code: ErrorCode::ShuttingDown,
                message: "restarting".into(),
                reconnect: true,
            }),
            "",
        ),
        frame(Message::Error(Box::new(unknown.node(node_id("broker-1")))), ""),
        frame(Message::Send(Send::new(task.encode(), 300_000)), "hello"),
        frame(Message::Accepted(id.clone()), ""),
        frame(
            Message::Route(Route {
                attempt_id: ATTEMPT,
                attempt: 1,
                ttl_ms: 299_998,
                task: task.encode(),
                stream_window_bytes: 0,
                input_follows: None,
                span_id: None,
            }),
            "hello",
        ),
        frame(
            Message::Result(TaskResult {
                content_type: "text/plain".into(),
                queue_us: 12,
                work_us: 340,
                ..TaskResult::new(ATTEMPT, Outcome::Ok, Executed::Yes)
            }),
            "HELLO",
        ),
        frame(
            Message::Deliver(Box::new(Deliver {
                content_type: "text/plain".into(),
                trace: ContextTrace {
                    broker_id: Some(node_id("broker-1")),
                    total_us: 1_240,
                    hops: vec![Hop {
                        node_id: node_id("n-5d41402abc4b"),
                        event: HopEvent::Completed,
                        attempt: 1,
                        queue_us: 20,
                        network_us: 868,
                        worker_queue_us: 12,
                        work_us: 340,
                        policy: "least_loaded".into(),
                        candidates: 2,
                        reason: "".into(),
                        began_us: 0,
                        explanation: None,
                    }],
                    ..ContextTrace::default()
                }
                .into(),
                ..Deliver::new(id.clone(), Outcome::Ok, Executed::Yes)
            })),
            "HELLO",
        ),
        frame(
            Message::Deliver(Box::new(Deliver {
                error: Some(Box::new(
                    ErrorInfo::new(ErrorCode::QueueFull, "the queue of upper is full")
                        .retry_after_ms(250),
                )),
                trace: ContextTrace {
                    broker_id: Some(node_id("broker-1")),
                    ..ContextTrace::default()
                }
                .into(),
                ..Deliver::new(task_id("uuid-456def"), Outcome::Rejected, Executed::No)
            })),
            "",
        ),
        frame(Message::Cancel(Cancel::Task(id.clone())), ""),
        frame(Message::Cancel(Cancel::Attempt(ATTEMPT, CancelReason::Expired)), ""),
        frame(
            Message::Nack(Nack {
                attempt_id: ATTEMPT,
                error: Some(Box::new(ErrorInfo::new(ErrorCode::AllBusy, "no free slot"))),
            }),
            "",
        ),
        frame(Message::Fetch(id.clone()), ""),
        frame(Message::Status(id.clone(), TaskState::Running), ""),
        frame(Message::Started(ATTEMPT), ""),
        frame(
            Message::Progress(Progress {
                of: attempt.clone(),
                permille: Some(250),
                message: "page 1 of 4".into(),
            }),
            "",
        ),
        frame(Message::Chunk(Chunk::new(attempt, 0)), "once"),
        frame(Message::Chunk(Chunk::new(task_of.clone(), 1)), " upon"),
        frame(
            Message::Chunk(Chunk { last: true, ..Chunk::new(Subject::Task(id.clone(), 0), 3) }),
            " end",
        ),
        frame(Message::Credit(Credit { of: task_of, next_seq: 2, limit_bytes: 262_281 }), ""),
        frame(
            Message::Resume(Resume {
                task_id: id.clone(),
                attempt: 1,
                next_seq: 2,
                limit_bytes: 262_281,
            }),
            "",
        ),
        frame(Message::Park(Park { attempt_id: ATTEMPT, parked: true }), ""),
        frame(Message::Settle(id.clone()), ""),
        frame(Message::Deliver(Box::new(with_a_child(id, task_id("uuid-456def")))), ""),
    ]
}

fn with_a_child(id: TaskId, child: TaskId) -> Deliver {
    let hop = |node: &str, [queue_us, network_us, work_us]: [u64; 3]| Hop {
        node_id: NodeId::try_from(node).unwrap(),
        event: HopEvent::Completed,
        attempt: 1,
        queue_us,
        network_us,
        worker_queue_us: 0,
        work_us,
        policy: "".into(),
        candidates: 0,
        reason: "".into(),
        began_us: 0,
        explanation: None,
    };
    let below = ContextTrace {
        total_us: 600,
        hops: vec![hop("n-2", [500, 0, 100])],
        ..ContextTrace::default()
    };
    let mut trace = ContextTrace {
        broker_id: NodeId::try_from("broker-1").ok(),
        total_us: 900,
        hops: vec![hop("n-1", [0, 100, 800])],
        ..ContextTrace::default()
    };
    trace.add_child(Child {
        task_id: child,
        action: ActionName::try_from("upper").unwrap(),
        sent_us: 80,
        outcome: Outcome::Ok,
        trace: below,
    });
    Deliver { trace: trace.into(), ..Deliver::new(id, Outcome::Ok, Executed::Yes) }
}

fn codec() -> FrameCodec {
    FrameCodec::new(&Limits::default())
}

fn decode(bytes: &[u8]) -> Frame {
    let mut buffer = BytesMut::from(bytes);
    match codec().decode(&mut buffer).unwrap() {
        Some(Incoming::Frame(frame)) => {
            assert!(buffer.is_empty());
            frame
        }
        other => panic!("{other:?}"),
    }
}

fn descriptors() -> DescriptorPool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    let files = protox::compile([root.join("mcp/v1/frame.proto")], [&root]).unwrap();
    DescriptorPool::from_file_descriptor_set(files).unwrap()
}

/// Each `textproto` block and the `hex` block behind it.
fn examples() -> Vec<Example> {
    let texts = fenced(SPEC, "textproto");
    let frames = fenced(SPEC, "hex");
    assert_eq!(texts.len(), frames.len());
    let frame = |block: &str| {
        let bytes = block.lines().flat_map(|line| {
            let (bytes, _) = line.split_once('#').unwrap_or((line, ""));
            bytes.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap())
        });
        bytes.collect()
    };
    let pair = |(text, block)| Example { text, frame: frame(block) };
    texts.into_iter().zip(frames).map(pair).collect()
}

fn fenced(text: &'static str, language: &str) -> Vec<&'static str> {
    let open = format!("```{language}\n");
    let blocks = text.match_indices(&open).map(|(at, _)| {
        let (block, _) = text[at + open.len()..].split_once("```").unwrap();
        block
    });
    blocks.collect()
}

fn section(title: &str) -> &'static str {
    let is_title =
        |line: &str| line.starts_with('#') && line.trim_start_matches('#').trim() == title;
    let start = SPEC.lines().position(is_title).unwrap_or_else(|| panic!("no section {title}"));
    let offset = |line: usize| SPEC.split_inclusive('\n').take(line).map(str::len).sum::<usize>();
    let rest = &SPEC[offset(start + 1)..];
    rest.find("\n#").map_or(rest, |end| &rest[..end])
}

/// The rows of a section's first table, without its two head lines.
fn rows(title: &str) -> Vec<Vec<&'static str>> {
    let table = section(title).lines().skip_while(|line| !line.starts_with('|'));
    let rows = table.take_while(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.trim_matches('|').split(" |").map(str::trim).collect()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x} ")).collect()
}
