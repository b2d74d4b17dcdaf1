//! What is told of a task before it comes is what becomes of it.

use std::collections::HashMap;

use mcp_broker::broker::Question;
use mcp_proto::{ActionName, AgentId, Decision, Explanation};

use super::SHADOW_WORKER;
use super::ops::Asks;
use crate::fixture::Fixture;

pub(super) struct Expected {
    explanation: Explanation,
    is_shadow: bool,
    rejected: u64,
    in_flight: HashMap<AgentId, u32>,
}

impl Expected {
    /// What is to be expected of a task that comes next.
    pub(super) fn of(it: &Fixture, asks: &Asks) -> Self {
        let mut question = Question::new(ActionName::try_from("work").unwrap());
        question.labels.insert("gpu".to_owned(), "a100".to_owned());
        assert_eq!(it.core.explain(it.now, &question).candidates, 0);
        question.labels.clear();
        question.shadow = asks.is_shadow;
        (question.affinity_key, question.tenant) = (asks.affinity_key.into(), asks.tenant.into());
        (question.priority, question.ttl_ms) = (asks.priority, asks.ttl_ms);
        let explanation = it.core.explain(it.now, &question);
        let is_shadow = asks.is_shadow;
        let (rejected, in_flight) = (rejected(it, is_shadow), in_flight(it, is_shadow));
        let expected = Self { explanation, is_shadow, rejected, in_flight };
        let is_routed = expected.explanation.decision == Decision::Route;
        assert!(!is_routed || expected.probability() > 0.0, "{:?}", expected.explanation);
        expected
    }

    /// That it goes to a worker at once. With a split, there may be workers for one arm only.
    fn probability(&self) -> f64 {
        self.explanation.workers.iter().map(|worker| worker.probability).sum()
    }

    /// The task came.
    pub(super) fn check(self, it: &Fixture) {
        let explanation = &self.explanation;
        let after = in_flight(it, self.is_shadow);
        let gained: Vec<_> =
            after.iter().filter(|(agent, count)| **count > self.in_flight[*agent]).collect();
        if rejected(it, self.is_shadow) > self.rejected {
            // For what only its SEND tells, or as it was told.
            return assert!(gained.is_empty());
        }
        if !explanation.fallback.is_empty() {
            // A step of its chain answered it, or another action's worker has it.
            return assert!(gained.len() <= 1, "{explanation:?}");
        }
        assert_ne!(explanation.decision, Decision::Refuse, "{explanation:?}");
        match self.probability() {
            ..0.001 => assert!(gained.is_empty(), "{explanation:?}"),
            0.999.. => assert_eq!(gained.len(), 1, "{explanation:?}"),
            _ => assert!(gained.len() <= 1, "{explanation:?}"),
        }
        for worker in &explanation.workers {
            let has_gained = gained.iter().any(|(agent, _)| **agent == worker.agent_id);
            assert!(!has_gained || worker.probability > 0.0, "{explanation:?}");
        }
    }
}

fn rejected(it: &Fixture, is_shadow: bool) -> u64 {
    let stats = it.core.stats();
    if is_shadow { stats.shadow.rejected } else { stats.rejected }
}

/// Of all workers that may get tasks of this kind.
fn in_flight(it: &Fixture, is_shadow: bool) -> HashMap<AgentId, u32> {
    let shadow_worker = format!("w{SHADOW_WORKER}");
    let agents = it.core.agents(it.now, true).into_iter();
    let agents = agents.filter(|it| (it.agent_id.as_str() == shadow_worker) == is_shadow);
    agents.map(|agent| (agent.agent_id, agent.in_flight)).collect()
}
