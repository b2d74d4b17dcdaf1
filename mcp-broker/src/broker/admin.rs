//! Queries and operator acts: tasks for the built-in actions `mcp.admin.*`, answered by the broker.

mod actions;
mod agents;
mod dead_letters;
mod degrade;
mod function;
mod overview;
mod tasks;

use bytes::Bytes;
use mcp_proto::limits::MAX_TEXT_BYTES;
use mcp_proto::{
    ActionRef, ContextTrace, Deliver, ErrorCode, ErrorInfo, Executed, Outcome, TaskHead, TaskId,
};
use serde::Deserialize;

use super::permissions::Scope;
use super::sessions::SessionKey;
use super::{ConnectionId, Core, Now, Question};

pub use function::AdminFunction;
pub(super) use function::PREFIX;

const DEFAULT_LISTED: usize = 100;
const MAX_LISTED: usize = 1_000;

/// For what a list has besides its rows.
const LIST_OVERHEAD_BYTES: usize = 64;

pub(super) fn is_builtin(action: ActionRef<'_>) -> bool {
    action.as_str().starts_with(PREFIX)
}

/// Who asks, and how much of an answer is taken.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// The operator's identity.
    pub name: &'a str,
    /// Over which connection; none of one that is not the core's.
    pub connection: Option<ConnectionId>,
    /// Lists are cut to so many bytes; what else is longer is refused.
    pub max_answer_bytes: usize,
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
    /// Does what an operator asks for; the arguments are a JSON object, or empty, and so is the answer.
    ///
    /// # Errors
    /// INVALID_TASK for wrong arguments; BODY_TOO_LARGE; what the function itself says.
    pub fn administer(
        &mut self,
        now: Now,
        asker: Asker<'_>,
        function: AdminFunction,
        body: &[u8],
    ) -> Result<Vec<u8>, ErrorInfo> {
        self.administer_within(now, (asker, Scope::All), function, body)
    }

    fn administer_within(
        &mut self,
        now: Now,
        (asker, scope): (Asker<'_>, Scope),
        function: AdminFunction,
        body: &[u8],
    ) -> Result<Vec<u8>, ErrorInfo> {
        let answer = self.answer(now, (asker, scope), function, body);
        if function.is_act() {
            self.audit_operator(asker, function, body, answer.as_ref().err());
        }
        answer
    }

    fn answer(
        &mut self,
        now: Now,
        (asker, scope): (Asker<'_>, Scope),
        function: AdminFunction,
        body: &[u8],
    ) -> Result<Vec<u8>, ErrorInfo> {
        let (by, max_bytes) = (asker.name, asker.max_answer_bytes);
        let answer = match function {
            AdminFunction::ActionsDegrade => {
                self.degrade_for_operator(now, by, arguments(body)?)?
            }
            AdminFunction::ActionsRestore => self.restore_for_operator(by, &arguments(body)?)?,
            AdminFunction::ActionsList => self.list_actions(&arguments(body)?, max_bytes)?,
            AdminFunction::ActionsShow => self.show_action(&arguments(body)?, max_bytes)?,
            AdminFunction::ActionsSet => self.set_rules_for_operator(now, by, arguments(body)?)?,
            AdminFunction::ActionsReset => {
                self.reset_rules_for_operator(now, by, arguments(body)?)?
            }
            AdminFunction::AgentsList => self.list_agents(now, &arguments(body)?, max_bytes)?,
            AdminFunction::AgentsShow => self.show_agent(now, &arguments(body)?, max_bytes)?,
            AdminFunction::AgentsDrain => self.drain_for_operator(now, by, arguments(body)?)?,
            AdminFunction::AgentsResume => self.undrain_for_operator(now, by, &arguments(body)?)?,
            AdminFunction::DeadLettersList => {
                self.list_dead_letters(now, scope, &arguments(body)?, max_bytes)?
            }
            AdminFunction::DeadLettersShow => {
                self.show_dead_letter(now, scope, &arguments(body)?, max_bytes)?
            }
            AdminFunction::DeadLettersReplay => {
                self.replay_for_operator(now, (by, scope), arguments(body)?)?
            }
            AdminFunction::DeadLettersDrop => {
                self.drop_for_operator((by, scope), &arguments(body)?)?
            }
            AdminFunction::Explain => self.answer_explain(now, &arguments(body)?, max_bytes)?,
            AdminFunction::Overview => self.overview(now, max_bytes)?,
            AdminFunction::Stats => json(&self.stats())?,
            AdminFunction::TasksList => {
                self.list_tasks(now, scope, &arguments(body)?, max_bytes)?
            }
            AdminFunction::TasksShow => self.show_task(now, scope, &arguments(body)?)?,
            AdminFunction::TasksCancel => {
                self.cancel_for_operator(now, (by, scope), &arguments(body)?)?
            }
        };
        if answer.len() > max_bytes {
            let message = format!("the answer has {} bytes, at most {max_bytes}", answer.len());
            return Err(ErrorInfo::new(ErrorCode::BodyTooLarge, message));
        }
        Ok(answer)
    }

    pub(super) fn answer_builtin(
        &mut self,
        now: Now,
        session: SessionKey,
        task: TaskHead<'_>,
        body: &Bytes,
    ) {
        let name = task.action.as_str().strip_prefix(PREFIX).unwrap_or_default();
        let answer = match AdminFunction::named(name) {
            Some(function) => {
                let max_answer_bytes = self.config.limits.max_body_bytes as usize;
                let operator = self.operator(session);
                let connection = self.sessions.get(session).and_then(|it| it.connection);
                let asker = Asker { name: &operator, connection, max_answer_bytes };
                match self.scope(session, function) {
                    Ok(scope) => self.administer_within(now, (asker, scope), function, body),
                    Err(error) => {
                        if function.is_act() {
                            self.audit_operator(asker, function, body, Some(&error));
                        }
                        Err(error)
                    }
                }
            }
            None => Err(unknown(task.action)),
        };
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
        self.measured.ended_at_once(now.mono, task.action, false, outcome);
        self.tell(session, &deliver, body);
    }

    fn answer_explain(
        &self,
        now: Now,
        asked: &Question,
        max_bytes: usize,
    ) -> Result<Vec<u8>, ErrorInfo> {
        let mut explanation = self.explain(now, asked);
        explanation.cut(max_bytes);
        json(&explanation)
    }

    /// Who asks.
    fn operator(&self, session: SessionKey) -> String {
        let operator = self.sessions.get(session);
        operator.map_or_else(String::new, |it| self.identities.get(it.identity).to_string())
    }
}

fn unknown(action: ActionRef<'_>) -> ErrorInfo {
    let all: Vec<_> =
        AdminFunction::ALL.iter().map(|it| format!("{PREFIX}{}", it.name())).collect();
    let message = format!("this broker has no {}; it has {}", action.as_str(), all.join(", "));
    ErrorInfo::new(ErrorCode::UnknownAction, message)
}

/// `{NAME: […], "more": …}` with so many rows, or as many as there is room for; and whether there may
/// be more.
fn list<T: serde::Serialize>(
    name: &str,
    rows: impl Iterator<Item = T>,
    limit: usize,
    mut more: bool,
    max_bytes: usize,
) -> Result<Vec<u8>, ErrorInfo> {
    let mut listed = format!(r#"{{"{name}":["#).into_bytes();
    let room_bytes = max_bytes.saturating_sub(LIST_OVERHEAD_BYTES);
    let is_all = push_rows(&mut listed, rows, room_bytes, limit)?.1;
    more |= !is_all;
    listed.extend_from_slice(format!(r#"],"more":{more}}}"#).as_bytes());
    Ok(listed)
}

/// Adds rows to a list until it has so many bytes, or so many rows. Returns how many were added, and
/// whether these were all.
fn push_rows<T: serde::Serialize>(
    listed: &mut Vec<u8>,
    rows: impl Iterator<Item = T>,
    max_bytes: usize,
    limit: usize,
) -> Result<(usize, bool), ErrorInfo> {
    let mut count = 0;
    for row in rows {
        let before = listed.len();
        if count > 0 {
            listed.push(b',');
        }
        listed.append(&mut json(&row)?);
        if count == limit || listed.len() > max_bytes {
            listed.truncate(before);
            return Ok((count, false));
        }
        count += 1;
    }
    Ok((count, true))
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

/// Checks what an operator gives as the reason for an act.
fn check_why(why: &str) -> Result<(), ErrorInfo> {
    if why.len() <= MAX_TEXT_BYTES {
        return Ok(());
    }
    let message = format!("why has {} bytes; at most {MAX_TEXT_BYTES} are allowed", why.len());
    Err(ErrorInfo::new(ErrorCode::InvalidTask, message))
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
