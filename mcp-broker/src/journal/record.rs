//! Records of durable tasks as keys and values of the log.
//!
//! A key is a kind (a byte: a task, or a dead letter), the length of the task's id (a byte), the id,
//! and the identity. So of a task only the newest record counts, and what ends a task deletes its key.
//! Values are protobuf; their field numbers are only added to, so that every version reads what an
//! older one wrote.

use std::str::Utf8Error;

use bytes::{Bytes, BytesMut};
use mcp_proto::limits::{MAX_BODY_BYTES, MAX_TASK_BYTES};
use mcp_proto::{
    DecodeError, Deliver, EncodedFrame, EncodedTask, Executed, Frame, FrameCodec, Incoming,
    InvalidMessage, Limits, Message, Payload, TaskId,
};
use prost::Message as _;

use crate::broker::{AcceptedTask, DeadLetter, EndedTask, Identity, Record, SettledTask, TaskName};

const TASK: u8 = 1;
const DEAD_LETTER: u8 = 2;

/// Under a task's key.
#[derive(Clone, PartialEq, prost::Message)]
struct TaskValue {
    #[prost(oneof = "State", tags = "1, 2, 3")]
    state: Option<State>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum State {
    #[prost(message, tag = "1")]
    Accepted(AcceptedValue),
    #[prost(message, tag = "2")]
    Ended(EndedValue),
    #[prost(message, tag = "3")]
    Settled(SettledValue),
}

#[derive(Clone, PartialEq, prost::Message)]
struct AcceptedValue {
    #[prost(message, required, tag = "1")]
    payload: PayloadValue,
    #[prost(uint64, tag = "2")]
    received_wall_ms: u64,
    #[prost(uint64, tag = "3")]
    start_wall_ms: u64,
    #[prost(uint64, tag = "4")]
    deadline_wall_ms: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct EndedValue {
    #[prost(fixed64, tag = "1")]
    fingerprint: u64,
    /// DELIVER, whole.
    #[prost(bytes = "bytes", tag = "2")]
    deliver: Bytes,
    #[prost(uint64, tag = "3")]
    ended_wall_ms: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SettledValue {
    #[prost(fixed64, tag = "1")]
    fingerprint: u64,
    /// As in DELIVER.
    #[prost(uint32, tag = "2")]
    executed: u32,
    #[prost(uint64, tag = "3")]
    settled_wall_ms: u64,
}

/// Under a dead letter's key.
#[derive(Clone, PartialEq, prost::Message)]
struct DeadValue {
    #[prost(message, required, tag = "1")]
    payload: PayloadValue,
    /// DELIVER, without its body.
    #[prost(bytes = "bytes", tag = "2")]
    deliver: Bytes,
    #[prost(uint64, tag = "3")]
    ttl_ms: u64,
    #[prost(uint32, tag = "4")]
    attempts: u32,
    #[prost(uint64, tag = "5")]
    died_wall_ms: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PayloadValue {
    #[prost(bytes = "bytes", tag = "1")]
    task: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    body: Bytes,
}

/// Why a key and a value are no record.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRecord {
    /// The key is not a kind, a task id and an identity.
    #[error("its key is not that of a record")]
    Key,
    /// The identity is not text.
    #[error("its identity is not text: {0}")]
    Identity(#[from] Utf8Error),
    /// The value is not protobuf.
    #[error("its value is not protobuf: {0}")]
    Value(#[from] prost::DecodeError),
    /// The value says nothing that is known here.
    #[error("it is of a kind that is not known here; a later version may have written it")]
    Unknown,
    /// The task can't be read.
    #[error("its task: {0}")]
    Task(#[from] InvalidMessage),
    /// The task, or its body, is longer than one can be.
    #[error("its task has {task_bytes} bytes with a body of {body_bytes}, which is too long")]
    TooLong {
        /// Bytes of the task.
        task_bytes: usize,
        /// Bytes of its body.
        body_bytes: usize,
    },
    /// The outcome is not a frame.
    #[error("its outcome: {0}")]
    Frame(#[from] DecodeError),
    /// The outcome is a frame, but not one DELIVER.
    #[error("its outcome is not a DELIVER")]
    NotDeliver,
    /// The key names another task than the value.
    #[error("it is under the name of task {key}, and about task {value}")]
    OtherTask {
        /// Which the key names.
        key: TaskId,
        /// Which the value names.
        value: TaskId,
    },
}

/// A record as the log has it. Used again for the next one, it allocates less.
#[derive(Debug, Default)]
pub struct EncodedRecord {
    key: Vec<u8>,
    value: Vec<u8>,
    is_deleted: bool,
    arena: BytesMut,
}

impl EncodedRecord {
    /// Its key.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Its value; none of one that ends what is under the key.
    pub fn value(&self) -> Option<&[u8]> {
        (!self.is_deleted).then_some(&self.value)
    }

    /// Becomes this record.
    pub fn set(&mut self, record: &Record) {
        let (kind, name) = match record {
            Record::Accepted(name, _)
            | Record::Ended(name, _)
            | Record::Settled(name, _)
            | Record::Forgotten(name) => (TASK, name),
            Record::Dead(name, _) | Record::DeadForgotten(name) => (DEAD_LETTER, name),
        };
        self.key.clear();
        let id = name.task_id.as_bytes();
        self.key.extend([kind, id.len() as u8]);
        self.key.extend_from_slice(id);
        self.key.extend_from_slice(name.identity.as_str().as_bytes());

        self.value.clear();
        self.is_deleted = matches!(record, Record::Forgotten(_) | Record::DeadForgotten(_));
        let state = match record {
            Record::Accepted(_, task) => State::Accepted(AcceptedValue {
                payload: payload_value(&task.payload),
                received_wall_ms: task.received_wall_ms,
                start_wall_ms: task.start_wall_ms,
                deadline_wall_ms: task.deadline_wall_ms,
            }),
            Record::Ended(_, ended) => State::Ended(EndedValue {
                fingerprint: ended.fingerprint,
                deliver: self.frame(&ended.deliver, ended.body.clone()),
                ended_wall_ms: ended.ended_wall_ms,
            }),
            Record::Settled(_, settled) => State::Settled(SettledValue {
                fingerprint: settled.fingerprint,
                executed: settled.executed as u32,
                settled_wall_ms: settled.settled_wall_ms,
            }),
            Record::Dead(_, letter) => {
                let value = DeadValue {
                    payload: payload_value(&letter.payload),
                    deliver: self.frame(&letter.deliver, Bytes::new()),
                    ttl_ms: letter.ttl_ms,
                    attempts: letter.attempts,
                    died_wall_ms: letter.died_wall_ms,
                };
                return value.encode_raw(&mut self.value);
            }
            Record::Forgotten(_) | Record::DeadForgotten(_) => return,
        };
        TaskValue { state: Some(state) }.encode_raw(&mut self.value);
    }

    fn frame(&mut self, deliver: &Deliver, body: Bytes) -> Bytes {
        EncodedFrame::deliver(deliver, body, &mut self.arena).to_bytes().freeze()
    }
}

fn payload_value(payload: &Payload) -> PayloadValue {
    PayloadValue {
        task: Bytes::copy_from_slice(payload.task()),
        body: Bytes::copy_from_slice(payload.body()),
    }
}

/// What lies in the log under a key. The record has nothing of `value`, which may be a slice of more.
///
/// # Errors
/// When it is no record. Whatever the bytes are, that is all.
pub fn decode(key: &[u8], value: &Bytes) -> Result<Record, InvalidRecord> {
    let (kind, name) = decode_key(key)?;
    match kind {
        TASK => match TaskValue::decode(value.clone())?.state.ok_or(InvalidRecord::Unknown)? {
            State::Accepted(it) => {
                let task = AcceptedTask {
                    payload: decode_payload(it.payload, &name)?,
                    received_wall_ms: it.received_wall_ms,
                    start_wall_ms: it.start_wall_ms,
                    deadline_wall_ms: it.deadline_wall_ms,
                };
                Ok(Record::Accepted(name, task))
            }
            State::Ended(it) => {
                let EndedValue { fingerprint, deliver, ended_wall_ms } = it;
                let (deliver, body) = decode_deliver(&deliver, &name)?;
                Ok(Record::Ended(name, EndedTask { fingerprint, deliver, body, ended_wall_ms }))
            }
            State::Settled(it) => {
                let SettledValue { fingerprint, executed, settled_wall_ms } = it;
                let is_it = |known: &Executed| *known as u32 == executed;
                let executed = Executed::ALL.iter().copied().find(is_it);
                let executed = executed.unwrap_or(Executed::Maybe);
                Ok(Record::Settled(name, SettledTask { fingerprint, executed, settled_wall_ms }))
            }
        },
        DEAD_LETTER => {
            let it = DeadValue::decode(value.clone())?;
            let letter = DeadLetter {
                payload: decode_payload(it.payload, &name)?,
                deliver: decode_deliver(&it.deliver, &name)?.0,
                ttl_ms: it.ttl_ms,
                attempts: it.attempts,
                died_wall_ms: it.died_wall_ms,
            };
            Ok(Record::Dead(name, letter))
        }
        _ => Err(InvalidRecord::Unknown),
    }
}

fn decode_key(key: &[u8]) -> Result<(u8, TaskName), InvalidRecord> {
    let [kind, id_bytes, rest @ ..] = key else { return Err(InvalidRecord::Key) };
    let (id, identity) = rest.split_at_checked(usize::from(*id_bytes)).ok_or(InvalidRecord::Key)?;
    let id = str::from_utf8(id).ok().and_then(|id| TaskId::try_from(id).ok());
    let task_id = id.ok_or(InvalidRecord::Key)?;
    Ok((*kind, TaskName { identity: Identity::new(str::from_utf8(identity)?), task_id }))
}

fn decode_payload(it: PayloadValue, name: &TaskName) -> Result<Payload, InvalidRecord> {
    let (task_bytes, body_bytes) = (it.task.len(), it.body.len());
    if task_bytes > MAX_TASK_BYTES || body_bytes > MAX_BODY_BYTES {
        return Err(InvalidRecord::TooLong { task_bytes, body_bytes });
    }
    let body = Bytes::copy_from_slice(&it.body);
    let payload = Payload::new(&EncodedTask(it.task), body, &mut BytesMut::new());
    is_about(&payload.head()?.id, name)?;
    Ok(payload)
}

fn decode_deliver(frame: &[u8], name: &TaskName) -> Result<(Box<Deliver>, Bytes), InvalidRecord> {
    let mut frame = Bytes::copy_from_slice(frame);
    let incoming = FrameCodec::new(&Limits::default()).decode(&mut frame)?;
    let (deliver, body) = match incoming {
        Some(Incoming::Frame(Frame { message: Message::Deliver(it), body })) => (it, body),
        Some(Incoming::Invalid(invalid)) => return Err(invalid.into()),
        _ => return Err(InvalidRecord::NotDeliver),
    };
    if !frame.is_empty() {
        return Err(InvalidRecord::NotDeliver);
    }
    is_about(&deliver.task_id, name)?;
    Ok((deliver, body))
}

fn is_about(id: &TaskId, name: &TaskName) -> Result<(), InvalidRecord> {
    if *id == name.task_id {
        return Ok(());
    }
    Err(InvalidRecord::OtherTask { key: name.task_id.clone(), value: id.clone() })
}

#[cfg(test)]
pub(in crate::journal) mod tests;
