//! CHUNK, CREDIT, RESUME and PROGRESS: results in parts, from workers to those who read them.

use bytes::Bytes;
use mcp_proto::{
    CancelReason, Chunk, Credit, ErrorCode, ErrorInfo, Executed, HopEvent, Message, Outcome,
    Progress, Resume, Subject, TaskId,
};

use super::ending::End;
use super::inflight::{AttemptKey, TaskKey};
use super::registry::AgentKey;
use super::sessions::SessionKey;
use super::streams::{BadChunk, Stream, StreamKey, Taken, counted};
use super::{ConnectionId, Core, Now, Output};

/// PROGRESS of a task is forwarded at most so often, but for the first that says that all is done: a
/// person reads it.
const PROGRESS_INTERVAL_US: u64 = 50_000;

/// All is done.
const ALL_PERMILLE: u16 = 1000;

impl Core {
    pub(super) fn handle_chunk(
        &mut self,
        now: Now,
        from: ConnectionId,
        agent: AgentKey,
        chunk: Chunk,
        body: Bytes,
    ) {
        let Subject::Attempt(id) = chunk.of else {
            let message = "CHUNK: field attempt_id is missing: a worker names its attempt";
            self.send_error(from, ErrorInfo::new(ErrorCode::InvalidMessage, message));
            return;
        };
        let Some(key) = self.held_by(from, agent, id) else { return };
        self.attempt_lives(now, key);
        let Some(task) = self.attempts.get(key).and_then(|attempt| attempt.task) else { return };
        let stream = self.tasks.get(task).and_then(|task| task.stream);
        let Some(stream) = stream else {
            return self.refuse_chunk(now, task, key, BadChunk::OverLimit);
        };
        // Apart from the read buffer, of which it may be a small part.
        let body = Bytes::copy_from_slice(&body);
        match self.streams.take(stream, chunk.seq, body) {
            Ok(Taken::Again) => {}
            Ok(Taken::New) => {
                self.stats.chunks += 1;
                self.pass_on(stream, chunk.seq);
                self.streams.keep_to_bound(stream);
            }
            Err(bad) => self.refuse_chunk(now, task, key, bad),
        }
    }

    /// Sends a chunk that just came, if the reader has all before it.
    fn pass_on(&mut self, key: StreamKey, seq: u32) {
        let Some(stream) = self.streams.get(key) else { return };
        match stream.reader.map(|reader| self.sessions.get(reader).and_then(|it| it.connection)) {
            Some(Some(to)) if stream.sent_on == Some(to) => {
                if let Some((_, body)) = stream.kept_from(seq).next() {
                    let of = Subject::Task(stream.task_id().clone(), stream.attempt);
                    let (chunk, body) = (Box::new(Chunk::new(of, seq)), body.clone());
                    self.outputs.push_back(Output::Chunk { to, chunk, body });
                }
            }
            // It will ask.
            Some(_) => {}
            None => self.drop_unread(key),
        }
    }

    /// Nobody reads the stream any more: its worker shall not wait.
    fn drop_unread(&mut self, key: StreamKey) {
        self.streams.forget_before(key, u32::MAX);
        let Some(stream) = self.streams.get_mut(key) else { return };
        let next_seq = stream.next_seq;
        if stream.credit(next_seq, u64::MAX) {
            self.send_credit(key);
        }
    }

    fn refuse_chunk(&mut self, now: Now, task: TaskKey, attempt: AttemptKey, bad: BadChunk) {
        let (reason, message) = match bad {
            BadChunk::OutOfOrder => {
                ("its chunks left some out", "its worker left out a part of its result")
            }
            BadChunk::OverLimit => (
                "its chunks went over their credit",
                "its worker sent more of its result than there was credit for",
            ),
        };
        self.add_hop(now, task, attempt, HopEvent::Cancelled, reason);
        self.cancel_attempt(now, attempt, CancelReason::Superseded);
        if let (Some(attempt), Some(task)) = (self.attempts.get(attempt), self.tasks.get_mut(task))
            && task.goes_on_without(attempt, Executed::Yes)
        {
            return;
        }
        let error = ErrorInfo::new(ErrorCode::LimitExceeded, message);
        self.end(now, task, End::without_result(Outcome::Failed, Executed::Yes, error));
    }

    /// PROGRESS. Of an attempt that is over, or somebody else's, it is ignored.
    pub(super) fn handle_progress(&mut self, now: Now, agent: AgentKey, progress: Progress) {
        let Subject::Attempt(id) = progress.of else { return };
        let Some(key) = self.attempt_of(agent, id) else { return };
        self.attempt_lives(now, key);
        let Some(task) = self.attempts.get(key).and_then(|attempt| attempt.task) else { return };
        let stream = self.tasks.get(task).and_then(|task| task.stream);
        let Some(stream) = stream.and_then(|key| self.streams.get_mut(key)) else { return };
        let says_something = progress.permille.is_some() || !progress.message.is_empty();
        let is_all = progress.permille == Some(ALL_PERMILLE);
        let is_soon =
            stream.progress_at.is_some_and(|at| now.mono.since(at) < PROGRESS_INTERVAL_US);
        if !says_something || (is_soon && (!is_all || stream.is_all_told)) {
            return;
        }
        (stream.progress_at, stream.is_all_told) = (Some(now.mono), is_all);
        let of = Subject::Task(stream.task_id().clone(), stream.attempt);
        let reader = stream.reader.and_then(|reader| self.sessions.get(reader));
        if let Some(to) = reader.and_then(|reader| reader.connection) {
            self.send(to, Message::Progress(Progress { of, ..progress }));
        }
    }

    pub(super) fn handle_credit(
        &mut self,
        from: ConnectionId,
        session: SessionKey,
        credit: Credit,
    ) {
        let Subject::Task(id, attempt) = credit.of else {
            let message = "CREDIT: field task_id is missing: a client names its task";
            self.send_error(from, ErrorInfo::new(ErrorCode::InvalidMessage, message));
            return;
        };
        // Credit may come after the stream is over, or for an attempt that is.
        let Some(key) = self.stream_of(session, &id) else { return };
        let is_its = |it: &Stream| it.reader == Some(session) && it.attempt == attempt;
        if self.streams.get(key).is_some_and(is_its) {
            self.take_credit(key, credit.next_seq, credit.limit_bytes);
        }
    }

    fn stream_of(&self, session: SessionKey, id: &TaskId) -> Option<StreamKey> {
        let identity = self.sessions.get(session)?.identity;
        self.streams.find(self.tasks.name(identity, id))
    }

    fn take_credit(&mut self, key: StreamKey, next_seq: u32, limit_bytes: u64) {
        self.streams.forget_before(key, next_seq);
        let Some(stream) = self.streams.get_mut(key) else { return };
        if stream.credit(next_seq, limit_bytes) {
            self.send_credit(key);
        }
        self.streams.remove_if_over(key);
    }

    /// Tells the worker what is done with, and what may come.
    fn send_credit(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get(key) else { return };
        let (next_seq, limit_bytes) = (stream.done_seq, stream.limit_bytes);
        let Some(source) = stream.source else { return };
        let Some(attempt) = self.attempts.get(source) else { return };
        if let Some(to) = self.registry.get(attempt.agent).and_then(|agent| agent.connection) {
            let of = Subject::Attempt(self.attempt_ids.id(source));
            self.send(to, Message::Credit(Credit { of, next_seq, limit_bytes }));
        }
    }

    /// A worker is back on a new connection: credit that was sent on the one before may be lost.
    pub(super) fn send_credits(&mut self, agent: AgentKey) {
        if self.streams.len() == 0 {
            return;
        }
        let Some(agent) = self.registry.get(agent) else { return };
        let stream_of = |key: &AttemptKey| {
            let task = self.attempts.get(*key)?.task?;
            self.tasks.get(task)?.stream
        };
        let streams: Vec<_> = agent.attempts.iter().filter_map(stream_of).collect();
        for stream in streams {
            self.send_credit(stream);
        }
    }

    pub(super) fn handle_resume(&mut self, to: ConnectionId, session: SessionKey, resume: Resume) {
        let Resume { task_id, attempt, next_seq, limit_bytes } = resume;
        let Some(key) =
            self.stream_of(session, &task_id).filter(|key| self.may_read(session, *key))
        else {
            return self.send_gap(to, Subject::Task(task_id, attempt), next_seq, 0);
        };
        let Some(stream) = self.streams.get_mut(key) else { return };
        let is_sent_here = stream.reader == Some(session) && stream.sent_on == Some(to);
        stream.reader = Some(session);
        stream.sent_on = Some(to);
        if attempt == 0 {
            stream.set_window(limit_bytes);
        }
        // Of another attempt it takes a window, from its first chunk on.
        let (from, limit_bytes) = match attempt == stream.attempt {
            true => (next_seq, limit_bytes),
            false => (0, stream.window_bytes()),
        };
        if is_sent_here {
            return self.take_credit(key, from, limit_bytes);
        }
        let of = Subject::Task(task_id, stream.attempt);
        let mut gap = (stream.first_kept() > from).then(|| stream.forgotten_bytes());
        let (all, all_bytes) = (stream.next_seq, stream.received_bytes());
        let mut chunks = Vec::new();
        for (seq, body) in stream.kept_from(from) {
            // With a gap it would say that there are no more.
            if let Some(before_bytes) = &mut gap
                && body.is_empty()
            {
                *before_bytes += counted(body);
                continue;
            }
            let chunk = Box::new(Chunk { gap: gap.take(), ..Chunk::new(of.clone(), seq) });
            chunks.push(Output::Chunk { to, chunk, body: body.clone() });
        }
        self.outputs.extend(chunks);
        // None is left of those that it does not have.
        if gap.is_some() {
            self.send_gap(to, of, all, all_bytes);
        }
        self.take_credit(key, from, limit_bytes);
    }

    /// Says that there are no chunks before `seq`, which count so many bytes.
    fn send_gap(&mut self, to: ConnectionId, of: Subject, seq: u32, before_bytes: u64) {
        let chunk = Box::new(Chunk { gap: Some(before_bytes), ..Chunk::new(of, seq) });
        self.outputs.push_back(Output::Chunk { to, chunk, body: Bytes::new() });
    }

    /// Whether this session reads the stream, or may do so from now on.
    fn may_read(&self, session: SessionKey, key: StreamKey) -> bool {
        let Some(stream) = self.streams.get(key) else { return false };
        match stream.reader {
            Some(reader) if reader == session => true,
            Some(reader) => self.sessions.get(reader).is_none_or(|it| it.connection.is_none()),
            None => true,
        }
    }

    /// A session has ended: nobody reads its streams any more.
    pub(super) fn leave_streams(&mut self, session: SessionKey) {
        if self.streams.len() == 0 {
            return;
        }
        for key in self.streams.keys() {
            self.leave_stream(session, key);
        }
    }

    /// A session takes no more of a stream. If it was the reader, there is none any more.
    pub(super) fn leave_stream(&mut self, session: SessionKey, key: StreamKey) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        if stream.reader == Some(session) {
            stream.reader = None;
            self.drop_unread(key);
            self.streams.remove_if_over(key);
        }
    }
}
