//! Inputs in chunks, from clients to the workers that have their tasks: CHUNK and CREDIT the other way
//! round than of results.

use bytes::Bytes;
use mcp_proto::{
    AttemptId, CancelReason, Chunk, Credit, Delivery, ErrorCode, ErrorInfo, Executed, HopEvent,
    InputLength, Message, Outcome, Subject, TaskHead, TaskId,
};

use super::ending::End;
use super::inflight::{TaskKey, TaskState};
use super::registry::AgentKey;
use super::sessions::SessionKey;
use super::uploads::{BadInput, Next, Upload};
use super::{Core, Now, Output};

impl Core {
    /// The room for the chunks of a new task's input; or why it is not taken.
    pub(super) fn room_for_input(
        &self,
        spec: &TaskHead,
        length: InputLength,
        beginning_bytes: usize,
    ) -> Result<usize, ErrorInfo> {
        let max = self.config.limits.max_input_bytes;
        let refused = |code, message: String| Err(ErrorInfo::new(code, message));
        let has_come = beginning_bytes as u64;
        match length {
            _ if spec.delivery == Delivery::Durable => {
                let message = "the input of a durable task must fit one frame";
                refused(ErrorCode::Unsupported, message.into())
            }
            _ if max == 0 => {
                refused(ErrorCode::BodyTooLarge, "this broker takes no inputs in chunks".into())
            }
            InputLength::Bytes(bytes) if bytes > max => {
                let message = format!("the input has {bytes} bytes; at most {max} are allowed");
                refused(ErrorCode::BodyTooLarge, message)
            }
            InputLength::Bytes(bytes) if bytes < has_come => {
                refused(ErrorCode::InvalidTask, not_as_said())
            }
            InputLength::Bytes(_) | InputLength::Unknown => {
                self.uploads.room_for_another().ok_or_else(|| {
                    let bytes = self.uploads.set_aside_bytes();
                    let message = format!(
                        "{bytes} bytes are set aside for inputs on their way, the broker's limit"
                    );
                    ErrorInfo::new(ErrorCode::QueueFull, message).retry_after_ms(1_000)
                })
            }
        }
    }

    fn upload(&mut self, key: TaskKey) -> Option<&mut Upload> {
        self.tasks.get_mut(key)?.extras.as_mut()?.upload.as_deref_mut()
    }

    /// A task was taken whose input follows in chunks.
    pub(super) fn begin_upload(&mut self, key: TaskKey, room_bytes: usize) {
        self.uploads.begin(key, room_bytes);
        self.extend_input(key);
    }

    /// CHUNK from a client. Of a task that is over, or that another session sent, it is ignored.
    pub(super) fn handle_input(
        &mut self,
        now: Now,
        session: SessionKey,
        id: &TaskId,
        (seq, is_last): (u32, bool),
        body: Bytes,
    ) {
        let Some(identity) = self.sessions.get(session).map(|session| session.identity) else {
            return;
        };
        let Some(key) = self.tasks.find(self.tasks.name(identity, id)) else { return };
        let max = self.config.limits.max_input_bytes;
        let Some(upload) = self.upload(key).filter(|upload| upload.sender == session) else {
            return;
        };
        // Apart from the read buffer, of which it may be a small part.
        let body = Bytes::copy_from_slice(&body);
        match upload.take(seq, is_last, body, max) {
            Ok(false) => return,
            Ok(true) => {}
            Err(bad) => return self.refuse_input(now, key, bad, max),
        }
        self.stats.input_chunks += 1;
        if let Some(TaskState::Running(attempt)) = self.tasks.get(key).map(|task| &task.state) {
            let attempt = *attempt;
            self.attempt_lives(now, attempt);
            self.send_input(key);
        }
        if is_last {
            self.uploads.close(key);
            self.shrink_input(key);
        } else {
            self.extend_input(key);
        }
    }

    fn refuse_input(&mut self, now: Now, key: TaskKey, bad: BadInput, max: u64) {
        let (code, message) = match bad {
            BadInput::OutOfOrder => {
                (ErrorCode::LimitExceeded, "its client left out a part of its input".into())
            }
            BadInput::OverCredit => {
                let message = "its client sent more of its input than there was credit for";
                (ErrorCode::LimitExceeded, message.into())
            }
            BadInput::TooLong => {
                let message = format!("its input has more than {max} bytes, the broker's limit");
                (ErrorCode::BodyTooLarge, message)
            }
            BadInput::NotAsSaid => (ErrorCode::InvalidTask, not_as_said()),
        };
        self.give_up_input(now, key, Outcome::Rejected, ErrorInfo::new(code, message));
    }

    /// No more of a task's input is coming: it ends, and so does its attempt. What would be rejected
    /// has failed once a worker has it.
    fn give_up_input(&mut self, now: Now, key: TaskKey, outcome: Outcome, error: ErrorInfo) {
        let (outcome, executed) = match self.tasks.get(key).map(|task| &task.state) {
            Some(TaskState::Running(_)) => {
                let why = "its input did not come as it should";
                self.end_attempts(now, key, HopEvent::Cancelled, why, CancelReason::Superseded);
                let outcome = match outcome {
                    Outcome::Rejected => Outcome::Failed,
                    outcome => outcome,
                };
                (outcome, Executed::Maybe)
            }
            Some(_) => (outcome, self.executed_so_far(key)),
            None => return,
        };
        self.end(now, key, End::without_result(outcome, executed, error));
    }

    /// A session has ended: the inputs that it did not send to their end will never be whole.
    pub(super) fn leave_uploads(&mut self, now: Now, session: SessionKey) {
        let open = self.uploads.open().to_vec();
        for key in open {
            if self.upload(key).is_some_and(|upload| upload.sender == session) {
                let message = "its client is gone and had not sent all of its input";
                let error = ErrorInfo::new(ErrorCode::Cancelled, message);
                self.give_up_input(now, key, Outcome::Cancelled, error);
            }
        }
    }

    /// A new attempt's ROUTE is sent: its input follows.
    pub(super) fn begin_input(&mut self, key: TaskKey) {
        if let Some(upload) = self.upload(key) {
            upload.begin();
            self.send_input(key);
        }
    }

    /// Sends a task's worker what it takes of the input.
    fn send_input(&mut self, key: TaskKey) {
        let Some(TaskState::Running(attempt)) = self.tasks.get(key).map(|task| &task.state) else {
            return;
        };
        let id = self.attempt_ids.id(*attempt);
        let agent = self.attempts.get(*attempt).and_then(|it| self.registry.get(it.agent));
        let Some(to) = agent.and_then(|agent| agent.connection) else { return };
        while let Some(Next { seq, body, is_last }) = self.upload(key).and_then(Upload::next) {
            let chunk = Chunk { last: is_last, ..Chunk::new(Subject::Attempt(id), seq) };
            let chunk = Box::new(chunk);
            self.outputs.push_back(Output::Chunk { to, chunk, body });
        }
    }

    /// CREDIT from a worker. Of an attempt that is over, or somebody else's, it is ignored.
    pub(super) fn handle_input_credit(
        &mut self,
        now: Now,
        agent: AgentKey,
        id: AttemptId,
        next_seq: u32,
        limit_bytes: u64,
    ) {
        let Some(attempt) = self.attempt_of(agent, id) else { return };
        self.attempt_lives(now, attempt);
        let Some(key) = self.attempts.get(attempt).and_then(|attempt| attempt.task) else { return };
        let Some(upload) = self.upload(key) else { return };
        upload.credit(next_seq, limit_bytes);
        if upload.is_complete {
            self.shrink_input(key);
        } else {
            let has_bytes = upload.room_bytes();
            let more_bytes = self.uploads.widen(has_bytes);
            if let Some(upload) = self.upload(key) {
                upload.widen(more_bytes);
            }
            self.extend_input(key);
        }
        self.send_input(key);
    }

    /// Gives the client credit, as far as there is room and that is worth a frame.
    fn extend_input(&mut self, key: TaskKey) {
        if self.upload(key).is_some_and(Upload::extend) {
            self.send_input_credit(key);
        }
    }

    /// Gives back the room that a complete input does not need.
    fn shrink_input(&mut self, key: TaskKey) {
        let Some(spare) = self.upload(key).map(Upload::shrink) else { return };
        self.uploads.give_back(spare);
        self.waiting_shrinks(key, spare);
    }

    /// Tells the client what the broker has of the input, and what may come.
    fn send_input_credit(&mut self, key: TaskKey) {
        let Some(task) = self.tasks.get(key) else { return };
        let upload = task.extras.as_ref().and_then(|extras| extras.upload.as_ref());
        let Some(upload) = upload else { return };
        let (next_seq, limit_bytes) = (upload.next_seq, upload.limit_bytes);
        if let Some(to) = self.sessions.get(upload.sender).and_then(|sender| sender.connection) {
            let of = Subject::Task(task.id.clone(), 0);
            self.send(to, Message::Credit(Credit { of, next_seq, limit_bytes }));
        }
    }

    /// A client that came back is told where to go on with a task's input, if it sends that.
    pub(super) fn resume_input(&mut self, key: TaskKey, session: SessionKey) {
        if self.upload(key).is_some_and(|upload| upload.sender == session) {
            self.send_input_credit(key);
        }
    }

    /// A worker is back on a new connection: chunks that were sent on the one before may be lost.
    pub(super) fn resend_inputs(&mut self, agent: AgentKey) {
        if self.uploads.is_empty() {
            return;
        }
        let Some(agent) = self.registry.get(agent) else { return };
        let task_of = |key| self.attempts.get(key).and_then(|attempt| attempt.task);
        let tasks: Vec<_> = agent.attempts.iter().copied().filter_map(task_of).collect();
        for key in tasks {
            if let Some(upload) = self.upload(key) {
                upload.rewind();
                self.send_input(key);
            }
        }
    }
}

fn not_as_said() -> String {
    "its input is not as long as its input_bytes says".to_owned()
}
