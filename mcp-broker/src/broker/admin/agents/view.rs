//! What is told of an agent: in a list, and of one alone.

use mcp_proto::{ActionName, ErrorInfo, Labels, Outcome, Readiness};
use serde::Serialize;

use super::super::{json, tasks};
use super::Known;
use crate::broker::registry::{Agent, Membership};
use crate::broker::{AgentState, AgentView, Core, Now};

/// Tasks that are shown of an agent, of those that it holds and of those that it had lately.
const SHOWN_TASKS: usize = 100;

/// All that is told of one agent. What is not known of one that is not registered is absent.
#[derive(Serialize)]
struct View<'a> {
    #[serde(flatten)]
    agent: AgentView,
    #[serde(flatten)]
    registered: Option<Registered<'a>>,
    /// What it holds, the newest first.
    holds: Vec<tasks::Row<'a>>,
    more_held: bool,
    /// What it had last, the newest first.
    recent: Vec<tasks::Row<'a>>,
    more_recent: bool,
    /// Of the last tasks that it had, as far as their outcomes are kept.
    outcomes: Outcomes,
}

#[derive(Serialize)]
struct Registered<'a> {
    identity: &'a str,
    service_type: &'a str,
    sdk: &'a str,
    generation: u64,
    prefetch: u32,
    /// Since this process registered first.
    registered_ms: u64,
    /// Since it came with its present connection; none when that broke.
    #[serde(skip_serializing_if = "Option::is_none")]
    connected_ms: Option<u64>,
    serves: Vec<Serves<'a>>,
}

/// How it is at one action.
#[derive(Serialize)]
struct Serves<'a> {
    action: &'a ActionName,
    health: &'static str,
    /// ms until time ends that, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    for_ms: Option<u64>,
    /// How long it has a task that goes well, smoothed.
    #[serde(skip_serializing_if = "Option::is_none")]
    service_us: Option<u64>,
    /// The smoothed share of its attempts that ended ok, 0 to 1.
    ok_share: f64,
    is_shadow: bool,
}

#[derive(Serialize, Default)]
struct Outcomes {
    ok: u64,
    failed: u64,
    expired: u64,
    cancelled: u64,
    rejected: u64,
}

impl Core {
    pub(super) fn view_of_agent(&self, now: Now, known: Known<'_>) -> AgentView {
        let agent = match known {
            Known::Registered(agent) => agent,
            Known::Offline(id, drained) => {
                return AgentView {
                    node_id: self.registry.node_id(id),
                    agent_id: id.clone(),
                    state: AgentState::Offline,
                    presence: "offline",
                    readiness: Readiness::Draining,
                    health: "ok",
                    unwell: Vec::new(),
                    actions: Vec::new(),
                    labels: Labels::default(),
                    slots: 0,
                    in_flight: 0,
                    parked: 0,
                    last_seen_ms: None,
                    drained: Some(drained.clone()),
                };
            }
        };
        let (health, unwell) = self.health_of(now, agent);
        let pools = agent.serves.iter().filter_map(|it| self.pools.get(it.pool));
        AgentView {
            node_id: agent.node_id.clone(),
            agent_id: agent.id.clone(),
            state: self.state_of(known),
            presence: agent.presence.name(),
            readiness: agent.readiness(),
            health,
            unwell,
            actions: pools.map(|pool| pool.action.clone()).collect(),
            labels: (*agent.labels).clone(),
            slots: agent.slots,
            in_flight: agent.in_flight(),
            parked: agent.parked,
            last_seen_ms: Some(now.mono.since(agent.last_heard) / 1000),
            drained: self.drained.get(&agent.id).cloned(),
        }
    }

    pub(super) fn show_known(
        &self,
        now: Now,
        known: Known<'_>,
        max_bytes: usize,
    ) -> Result<Vec<u8>, ErrorInfo> {
        let (held, ended) = self.tasks_of_agent(known.id());
        let mut outcomes = Outcomes::default();
        for kept in &ended {
            outcomes.count(kept.outcome);
        }
        let rows = held.iter().take(SHOWN_TASKS).filter_map(|task| self.row_of(now, task));
        let recent = ended.iter().take(SHOWN_TASKS).map(|kept| self.row_of_ended(now, kept));
        let mut view = View {
            agent: self.view_of_agent(now, known),
            registered: match known {
                Known::Registered(agent) => Some(self.view_of_registered(now, agent)),
                Known::Offline(..) => None,
            },
            holds: rows.collect(),
            more_held: held.len() > SHOWN_TASKS,
            recent: recent.collect(),
            more_recent: ended.len() > SHOWN_TASKS,
            outcomes,
        };
        loop {
            let told = json(&view)?;
            if told.len() <= max_bytes || view.holds.is_empty() && view.recent.is_empty() {
                return Ok(told);
            }
            (view.more_held, view.more_recent) = (true, true);
            view.recent.truncate(view.recent.len() / 2);
            view.holds.truncate(view.holds.len() / 2);
        }
    }

    fn view_of_registered<'a>(&'a self, now: Now, agent: &'a Agent) -> Registered<'a> {
        let serves = |it: &Membership| {
            let pool = self.pools.get(it.pool)?;
            let standing = pool.members.get(it.member as usize)?.as_ref()?.standing;
            let unwell = pool.unwell(now.mono, it.member);
            Some(Serves {
                action: &pool.action,
                health: pool.condition(it.member).name(),
                for_ms: unwell.and_then(|it| it.for_ms),
                service_us: standing.known_service_us(),
                // Three digits are enough for people.
                ok_share: (standing.ok_share() * 1e3).round() / 1e3,
                is_shadow: pool.is_shadow,
            })
        };
        Registered {
            identity: self.identities.get(agent.identity).as_str(),
            service_type: &agent.service_type,
            sdk: &agent.sdk,
            generation: agent.generation,
            prefetch: agent.prefetch,
            registered_ms: now.mono.since(agent.registered) / 1000,
            connected_ms: agent.connection.map(|_| now.mono.since(agent.connected) / 1000),
            serves: agent.serves.iter().filter_map(serves).collect(),
        }
    }
}

impl Outcomes {
    fn count(&mut self, outcome: Outcome) {
        let count = match outcome {
            Outcome::Ok => &mut self.ok,
            Outcome::Failed => &mut self.failed,
            Outcome::Expired => &mut self.expired,
            Outcome::Cancelled => &mut self.cancelled,
            // A broker never says lost.
            Outcome::Rejected | Outcome::Lost => &mut self.rejected,
        };
        *count += 1;
    }
}
