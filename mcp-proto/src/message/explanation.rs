//! Why a task goes to a worker, or to none: for people, and for programs that look on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::ErrorCode;
use crate::id::{AgentId, NodeId};
use crate::limits::MAX_EXPLANATION_BYTES;

/// What the choice of a worker for a task went by, and what came of it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Explanation {
    /// What becomes of the task now.
    pub decision: Decision,
    /// Why, as a part of a sentence.
    pub why: String,
    /// The policy of its action.
    pub policy: String,
    /// How it ends if nothing changes, when it is refused or nobody could take it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<ErrorCode>,
    /// What may answer it instead of its action's workers, in the order in which it is tried:
    /// `"cached"`, `"action:NAME"`, `"default"`. None while it gets a worker, or waits for a busy one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fallback: Vec<String>,
    /// Tasks that wait for the same workers.
    pub queued: u64,
    /// How long it would wait, ms, by what is known now; none when nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predicted_wait_ms: Option<u64>,
    /// Workers that could be given it now.
    pub candidates: u32,
    /// Those of its action: first those that may get it, the likeliest first, then the other
    /// candidates, then those that are ruled out.
    pub workers: Vec<ExplainedWorker>,
    /// Further workers of its action, for which there was no room here.
    pub left_out: u32,
}

/// What becomes of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Decision {
    /// It goes to a worker: the one that is certain to get it, or one of those that may, by chance.
    Route,
    /// It waits.
    Wait,
    /// It is refused at once.
    Refuse,
    /// One of a later broker.
    #[default]
    #[serde(other)]
    Unknown,
}

/// A worker in an [`Explanation`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExplainedWorker {
    /// Its own name.
    pub agent_id: AgentId,
    /// The broker's name for it.
    pub node_id: NodeId,
    /// How likely it gets the task: 1 when that is certain, 0 when it does not.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub probability: f64,
    /// What keeps the task from it; none: it is a candidate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ruled_out: Option<String>,
    /// What the policy goes by, of a candidate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<Score>,
    /// Required labels that it does not have, with the values that are required.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub missing_labels: BTreeMap<String, String>,
    /// `online` or `lost`.
    pub presence: String,
    /// `standby`, `ready` or `draining`.
    pub readiness: String,
    /// `ok`, or what is wrong with it: `suspect` while it does not answer.
    pub health: String,
    /// Attempts that take its slots, of all its actions.
    pub in_flight: u32,
    /// Handlers that it may run at once.
    pub slots: u32,
    /// Tasks that it takes beyond them.
    #[serde(default, skip_serializing_if = "is_none")]
    pub prefetch: u32,
    /// Smoothed µs that it had the tasks of this action that it did; none before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_us: Option<u64>,
}

/// How a policy values a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Comparable among the workers of one explanation.
    pub value: f64,
    /// How it comes about, `"1 of 4 slots in use"`.
    pub text: String,
}

impl Explanation {
    /// Leaves the last workers out for which so many bytes of JSON have no room.
    pub fn cut(&mut self, max_bytes: usize) {
        let mut bytes = self.json_bytes();
        while bytes > max_bytes && !self.workers.is_empty() {
            // Mostly one step is enough: all take about as much.
            let before = self.workers.len();
            let kept = (before * max_bytes / bytes).min(before - 1);
            self.workers.truncate(kept);
            self.left_out += (before - kept) as u32;
            bytes = self.json_bytes();
        }
    }

    /// How long its JSON text is.
    pub fn json_bytes(&self) -> usize {
        json(self).len()
    }

    /// Empty when it is too long.
    pub(super) fn to_json(&self) -> Vec<u8> {
        let json = json(self);
        if json.len() > MAX_EXPLANATION_BYTES { Vec::new() } else { json }
    }

    /// None of what is none, or too long.
    pub(super) fn from_json(json: &[u8]) -> Option<Self> {
        if json.len() > MAX_EXPLANATION_BYTES {
            return None;
        }
        serde_json::from_slice(json).ok()
    }
}

fn json(it: &Explanation) -> Vec<u8> {
    // Plain fields, written to memory: nothing of this can fail.
    serde_json::to_vec(it).unwrap_or_default()
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

fn is_none(value: &u32) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(number: usize) -> ExplainedWorker {
        ExplainedWorker {
            agent_id: format!("worker-{number}").try_into().unwrap(),
            node_id: format!("n-{number:012}").try_into().unwrap(),
            probability: 0.25,
            ruled_out: None,
            score: Some(Score { value: 0.5, text: "2 of 4 slots in use".to_owned() }),
            missing_labels: BTreeMap::new(),
            presence: "online".to_owned(),
            readiness: "ready".to_owned(),
            health: "ok".to_owned(),
            in_flight: 2,
            slots: 4,
            prefetch: 0,
            service_us: Some(1_500),
        }
    }

    #[test]
    fn what_is_too_long_loses_its_last_workers() {
        let workers: Vec<_> = (0..100).map(worker).collect();
        let mut it = Explanation { workers, left_out: 7, ..Explanation::default() };
        assert!(it.to_json().is_empty());
        it.cut(MAX_EXPLANATION_BYTES);
        assert!((8..100).contains(&it.workers.len()), "{}", it.workers.len());
        assert_eq!(it.workers.len() as u32 + it.left_out, 107);
        assert_eq!(it.workers[0], worker(0));
        assert_eq!(Explanation::from_json(&it.to_json()), Some(it));
    }

    #[test]
    fn what_a_later_broker_adds_is_ignored_and_what_it_decides_is_unknown() {
        let json = br#"{"decision":"guess","why":"w","moon":"full"}"#;
        let it = Explanation::from_json(json).unwrap();
        assert_eq!((it.decision, &*it.why), (Decision::Unknown, "w"));
        for wrong in [&b""[..], b"no", b"7", &[b' '; MAX_EXPLANATION_BYTES + 1]] {
            assert_eq!(Explanation::from_json(wrong), None);
        }
    }
}
