//! Which step of a chain can take a task.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use mcp_proto::{
    ActionName, ActionRef, Cause, ErrorCode, ErrorInfo, Labels, Payload, ResultHeaders,
};

use super::answers::Question;
use super::{CachedBy, FallbackStep};
use crate::broker::admission::{Admitted, Newcomer};
use crate::broker::identities::IdentityKey;
use crate::broker::rules::ActionRules;
use crate::broker::sessions::SessionKey;
use crate::broker::{Core, Mono, Now};

/// A task that looks for a step.
pub(in crate::broker) struct Seeker {
    pub(in crate::broker) identity: IdentityKey,
    pub(in crate::broker) sender: Option<SessionKey>,
    pub(in crate::broker) fingerprint: u64,
    pub(in crate::broker) payload: Payload,
    /// By itself, without those of an arm.
    pub(in crate::broker) required: Labels,
    pub(in crate::broker) affinity: u64,
    pub(in crate::broker) deadline: Mono,
    /// It is new, and what answers it has to be journalled first.
    pub(in crate::broker) needs_place: bool,
    /// Whether its body is only the beginning of its input, and what is set aside for the rest.
    pub(in crate::broker) upload_room_bytes: Option<usize>,
    /// Whether a worker may still have it: its deadline has not come, its input is whole.
    pub(in crate::broker) can_run: bool,
}

/// A step that can take a task.
pub(in crate::broker) struct Found {
    pub(super) rules: Arc<ActionRules>,
    pub(super) index: usize,
    pub(super) does: Does,
}

pub(super) enum Does {
    Answer { content_type: ByteString, headers: ResultHeaders, body: Bytes },
    Place { at: Admitted, payload: Payload },
}

impl Core {
    /// A step for a new task that is refused, if this is a refusal that its chain helps against.
    pub(in crate::broker) fn step_for_new(
        &mut self,
        now: Now,
        action: ActionRef<'_>,
        seeker: &Seeker,
        error: &mut ErrorInfo,
    ) -> Option<Found> {
        if !is_want_of_worker(error.code) {
            return None;
        }
        let rules = self.rules(action.as_str());
        self.step_for(now, action.as_str(), seeker, &rules, 0, &mut error.causes)
    }

    /// The first step from this one on that can take a task. `refusals` gets what actions had against
    /// it.
    pub(super) fn step_for(
        &mut self,
        now: Now,
        action: &str,
        seeker: &Seeker,
        rules: &Arc<ActionRules>,
        from: usize,
        refusals: &mut Vec<Cause>,
    ) -> Option<Found> {
        // What is answered at once takes no place.
        let has_place = !seeker.needs_place || self.tasks.len() < self.config.max_tasks;
        for (index, step) in rules.fallback.iter().enumerate().skip(from) {
            let does = match step {
                FallbackStep::Cached { max_age_ms, by } if has_place => {
                    self.cached(now, action, seeker, *by, *max_age_ms)
                }
                FallbackStep::Default { body, content_type } if has_place => Some(Does::Answer {
                    content_type: ByteString::from(&**content_type),
                    headers: None,
                    body: Bytes::copy_from_slice(body.as_bytes()),
                }),
                FallbackStep::Action(other) if seeker.can_run && other.as_str() != action => {
                    match self.place_at(now, other, seeker) {
                        Ok(does) => Some(does),
                        Err(ErrorInfo { code, message, .. }) => {
                            let message = format!("fallback {other}: {message}");
                            refusals.push(Cause { code, message, node_id: None });
                            None
                        }
                    }
                }
                FallbackStep::Cached { .. }
                | FallbackStep::Default { .. }
                | FallbackStep::Action(_) => None,
            };
            if let Some(does) = does {
                return Some(Found { rules: rules.clone(), index, does });
            }
        }
        None
    }

    fn cached(
        &self,
        now: Now,
        action: &str,
        seeker: &Seeker,
        by: CachedBy,
        max_age_ms: u64,
    ) -> Option<Does> {
        let head = seeker.payload.head().ok()?;
        let question = Question {
            identity: seeker.identity,
            action,
            tenant: head.tenant,
            affinity_key: head.affinity_key,
            fingerprint: seeker.upload_room_bytes.is_none().then_some(seeker.fingerprint),
        };
        let key = self.answers.key(question, by)?;
        let answer = self.answers.find(key, now.mono, max_age_ms)?;
        Some(Does::Answer {
            content_type: answer.content_type.clone(),
            headers: answer.headers.clone(),
            body: answer.body.clone(),
        })
    }

    /// A place with the workers of another action, or in its queue.
    fn place_at(
        &mut self,
        now: Now,
        action: &ActionName,
        seeker: &Seeker,
    ) -> Result<Does, ErrorInfo> {
        // No pool is made for an action that has none.
        let pool = self.pool_names.get(action).and_then(|key| self.pools.get_mut(*key));
        let has_worker = pool.is_some_and(|pool| {
            let subqueue = pool.subqueue(&seeker.required, None);
            subqueue.is_some_and(|subqueue| pool.has_worker(subqueue))
        });
        if !has_worker {
            let message = "no worker with its labels takes tasks now";
            return Err(ErrorInfo::new(ErrorCode::NoWorker, message));
        }
        let Some(payload) = seeker.payload.with_action(action.into(), &mut self.scratch) else {
            let message = "the task would be too long with that action's name";
            return Err(ErrorInfo::new(ErrorCode::InvalidTask, message));
        };
        let head = payload.head();
        let head =
            head.map_err(|invalid| ErrorInfo::new(ErrorCode::InvalidTask, invalid.to_string()))?;
        let newcomer = Newcomer {
            action: action.into(),
            is_shadow: false,
            required: &seeker.required,
            affinity: seeker.affinity,
            tenant: head.tenant,
            sender: seeker.sender,
            priority: head.priority,
            bytes: payload.len() + seeker.upload_room_bytes.unwrap_or(0),
            deadline: seeker.deadline,
            is_delayed: false,
        };
        let at = self.admit(now, &newcomer)?;
        Ok(Does::Place { at, payload })
    }
}

/// Whether a task that is refused so is one that found no worker, or no room to wait for one. Other
/// refusals are the task's or its client's own.
pub(in crate::broker) fn is_want_of_worker(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::NoWorker
            | ErrorCode::AllBusy
            | ErrorCode::AllUnhealthy
            | ErrorCode::QueueFull
            | ErrorCode::Overloaded
            | ErrorCode::Degraded
    )
}
