//! What decodes encodes again to the same meaning.

use bytes::{Bytes, BytesMut};
use mcp_proto::{
    ActionName, Deliver, EncodedTask, Frame, FrameCodec, Incoming, Limits, Message, Payload,
};

/// Checks a frame that was decoded, and all that is decoded of it only when somebody looks.
pub(crate) fn check(frame: &Frame) {
    check_frame(frame);
    match &frame.message {
        Message::Send(send) => check_task(&send.task, &frame.body),
        Message::Route(route) => check_task(&route.task, &frame.body),
        Message::Deliver(deliver) => check_trace(deliver),
        _ => {}
    }
}

/// The frame that these bytes are.
pub(crate) fn decode(mut bytes: BytesMut) -> Frame {
    let incoming = FrameCodec::new(&Limits::default()).decode(&mut bytes);
    match incoming {
        Ok(Some(Incoming::Frame(frame))) if bytes.is_empty() => frame,
        other => panic!("not a frame: {other:?}, with {} bytes left", bytes.len()),
    }
}

fn encode(frame: &Frame) -> BytesMut {
    let mut bytes = BytesMut::new();
    FrameCodec::encode(frame, &mut bytes);
    bytes
}

fn check_frame(frame: &Frame) {
    let bytes = encode(frame);
    let again = decode(bytes.clone());
    assert_eq!(again, *frame);
    assert_eq!(encode(&again), bytes);
}

/// What a broker looks at is what a worker reads, and a task is the same after both.
fn check_task(encoded: &EncodedTask, body: &Bytes) {
    let task = match (encoded.head(), encoded.decode()) {
        (Ok(head), Ok(task)) => {
            assert_eq!((&head.id, head.action.as_str()), (&task.id, task.action.as_str()));
            assert_eq!((head.priority, head.delivery), (task.priority, task.delivery));
            assert_eq!((head.idempotent, head.shadow), (task.idempotent, task.shadow));
            assert_eq!(head.required_labels, task.required_labels);
            assert_eq!(
                (head.tenant, head.affinity_key),
                (task.tenant.as_bytes().as_ref(), task.affinity_key.as_bytes().as_ref(),)
            );
            let extras = head.extras.unwrap_or_default();
            assert_eq!((&extras.parent, extras.retry), (&task.parent, task.retry));
            assert_eq!(extras.attempt_timeout_ms, task.attempt_timeout_ms);
            assert_eq!(extras.cancel_on_disconnect, task.cancel_on_disconnect);
            assert_eq!(extras.explain, task.explain);
            task
        }
        (Err(head), Err(task)) => return assert_eq!(head, task),
        (head, task) => panic!("{head:?} of {task:?}"),
    };
    assert_eq!(task.encode().decode().as_ref(), Ok(&task));

    let mut scratch = BytesMut::new();
    let payload = Payload::new(encoded, body.clone(), &mut scratch);
    assert_eq!((payload.task(), payload.body()), (&encoded.0[..], &body[..]));
    let other = ActionName::try_from("other").unwrap();
    if let Some(payload) = payload.with_action((&other).into(), &mut scratch) {
        let of_other = EncodedTask(Bytes::copy_from_slice(payload.task())).decode().unwrap();
        assert_eq!((&of_other.action, &of_other.id), (&other, &task.id));
        assert_eq!(payload.body(), &body[..]);
    }
}

/// A trace that a program looked at is, passed on, the same but for what it has no room for.
fn check_trace(deliver: &Deliver) {
    let looked_at = |deliver: &Deliver| {
        let trace = deliver.trace.clone().into_decoded().into();
        Message::Deliver(Box::new(Deliver { trace, ..deliver.clone() })).into()
    };
    let passed_on = decode(encode(&looked_at(deliver)));
    let Message::Deliver(passed_on) = passed_on.message else { panic!("{passed_on:?}") };
    check_frame(&looked_at(&passed_on));
}
