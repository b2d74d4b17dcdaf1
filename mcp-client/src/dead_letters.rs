//! Dead letters, as an operator sees them: durable tasks that ended otherwise than ok or cancelled,
//! kept with their inputs until they are done again, or dropped.

use std::collections::BTreeMap;
use std::time::Duration;

use mcp_proto::{
    ActionName, ContextTrace, ErrorCode, ErrorInfo, Executed, Outcome, Priority, TaskId,
};
use serde::{Deserialize, Serialize};

use crate::builtin::{Named, ask};
use crate::client::Client;
use crate::error::CallError;

const LIST: &str = "mcp.admin.dead_letters.list";
const SHOW: &str = "mcp.admin.dead_letters.show";
const REPLAY: &str = "mcp.admin.dead_letters.replay";
const DROP: &str = "mcp.admin.dead_letters.drop";

/// Which dead letters to list: those that are all of what is given; all when nothing is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct DeadLetterFilter {
    /// Of this action.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<ActionName>,
    /// Older than the one of this number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    /// At most so many, 1 to 1,000; 100 when not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// A list of dead letters, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterList {
    /// What matched, as many as were asked for and fit into a frame.
    pub dead_letters: Vec<DeadLetterSummary>,
    /// Whether older ones may match: list those [before](DeadLetterFilter::before) the last of these.
    pub more: bool,
}

/// A dead letter in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterSummary {
    /// The newer, the higher. Not the same after a restart of the broker.
    pub number: u64,
    /// The task's name among those of its client's identity.
    pub task_id: TaskId,
    /// Its client's identity.
    pub identity: String,
    /// What it asks for.
    pub action: ActionName,
    /// How it ended.
    pub outcome: Outcome,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<ErrorCode>,
    /// Attempts at it since it was accepted, or since the broker's last start.
    pub attempts: u32,
    /// Since it ended, ms.
    pub age_ms: u64,
    /// Of its input.
    pub body_bytes: u64,
}

/// All that the broker tells of one dead letter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeadLetterInfo {
    /// What a list has.
    #[serde(flatten)]
    pub summary: DeadLetterSummary,
    /// When it ended, ms since 1970 by the broker's clock.
    pub died_wall_ms: u64,
    /// All the time to live that it had, ms.
    pub ttl_ms: u64,
    /// Which of the waiting tasks goes first.
    pub priority: Priority,
    /// Labels that a worker must have.
    pub required_labels: BTreeMap<String, String>,
    /// Of its input.
    pub content_type: String,
    /// For its handler.
    pub headers: BTreeMap<String, String>,
    /// Whether its handler ran.
    pub executed: Executed,
    /// Why it ended so.
    pub error: Option<ErrorInfo>,
    /// Its way, attempt by attempt.
    pub context_trace: ContextTrace,
    /// Its input, if it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Its input in base64, if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
    /// Whether a frame had room only for the beginning of its input.
    pub body_cut: bool,
}

/// A dead letter to be done again.
#[derive(Serialize)]
struct Replay<'a> {
    #[serde(flatten)]
    named: Named<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_ms: Option<u64>,
}

/// That there was such a dead letter.
#[derive(Deserialize)]
struct Done {}

impl Client {
    /// Dead letters of all clients.
    ///
    /// # Errors
    /// How the question ended, if not ok. Dropping the future asks no more.
    pub async fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
    ) -> Result<DeadLetterList, CallError> {
        ask(self, LIST, filter).await
    }

    /// The dead letter of a task of whatever client, with its input; none when there is none. Where
    /// several identities have one of this id, `identity` says whose; without it that is an error.
    ///
    /// # Errors
    /// As of [`dead_letters`](Client::dead_letters).
    pub async fn dead_letter(
        &self,
        task_id: &TaskId,
        identity: Option<&str>,
    ) -> Result<Option<DeadLetterInfo>, CallError> {
        ask(self, SHOW, &Named { task_id, identity }).await
    }

    /// Has the task of a dead letter done again, as a new task of the same id, with this time to live
    /// from now or that which it had. Whoever asks for its [result](Client::result) then gets the new
    /// one. False when there is no such dead letter; `identity` as of
    /// [`dead_letter`](Client::dead_letter).
    ///
    /// Dropping the future, or losing the connection, may leave it done or not: ask whether the dead
    /// letter is still there.
    ///
    /// # Errors
    /// As of [`dead_letters`](Client::dead_letters); and when the task is in flight again, or the
    /// broker takes no durable tasks now: the dead letter stays.
    pub async fn replay_dead_letter(
        &self,
        task_id: &TaskId,
        identity: Option<&str>,
        ttl: Option<Duration>,
    ) -> Result<bool, CallError> {
        let named = Named { task_id, identity };
        let ttl_ms = ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        let done: Option<Done> = ask(self, REPLAY, &Replay { named, ttl_ms }).await?;
        Ok(done.is_some())
    }

    /// Drops a dead letter: nothing is left of the task but its outcome, if its client has not settled
    /// it. False when there is none; `identity` as of [`dead_letter`](Client::dead_letter).
    ///
    /// # Errors
    /// As of [`dead_letters`](Client::dead_letters).
    pub async fn drop_dead_letter(
        &self,
        task_id: &TaskId,
        identity: Option<&str>,
    ) -> Result<bool, CallError> {
        let done: Option<Done> = ask(self, DROP, &Named { task_id, identity }).await?;
        Ok(done.is_some())
    }
}
