//! What clients ask for: SEND, CANCEL, FETCH.

use bytes::Bytes;
use mcp_proto::{
    ContextTrace, Deliver, Delivery, ErrorCode, ErrorInfo, Executed, InputLength, Message, Outcome,
    Payload, Send, TaskHead, TaskId, TaskState as Reported,
};

use super::admin;
use super::admission::{Admitted, Newcomer};
use super::fallback::Seeker;
use super::family::{BY_CLIENT, Kin};
use super::hash::fnv1a;
use super::identities::IdentityKey;
use super::inflight::{Extras, Name, Task, TaskKey, TaskState};
use super::queue::Tenant;
use super::sessions::SessionKey;
use super::streams::StreamKey;
use super::uploads::Upload;
use super::{ConnectionId, Core, Mono, Now, Output, shadow};

/// A SEND that is no duplicate, without what it says of the task.
struct Arrival {
    session: SessionKey,
    identity: IdentityKey,
    name_hash: u64,
    fingerprint: u64,
    payload: Payload,
    ttl_ms: u64,
    delay_ms: u64,
    stream_window_bytes: u32,
    input_follows: Option<InputLength>,
}

/// A task that was let in.
pub(super) struct Entering {
    pub(super) identity: IdentityKey,
    pub(super) name_hash: u64,
    pub(super) fingerprint: u64,
    pub(super) payload: Payload,
    pub(super) deadline: Mono,
    /// Its affinity key's hash; 0 without one.
    pub(super) affinity: u64,
    pub(super) admitted: Admitted,
    pub(super) is_shadow: bool,
    pub(super) is_durable: bool,
    /// Who waits for it.
    pub(super) session: Option<SessionKey>,
    pub(super) stream: Option<StreamKey>,
    pub(super) extras: Option<Box<Extras>>,
    pub(super) kin: Option<Box<Kin>>,
}

impl Core {
    pub(super) fn handle_send(
        &mut self,
        now: Now,
        from: ConnectionId,
        session: SessionKey,
        send: Send,
        body: Bytes,
    ) {
        let mut spec = match send.task.head() {
            Ok(spec) => spec,
            Err(invalid) => return self.handle_invalid(from, invalid),
        };
        if admin::is_builtin(spec.action) {
            return self.answer_builtin(now, session, spec, &body);
        }
        let Some(identity) = self.sessions.get(session).map(|session| session.identity) else {
            return;
        };
        let fingerprint = self.tasks.fingerprint(spec.action.as_str(), &body, send.input_follows);
        let name = self.tasks.name(identity, &spec.id);
        if self.is_duplicate(session, name, fingerprint, (spec.action.as_str(), &body)) {
            return;
        }
        let Send { ttl_ms, delay_ms, stream_window_bytes, input_follows, .. } = send;
        let payload = Payload::new(&send.task, body, &mut self.scratch);
        let name_hash = name.hash;
        let arrival = Arrival {
            session,
            identity,
            name_hash,
            fingerprint,
            payload,
            ttl_ms,
            delay_ms,
            stream_window_bytes,
            input_follows,
        };
        let is_shadow = spec.shadow || shadow::is_shadow(&spec.required_labels);
        match self.accept(now, &mut spec, arrival) {
            Ok(()) => {}
            Err(error) if is_shadow => {
                self.stats.count(Outcome::Rejected, true);
                self.tell_rejected(session, spec.id, error);
            }
            Err(error) => self.reject(session, spec.id, error),
        }
    }

    /// Answers a SEND of this action and input whose task id is known.
    fn is_duplicate(
        &mut self,
        session: SessionKey,
        name: Name<'_>,
        fingerprint: u64,
        asked: (&str, &[u8]),
    ) -> bool {
        let id = name.id;
        let known = match self.tasks.find(name) {
            Some(key) => self.tasks.get(key).map(|task| (task.fingerprint, Some(key))),
            None if self.answer_from_ledger(session, name, Some(asked)) => {
                self.stats.duplicates += 1;
                return true;
            }
            None => self
                .finished
                .find(name)
                .filter(|kept| !kept.is_refusal)
                .map(|kept| (kept.fingerprint, None)),
        };
        let Some((known, in_flight)) = known else { return false };
        self.stats.duplicates += 1;
        if known != fingerprint {
            self.reject_mismatch(session, id);
        } else if let Some(key) = in_flight {
            match self.join(session, key) {
                Ok(()) => self.stats.joined += 1,
                Err(error) => self.reject(session, id.clone(), error),
            }
        } else {
            self.deliver_again(session, name);
        }
        true
    }

    pub(super) fn reject_mismatch(&mut self, session: SessionKey, id: &TaskId) {
        let message = format!("task {id} was sent before with another action or body");
        let error = ErrorInfo::new(ErrorCode::DuplicateMismatch, message);
        self.reject(session, id.clone(), error);
    }

    /// Lets a session wait for a task that is in flight.
    pub(super) fn join(&mut self, session: SessionKey, key: TaskKey) -> Result<(), ErrorInfo> {
        let can_be_durable = self.can_be_durable();
        let Some(task) = self.tasks.get_mut(key) else { return Ok(()) };
        // A journal that can't be written may have been read from memory only.
        if task.is_on_disk
            && (can_be_durable || !task.is_restored())
            && let Some(to) = self.sessions.get(session).and_then(|session| session.connection)
        {
            let message = Message::Accepted(task.id.clone());
            self.outputs.push_back(Output::Send { to, message });
        }
        if task.waiters.contains(&session) {
            return Ok(());
        }
        // Sessions that ended make room.
        let sessions = &self.sessions;
        task.waiters.retain(|waiter| sessions.get(*waiter).is_some());
        if task.waiters.len() >= self.config.max_waiters {
            let message = format!("{} sessions wait for this task already", task.waiters.len());
            return Err(ErrorInfo::new(ErrorCode::LimitExceeded, message));
        }
        task.waiters.push(session);
        let has_kin = task.kin.is_some();
        if let Some(session) = self.sessions.get_mut(session) {
            session.tasks += 1;
        }
        if has_kin {
            self.tie(session, key);
        }
        Ok(())
    }

    /// Sends a kept outcome.
    pub(super) fn deliver_again(&mut self, session: SessionKey, name: Name<'_>) -> bool {
        let Some(kept) = self.finished.find(name) else { return false };
        let frame = kept.frame.clone();
        self.deliver(session, frame, None);
        true
    }

    /// Takes what it keeps out of `spec`, but for the id.
    fn accept(
        &mut self,
        now: Now,
        spec: &mut TaskHead<'_>,
        arrival: Arrival,
    ) -> Result<(), ErrorInfo> {
        let Arrival { session, identity, name_hash, fingerprint, payload, .. } = arrival;
        let Arrival { ttl_ms, delay_ms, .. } = arrival;
        self.check_task(session, spec)?;
        if self.is_shutting_down {
            let message = "the broker is shutting down; send the task again when it is back";
            return Err(ErrorInfo::new(ErrorCode::ShuttingDown, message).retry_after_ms(1_000));
        }
        let is_durable = spec.delivery == Delivery::Durable;
        if is_durable {
            self.room_for_durable(payload.len())?;
        }
        let max = self.config.limits.max_session_tasks;
        if self.sessions.get(session).is_some_and(|it| it.tasks >= max as usize) {
            let message = format!("this session has {max} tasks in flight, its limit");
            return Err(ErrorInfo::new(ErrorCode::LimitExceeded, message).retry_after_ms(100));
        }
        self.room_for_identity(identity, payload.len())?;
        let mut deadline = now.mono.plus_ms(ttl_ms);
        let mut kin = None;
        if let Some(extras) = &spec.extras {
            (kin, deadline) = self.kin_of(identity, extras, deadline)?;
        }
        let room_bytes = match arrival.input_follows {
            Some(length) => self.room_for_input(spec, length, payload.body().len())?,
            None => 0,
        };
        if spec.shadow || self.is_child_of_shadow(kin.as_deref()) {
            shadow::require(&mut spec.required_labels);
        }
        let is_shadow = shadow::is_shadow(&spec.required_labels);
        let affinity = affinity(spec.affinity_key);
        let newcomer = Newcomer {
            action: spec.action,
            is_shadow,
            required: &spec.required_labels,
            affinity,
            tenant: spec.tenant,
            sender: Some(session),
            priority: spec.priority,
            bytes: payload.len() + room_bytes,
            deadline,
            is_delayed: delay_ms > 0,
        };
        let (admitted, step) = match self.admit(now, &newcomer) {
            Ok(admitted) => (admitted, None),
            Err(mut error) => {
                let seeker = Seeker {
                    identity,
                    sender: Some(session),
                    fingerprint,
                    payload: payload.clone(),
                    required: std::mem::take(&mut spec.required_labels),
                    affinity,
                    deadline,
                    needs_place: is_durable,
                    upload_room_bytes: arrival.input_follows.map(|_| room_bytes),
                    can_run: true,
                };
                let step = match is_shadow {
                    true => None,
                    false => self.step_for_new(now, spec.action, &seeker, &mut error),
                };
                let Some(step) = step else {
                    let (now, outcome) = (now.mono, Outcome::Rejected);
                    self.measured.ended_at_once(now, spec.action, is_shadow, outcome);
                    return Err(error);
                };
                (self.enter_anyway(now, spec.action, spec.tenant), Some(step))
            }
        };

        // The result of a durable task comes whole: parts would be gone after a restart.
        let stream = (arrival.stream_window_bytes > 0 && !is_durable).then(|| {
            let name = Name { identity, id: &spec.id, hash: name_hash };
            let connection = self.sessions.get(session).and_then(|session| session.connection);
            self.streams.open(name, session, connection, arrival.stream_window_bytes)
        });
        let has_kin = kin.is_some();
        let mut extras =
            spec.extras.take().map(|asked| Box::new(Extras { asked: *asked, ..Extras::default() }));
        if let Some(length) = arrival.input_follows {
            let upload = Upload::new(session, length, payload.body().len(), room_bytes);
            extras.get_or_insert_default().upload = Some(Box::new(upload));
        }
        let entering = Entering {
            identity,
            name_hash,
            fingerprint,
            payload,
            deadline,
            affinity,
            admitted,
            is_shadow,
            is_durable,
            session: Some(session),
            stream,
            extras,
            kin,
        };
        let key = self.enter(now, spec, entering);
        if has_kin {
            self.link(key, session);
        }
        if is_durable {
            let ttl_ms = deadline.since(now.mono).div_ceil(1000);
            self.journal_accepted(now, key, ttl_ms, delay_ms);
        }
        if room_bytes > 0 {
            self.begin_upload(key, room_bytes);
        }
        match step {
            None => self.set_off(now, key, delay_ms),
            Some(step) => self.take_step(now, key, step),
        }
        Ok(())
    }

    /// Makes a task of what was let in. It is in no queue yet.
    #[inline]
    pub(super) fn enter(&mut self, now: Now, spec: &TaskHead<'_>, entering: Entering) -> TaskKey {
        let Entering { admitted, is_shadow, is_durable, session, mut extras, .. } = entering;
        let Admitted { pool, subqueue, tenant, arm } = admitted;
        if arm.is_some() {
            extras.get_or_insert_default().arm = arm;
        }
        self.trace(now, spec, entering.name_hash, &mut extras);
        if is_durable {
            self.durable_enters(entering.payload.len());
        }
        let task = Task {
            id: spec.id.clone(),
            identity: entering.identity,
            name_hash: entering.name_hash,
            fingerprint: entering.fingerprint,
            payload: entering.payload,
            priority: spec.priority,
            affinity: entering.affinity,
            tenant,
            sender: session.filter(|_| tenant == Tenant::NONE),
            is_idempotent: spec.idempotent,
            is_durable,
            is_on_disk: false,
            waiters: session.into_iter().collect(),
            pool,
            subqueue,
            received: now.mono,
            deadline: entering.deadline,
            timer: None,
            state: TaskState::Placing { since: now.mono },
            attempts: 0,
            nacks: 0,
            avoid: None,
            had_worker: false,
            hops: Vec::new(),
            stream: entering.stream,
            extras,
            kin: entering.kin,
        };
        self.identities.usage_mut(task.identity).begin(task.payload.len());
        let key = self.tasks.insert(task);
        if let Some(pool) = self.pools.get_mut(pool) {
            pool.tasks += 1;
            pool.subqueues[subqueue].tasks += 1;
            if !is_shadow {
                self.measured.taken(now.mono, pool.slot);
            }
        }
        if let Some(session) = session.and_then(|session| self.sessions.get_mut(session)) {
            session.tasks += 1;
        }
        if is_shadow {
            self.shadow.tasks += 1;
            self.stats.shadow.accepted += 1;
        } else {
            self.stats.accepted += 1;
        }
        key
    }

    /// Places a task that came, or lets it wait for its time.
    #[inline]
    pub(super) fn set_off(&mut self, now: Now, key: TaskKey, delay_ms: u64) {
        if delay_ms > 0 { self.delay(now, key, delay_ms) } else { self.place(now, key, false) }
    }

    /// Refuses a SEND. There is no task, and nothing to remember.
    pub(super) fn reject(&mut self, session: SessionKey, task_id: TaskId, error: ErrorInfo) {
        self.stats.count(Outcome::Rejected, false);
        self.measured.refused(error.code);
        self.tell_rejected(session, task_id, error);
    }

    /// The same, without counting it.
    fn tell_rejected(&mut self, session: SessionKey, task_id: TaskId, error: ErrorInfo) {
        let broker_id = self.config.broker_id.clone();
        let error = error.task(task_id.clone()).node(broker_id.clone());
        let deliver = Deliver {
            error: Some(Box::new(error)),
            trace: ContextTrace { broker_id: Some(broker_id), ..Default::default() }.into(),
            ..Deliver::new(task_id, Outcome::Rejected, Executed::No)
        };
        self.tell(session, &deliver, Bytes::new());
    }

    pub(super) fn handle_cancel(&mut self, now: Now, session: SessionKey, id: &TaskId) {
        let Some(identity) = self.sessions.get(session).map(|session| session.identity) else {
            return;
        };
        let Some(key) = self.tasks.find(self.tasks.name(identity, id)) else { return };
        let Some(task) = self.tasks.get_mut(key) else { return };
        if !task.waiters.contains(&session) {
            return;
        }
        if task.waiters.len() > 1 {
            self.leave_task(now, session, key);
            return self.cancel_if_unwatched(now, key);
        }
        self.cancel_task(now, key, BY_CLIENT);
    }

    /// One of several waiting sessions cancels: for it the task is over, for the others it goes on.
    fn leave_task(&mut self, now: Now, session: SessionKey, key: TaskKey) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        task.waiters.retain(|waiter| *waiter != session);
        let (hops, stream) = (task.hops.clone(), task.stream);
        if let Some(stream) = stream {
            self.leave_stream(session, stream);
        }
        let Some(task) = self.tasks.get(key) else { return };
        let mut deliver = self.outcome_of(now, task, BY_CLIENT.end(Executed::Maybe), hops);
        if let Some(error) = &mut deliver.error {
            error.message = "cancelled; other clients wait for it, so it goes on".into();
        }
        if let Some(session) = self.sessions.get_mut(session) {
            session.tasks -= 1;
        }
        self.tell(session, &deliver, Bytes::new());
    }

    pub(super) fn handle_fetch(&mut self, session: SessionKey, id: TaskId) {
        let Some((identity, to)) =
            self.sessions.get(session).and_then(|it| Some((it.identity, it.connection?)))
        else {
            return;
        };
        let name = self.tasks.name(identity, &id);
        let found = self.tasks.find(name);
        let state = match found {
            Some(key) => match self.join(session, key) {
                Ok(()) => match self.tasks.get(key).map(|task| &task.state) {
                    Some(TaskState::Running(_) | TaskState::Ending(_)) => Reported::Running,
                    Some(_) => Reported::Queued,
                    None => Reported::Unknown,
                },
                Err(error) => return self.reject(session, id, error),
            },
            None if self.answer_from_ledger(session, name, None) => return,
            None if self.deliver_again(session, name) => return,
            None => Reported::Unknown,
        };
        self.send(to, Message::Status(id, state));
        if let Some(key) = found {
            self.resume_input(key, session);
        }
    }
}

/// An affinity key's hash; 0 without one.
pub(super) fn affinity(key: &[u8]) -> u64 {
    if key.is_empty() { 0 } else { fnv1a(key, 0).max(1) }
}
