//! The broker at a glance.

use mcp_proto::{ErrorInfo, NodeId};
use serde::Serialize;

use super::{PREFIX, json, push_rows};
use crate::broker::metrics::Entry;
use crate::broker::pool::Pool;
use crate::broker::recent::{Quantiles, Rates};
use crate::broker::{AgentState, Breakers, Core, Now};

/// Spans of the rates, s: short enough to see a change, long enough to trust it.
const SHORT_S: u64 = 10;
const LONG_S: u64 = 60;

/// Workers whose slots are added up, action by action.
const LOOKED_AT: usize = 10_000;

/// For what comes after the rows.
const OVERHEAD_BYTES: usize = 64;

#[derive(Serialize)]
struct Overview<'a> {
    broker_id: &'a NodeId,
    epoch: u64,
    /// Since the core was made.
    uptime_ms: u64,
    wall_ms: u64,
    is_shutting_down: bool,
    /// Actions that are not core take no tasks.
    is_shedding: bool,
    /// Why durable tasks are refused; none while they are taken.
    why_not_durable: Option<String>,
    agents: Agents,
    tasks: Tasks,
    rates: Spans,
    durable: Durable,
    dead_letters: u64,
    sessions: u64,
    connections: u64,
}

#[derive(Serialize)]
struct Agents {
    total: u64,
    ready: u64,
    standby: u64,
    draining: u64,
    suspect: u64,
    ejected: u64,
    lost: u64,
    /// Of those online.
    slots: u64,
    in_flight: u64,
    /// By operators, those that are not registered included.
    drained: u64,
}

#[derive(Serialize)]
struct Tasks {
    queued: u64,
    queued_bytes: u64,
    delayed: u64,
    running: u64,
}

#[derive(Serialize)]
struct Durable {
    is_available: bool,
    in_flight: u64,
    kept_outcomes: u64,
    bytes: u64,
}

#[derive(Serialize, Default, Clone, Copy)]
struct Spans {
    s10: Rates,
    s60: Rates,
}

/// One action.
#[derive(Serialize)]
struct Row<'a> {
    action: &'a str,
    queued: u64,
    queued_bytes: u64,
    /// Since the longest waiting of them was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_ms: Option<u64>,
    delayed: u64,
    running: u64,
    workers: u64,
    ready: u64,
    /// Of its workers that are online, which may serve other actions, too.
    slots: u64,
    breakers: Breakers,
    is_degraded: bool,
    rates: Spans,
    #[serde(flatten)]
    quantiles: Quantiles,
}

impl Core {
    /// `{…, "actions": […], "more_actions": …}`: an action that is measured by itself has a row, one with a
    /// backlog first.
    pub(super) fn overview(&self, now: Now, max_bytes: usize) -> Result<Vec<u8>, ErrorInfo> {
        let mut looked_at = 0;
        let mut rates = Spans::default();
        let mut rows = Vec::new();
        for (action, entry) in self.measured.entries() {
            let Some(action) = action else {
                rates += self.spans(now, entry);
                continue;
            };
            if action.as_str().starts_with(PREFIX) {
                continue;
            }
            let pool = self.pool_names.get(action).and_then(|key| self.pools.get(*key));
            looked_at += pool.map_or(0, Pool::workers);
            let pool_slots = pool.filter(|_| looked_at <= LOOKED_AT);
            let row = Row {
                slots: pool_slots.map_or(0, |pool| self.slots_of(pool)),
                is_degraded: self.degraded.contains_key(action),
                ..self.row_of_entry(now, action.as_str(), entry, pool)
            };
            rates += row.rates;
            rows.push(row);
        }
        rows.sort_by(|a, b| b.oldest_ms.cmp(&a.oldest_ms).then_with(|| a.action.cmp(b.action)));
        let mut told = json(&self.summary(now, rates))?;
        told.pop();
        told.extend_from_slice(br#","actions":["#);
        let room_bytes = max_bytes.saturating_sub(OVERHEAD_BYTES);
        let limit = rows.len();
        let (_, is_all) = push_rows(&mut told, rows.iter(), room_bytes, limit)?;
        told.extend_from_slice(format!(r#"],"more_actions":{}}}"#, !is_all).as_bytes());
        Ok(told)
    }

    fn summary(&self, now: Now, rates: Spans) -> Overview<'_> {
        let stats = self.stats();
        let (by_state, in_flight) = self.count_agents();
        let count = |state: AgentState| by_state[state as usize];
        Overview {
            broker_id: &self.config.broker_id,
            epoch: self.config.epoch,
            uptime_ms: now.mono.0 / 1000,
            wall_ms: now.wall_ms,
            is_shutting_down: self.is_shutting_down,
            is_shedding: self.is_shedding,
            why_not_durable: self.why_not_durable(),
            agents: Agents {
                total: self.registry.len() as u64,
                ready: count(AgentState::Ready),
                standby: count(AgentState::Standby),
                draining: count(AgentState::Draining),
                suspect: count(AgentState::Suspect),
                ejected: count(AgentState::Ejected),
                lost: count(AgentState::Lost),
                slots: self.registry.slots(),
                in_flight,
                drained: self.drained.len() as u64,
            },
            tasks: Tasks {
                queued: stats.queued,
                queued_bytes: self.waiting.live.bytes as u64,
                delayed: stats.delayed,
                running: stats.running,
            },
            rates,
            durable: Durable {
                is_available: stats.durable.is_available,
                in_flight: stats.durable.in_flight,
                kept_outcomes: stats.durable.ended,
                bytes: stats.durable.bytes,
            },
            dead_letters: stats.durable.dead_letters,
            sessions: stats.sessions,
            connections: stats.connections,
        }
    }

    fn row_of_entry<'a>(
        &self,
        now: Now,
        action: &'a str,
        entry: &Entry,
        pool: Option<&Pool>,
    ) -> Row<'a> {
        let count = |of: fn(&Pool) -> usize| pool.map_or(0, of) as u64;
        let oldest = pool.and_then(|pool| self.tasks.oldest(&pool.waiting));
        Row {
            action,
            queued: count(|pool| pool.queued),
            queued_bytes: count(|pool| pool.queued_bytes),
            oldest_ms: oldest.map(|since| now.mono.since(since) / 1000),
            delayed: count(|pool| pool.delayed.tasks),
            running: count(|pool| pool.tasks - pool.queued - pool.delayed.tasks),
            workers: count(Pool::workers),
            ready: count(Pool::ready_workers),
            slots: 0,
            breakers: pool.map(Pool::breakers).unwrap_or_default(),
            is_degraded: false,
            rates: self.spans(now, entry),
            quantiles: entry.recent.quantiles(now.mono, &entry.counts),
        }
    }

    fn spans(&self, now: Now, entry: &Entry) -> Spans {
        let rates = |over_s| entry.recent.rates(now.mono, over_s, &entry.counts);
        Spans { s10: rates(SHORT_S), s60: rates(LONG_S) }
    }

    fn slots_of(&self, pool: &Pool) -> u64 {
        let agents = pool.agents().filter_map(|agent| self.registry.get(agent));
        agents.map(|agent| agent.online_slots()).sum()
    }
}

impl std::ops::AddAssign for Spans {
    fn add_assign(&mut self, other: Self) {
        self.s10 += other.s10;
        self.s60 += other.s60;
    }
}
