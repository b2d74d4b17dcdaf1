//! What operators ask of dead letters, and how they have one done again, or drop it.

mod view;

use mcp_proto::limits::MAX_TTL_MS;
use mcp_proto::{ErrorCode, ErrorInfo, TaskId, TraceId};
use serde::{Deserialize, Serialize};

use super::{Named, ambiguous, json, limit, list};
use crate::broker::durable::KeptLetter as Kept;
use crate::broker::permissions::Scope;
use crate::broker::sessions::SessionKey;
use crate::broker::{Core, Event, Now};

/// Dead letters that one list looks at, as of tasks.
const LOOKED_AT: usize = 10_000;

/// Which dead letters to list: those that are all of what is given.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Filter {
    action: Option<String>,
    /// Older than the one of this number.
    before: Option<u64>,
    limit: Option<usize>,
}

/// Names one that is to be done again.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Replay {
    task_id: String,
    #[serde(default)]
    identity: Option<String>,
    /// In place of what it had.
    #[serde(default)]
    ttl_ms: Option<u64>,
}

#[derive(Serialize)]
struct Replayed<'a> {
    task_id: &'a TaskId,
    replayed: bool,
}

#[derive(Serialize)]
struct Dropped<'a> {
    task_id: &'a TaskId,
    dropped: bool,
}

impl Core {
    /// The newest first.
    pub(super) fn list_dead_letters(
        &self,
        now: Now,
        scope: Scope,
        filter: &Filter,
        max_bytes: usize,
    ) -> Result<Vec<u8>, ErrorInfo> {
        let limit = limit(filter.limit)?;
        let mut newest = self.durable.dead_letters.newest(filter.before);
        let rows: Vec<_> = newest
            .by_ref()
            .take(LOOKED_AT)
            .filter(|(_, kept)| self.is_in(scope, kept))
            .filter_map(|(number, kept)| view::row(now, number, kept))
            .filter(|row| filter.action.as_ref().is_none_or(|action| row.action() == action))
            .take(limit + 1)
            .collect();
        let is_left = newest.next().is_some();
        list("dead_letters", rows.into_iter(), limit, is_left, max_bytes)
    }

    pub(super) fn show_dead_letter(
        &self,
        now: Now,
        scope: Scope,
        named: &Named,
        max_bytes: usize,
    ) -> Result<Vec<u8>, ErrorInfo> {
        let found = self.find_dead_letter(scope, &named.task_id()?, named)?;
        let kept = found.and_then(|number| Some((number, self.durable.dead_letters.get(number)?)));
        match kept {
            None => json(&None::<()>),
            Some((number, kept)) => view::whole(now, number, kept, max_bytes),
        }
    }

    pub(super) fn replay_for_operator(
        &mut self,
        now: Now,
        (by, scope): (&str, Scope),
        asked: Replay,
    ) -> Result<Vec<u8>, ErrorInfo> {
        let Replay { task_id, identity, ttl_ms } = asked;
        if let Some(ttl_ms) = ttl_ms.filter(|ttl_ms| !(1..=MAX_TTL_MS).contains(ttl_ms)) {
            let message = format!("ttl_ms is {ttl_ms}; 1 to {MAX_TTL_MS} are allowed");
            return Err(ErrorInfo::new(ErrorCode::InvalidTask, message));
        }
        let named = Named { task_id, identity };
        let id = named.task_id()?;
        let Some(number) = self.find_dead_letter(scope, &id, &named)? else {
            return json(&None::<Replayed<'_>>);
        };
        if let Scope::Own { session, .. } = scope {
            self.check_replay(session, number)?;
        }
        let trace_id = self.trace_of_dead_letter(&id, number);
        self.replay_dead_letter(now, number, ttl_ms)?;
        let (task_id, by) = (id.clone(), by.to_owned());
        self.event(Event::DeadLetterReplayed { task_id, trace_id, by });
        json(&Replayed { task_id: &id, replayed: true })
    }

    pub(super) fn drop_for_operator(
        &mut self,
        (by, scope): (&str, Scope),
        named: &Named,
    ) -> Result<Vec<u8>, ErrorInfo> {
        let id = named.task_id()?;
        let Some(number) = self.find_dead_letter(scope, &id, named)? else {
            return json(&None::<Dropped<'_>>);
        };
        let trace_id = self.trace_of_dead_letter(&id, number);
        let dropped = self.drop_dead_letter(number);
        let (task_id, by) = (id.clone(), by.to_owned());
        self.event(Event::DeadLetterDropped { task_id, trace_id, by });
        json(&Dropped { task_id: &id, dropped })
    }

    /// To have one's own done again is to send it again.
    fn check_replay(&mut self, session: SessionKey, number: u64) -> Result<(), ErrorInfo> {
        let kept = self.durable.dead_letters.get(number);
        let Some(payload) = kept.map(|kept| kept.letter.payload.clone()) else { return Ok(()) };
        match payload.head() {
            Ok(task) => self.check_task(session, &task),
            Err(invalid) => Err(ErrorInfo::new(ErrorCode::InvalidTask, invalid.to_string())),
        }
    }

    fn is_in(&self, scope: Scope, kept: &Kept) -> bool {
        match scope {
            Scope::All => true,
            Scope::Own { identity, .. } => *self.identities.get(identity) == kept.name.identity,
        }
    }

    fn trace_of_dead_letter(&self, id: &TaskId, number: u64) -> TraceId {
        let kept = self.durable.dead_letters.get(number);
        let given = kept.and_then(|kept| kept.letter.deliver.trace.decode().trace_id);
        given.unwrap_or_else(|| TraceId::of_task(id))
    }

    /// The number of a task's dead letter, of whatever identity.
    fn find_dead_letter(
        &self,
        scope: Scope,
        id: &TaskId,
        named: &Named,
    ) -> Result<Option<u64>, ErrorInfo> {
        let is_it = |identity: &str, task_id: &TaskId| {
            task_id == id && named.identity.as_ref().is_none_or(|asked| asked == identity)
        };
        let found: Vec<_> = self
            .durable
            .dead_letters
            .newest(None)
            .filter(|(_, kept)| self.is_in(scope, kept))
            .filter(|(_, kept)| is_it(kept.name.identity.as_str(), &kept.name.task_id))
            .collect();
        match found[..] {
            [] => Ok(None),
            [(number, _)] => Ok(Some(number)),
            [..] => {
                let identities = found.iter().map(|(_, kept)| kept.name.identity.as_str());
                Err(ambiguous("dead letter", id, identities))
            }
        }
    }
}
