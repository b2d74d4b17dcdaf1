//! Queries and operator acts: tasks for the built-in actions `mcp.admin.*`, answered by the broker.

mod actions;
mod dead_letters;
mod degrade;
mod tasks;

use bytes::Bytes;
use mcp_proto::{
    ActionRef, ContextTrace, Deliver, ErrorCode, ErrorInfo, Executed, Outcome, TaskHead, TaskId,
};
use serde::Deserialize;

use super::registry::Presence;
use super::sessions::SessionKey;
use super::{AgentView, Core, Now, Question};

/// Actions of this prefix are the broker's own; no worker is asked.
const PREFIX: &str = "mcp.admin.";

const ALL: &str = "mcp.admin.actions.list, mcp.admin.actions.show, mcp.admin.actions.set, \
                   mcp.admin.actions.reset, mcp.admin.actions.degrade, \
                   mcp.admin.actions.restore, mcp.admin.agents.list, \
                   mcp.admin.dead_letters.list, mcp.admin.dead_letters.show, \
                   mcp.admin.dead_letters.replay, mcp.admin.dead_letters.drop, \
                   mcp.admin.explain, mcp.admin.stats, mcp.admin.tasks.list, mcp.admin.tasks.show, \
                   mcp.admin.tasks.cancel";

const DEFAULT_LISTED: usize = 100;
const MAX_LISTED: usize = 1_000;

/// For what a list has besides its rows.
const LIST_OVERHEAD_BYTES: usize = 64;

pub(super) fn is_builtin(action: ActionRef<'_>) -> bool {
    action.as_str().starts_with(PREFIX)
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ListAgents {
    all: bool,
}

/// Names a task. Its identity is needed only where several have a task of this id.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    task_id: String,
    #[serde(default)]
    identity: Option<String>,
}

impl Named {
    fn task_id(&self) -> Result<TaskId, ErrorInfo> {
        TaskId::try_from(self.task_id.as_str())
            .map_err(|problem| ErrorInfo::new(ErrorCode::InvalidTask, format!("task_id {problem}")))
    }
}

impl Core {
    /// The workers, by name: those online, or lost ones too.
    pub fn agents(&self, now: Now, include_lost: bool) -> Vec<AgentView> {
        let mut views: Vec<_> = self
            .registry
            .iter()
            .filter(|agent| include_lost || agent.presence == Presence::Online)
            .map(|agent| (agent, self.health_of(now, agent)))
            .map(|(agent, (health, unwell))| AgentView {
                node_id: agent.node_id.clone(),
                agent_id: agent.id.clone(),
                presence: agent.presence.name(),
                readiness: agent.readiness,
                health,
                unwell,
                actions: agent
                    .serves
                    .iter()
                    .filter_map(|it| self.pools.get(it.pool))
                    .map(|pool| pool.action.clone())
                    .collect(),
                labels: (*agent.labels).clone(),
                slots: agent.slots,
                in_flight: agent.in_flight(),
                parked: agent.parked,
                last_seen_ms: now.mono.since(agent.last_heard) / 1000,
            })
            .collect();
        views.sort_unstable_by(|a, b| a.agent_id.cmp(&b.agent_id));
        views
    }

    pub(super) fn answer_builtin(
        &mut self,
        now: Now,
        session: SessionKey,
        task: TaskHead<'_>,
        body: &Bytes,
    ) {
        let answer = match task.action.as_str() {
            "mcp.admin.actions.degrade" => {
                arguments(body).and_then(|asked| self.degrade_for_operator(now, session, asked))
            }
            "mcp.admin.actions.restore" => {
                arguments(body).and_then(|asked| self.restore_for_operator(session, &asked))
            }
            "mcp.admin.agents.list" => arguments::<ListAgents>(body)
                .and_then(|arguments| json(&self.agents(now, arguments.all))),
            "mcp.admin.actions.list" => {
                arguments(body).and_then(|filter| self.list_actions(&filter))
            }
            "mcp.admin.actions.show" => arguments(body).and_then(|named| self.show_action(&named)),
            "mcp.admin.actions.set" => {
                arguments(body).and_then(|set| self.set_rules_for_operator(now, session, set))
            }
            "mcp.admin.actions.reset" => {
                arguments(body).and_then(|named| self.reset_rules_for_operator(now, session, named))
            }
            "mcp.admin.dead_letters.list" => {
                arguments(body).and_then(|filter| self.list_dead_letters(now, &filter))
            }
            "mcp.admin.dead_letters.show" => {
                arguments(body).and_then(|named| self.show_dead_letter(now, &named))
            }
            "mcp.admin.dead_letters.replay" => {
                arguments(body).and_then(|asked| self.replay_for_operator(now, session, asked))
            }
            "mcp.admin.dead_letters.drop" => {
                arguments(body).and_then(|named| self.drop_for_operator(session, &named))
            }
            "mcp.admin.explain" => {
                arguments(body).and_then(|asked| self.answer_explain(now, &asked))
            }
            "mcp.admin.stats" => json(&self.stats()),
            "mcp.admin.tasks.list" => {
                arguments(body).and_then(|filter| self.list_tasks(now, &filter))
            }
            "mcp.admin.tasks.show" => arguments(body).and_then(|named| self.show_task(now, &named)),
            "mcp.admin.tasks.cancel" => {
                arguments(body).and_then(|named| self.cancel_for_operator(now, session, &named))
            }
            unknown => Err(ErrorInfo::new(
                ErrorCode::UnknownAction,
                format!("this broker has no {unknown}; it has {ALL}"),
            )),
        };
        self.audit_operator(session, task.action.as_str(), body, answer.as_ref().err());
        let answer = answer.and_then(|json| self.within_a_frame(json));
        let broker_id = self.config.broker_id.clone();
        let (outcome, executed, error, body) = match answer {
            Ok(json) => (Outcome::Ok, Executed::Yes, None, Bytes::from(json)),
            Err(error) => {
                let error = error.task(task.id.clone()).node(broker_id.clone());
                (Outcome::Failed, Executed::No, Some(Box::new(error)), Bytes::new())
            }
        };
        let deliver = Deliver {
            content_type: "application/json".into(),
            error,
            trace: ContextTrace { broker_id: Some(broker_id), ..Default::default() }.into(),
            ..Deliver::new(task.id, outcome, executed)
        };
        self.stats.accepted += 1;
        self.stats.count(outcome, false);
        self.measured.ended_at_once(task.action, false, outcome);
        self.tell(session, &deliver, body);
    }

    fn answer_explain(&self, now: Now, asked: &Question) -> Result<Vec<u8>, ErrorInfo> {
        let mut explanation = self.explain(now, asked);
        explanation.cut(self.config.limits.max_body_bytes as usize);
        json(&explanation)
    }

    /// Who asks.
    fn operator(&self, session: SessionKey) -> String {
        let operator = self.sessions.get(session);
        operator.map_or_else(String::new, |it| self.sessions.identity_of(it.identity).to_string())
    }

    /// `{NAME: […], "more": …}` with so many rows, or as many as a frame has room for; and whether
    /// there may be more.
    fn list<T: serde::Serialize>(
        &self,
        name: &str,
        rows: impl Iterator<Item = T>,
        limit: usize,
        mut more: bool,
    ) -> Result<Vec<u8>, ErrorInfo> {
        let max_bytes = self.config.limits.max_body_bytes as usize;
        let max_bytes = max_bytes.saturating_sub(LIST_OVERHEAD_BYTES);
        let mut listed = format!(r#"{{"{name}":["#).into_bytes();
        for (index, row) in rows.enumerate() {
            let before = listed.len();
            if index > 0 {
                listed.push(b',');
            }
            listed.append(&mut json(&row)?);
            if index == limit || listed.len() > max_bytes {
                listed.truncate(before);
                more = true;
                break;
            }
        }
        listed.extend_from_slice(format!(r#"],"more":{more}}}"#).as_bytes());
        Ok(listed)
    }

    fn within_a_frame(&self, json: Vec<u8>) -> Result<Vec<u8>, ErrorInfo> {
        let max = self.config.limits.max_body_bytes as usize;
        if json.len() > max {
            let message = format!("the answer has {} bytes, a frame at most {max}", json.len());
            return Err(ErrorInfo::new(ErrorCode::BodyTooLarge, message));
        }
        Ok(json)
    }
}

/// How many rows a list may have.
fn limit(asked: Option<usize>) -> Result<usize, ErrorInfo> {
    let limit = asked.unwrap_or(DEFAULT_LISTED);
    if limit == 0 || limit > MAX_LISTED {
        let message = format!("limit is {limit}; 1 to {MAX_LISTED} are allowed");
        return Err(ErrorInfo::new(ErrorCode::InvalidTask, message));
    }
    Ok(limit)
}

/// Several identities have what was asked for by a task's id.
fn ambiguous<'a>(
    what: &str,
    id: &TaskId,
    identities: impl ExactSizeIterator<Item = &'a str>,
) -> ErrorInfo {
    let count = identities.len();
    let names: Vec<_> = identities.take(8).collect();
    let names = names.join(", ");
    let message = format!("{count} identities have a {what} {id}; say which by identity: {names}");
    ErrorInfo::new(ErrorCode::InvalidTask, message)
}

/// The arguments in a body; the defaults in an empty one.
fn arguments<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, ErrorInfo> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| {
        ErrorInfo::new(ErrorCode::InvalidTask, format!("the body is not what it takes: {error}"))
    })
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, ErrorInfo> {
    serde_json::to_vec(value)
        .map_err(|error| ErrorInfo::new(ErrorCode::Internal, error.to_string()))
}
