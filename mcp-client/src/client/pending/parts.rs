//! Tasks whose inputs or results go in parts.

use bytes::Bytes;
use mcp_proto::{ErrorCode, ErrorInfo, Outcome, Progress, Subject, TaskId};

use super::{Ended, Pending, local_end};
use crate::client::incoming::Incoming;
use crate::client::outgoing::Pushed;
use crate::connection::Outbox;

impl<W> Pending<W> {
    /// CHUNK.
    pub(in crate::client) fn chunk(
        &mut self,
        of: &Subject,
        seq: u32,
        gap: Option<u64>,
        body: Bytes,
        ended: &mut Vec<Ended<W>>,
    ) {
        if let Some((incoming, attempt)) = self.incoming(of)
            && let Some(delivered) = incoming.chunk(attempt, seq, gap, body)
        {
            self.complete(delivered, ended);
        }
    }

    /// PROGRESS.
    pub(in crate::client) fn progress(&self, progress: Progress) {
        if let Some((incoming, _)) = self.incoming(&progress.of) {
            incoming.progress(progress);
        }
    }

    fn incoming(&self, of: &Subject) -> Option<(&Incoming, u32)> {
        let Subject::Task(id, attempt) = of else { return None };
        Some((self.tasks.get(id)?.incoming.as_deref()?, *attempt))
    }

    /// CREDIT.
    pub(in crate::client) fn credit(
        &mut self,
        of: &Subject,
        next_seq: u32,
        limit_bytes: u64,
        mut out: impl Outbox,
    ) {
        let Subject::Task(id, _) = of else { return };
        if let Some(outgoing) = self.tasks.get_mut(id).and_then(|entry| entry.outgoing.as_mut()) {
            outgoing.credit(next_seq, limit_bytes, &mut out);
        }
    }

    /// More of a task's input: sends as much as it may, from the front of `part`.
    pub(in crate::client) fn push_input(
        &mut self,
        id: &TaskId,
        part: &mut Bytes,
        is_last: bool,
        mut out: impl Outbox,
    ) -> Pushed {
        match self.tasks.get_mut(id).and_then(|entry| entry.outgoing.as_mut()) {
            Some(_) if !self.is_connected => Pushed::NoCredit,
            Some(outgoing) => outgoing.push(part, is_last, &mut out),
            None => Pushed::Over,
        }
    }

    /// A task's input can't be had: the task is cancelled, and whoever waits is told why.
    pub(in crate::client) fn fail_input(
        &mut self,
        id: &TaskId,
        problem: &str,
        out: impl Outbox,
        ended: &mut Vec<Ended<W>>,
    ) {
        let Some(entry) = self.tasks.get_mut(id) else { return };
        let message = format!("its input could not be read: {problem}");
        let error = ErrorInfo::new(ErrorCode::Cancelled, message);
        let end = local_end(id.clone(), Outcome::Cancelled, entry.executed(), error);
        entry.resolve(end, ended);
        self.cancel(id, out, ended);
    }
}
