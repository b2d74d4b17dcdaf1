//! Frames in a few words, for the trace.

use mcp_proto::{Cancel, Frame, Message};

pub(crate) fn words(frame: &Frame) -> String {
    let kind = frame.message.kind();
    match &frame.message {
        Message::Hello(it) => match &it.worker {
            Some(worker) => format!(
                "{kind} {} {} held {:?}",
                worker.agent_id.as_str(),
                worker.instance_id.as_str(),
                worker.held
            ),
            None => format!("{kind} session {:?}", it.session_id),
        },
        Message::Ack(it) => {
            format!("{kind} epoch {} keep {:?} resumed {}", it.epoch, it.keep, it.resumed)
        }
        Message::Ping(it) => format!(
            "{kind} {} {:?} routes {} held {:?}",
            it.seq, it.readiness, it.routes_received, it.held
        ),
        Message::Pong(seq) => format!("{kind} {seq}"),
        Message::Goaway(it) => format!("{kind} {:?}", it.code),
        Message::Error(it) => format!("{kind} {:?} {}", it.code, it.message),
        Message::Send(it) => {
            let id = it.task.decode().map(|task| task.id.to_string());
            format!("{kind} {} ttl {} delay {}", id.unwrap_or_default(), it.ttl_ms, it.delay_ms)
        }
        Message::Accepted(id) | Message::Fetch(id) | Message::Settle(id) => format!("{kind} {id}"),
        Message::Status(id, state) => format!("{kind} {id} {state:?}"),
        Message::Route(it) => {
            let id = it.task.decode().map(|task| task.id.to_string());
            format!(
                "{kind} {} attempt {} {:?} ttl {}",
                id.unwrap_or_default(),
                it.attempt,
                it.attempt_id,
                it.ttl_ms
            )
        }
        Message::Started(id) => format!("{kind} {id:?}"),
        Message::Result(it) => {
            let code = it.error.as_ref().map(|error| error.code);
            format!(
                "{kind} {:?} {:?} executed {:?} {code:?}",
                it.attempt_id, it.outcome, it.executed
            )
        }
        Message::Nack(it) => format!("{kind} {:?}", it.attempt_id),
        Message::Deliver(it) => {
            let why = it.error.as_ref().map(|error| format!("{:?}: {}", error.code, error.message));
            format!(
                "{kind} {} {:?} executed {:?} {}",
                it.task_id,
                it.outcome,
                it.executed,
                why.unwrap_or_default()
            )
        }
        Message::Cancel(Cancel::Task(id)) => format!("{kind} {id}"),
        Message::Cancel(Cancel::Attempt(id, reason)) => format!("{kind} {id:?} {reason:?}"),
        other => format!("{other:?}"),
    }
}
