//! Every valid message comes back from its frame as it was, and every task from its JSON form.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use bytes::{BufMut, Bytes, BytesMut};
use mcp_proto::json::{JSON_CONTENT_TYPE, JsonTask};
use mcp_proto::limits::{
    self, MAX_AGENT_ATTEMPTS, MAX_ATTEMPTS, MAX_HOPS, MAX_RETRY_WAIT_MS, MAX_TRACE_BYTES,
    MAX_TTL_MS,
};
use mcp_proto::{
    Ack, ActionName, AgentId, AttemptId, ByteString, Cancel, CancelReason, Cause, Child, Chunk,
    ContextTrace, Credit, Decision, Deliver, Delivery, EncodedTask, ErrorCode, ErrorInfo, Executed,
    ExplainedWorker, Explanation, Frame, FrameCodec, Goaway, Hello, Hop, HopEvent, Incoming,
    InputLength, InstanceId, Labels, Limits, Message, Nack, NodeId, Outcome, Park, Payload, Ping,
    Priority, Progress, Readiness, ResultHeaders, Resume, Retry, Route, RoutesReceived, Score,
    Send, SessionId, SpanId, Subject, Task, TaskId, TaskResult, TaskState, Token, TraceId,
    WorkerHello,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use prost_reflect::prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};

proptest! {
    #[test]
    fn a_message_comes_back_from_its_frame(message in message(), body in vec(any::<u8>(), 0..200)) {
        let frame = Frame { message, body: body.into() };
        let mut bytes = BytesMut::new();
        FrameCodec::encode(&frame, &mut bytes);
        match FrameCodec::new(&Limits::default()).decode(&mut bytes) {
            Ok(Some(Incoming::Frame(decoded))) => prop_assert_eq!(decoded, frame),
            other => prop_assert!(false, "{:?}", other),
        }
        prop_assert!(bytes.is_empty());
    }

    /// The codec and a protobuf library that knows only the `.proto` files understand each other.
    #[test]
    fn a_protobuf_library_reads_and_writes_the_same(message in message(), task in task()) {
        let message = with_task(message, |_| task.encode());
        let mut bytes = BytesMut::new();
        FrameCodec::encode(&message.clone().into(), &mut bytes);
        let theirs = DynamicMessage::decode(frame_type(), &bytes[6..]).unwrap();
        prop_assert_eq!(theirs.unknown_fields().count(), 0);
        let header = theirs.encode_to_vec();
        let mut bytes = BytesMut::new();
        bytes.put_u32(header.len() as u32 + 2);
        bytes.put_u16(header.len() as u16);
        bytes.put_slice(&header);
        let read = FrameCodec::new(&Limits::default()).decode(&mut bytes);
        let Ok(Some(Incoming::Frame(Frame { message: read, .. }))) = read else {
            return Err(TestCaseError::fail(format!("{read:?}")));
        };
        prop_assert_eq!(in_order(read), in_order(message));
    }

    /// A task for another action is the same otherwise, what nobody here knows of included.
    #[test]
    fn a_task_for_another_action_differs_in_nothing_else(task in task(), body in vec(any::<u8>(), 0..20)) {
        let mut encoded = BytesMut::from(&task.encode().0[..]);
        let unknown = b"\xfa\x3e\x03new";
        encoded.put_slice(unknown);
        let mut scratch = BytesMut::new();
        let encoded = EncodedTask(encoded.freeze());
        let payload = Payload::new(&encoded, body.clone().into(), &mut scratch);
        let other = ActionName::try_from("another.action").unwrap();
        let changed = payload.with_action((&other).into(), &mut scratch).unwrap();
        prop_assert!(changed.task().ends_with(unknown));
        prop_assert_eq!(changed.head().unwrap().action.as_str(), other.as_str());
        let decoded = EncodedTask(changed.task().to_vec().into()).decode().unwrap();
        prop_assert_eq!(decoded, Task { action: other, ..task });
        prop_assert_eq!(changed.body(), &body[..]);
    }

    /// However many hops and children there are, and however deep: what is written is within the
    /// limits, and is what is read.
    #[test]
    fn a_tree_of_traces_is_cut_to_its_limits(
        trees in vec(any_tree(), 1..3),
        levels in prop_oneof![Just(1usize), 1..40usize],
    ) {
        let mut trace = ContextTrace { children: trees, ..ContextTrace::default() };
        for _ in 1..levels {
            let child = Child { trace, ..child("c") };
            trace = ContextTrace { children: vec![child], ..ContextTrace::default() };
        }
        let (all, depth) = (count(&trace), depth(&trace));
        let id = TaskId::try_from("t").unwrap();
        let deliver = Deliver { trace: trace.into(), ..Deliver::new(id, Outcome::Ok, Executed::Yes) };
        let written = encoded(Message::Deliver(Box::new(deliver)));
        prop_assert!(written.len() <= MAX_TRACE_BYTES + 100);
        let read = decoded(&written);
        let Message::Deliver(it) = &read else { return Err(TestCaseError::fail("no DELIVER")) };
        let (hops, children) = count(&it.trace.decode());
        prop_assert!(hops <= MAX_HOPS && children <= MAX_HOPS && self::depth(&it.trace.decode()) <= 16);
        prop_assert_eq!((hops, children) != all, is_truncated(&it.trace.decode()));
        prop_assert!(depth > 16 || all.0 + all.1 > 60 || (hops, children) == all);
        prop_assert_eq!(encoded(read), written);
    }

    #[test]
    fn a_task_comes_back_from_its_wire_form(task in task()) {
        prop_assert_eq!(task.encode().decode(), Ok(task));
    }

    #[test]
    fn a_cut_or_changed_frame_is_survived(
        message in message(),
        cut in any::<prop::sample::Index>(),
        change in any::<(prop::sample::Index, u8)>(),
    ) {
        let mut bytes = BytesMut::new();
        FrameCodec::encode(&message.into(), &mut bytes);
        let at = change.0.index(bytes.len());
        bytes[at] ^= change.1;
        let mut short = BytesMut::from(&bytes[..cut.index(bytes.len())]);
        let _ = FrameCodec::new(&Limits::default()).decode(&mut short);
        if let Ok(Some(Incoming::Frame(frame))) = FrameCodec::new(&Limits::default()).decode(&mut bytes) {
            match frame.message {
                Message::Send(send) => drop(send.task.decode()),
                Message::Deliver(deliver) => drop(deliver.trace.decode()),
                _ => {}
            }
        }
    }

    #[test]
    fn a_task_comes_back_from_its_json_form(it in json_task()) {
        let json = it.to_json().unwrap();
        prop_assert!(!json.contains('\n'));
        prop_assert_eq!(JsonTask::from_json(json), Ok(it));
    }

    #[test]
    fn any_json_payload_becomes_its_compact_text(value in json_value()) {
        let pretty = serde_json::to_string_pretty(&value).unwrap();
        let json = format!(
            r#"{{"mcp_version":"1.0","task_id":"t","action":"a","payload": {pretty} ,"ttl":1}}"#
        );
        let it = JsonTask::from_json(json).unwrap();
        prop_assert_eq!(&it.body, &serde_json::to_vec(&value).unwrap());
    }

    #[test]
    fn any_text_is_survived_as_json(
        text in "[{}\\[\\]\",:a-z0-9 ]{0,60}|\\PC{0,60}",
        bytes in vec(any::<u8>(), 0..60),
        cut in any::<prop::sample::Index>(),
        it in json_task(),
    ) {
        let _ = JsonTask::from_json(text);
        let _ = JsonTask::from_json(bytes);
        let json = it.to_json().unwrap();
        let _ = JsonTask::from_json(&json.as_bytes()[..cut.index(json.len())]);
    }
}

/// A child in a child in a child, as deep as a frame can say.
/// Each field of an outcome is at its limit, and yet a frame has room for it.
#[test]
fn the_longest_outcome_fits_into_a_frame() {
    let node: NodeId = "n".repeat(limits::MAX_ID_BYTES).try_into().unwrap();
    let id: TaskId = "t".repeat(limits::MAX_TASK_ID_BYTES).try_into().unwrap();
    let message = "m".repeat(limits::MAX_ERROR_MESSAGE_BYTES);
    let code = ErrorCode::AttemptTimeout;
    let mut error = ErrorInfo::new(code, message.clone()).task(id.clone()).node(node.clone());
    error.retry_after_ms = Some(u64::MAX);
    error.causes = vec![Cause { code, message, node_id: Some(node.clone()) }; limits::MAX_CAUSES];
    let hop = Hop {
        node_id: node.clone(),
        event: HopEvent::Completed,
        attempt: u32::MAX,
        queue_us: u64::MAX,
        network_us: u64::MAX,
        worker_queue_us: u64::MAX,
        work_us: u64::MAX,
        policy: "p".repeat(20).into(),
        candidates: u32::MAX,
        reason: "r".repeat(20).into(),
        began_us: u64::MAX,
        explanation: None,
    };
    let trace = ContextTrace {
        broker_id: Some(node),
        total_us: u64::MAX,
        queue_us: u64::MAX,
        hops: vec![hop; limits::MAX_HOPS],
        children: Vec::new(),
        truncated: true,
        trace_id: TraceId::from_bytes([0xff; 16]),
    };
    let value = "v".repeat(limits::MAX_RESULT_HEADER_BYTES / limits::MAX_HEADERS - 2);
    let headers = (10..10 + limits::MAX_HEADERS).map(|key| (key.to_string(), value.clone()));
    let deliver = Message::Deliver(Box::new(Deliver {
        content_type: "c".repeat(limits::MAX_TEXT_BYTES).into(),
        error: Some(Box::new(error)),
        trace: trace.into(),
        chunks: u32::MAX,
        attempt: u32::MAX,
        headers: Some(Box::new(headers.collect())),
        fallback: Some(format!("action:{}", "a".repeat(limits::MAX_ACTION_BYTES)).into()),
        ..Deliver::new(id, Outcome::Failed, Executed::Maybe)
    }));
    let bytes = encoded(deliver.clone());
    assert!(bytes.len() <= limits::MAX_HEADER_BYTES);
    match (decoded(&bytes), deliver) {
        (Message::Deliver(got), Message::Deliver(sent)) => assert_eq!(got.headers, sent.headers),
        other => panic!("{other:?}"),
    }
}

#[test]
fn headers_that_would_not_fit_are_refused() {
    let header = |n: usize| (format!("{n:01024}"), "v".repeat(1024));
    for (count, is_taken) in [(4, true), (5, false)] {
        let headers: BTreeMap<_, _> = (0..count).map(header).collect();
        let result = TaskResult::new(AttemptId(7), Outcome::Ok, Executed::Yes);
        let mut bytes =
            encoded(Message::Result(TaskResult { headers: Some(Box::new(headers)), ..result }));
        let got = FrameCodec::new(&Limits::default()).decode(&mut bytes).unwrap().unwrap();
        assert_eq!(matches!(got, Incoming::Frame(_)), is_taken, "{got:?}");
    }
}

#[test]
fn a_hostile_depth_is_survived() {
    let mut trace = Vec::new();
    while trace.len() < 60_000 {
        let mut child = b"\x0a\x01c\x12\x01a\x20\x01\x2a".to_vec();
        prost_reflect::prost::encoding::encode_varint(trace.len() as u64, &mut child);
        child.append(&mut trace);
        trace.push(0x32);
        prost_reflect::prost::encoding::encode_varint(child.len() as u64, &mut trace);
        trace.append(&mut child);
    }
    let mut header = b"\x0a\x01t\x10\x01\x32".to_vec();
    prost_reflect::prost::encoding::encode_varint(trace.len() as u64, &mut header);
    header.append(&mut trace);
    let mut frame = BytesMut::from(&b"\x82\x01"[..]);
    prost_reflect::prost::encoding::encode_varint(header.len() as u64, &mut frame);
    frame.put_slice(&header);
    let mut bytes = BytesMut::new();
    bytes.put_u32(frame.len() as u32 + 2);
    bytes.put_u16(frame.len() as u16);
    bytes.put_slice(&frame);
    match decoded(&bytes) {
        Message::Deliver(it) => {
            assert_eq!(count(&it.trace.decode()), (0, 16));
            assert!(is_truncated(&it.trace.decode()));
        }
        other => panic!("{other:?}"),
    }
}

fn encoded(message: Message) -> BytesMut {
    let mut bytes = BytesMut::new();
    FrameCodec::encode(&message.into(), &mut bytes);
    bytes
}

fn decoded(bytes: &BytesMut) -> Message {
    match FrameCodec::new(&Limits::default()).decode(&mut bytes.clone()) {
        Ok(Some(Incoming::Frame(frame))) => frame.message,
        other => panic!("{other:?}"),
    }
}

/// Hops and children of a whole tree.
fn count(trace: &ContextTrace) -> (usize, usize) {
    trace
        .children
        .iter()
        .map(|child| count(&child.trace))
        .fold((trace.hops.len(), trace.children.len()), |sum, below| {
            (sum.0 + below.0, sum.1 + below.1)
        })
}

fn depth(trace: &ContextTrace) -> usize {
    trace.children.iter().map(|child| 1 + depth(&child.trace)).max().unwrap_or(0)
}

fn is_truncated(trace: &ContextTrace) -> bool {
    trace.truncated || trace.children.iter().any(|child| is_truncated(&child.trace))
}

fn child(id: &str) -> Child {
    Child {
        task_id: TaskId::try_from(id).unwrap(),
        action: ActionName::try_from("a").unwrap(),
        sent_us: 0,
        outcome: Outcome::Ok,
        trace: ContextTrace::default(),
    }
}

/// Boxed, as the others below: nested unboxed they overflow the stack of a test thread.
fn frame_type() -> MessageDescriptor {
    static FRAME: LazyLock<MessageDescriptor> = LazyLock::new(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
        let files = protox::compile([root.join("mcp/v1/frame.proto")], [&root]).unwrap();
        let pool = DescriptorPool::from_file_descriptor_set(files).unwrap();
        pool.get_message_by_name("mcp.v1.Frame").unwrap()
    });
    FRAME.clone()
}

fn with_task(message: Message, change: impl FnOnce(EncodedTask) -> EncodedTask) -> Message {
    match message {
        Message::Send(it) => Message::Send(Send { task: change(it.task), ..it }),
        Message::Route(it) => Message::Route(Route { task: change(it.task), ..it }),
        other => other,
    }
}

/// With the entries of a task's maps in order, which protobuf leaves open.
fn in_order(message: Message) -> Message {
    with_task(message, |task| task.decode().unwrap().encode())
}

fn message() -> BoxedStrategy<Message> {
    let hello = hello().prop_map(|it| Message::Hello(Box::new(it)));
    let ack = ack().prop_map(|it| Message::Ack(Box::new(it)));
    let goaway = (code(), text(), any::<bool>()).prop_map(|(code, message, reconnect)| {
        Message::Goaway(Goaway { code, message: message.to_string(), reconnect })
    });
    let session = prop_oneof![
        hello,
        ack,
        ping().prop_map(Message::Ping),
        any::<u64>().prop_map(Message::Pong),
        goaway,
        error().prop_map(|it| Message::Error(Box::new(it))),
    ];
    let ttl_ms = 1..=MAX_TTL_MS;
    let input = || {
        let length =
            prop_oneof![Just(InputLength::Unknown), (1..=u64::MAX).prop_map(InputLength::Bytes),];
        option::of(length)
    };
    let send = (task(), ttl_ms.clone(), any::<u32>(), input(), any::<u64>()).prop_map(
        |(task, ttl_ms, stream_window_bytes, input_follows, delay)| {
            let send = Send::new(task.encode(), ttl_ms);
            let delay_ms = delay % ttl_ms;
            Message::Send(Send { stream_window_bytes, input_follows, delay_ms, ..send })
        },
    );
    // What a worker is sent may have fields that this version does not know: bytes are bytes.
    let encoded = prop_oneof![
        task().prop_map(|task| task.encode()),
        vec(any::<u8>(), 0..100).prop_map(|bytes| EncodedTask(bytes.into())),
    ];
    let route = (attempt_id(), any::<(u32, u32)>(), ttl_ms, encoded, input()).prop_map(
        |(attempt_id, (attempt, stream_window_bytes), ttl_ms, task, input_follows)| {
            Message::Route(Route {
                attempt_id,
                attempt,
                ttl_ms,
                task,
                stream_window_bytes,
                input_follows,
                span_id: SpanId::new(u64::from(attempt) << 32),
            })
        },
    );
    let cancel = prop_oneof![
        task_id().prop_map(Cancel::Task),
        (attempt_id(), select(CancelReason::ALL))
            .prop_map(|(id, reason)| Cancel::Attempt(id, reason)),
    ];
    let nack = (attempt_id(), option::of(error().prop_map(Box::new)))
        .prop_map(|(attempt_id, error)| Message::Nack(Nack { attempt_id, error }));
    let status =
        (task_id(), select(TaskState::ALL)).prop_map(|(id, state)| Message::Status(id, state));
    let tasks = prop_oneof![
        send,
        task_id().prop_map(Message::Accepted),
        route,
        result().prop_map(Message::Result),
        deliver().prop_map(|it| Message::Deliver(Box::new(it))),
        cancel.prop_map(Message::Cancel),
        nack,
        task_id().prop_map(Message::Fetch),
        task_id().prop_map(Message::Settle),
        status,
    ];
    prop_oneof![2 => session, 3 => tasks, 2 => running()].boxed()
}

/// About attempts that run.
fn running() -> BoxedStrategy<Message> {
    let of = || {
        prop_oneof![
            attempt_id().prop_map(Subject::Attempt),
            (task_id(), any::<u32>()).prop_map(|(id, attempt)| Subject::Task(id, attempt)),
        ]
    };
    let progress = (of(), option::of(0..=1000u16), text())
        .prop_map(|(of, permille, message)| Message::Progress(Progress { of, permille, message }));
    let chunk = (of(), any::<u32>(), option::of(any::<u64>()), any::<bool>())
        .prop_map(|(of, seq, gap, last)| Message::Chunk(Chunk { of, seq, gap, last }));
    let credit = (of(), any::<u32>(), any::<u64>()).prop_map(|(of, next_seq, limit_bytes)| {
        Message::Credit(Credit { of, next_seq, limit_bytes })
    });
    let resume = (task_id(), any::<(u32, u32, u64)>()).prop_map(
        |(task_id, (attempt, next_seq, limit_bytes))| {
            Message::Resume(Resume { task_id, attempt, next_seq, limit_bytes })
        },
    );
    let park = (attempt_id(), any::<bool>())
        .prop_map(|(attempt_id, parked)| Message::Park(Park { attempt_id, parked }));
    prop_oneof![attempt_id().prop_map(Message::Started), progress, chunk, credit, resume, park,]
        .boxed()
}

fn hello() -> BoxedStrategy<Hello> {
    let worker = (
        (id(), id(), text(), labels()),
        vec(action(), 1..5),
        (1..=2_000u32, 0..=2_000u32, 1..=1_000u32),
        (vec(attempt_id(), 0..5), option::of((any::<u64>(), 1u64.., any::<u64>()))),
        select(Readiness::ALL),
    );
    let worker = worker.prop_map(|(names, mut actions, numbers, (held, received), readiness)| {
        actions.sort();
        actions.dedup();
        let (agent_id, instance_id, service_type, labels) = names;
        let (slots, prefetch, weight) = numbers;
        WorkerHello {
            agent_id: AgentId::try_from(agent_id).unwrap(),
            instance_id: InstanceId::try_from(instance_id).unwrap(),
            service_type,
            labels: Labels(labels),
            actions,
            slots,
            prefetch,
            weight,
            held,
            received: received.map(|(epoch, generation, routes)| RoutesReceived {
                epoch,
                generation,
                routes,
            }),
            readiness,
        }
    });
    let client = (any::<bool>(), option::of(id()), option::of(id()));
    (text(), text(), vec(text(), 0..3), client, option::of(worker))
        .prop_map(|(mcp_version, sdk, features, (client, session_id, token), worker)| Hello {
            mcp_version,
            sdk,
            features,
            client: client || worker.is_none(),
            session_id: session_id.map(|id| SessionId::try_from(id).unwrap()),
            token: token.map(|token| Token::try_from(token.as_str()).unwrap()),
            worker,
        })
        .boxed()
}

fn ack() -> BoxedStrategy<Ack> {
    (
        (text(), node_id(), any::<u64>(), vec(text(), 0..3)),
        any::<([u32; 4], u64)>(),
        (option::of(node_id()), any::<u64>(), any::<u32>(), any::<u32>()),
        vec(attempt_id(), 0..5),
        (option::of(id()), any::<bool>(), any::<u32>()),
    )
        .prop_map(|(broker, limits, worker, keep, client)| Ack {
            mcp_version: broker.0,
            broker_id: broker.1,
            epoch: broker.2,
            features: broker.3,
            limits: Limits {
                max_header_bytes: limits.0[0],
                max_body_bytes: limits.0[1],
                max_session_tasks: limits.0[2],
                max_agent_attempts: limits.0[3],
                max_input_bytes: limits.1,
            },
            node_id: worker.0,
            generation: worker.1,
            lease_ms: worker.2,
            ping_interval_ms: worker.3,
            keep,
            session_id: client.0.map(|id| SessionId::try_from(id).unwrap()),
            resumed: client.1,
            detach_ms: client.2,
        })
        .boxed()
}

fn ping() -> BoxedStrategy<Ping> {
    let held =
        prop_oneof![vec(attempt_id(), 0..5), vec(attempt_id(), MAX_AGENT_ATTEMPTS as usize),];
    (any::<u64>(), option::of(select(Readiness::ALL)), any::<u64>(), held)
        .prop_map(|(seq, readiness, routes_received, held)| Ping {
            seq,
            readiness,
            routes_received,
            held,
        })
        .boxed()
}

fn result() -> BoxedStrategy<TaskResult> {
    const OUTCOMES: [Outcome; 4] =
        [Outcome::Ok, Outcome::Failed, Outcome::Expired, Outcome::Cancelled];
    (
        attempt_id(),
        select(&OUTCOMES[..]),
        select(Executed::ALL),
        text(),
        option::of(error().prop_map(Box::new)),
        any::<(u64, u64, u32, bool)>(),
        labels(),
    )
        .prop_map(|(attempt_id, outcome, executed, content_type, error, numbers, headers)| {
            let (queue_us, work_us, chunks, permanent) = numbers;
            let fixed = TaskResult::new(attempt_id, outcome, executed);
            let fixed = TaskResult { content_type, error, queue_us, work_us, ..fixed };
            TaskResult { chunks, permanent, headers: some(headers), ..fixed }
        })
        .boxed()
}

/// As it is read: an empty map is none.
fn some(headers: BTreeMap<String, String>) -> ResultHeaders {
    (!headers.is_empty()).then(|| Box::new(headers))
}

fn deliver() -> BoxedStrategy<Deliver> {
    (
        task_id(),
        select(Outcome::ALL),
        select(Executed::ALL),
        text(),
        option::of(error().prop_map(Box::new)),
        trace(),
        any::<(u32, u32)>(),
        (labels(), option::of("[a-z:.]{1,20}")),
    )
        .prop_map(|(task_id, outcome, executed, content_type, error, trace, numbers, texts)| {
            let (chunks, attempt) = numbers;
            let (headers, fallback) = texts;
            let fixed = Deliver::new(task_id, outcome, executed);
            Deliver {
                content_type,
                error,
                trace: trace.into(),
                chunks,
                attempt,
                headers: some(headers),
                fallback: fallback.map(String::into_boxed_str),
                ..fixed
            }
        })
        .boxed()
}

fn hop() -> impl Strategy<Value = Hop> {
    let hop = (
        (node_id(), select(HopEvent::ALL), any::<u32>()),
        any::<[u64; 5]>(),
        (text(), any::<u32>(), text()),
        option::of(explanation().prop_map(Box::new)),
    );
    hop.prop_map(|((node_id, event, attempt), us, (policy, candidates, reason), explanation)| Hop {
        node_id,
        event,
        attempt,
        queue_us: us[0],
        network_us: us[1],
        worker_queue_us: us[2],
        work_us: us[3],
        policy,
        candidates,
        reason,
        began_us: us[4],
        explanation,
    })
}

fn explanation() -> impl Strategy<Value = Explanation> {
    let agent = id().prop_map(|id| AgentId::try_from(id).unwrap());
    let worker =
        (agent, node_id(), (0..=8u8), option::of("[a-z ]{1,9}"), labels(), any::<[u32; 3]>());
    let worker =
        worker.prop_map(|(agent_id, node_id, eighths, ruled_out, missing_labels, numbers)| {
            ExplainedWorker {
                agent_id,
                node_id,
                probability: f64::from(eighths) / 8.0,
                score: ruled_out.is_none().then(|| Score { value: -0.5, text: "s".to_owned() }),
                ruled_out,
                missing_labels,
                presence: "online".to_owned(),
                readiness: "ready".to_owned(),
                health: "ok".to_owned(),
                in_flight: numbers[0],
                slots: numbers[1],
                prefetch: numbers[2],
                service_us: Some(numbers[0].into()),
            }
        });
    ("[a-z \"]{0,40}", any::<[u32; 3]>(), option::of(code()), vec(worker, 0..3)).prop_map(
        |(why, numbers, error_code, workers)| {
            let mut it = Explanation {
                decision: Decision::Route,
                why,
                policy: "p".to_owned(),
                error_code,
                fallback: vec!["cached".to_owned()],
                queued: numbers[0].into(),
                predicted_wait_ms: Some(numbers[1].into()),
                candidates: numbers[2],
                workers,
                left_out: 1,
            };
            it.cut(limits::MAX_EXPLANATION_BYTES);
            it
        },
    )
}

/// A trace that is within the limits.
fn trace() -> BoxedStrategy<ContextTrace> {
    let one = || {
        (option::of(node_id()), any::<(u64, u64)>(), vec(hop(), 0..3), any::<bool>()).prop_map(
            |(broker_id, (total_us, queue_us), hops, truncated)| ContextTrace {
                broker_id,
                total_us,
                queue_us,
                hops,
                children: Vec::new(),
                truncated,
                trace_id: None,
            },
        )
    };
    one()
        .prop_recursive(3, 8, 3, move |inner| {
            let child = (task_id(), action(), any::<u64>(), select(Outcome::ALL), inner).prop_map(
                |(task_id, action, sent_us, outcome, trace)| Child {
                    task_id,
                    action,
                    sent_us,
                    outcome,
                    trace,
                },
            );
            (one(), vec(child, 0..3)).prop_map(|(mut trace, children)| {
                children.into_iter().for_each(|child| trace.add_child(child));
                trace
            })
        })
        .boxed()
}

/// A child with more than there is room for, now and then.
fn any_tree() -> BoxedStrategy<Child> {
    let small = (vec(Just(()), 0..5), "[a-z]{0,3}").prop_map(|(hops, reason)| {
        let hop = Hop {
            node_id: NodeId::try_from("n").unwrap(),
            event: HopEvent::Completed,
            attempt: 1,
            queue_us: 1,
            network_us: 1,
            worker_queue_us: 1,
            work_us: 1,
            policy: "p".into(),
            candidates: 1,
            reason: reason.into(),
            began_us: 0,
            explanation: None,
        };
        let trace = ContextTrace { hops: vec![hop; hops.len()], ..ContextTrace::default() };
        Child { trace, ..child("leaf") }
    });
    small
        .prop_recursive(4, 200, 10, |inner| {
            vec(inner, 0..10).prop_map(|children| {
                let trace = ContextTrace { children, ..ContextTrace::default() };
                Child { trace, ..child("node") }
            })
        })
        .boxed()
}

fn error() -> BoxedStrategy<ErrorInfo> {
    let cause = (code(), text(), option::of(node_id()))
        .prop_map(|(code, message, node_id)| Cause { code, message: message.to_string(), node_id });
    (
        code(),
        text(),
        option::of(task_id()),
        option::of(node_id()),
        option::of(1..u64::MAX),
        vec(cause, 0..=8),
    )
        .prop_map(|(code, message, task_id, node_id, retry_after_ms, causes)| ErrorInfo {
            code,
            message: message.to_string(),
            task_id,
            node_id,
            retry_after_ms,
            causes,
        })
        .boxed()
}

fn task() -> BoxedStrategy<Task> {
    (
        (task_id(), action(), text(), select(Priority::ALL)),
        (text(), text(), labels(), select(Delivery::ALL)),
        (any::<bool>(), any::<bool>(), labels(), option::of(task_id())),
        (0..=16u8, text(), text()),
        (option::of(retry()), 0..=MAX_RETRY_WAIT_MS, any::<bool>(), any::<bool>()),
    )
        .prop_map(|(a, b, c, d, e)| Task {
            id: a.0,
            action: a.1,
            content_type: a.2,
            priority: a.3,
            tenant: b.0,
            affinity_key: b.1,
            required_labels: Labels(b.2),
            delivery: b.3,
            idempotent: c.0,
            shadow: c.1,
            headers: c.2,
            parent: c.3,
            depth: d.0,
            traceparent: d.1,
            tracestate: d.2,
            retry: e.0,
            attempt_timeout_ms: e.1,
            cancel_on_disconnect: e.2,
            explain: e.3,
        })
        .boxed()
}

fn retry() -> impl Strategy<Value = Retry> {
    let waits = 1..=MAX_RETRY_WAIT_MS;
    (1..=MAX_ATTEMPTS, waits.clone(), 100..=10_000u32, waits).prop_map(
        |(max_attempts, initial_ms, coefficient_percent, cap_ms)| Retry {
            max_attempts,
            initial_ms,
            coefficient_percent,
            cap_ms,
        },
    )
}

/// A task whose content type and body fit each other.
fn json_task() -> BoxedStrategy<JsonTask> {
    let types = prop_oneof![
        Just(JSON_CONTENT_TYPE.to_owned()),
        Just("application/ld+json; v=1".to_owned()),
    ];
    let json = (types, json_value()).prop_map(|(content_type, value)| {
        (content_type, Bytes::from(serde_json::to_vec(&value).unwrap()))
    });
    let text = (prop_oneof![Just("text/plain"), Just("")], any::<String>())
        .prop_map(|(content_type, text)| (content_type.to_owned(), Bytes::from(text)));
    let version = prop_oneof![Just("1.0"), Just("1.27")];
    (task(), prop_oneof![json, text], 1..=MAX_TTL_MS, any::<u64>(), version)
        .prop_map(|(task, (content_type, body), ttl_ms, delay, version)| JsonTask {
            mcp_version: version.into(),
            task: Task { content_type: content_type.into(), ..task },
            body,
            ttl_ms,
            // Most have none.
            delay_ms: if delay % 3 == 0 { delay % ttl_ms } else { 0 },
        })
        .boxed()
}

fn json_value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(serde_json::Value::from),
            btree_map(any::<String>(), inner, 0..5).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

fn code() -> impl Strategy<Value = ErrorCode> {
    select(ErrorCode::ALL)
}

fn attempt_id() -> impl Strategy<Value = AttemptId> {
    (1..=u64::MAX).prop_map(AttemptId)
}

fn id() -> impl Strategy<Value = String> {
    "[!-~]{1,128}"
}

fn node_id() -> impl Strategy<Value = NodeId> {
    id().prop_map(|id| NodeId::try_from(id).unwrap())
}

fn task_id() -> impl Strategy<Value = TaskId> {
    "[!-~]{1,64}".prop_map(|id| TaskId::try_from(id).unwrap())
}

fn action() -> impl Strategy<Value = ActionName> {
    "[A-Za-z0-9._:/-]{1,128}".prop_map(|name| ActionName::try_from(name).unwrap())
}

fn text() -> impl Strategy<Value = ByteString> {
    prop_oneof![Just(String::new()), "[a-z ]{1,20}", "\\PC{0,40}", "[é\\x00]{512}"]
        .prop_map(ByteString::from)
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map("\\PC{1,20}", "\\PC{0,20}", 0..5)
}
