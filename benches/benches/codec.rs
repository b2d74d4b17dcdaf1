//! The frame codec: encode and decode of the four frames of a task.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mcp_proto::{
    ActionName, AttemptId, ContextTrace, Deliver, Executed, Frame, FrameCodec, Hop, HopEvent,
    Incoming, Limits, Message, NodeId, Outcome, Route, Send, Task, TaskId,
};

fn messages() -> [(&'static str, Message); 4] {
    let task_id = TaskId::try_from("0192b1f0-0000-7000-8000-000000000001").unwrap();
    let task = Task::new(task_id.clone(), ActionName::try_from("echo").unwrap()).encode();
    let attempt_id = AttemptId(0x0123_4567_89ab_cdef);
    [
        ("SEND", Message::Send(Send::new(task.clone(), 30_000))),
        (
            "ROUTE",
            Message::Route(Route {
                attempt_id,
                attempt: 1,
                ttl_ms: 30_000,
                task,
                stream_window_bytes: 0,
                input_follows: None,
                span_id: None,
            }),
        ),
        ("RESULT", Message::Result(mcp_bench::result(attempt_id))),
        ("DELIVER", Message::Deliver(Box::new(deliver(task_id)))),
    ]
}

/// With the trace of a task that went well.
fn deliver(task_id: TaskId) -> Deliver {
    let hop = Hop {
        node_id: NodeId::try_from("agent-1").unwrap(),
        event: HopEvent::Completed,
        attempt: 1,
        queue_us: 2,
        network_us: 120,
        worker_queue_us: 3,
        work_us: 100,
        policy: "least_loaded".into(),
        candidates: 10,
        reason: Default::default(),
        began_us: 0,
        explanation: None,
    };
    Deliver {
        trace: ContextTrace {
            broker_id: NodeId::try_from("broker-1").ok(),
            total_us: 225,
            hops: vec![hop],
            ..ContextTrace::default()
        }
        .into(),
        ..Deliver::new(task_id, Outcome::Ok, Executed::Yes)
    }
}

fn codec(criterion: &mut Criterion) {
    for (name, message) in messages() {
        let mut group = criterion.benchmark_group(format!("codec/{name}"));
        group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2));
        group.throughput(Throughput::Elements(1));
        for body_bytes in [128, 1024] {
            let frame = Frame { message: message.clone(), body: Bytes::from(vec![7; body_bytes]) };
            let mut codec = FrameCodec::new(&Limits::default());
            let mut buffer = BytesMut::with_capacity(1024 * 1024);
            group.bench_function(BenchmarkId::from_parameter(body_bytes), |bencher| {
                bencher.iter(|| {
                    FrameCodec::encode(black_box(&frame), &mut buffer);
                    match codec.decode(&mut buffer) {
                        Ok(Some(Incoming::Frame(frame))) => black_box(frame),
                        other => panic!("{other:?}"),
                    }
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, codec);
criterion_main!(benches);
