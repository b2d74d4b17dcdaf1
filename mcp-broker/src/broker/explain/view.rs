//! The workers of an explanation.

use std::collections::BTreeMap;

use mcp_proto::{ExplainedWorker, Explanation, Readiness};

use crate::broker::Now;
use crate::broker::balancer::{Ask, Member, Odds};
use crate::broker::health::ActionHealth;
use crate::broker::pool::{MemberView, Pool};
use crate::broker::queue::SubQueue;
use crate::broker::registry::{Agent, Presence, Registry};

/// How much an explanation may cost.
pub(super) struct Extent {
    /// Workers that it lists.
    pub(super) listed: usize,
    /// Workers that are looked at for those that it lists besides the ones that may get the task.
    pub(super) looked_at: usize,
}

/// What is looked at.
pub(super) struct View<'a> {
    pub(super) now: Now,
    pub(super) pool: &'a Pool,
    pub(super) subqueue: &'a SubQueue,
    pub(super) registry: &'a Registry,
    pub(super) ask: Ask,
    /// Workers that are passed over while there are others.
    pub(super) passed_over: &'a [Member],
}

/// Lists workers: those that may get the task in any of these views, each with its share of the odds,
/// then the other candidates of the first, then the others.
pub(super) fn list(it: &mut Explanation, views: &[(View<'_>, &Odds, f64)], extent: &Extent) {
    let Some((main, ..)) = views.first() else { return };
    for (view, odds, share) in views {
        for (member, odds) in odds.members.iter().take(extent.listed) {
            let worker = view.pool.view(view.subqueue, *member);
            let Some(worker) = worker.and_then(|it| view.worker(&it, odds * share)) else {
                continue;
            };
            match it.workers.iter_mut().find(|other| other.node_id == worker.node_id) {
                Some(other) => other.probability += worker.probability,
                None => it.workers.push(worker),
            }
        }
    }
    let is_likely = |worker: &MemberView<'_>| {
        let mut odds = views.iter().flat_map(|(_, odds, _)| &odds.members);
        odds.any(|(member, _)| *member == worker.member)
    };
    let others = main.pool.views(main.subqueue).take(extent.looked_at);
    let others = others.filter(|worker| !is_likely(worker));
    it.workers.extend(others.filter_map(|worker| main.worker(&worker, 0.0)));
    it.workers.sort_by(|a, b| {
        let rank = |it: &ExplainedWorker| (it.ruled_out.is_some(), !it.missing_labels.is_empty());
        let by_odds = b.probability.total_cmp(&a.probability).then_with(|| rank(a).cmp(&rank(b)));
        by_odds.then_with(|| a.agent_id.cmp(&b.agent_id))
    });
    it.workers.truncate(extent.listed);
    it.left_out = (main.pool.workers() - it.workers.len()) as u32;
}

impl View<'_> {
    fn worker(&self, view: &MemberView<'_>, odds: f64) -> Option<ExplainedWorker> {
        let agent = self.registry.get(view.agent)?;
        let required = self.subqueue.required.0.iter();
        let missing = required.filter(|(key, value)| view.labels.0.get(*key) != Some(value));
        let missing_labels: BTreeMap<_, _> =
            missing.map(|(key, value)| (key.clone(), value.clone())).collect();
        let ruled_out = match missing_labels.is_empty() {
            true => self.ruled_out(view, agent, odds),
            false => Some("lacks labels".to_owned()),
        };
        let score = match ruled_out {
            None => self.pool.score(self.subqueue, view.member, self.ask.key),
            Some(_) => None,
        };
        Some(ExplainedWorker {
            agent_id: agent.id.clone(),
            node_id: agent.node_id.clone(),
            // Four digits are enough for people, and short.
            probability: (odds * 1e4).round() / 1e4,
            ruled_out,
            score,
            missing_labels,
            presence: agent.presence.name().to_owned(),
            readiness: agent.readiness().name().to_owned(),
            health: self.health(view, agent).to_owned(),
            in_flight: agent.in_flight(),
            slots: agent.slots,
            prefetch: agent.prefetch,
            service_us: view.standing.known_service_us(),
        })
    }

    /// What keeps a task from a worker that has its labels.
    fn ruled_out(&self, view: &MemberView<'_>, agent: &Agent, odds: f64) -> Option<String> {
        let why = match (agent.presence, agent.readiness()) {
            (Presence::Lost { .. }, _) => "lost",
            (Presence::Online, _) if agent.is_drained => "drained by an operator",
            (Presence::Online, Readiness::Standby) => "standby",
            (Presence::Online, Readiness::Draining) => "draining",
            (Presence::Online, Readiness::Ready) if !view.has_room => "no free slot",
            (Presence::Online, Readiness::Ready) if !view.is_offered => {
                return Some(self.unwell(view));
            }
            _ if odds == 0.0 && self.passed_over.contains(&view.member) => "asked before",
            _ => return None,
        };
        Some(why.to_owned())
    }

    fn health(&self, view: &MemberView<'_>, agent: &Agent) -> &'static str {
        match agent.probed {
            Some(_) => "suspect",
            None => self.pool.condition(view.member).name(),
        }
    }

    /// Why a worker with room gets no tasks.
    fn unwell(&self, view: &MemberView<'_>) -> String {
        match self.pool.unwell(self.now.mono, view.member) {
            Some(ActionHealth { health, for_ms: Some(ms), .. }) => format!("{health} for {ms} ms"),
            Some(ActionHealth { health, for_ms: None, .. }) => health.to_owned(),
            None => "not offered".to_owned(),
        }
    }
}
