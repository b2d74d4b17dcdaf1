//! Messages about a running attempt: streamed results, progress, and slots given back.

use bytes::Bytes;
use bytestring::ByteString;

use super::field::{In, task_id};
use super::{Failure, MessageKind};
use crate::id::{AttemptId, TaskId};
use crate::wire::{Reader, WireError, Writer, part};

/// What a frame about a running attempt names: between a worker and the broker its attempt, between
/// the broker and a client its task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// Between worker and broker.
    Attempt(AttemptId),
    /// Between broker and client: the task, and the number of its attempt.
    Task(TaskId, u32),
}

/// Fields 1 to 3 of PROGRESS, CHUNK and CREDIT.
#[derive(Default)]
struct SubjectFields<'a> {
    attempt_id: u64,
    task_id: &'a [u8],
    attempt: u32,
}

impl SubjectFields<'_> {
    fn parse(self, kind: MessageKind) -> Result<Subject, Failure> {
        if self.attempt_id != 0 {
            return Ok(Subject::Attempt(AttemptId(self.attempt_id)));
        }
        Ok(Subject::Task(task_id(kind, self.task_id)?, self.attempt))
    }
}

impl Subject {
    fn write(&self, to: &mut Writer<'_>) {
        match self {
            Subject::Attempt(id) => to.fixed64(1, id.0),
            Subject::Task(id, attempt) => {
                to.bytes(2, id.as_bytes());
                to.uint(3, (*attempt).into());
            }
        }
    }
}

/// How far a handler is; also a sign of life of its attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// Of what.
    pub of: Subject,
    /// 0 to 1000; none when not told.
    pub permille: Option<u16>,
    /// For people.
    pub message: ByteString,
}

/// What `permille` says when all is done.
const ALL_PERMILLE: u64 = 1000;

impl Progress {
    pub(super) fn parse(frame: &Bytes, it: &[u8]) -> Result<Self, Failure> {
        let (mut of, mut permille, mut message) = (SubjectFields::default(), None, &[][..]);
        let mut fields = Reader(it);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => of.attempt_id = field.fixed64()?,
                2 => of.task_id = field.bytes()?,
                3 => of.attempt = field.uint()? as u32,
                4 => permille = Some(field.uint()?.min(ALL_PERMILLE) as u16),
                5 => message = field.bytes()?,
                _ => {}
            }
        }
        let at = In::new(MessageKind::Progress);
        Ok(Self {
            of: of.parse(MessageKind::Progress)?,
            permille,
            message: at.text("message", part(frame, message))?,
        })
    }

    pub(super) fn write(&self, to: &mut Writer<'_>) {
        self.of.write(to);
        if let Some(permille) = self.permille {
            to.present_uint(4, permille.into());
        }
        to.bytes(5, self.message.as_bytes());
    }
}

/// A part of a result, from a worker or to a client; or of an input, from a client or to a worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// Of what.
    pub of: Subject,
    /// From 0, in each attempt's result and in each input.
    pub seq: u32,
    /// To a client: chunks before this one are missing, and will not come. All before it, the missing
    /// ones included, count so many bytes; 0: the sender does not know.
    pub gap: Option<u64>,
    /// Of an input: no other follows.
    pub last: bool,
}

impl Chunk {
    /// One that follows the one before it, and is not the last.
    pub fn new(of: Subject, seq: u32) -> Self {
        Self { of, seq, gap: None, last: false }
    }

    pub(super) fn parse(it: &[u8]) -> Result<Self, Failure> {
        let (mut of, mut seq, mut last) = (SubjectFields::default(), 0, false);
        let (mut gap, mut before_bytes) = (false, 0);
        let mut fields = Reader(it);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => of.attempt_id = field.fixed64()?,
                2 => of.task_id = field.bytes()?,
                3 => of.attempt = field.uint()? as u32,
                4 => seq = field.uint()? as u32,
                5 => gap = field.uint()? != 0,
                6 => last = field.uint()? != 0,
                7 => before_bytes = field.uint()?,
                _ => {}
            }
        }
        let (of, gap) = (of.parse(MessageKind::Chunk)?, gap.then_some(before_bytes));
        Ok(Self { of, seq, gap, last })
    }

    pub(super) fn write(&self, to: &mut Writer<'_>) {
        self.of.write(to);
        to.uint(4, self.seq.into());
        to.uint(5, self.gap.is_some().into());
        to.uint(6, self.last.into());
        to.uint(7, self.gap.unwrap_or(0));
    }
}

/// What a receiver of chunks has done with them, and takes further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credit {
    /// Of what.
    pub of: Subject,
    /// All chunks before this one are done with.
    pub next_seq: u32,
    /// Bytes that may come in all, from the first chunk on.
    pub limit_bytes: u64,
}

impl Credit {
    pub(super) fn parse(it: &[u8]) -> Result<Self, Failure> {
        let (mut of, mut next_seq, mut limit_bytes) = (SubjectFields::default(), 0, 0);
        let mut fields = Reader(it);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => of.attempt_id = field.fixed64()?,
                2 => of.task_id = field.bytes()?,
                3 => of.attempt = field.uint()? as u32,
                4 => next_seq = field.uint()? as u32,
                5 => limit_bytes = field.uint()?,
                _ => {}
            }
        }
        Ok(Self { of: of.parse(MessageKind::Credit)?, next_seq, limit_bytes })
    }

    pub(super) fn write(&self, to: &mut Writer<'_>) {
        self.of.write(to);
        to.uint(4, self.next_seq.into());
        to.uint(5, self.limit_bytes);
    }
}

/// A client that came back asks for the chunks that it did not get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// Of which task.
    pub task_id: TaskId,
    /// The attempt of the latest chunk; 0 when none came.
    pub attempt: u32,
    /// The first chunk that did not come.
    pub next_seq: u32,
    /// As in [`Credit`].
    pub limit_bytes: u64,
}

impl Resume {
    pub(super) fn parse(it: &[u8]) -> Result<Self, Failure> {
        let (mut id, mut attempt, mut next_seq, mut limit_bytes) = (&[][..], 0, 0, 0);
        let mut fields = Reader(it);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => id = field.bytes()?,
                2 => attempt = field.uint()? as u32,
                3 => next_seq = field.uint()? as u32,
                4 => limit_bytes = field.uint()?,
                _ => {}
            }
        }
        let task_id = task_id(MessageKind::Resume, id)?;
        Ok(Self { task_id, attempt, next_seq, limit_bytes })
    }

    pub(super) fn write(&self, to: &mut Writer<'_>) {
        to.bytes(1, self.task_id.as_bytes());
        to.uint(2, self.attempt.into());
        to.uint(3, self.next_seq.into());
        to.uint(4, self.limit_bytes);
    }
}

/// A handler waits for tasks of its own, and gives its slot back meanwhile; or goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Park {
    /// Its attempt.
    pub attempt_id: AttemptId,
    /// Whether it waits now.
    pub parked: bool,
}

impl Park {
    pub(super) fn parse(it: &[u8]) -> Result<Self, WireError> {
        let (mut attempt_id, mut parked) = (0, false);
        let mut fields = Reader(it);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => attempt_id = field.fixed64()?,
                2 => parked = field.uint()? != 0,
                _ => {}
            }
        }
        Ok(Self { attempt_id: AttemptId(attempt_id), parked })
    }

    pub(super) fn write(&self, to: &mut Writer<'_>) {
        to.fixed64(1, self.attempt_id.0);
        to.uint(2, self.parked.into());
    }
}
