//! Counters since the start, and a view of the workers.

use mcp_proto::{ActionName, AgentId, Labels, NodeId, Readiness};

use super::ShadowStats;
use super::draining::Drained;
use super::durable::DurableStats;
use super::health::ActionHealth;

/// Counters and gauges of a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Stats {
    /// Tasks taken.
    pub accepted: u64,
    /// Tasks that ended ok.
    pub ok: u64,
    /// Tasks that failed.
    pub failed: u64,
    /// Tasks whose time to live ran out.
    pub expired: u64,
    /// Tasks that were cancelled.
    pub cancelled: u64,
    /// Tasks that were refused.
    pub rejected: u64,
    /// Tasks whose outcome is of a step of their action's fallback chain.
    pub degraded: u64,
    /// Times that an action that is not core took no task because the broker ran full.
    pub shed: u64,
    /// SENDs of a task that was known already.
    pub duplicates: u64,
    /// Those of them that joined the task in flight.
    pub joined: u64,
    /// Attempts routed to workers.
    pub attempts: u64,
    /// Attempts that workers handed back, those that they put off included.
    pub nacked: u64,
    /// Attempts that workers put off: handed back, to be tried again after some time.
    pub put_off: u64,
    /// Attempts after the first, for whatever reason.
    pub redispatched: u64,
    /// Attempts that failed or timed out and were followed by another.
    pub retried: u64,
    /// Attempts that were not followed by another because the retry budget was spent.
    pub retries_refused: u64,
    /// Second attempts that began beside slow ones.
    pub hedges: u64,
    /// Those of them that did their task first.
    pub hedges_won: u64,
    /// Slow attempts that got none beside them because no other worker had a free slot, or the budget
    /// was spent.
    pub hedges_refused: u64,
    /// Attempts that gave no sign of life.
    pub timed_out: u64,
    /// RESULTs that came after their task had ended or gone elsewhere; they only freed a slot.
    pub late_results: u64,
    /// RESULTs, NACKs and PARKs for attempts that their sender does not hold.
    pub refused_results: u64,
    /// Parts of results that workers sent.
    pub chunks: u64,
    /// Parts of inputs that clients sent.
    pub input_chunks: u64,
    /// Attempts that workers no longer knew.
    pub leaked: u64,
    /// CANCELs that workers did not confirm in time.
    pub cancels_unconfirmed: u64,
    /// Tasks that were ended because too many workers failed with them.
    pub poisoned: u64,
    /// How often the breaker of a worker opened for an action.
    pub breakers_opened: u64,
    /// How often a worker was left out of an action for being slow.
    pub workers_ejected: u64,
    /// Workers lost.
    pub agents_lost: u64,
    /// Lost workers that came back.
    pub agents_resumed: u64,
    /// Client sessions resumed.
    pub sessions_resumed: u64,
    /// Connections closed for what their peers did.
    pub peers_refused: u64,

    /// Tasks waiting now.
    pub queued: u64,
    /// Tasks that wait for their next attempt now, after a failure or because they were put off.
    pub delayed: u64,
    /// Tasks at workers now.
    pub running: u64,
    /// Attempts that workers have now, parked ones included.
    pub in_flight: u64,
    /// Workers online now.
    pub agents_online: u64,
    /// Sessions now, detached ones included.
    pub sessions: u64,
    /// Results on their way in parts now, those included that their reader is not done with.
    pub streams: u64,
    /// Bytes of chunks kept for readers that come back.
    pub stream_bytes: u64,
    /// Inputs on their way in parts now.
    pub uploads: u64,
    /// Bytes set aside for parts of inputs, of all tasks that have any.
    pub upload_bytes: u64,
    /// Connections now.
    pub connections: u64,

    /// Durable tasks.
    pub durable: DurableStats,
    /// Load tests, and copies of live tasks.
    pub shadow: ShadowStats,
}

/// How a worker is, in a word: what says most of why it gets tasks, or gets none.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum AgentState {
    /// It takes tasks.
    Ready,
    /// It takes none for now, by itself.
    Standby,
    /// It takes no more, by itself or because an operator says so.
    Draining,
    /// It does not answer.
    Suspect,
    /// It is left out of an action for its failures or for being slow.
    Ejected,
    /// It has gone, and may come back with what it holds.
    Lost,
    /// It is not registered; an operator drains whoever comes with its name.
    Offline,
}

impl AgentState {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Ready,
        Self::Standby,
        Self::Draining,
        Self::Suspect,
        Self::Ejected,
        Self::Lost,
        Self::Offline,
    ];

    /// Whether it is there.
    pub fn is_online(self) -> bool {
        !matches!(self, Self::Lost | Self::Offline)
    }
}

/// A worker as an operator sees it.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct AgentView {
    /// The broker's name for it.
    pub node_id: NodeId,
    /// Its own name.
    pub agent_id: AgentId,
    /// How it is, in a word.
    pub state: AgentState,
    /// `"online"`, `"lost"` or `"offline"`.
    pub presence: &'static str,
    /// Whether it takes tasks. An agent that an operator drains is draining, whatever it says.
    pub readiness: Readiness,
    /// `"suspect"` while it does not answer; otherwise how it is at the action at which it is worst:
    /// `"ok"`, `"slow start"`, `"ejected"` (it is left out for being slow), `"half-open"` (its breaker
    /// lets one task through), `"probing"` (it has that task) or `"breaker open"`.
    pub health: &'static str,
    /// The actions at which it is not ok.
    pub unwell: Vec<ActionHealth>,
    /// What it serves.
    pub actions: Vec<ActionName>,
    /// Its capability labels.
    pub labels: Labels,
    /// Handlers that may run at once.
    pub slots: u32,
    /// Attempts charged to it.
    pub in_flight: u32,
    /// Attempts that it has besides, whose handlers wait for other tasks.
    pub parked: u32,
    /// ms since it was last heard; none of one that is offline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen_ms: Option<u64>,
    /// The operator who keeps new tasks from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drained: Option<Drained>,
}
