//! What operators ask of tasks, in flight and ended, and how they end one.

mod view;

use mcp_proto::{AgentId, ErrorInfo, NodeId, TaskId};
use serde::{Deserialize, Serialize};

use super::{MAX_LISTED, Named, ambiguous, json, limit, list};
use crate::broker::family::{BY_CLIENT, BY_OPERATOR};
use crate::broker::finished::Kept;
use crate::broker::inflight::{AttemptKey, Task, TaskKey};
use crate::broker::permissions::Scope;
use crate::broker::registry::{Agent, AgentKey};
use crate::broker::{Core, Event, Now};
pub(super) use view::Row;
use view::Status;

/// Tasks in flight, and as many ended ones, that one list looks at: it takes about a millisecond of
/// the core, however many there are.
const LOOKED_AT: usize = 10_000;

/// Which tasks to list: those that are all of what is given.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Filter {
    action: Option<String>,
    status: Option<Status>,
    agent: Option<String>,
    limit: Option<usize>,
}

#[derive(Serialize)]
struct Cancelled<'a> {
    task_id: &'a TaskId,
    /// Whether this ended it.
    cancelled: bool,
    status: Status,
}

/// Where a task is found.
enum Found<'a> {
    InFlight(TaskKey),
    Ended(&'a Kept),
}

/// The worker that tasks are asked for, which may be gone.
struct AskedAgent {
    key: Option<AgentKey>,
    /// Its node, and the one that it was asked for by: of a worker that is gone, one of them is it.
    nodes: [Option<NodeId>; 2],
}

impl Core {
    /// First what is in flight, then what has ended; in both the newest first.
    pub(super) fn list_tasks(
        &self,
        now: Now,
        scope: Scope,
        filter: &Filter,
        max_bytes: usize,
    ) -> Result<Vec<u8>, ErrorInfo> {
        let limit = limit(filter.limit)?;
        let agent = filter.agent.as_deref().map(|name| self.asked_agent(name));
        let (tasks, in_flight_left) = self.in_flight(scope, filter, agent.as_ref());
        let (kept, ended_left) = self.ended(scope, filter, agent.as_ref());
        let rows = tasks
            .iter()
            .filter_map(|task| self.row_of(now, task))
            .chain(kept.iter().map(|kept| self.row_of_ended(now, kept)));
        list("tasks", rows, limit, in_flight_left || ended_left, max_bytes)
    }

    /// What an agent holds, and what it had last, the newest first.
    pub(super) fn tasks_of_agent(&self, agent_id: &AgentId) -> (Vec<&Task>, Vec<&Kept>) {
        let (agent, filter) = (self.asked_agent(agent_id.as_str()), Filter::default());
        (
            self.in_flight(Scope::All, &filter, Some(&agent)).0,
            self.ended(Scope::All, &filter, Some(&agent)).0,
        )
    }

    /// What is in flight and asked for, at most one more than may be listed, and whether some was
    /// not looked at.
    fn in_flight(
        &self,
        scope: Scope,
        filter: &Filter,
        agent: Option<&AskedAgent>,
    ) -> (Vec<&Task>, bool) {
        if filter.status.and_then(Status::outcome).is_some() {
            return (Vec::new(), false);
        }
        let is_asked_for = |task: &&Task| {
            let is_action =
                |action: &String| self.action_of(task).is_some_and(|it| it.as_str() == action);
            scope.has(task.identity)
                && filter.action.as_ref().is_none_or(is_action)
                && filter.status.is_none_or(|status| status == Status::of(task))
        };
        // What runs can be far behind what waits, and is found at the workers.
        if agent.is_some() || filter.status == Some(Status::Running) {
            let agents: Box<dyn Iterator<Item = &Agent>> = match agent {
                Some(agent) => {
                    Box::new(agent.key.and_then(|key| self.registry.get(key)).into_iter())
                }
                None => Box::new(self.registry.iter()),
            };
            let mut held = agents.flat_map(|agent| &agent.attempts);
            // One that is hedged is at two of them.
            let is_first =
                |key, task: &&Task| agent.is_some() || task.second_attempt() != Some(key);
            let task_of = |key: &AttemptKey| {
                let task = self.tasks.get(self.attempts.get(*key)?.task?);
                task.filter(|task| is_first(*key, task))
            };
            let tasks = held.by_ref().take(LOOKED_AT).filter_map(task_of);
            let mut found: Vec<_> = tasks.filter(is_asked_for).collect();
            found.sort_unstable_by_key(|task| std::cmp::Reverse(task.received));
            return (found, held.next().is_some());
        }
        let mut newest = self.tasks.newest();
        let looked_at = newest.by_ref().take(LOOKED_AT);
        let found = looked_at.filter(is_asked_for).take(MAX_LISTED + 1).collect();
        (found, newest.next().is_some())
    }

    /// The same of what has ended.
    fn ended(
        &self,
        scope: Scope,
        filter: &Filter,
        agent: Option<&AskedAgent>,
    ) -> (Vec<&Kept>, bool) {
        let outcome = filter.status.and_then(Status::outcome);
        if filter.status.is_some() && outcome.is_none() {
            return (Vec::new(), false);
        }
        let is_asked_for = |kept: &&Kept| {
            scope.has(kept.identity)
                && filter.action.as_ref().is_none_or(|action| kept.action.as_str() == action)
                && outcome.is_none_or(|outcome| kept.outcome == outcome)
                && agent.is_none_or(|agent| {
                    kept.node_id.is_some() && agent.nodes.contains(&kept.node_id)
                })
        };
        let mut newest = self.finished.newest(outcome);
        let looked_at = newest.by_ref().take(LOOKED_AT);
        let found = looked_at.filter(is_asked_for).take(MAX_LISTED + 1).collect();
        (found, newest.next().is_some())
    }

    /// A worker by its own name or its node's. One that is gone is known by the node that it would
    /// be again.
    fn asked_agent(&self, name: &str) -> AskedAgent {
        let asked = NodeId::try_from(name).ok();
        let agent_id = match asked.as_ref().and_then(|node| self.registry.agent_at(node)) {
            Some(agent_id) => Some(agent_id.clone()),
            None => AgentId::try_from(name).ok(),
        };
        let key = agent_id.as_ref().and_then(|id| self.registry.find(id));
        let node_id = match key.and_then(|key| self.registry.get(key)) {
            Some(agent) => Some(agent.node_id.clone()),
            None => agent_id.map(|agent_id| self.registry.node_id(&agent_id)),
        };
        AskedAgent { key, nodes: [node_id, asked] }
    }

    pub(super) fn show_task(
        &self,
        now: Now,
        scope: Scope,
        named: &Named,
    ) -> Result<Vec<u8>, ErrorInfo> {
        let view = match self.find_named(scope, &named.task_id()?, named)? {
            None => None,
            Some(Found::InFlight(key)) => {
                self.tasks.get(key).and_then(|task| self.view_of(now, task))
            }
            Some(Found::Ended(kept)) => Some(self.view_of_ended(now, kept)?),
        };
        json(&view)
    }

    pub(super) fn cancel_for_operator(
        &mut self,
        now: Now,
        (by, scope): (&str, Scope),
        named: &Named,
    ) -> Result<Vec<u8>, ErrorInfo> {
        let id = named.task_id()?;
        let mut trace_id = None;
        let (cancelled, status) = match self.find_named(scope, &id, named)? {
            None => return json(&None::<Cancelled<'_>>),
            Some(Found::Ended(kept)) => (false, Status::ended(kept.outcome)),
            Some(Found::InFlight(key)) => {
                trace_id = self.tasks.get(key).map(Task::trace_id);
                let cause = if scope == Scope::All { BY_OPERATOR } else { BY_CLIENT };
                let cancelled = self.cancel_task(now, key, cause);
                let decided = self.tasks.get(key).map(Status::of);
                (cancelled, decided.unwrap_or(Status::Cancelled))
            }
        };
        if scope == Scope::All
            && let Some(trace_id) = trace_id.filter(|_| cancelled)
        {
            let (task_id, by) = (id.clone(), by.to_owned());
            self.event(Event::TaskCancelled { task_id, trace_id, by });
        }
        json(&Cancelled { task_id: &id, cancelled, status })
    }

    /// The task of an id, of whatever identity: in flight before ended.
    fn find_named(
        &self,
        scope: Scope,
        id: &TaskId,
        named: &Named,
    ) -> Result<Option<Found<'_>>, ErrorInfo> {
        let mut found = Vec::new();
        for (key, identity) in self.identities.iter().filter(|(key, _)| scope.has(*key)) {
            if named.identity.as_ref().is_some_and(|asked| asked != identity.as_str()) {
                continue;
            }
            let name = self.tasks.name(key, id);
            let task = self.tasks.find(name).map(Found::InFlight);
            if let Some(it) = task.or_else(|| self.finished.find(name).map(Found::Ended)) {
                found.push((identity, it));
            }
        }
        if found.len() > 1 {
            let identities = found.iter().map(|(identity, _)| identity.as_str());
            return Err(ambiguous("task", id, identities));
        }
        Ok(found.pop().map(|(_, it)| it))
    }
}
