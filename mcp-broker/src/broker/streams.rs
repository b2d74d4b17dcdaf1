//! Results on their way in parts: what is kept of each, and how much more may come.
//!
//! ```text
//!                    seq:  0 … done … first kept … sent … next
//!   done with by the reader ──┘          │           │      └── expected from the worker
//!                    forgotten for want of room ─┘   └── sent on the reader's connection
//! ```
//!
//! A worker may send as much as its client's credit allows, and no more than a window beyond what is
//! kept here. So what is kept of a stream never exceeds a window, and it has all that a reader that
//! comes back may ask for, unless the room of all streams together ran out.

use std::collections::VecDeque;

use bytes::Bytes;
use hashbrown::HashTable;
use mcp_proto::TaskId;
use mcp_proto::limits::{CHUNK_OVERHEAD_BYTES, MAX_STREAM_WINDOW_BYTES};

use super::digest::Digest;
use super::identities::IdentityKey;
use super::inflight::{AttemptKey, Name};
use super::output::ConnectionId;
use super::sessions::SessionKey;
use super::slab::{Key, Slab};
use super::time::Mono;

pub(super) type StreamKey = Key<Stream>;

/// The result of one task in parts.
#[derive(Debug)]
pub(super) struct Stream {
    identity: IdentityKey,
    task_id: TaskId,
    name_hash: u64,
    /// Who gets the chunks. None once it is gone: then they are dropped.
    pub(super) reader: Option<SessionKey>,
    /// The reader's connection on which all before `sent_seq` was sent; none until it has asked on a
    /// new one.
    pub(super) sent_on: Option<ConnectionId>,
    /// The number of the attempt whose chunks these are; 0 before the first.
    pub(super) attempt: u32,
    /// The attempt while it runs.
    pub(super) source: Option<AttemptKey>,
    /// Whether its task has ended.
    has_ended: bool,
    /// What the client takes of a new attempt before it gives credit.
    window_bytes: u32,
    pub(super) next_seq: u32,
    pub(super) done_seq: u32,
    /// What came of this attempt.
    received_bytes: u64,
    /// What may come of this attempt.
    pub(super) limit_bytes: u64,
    /// The chunks before `next_seq`, as far back as they are kept.
    kept: VecDeque<Bytes>,
    kept_bytes: u64,
    /// When PROGRESS was forwarded last.
    pub(super) progress_at: Option<Mono>,
    /// Whether that said that all is done.
    pub(super) is_all_told: bool,
    /// Of all that came of this attempt, when its result will be compared.
    digest: Option<Box<Digest>>,
}

/// What is wrong with a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadChunk {
    /// Some before it are missing.
    OutOfOrder,
    /// It is more than the credit allows.
    OverLimit,
}

/// What became of a chunk.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is here already.
    Again,
    /// It is to be sent on, now if the reader has all before it.
    New,
}

/// What a chunk counts.
pub(super) fn counted(chunk: &Bytes) -> u64 {
    chunk.len() as u64 + CHUNK_OVERHEAD_BYTES
}

impl Stream {
    pub(super) fn task_id(&self) -> &TaskId {
        &self.task_id
    }

    /// What a reader takes before it gives credit.
    pub(super) fn window_bytes(&self) -> u64 {
        self.window_bytes.into()
    }

    /// A reader that has seen no chunk says what it takes before it gives credit.
    pub(super) fn set_window(&mut self, bytes: u64) {
        self.window_bytes = bytes.min(MAX_STREAM_WINDOW_BYTES.into()) as u32;
    }

    /// The first chunk that is kept.
    pub(super) fn first_kept(&self) -> u32 {
        self.next_seq - self.kept.len() as u32
    }

    /// What came of this attempt, in bytes.
    pub(super) fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// What came of it before the first chunk that is kept.
    pub(super) fn forgotten_bytes(&self) -> u64 {
        self.received_bytes - self.kept_bytes
    }

    /// The kept chunks from `seq` on, or from the first after it, with their numbers.
    pub(super) fn kept_from(&self, seq: u32) -> impl Iterator<Item = (u32, &Bytes)> {
        let first = self.first_kept();
        let skip = seq.saturating_sub(first) as usize;
        (first..).zip(&self.kept).skip(skip)
    }

    fn take(&mut self, seq: u32, body: Bytes) -> Result<Taken, BadChunk> {
        if seq < self.next_seq {
            return Ok(Taken::Again);
        }
        let received = self.received_bytes + counted(&body);
        if seq > self.next_seq || seq == u32::MAX {
            return Err(BadChunk::OutOfOrder);
        }
        if received > self.limit_bytes {
            return Err(BadChunk::OverLimit);
        }
        self.received_bytes = received;
        self.next_seq += 1;
        self.kept_bytes += counted(&body);
        if let Some(digest) = &mut self.digest {
            digest.add(&body);
        }
        self.kept.push_back(body);
        Ok(Taken::New)
    }

    fn forget_before(&mut self, seq: u32) {
        while self.first_kept() < seq
            && let Some(chunk) = self.kept.pop_front()
        {
            self.kept_bytes -= counted(&chunk);
        }
    }

    /// Takes what the reader says, and returns whether the worker is to be told.
    pub(super) fn credit(&mut self, next_seq: u32, limit_bytes: u64) -> bool {
        self.done_seq = self.done_seq.max(next_seq.min(self.next_seq));
        let most = self.received_bytes + u64::from(MAX_STREAM_WINDOW_BYTES)
            - self.kept_bytes.min(MAX_STREAM_WINDOW_BYTES.into());
        let limit = limit_bytes.min(most);
        let grows = limit > self.limit_bytes;
        self.limit_bytes = self.limit_bytes.max(limit);
        grows
    }

    fn is_over(&self) -> bool {
        self.has_ended && (self.reader.is_none() || self.done_seq == self.next_seq)
    }
}

/// All streams, by key and by their tasks' names.
#[derive(Debug)]
pub(super) struct Streams {
    slab: Slab<Stream>,
    names: HashTable<StreamKey>,
    /// Those whose tasks have ended, oldest first; some may be gone.
    ended: VecDeque<StreamKey>,
    kept_bytes: u64,
    max_kept_bytes: u64,
    max_ended: usize,
}

impl Streams {
    pub(super) fn new(max_kept_bytes: usize, max_ended: usize) -> Self {
        Self {
            slab: Slab::default(),
            names: HashTable::new(),
            ended: VecDeque::new(),
            kept_bytes: 0,
            max_kept_bytes: max_kept_bytes as u64,
            max_ended,
        }
    }

    /// Other bounds, for what is kept from now on.
    pub(super) fn set_bounds(&mut self, max_kept_bytes: usize, max_ended: usize) {
        (self.max_kept_bytes, self.max_ended) = (max_kept_bytes as u64, max_ended);
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(super) fn kept_bytes(&self) -> u64 {
        self.kept_bytes
    }

    /// A stream of a new task, read by this session on its connection.
    pub(super) fn open(
        &mut self,
        name: Name<'_>,
        reader: SessionKey,
        connection: Option<ConnectionId>,
        window_bytes: u32,
    ) -> StreamKey {
        // Of an earlier task with this id.
        if let Some(old) = self.find(name) {
            self.remove(old);
        }
        let stream = Stream {
            identity: name.identity,
            task_id: name.id.clone(),
            name_hash: name.hash,
            reader: Some(reader),
            sent_on: connection,
            attempt: 0,
            source: None,
            has_ended: false,
            window_bytes: window_bytes.min(MAX_STREAM_WINDOW_BYTES),
            next_seq: 0,
            done_seq: 0,
            received_bytes: 0,
            limit_bytes: 0,
            kept: VecDeque::new(),
            kept_bytes: 0,
            progress_at: None,
            is_all_told: false,
            digest: None,
        };
        let key = self.slab.insert(stream);
        let slab = &self.slab;
        let hash = |key: &StreamKey| slab.get(*key).map_or(0, |stream| stream.name_hash);
        self.names.insert_unique(name.hash, key, hash);
        key
    }

    pub(super) fn find(&self, name: Name<'_>) -> Option<StreamKey> {
        let is_it = |key: &StreamKey| {
            let stream = self.slab.get(*key);
            stream.is_some_and(|it| it.identity == name.identity && it.task_id == *name.id)
        };
        self.names.find(name.hash, is_it).copied()
    }

    /// How many chunks a task's result has so far, and of which attempt.
    pub(super) fn chunks(&self, key: Option<StreamKey>) -> (u32, u32) {
        let stream = key.and_then(|key| self.slab.get(key));
        stream.map_or((0, 0), |stream| (stream.next_seq, stream.attempt))
    }

    pub(super) fn get(&self, key: StreamKey) -> Option<&Stream> {
        self.slab.get(key)
    }

    pub(super) fn get_mut(&mut self, key: StreamKey) -> Option<&mut Stream> {
        self.slab.get_mut(key)
    }

    pub(super) fn keys(&self) -> Vec<StreamKey> {
        self.slab.keys()
    }

    /// Another attempt begins: what came of those before it is void. Returns what it may send before
    /// there is credit.
    pub(super) fn begin(&mut self, key: StreamKey, attempt: u32, source: AttemptKey) -> u32 {
        let Some(stream) = self.slab.get_mut(key) else { return 0 };
        self.kept_bytes -= stream.kept_bytes;
        stream.kept.clear();
        stream.kept_bytes = 0;
        (stream.attempt, stream.source) = (attempt, Some(source));
        (stream.next_seq, stream.done_seq, stream.received_bytes) = (0, 0, 0);
        // When nobody reads, nobody gives credit either.
        let window_bytes =
            if stream.reader.is_some() { stream.window_bytes } else { MAX_STREAM_WINDOW_BYTES };
        stream.limit_bytes = window_bytes.into();
        stream.is_all_told = false;
        if let Some(digest) = &mut stream.digest {
            **digest = Digest::new();
        }
        window_bytes
    }

    /// A stream of which nothing has come yet: its result will be compared.
    pub(super) fn begin_digest(&mut self, key: StreamKey) {
        if let Some(stream) = self.slab.get_mut(key) {
            stream.digest = Some(Box::new(Digest::new()));
        }
    }

    /// All that came of a result in parts that will be compared.
    pub(super) fn digest(&self, key: StreamKey) -> Option<&Digest> {
        self.slab.get(key)?.digest.as_deref()
    }

    /// The result is of no attempt: what came of those before it is void, as if this one had begun.
    pub(super) fn void(&mut self, key: StreamKey, attempt: u32) {
        let Some(stream) = self.slab.get_mut(key).filter(|stream| stream.next_seq > 0) else {
            return;
        };
        self.kept_bytes -= stream.kept_bytes;
        stream.kept.clear();
        stream.kept_bytes = 0;
        (stream.attempt, stream.source) = (attempt, None);
        (stream.next_seq, stream.done_seq, stream.received_bytes) = (0, 0, 0);
    }

    /// Keeps a chunk, and forgets others when there is no room for it.
    pub(super) fn take(
        &mut self,
        key: StreamKey,
        seq: u32,
        body: Bytes,
    ) -> Result<Taken, BadChunk> {
        let Some(stream) = self.slab.get_mut(key) else { return Ok(Taken::Again) };
        let before = stream.kept_bytes;
        let taken = stream.take(seq, body)?;
        self.kept_bytes += stream.kept_bytes - before;
        Ok(taken)
    }

    /// Forgets as many as are over the bound: first those of tasks that have ended, then of this
    /// stream. What was sent already is lost only to a reader whose connection breaks.
    pub(super) fn keep_to_bound(&mut self, key: StreamKey) {
        while self.kept_bytes > self.max_kept_bytes {
            let oldest = match self.ended.pop_front() {
                Some(oldest) => oldest,
                None => return self.forget_before(key, u32::MAX),
            };
            self.remove(oldest);
        }
    }

    /// The reader is done with the chunks before `seq`, or they can't be kept.
    pub(super) fn forget_before(&mut self, key: StreamKey, seq: u32) {
        let Some(stream) = self.slab.get_mut(key) else { return };
        let before = stream.kept_bytes;
        stream.forget_before(seq);
        self.kept_bytes -= before - stream.kept_bytes;
    }

    /// Its task has ended. It stays until the reader is done with it.
    pub(super) fn end(&mut self, key: StreamKey) {
        let Some(stream) = self.slab.get_mut(key) else { return };
        stream.has_ended = true;
        stream.source = None;
        if stream.is_over() {
            return self.remove(key);
        }
        self.ended.push_back(key);
        while self.ended.len() > self.max_ended
            && let Some(oldest) = self.ended.pop_front()
        {
            self.remove(oldest);
        }
    }

    /// Removes a stream that nobody needs any more.
    pub(super) fn remove_if_over(&mut self, key: StreamKey) {
        if self.slab.get(key).is_some_and(Stream::is_over) {
            self.remove(key);
        }
    }

    fn remove(&mut self, key: StreamKey) {
        let Some(stream) = self.slab.remove(key) else { return };
        self.kept_bytes -= stream.kept_bytes;
        if let Ok(entry) = self.names.find_entry(stream.name_hash, |other| *other == key) {
            entry.remove();
        }
    }
}
