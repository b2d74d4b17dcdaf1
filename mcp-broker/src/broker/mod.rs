//! The broker's core: every rule of the broker, as a state machine without I/O.
//!
//! It has no sockets, no clock and no randomness of its own. Whoever holds it feeds it inputs, each
//! with the time, and then does what the outputs say, in their order:
//!
//! 1. `handle_*`: something happened;
//! 2. [`Core::poll_output`] until it returns none;
//! 3. [`Core::poll_timeout`]: call [`Core::handle_timeout`] at that time, if nothing happens before.
//!
//! The same inputs with the same seed give the same outputs.
//!
//! A task's way through the files: `submission` takes it, if `admission` lets it (`rates`), `dispatch`
//! places it (`pool`, `queue`, `balancer`), `uploading` passes on what follows of its input (`uploads`), `streaming` what comes of
//! its result before the end (`streams`), `results` takes what its worker made of it, `retries` says
//! whether it is tried again (`budget`), `fallback` what answers when there is no worker, `hedging` whether another attempt begins beside a slow one
//! (`p95`), `ending` tells its outcome. `inflight` has the states of tasks and attempts, `family` ties
//! tasks to those that sent them (`parking` frees their slots meanwhile), `registry` has the states of
//! workers (which `registration` and `liveness` change), `sessions` those of clients (`clients`),
//! `health` those of workers that do their tasks badly, `draining` those that an operator keeps tasks from. Shadow tasks go the same way beside the live
//! ones (`shadow`); `mirroring` copies live ones to them (`mirror`), and `split` divides them among arms.
//! `durable` has what outlives the broker: the journal's records, and what is kept of tasks that ended.

mod admin;
mod admission;
mod arrivals;
mod audit;
mod balancer;
mod budget;
mod clients;
mod config;
mod digest;
mod dispatch;
mod draining;
mod durable;
mod ending;
mod experiments;
mod explain;
mod fallback;
mod family;
mod finished;
mod hash;
mod health;
mod hedging;
mod histogram;
mod identities;
mod identity;
mod inflight;
mod liveness;
mod mean;
mod metrics;
mod mirror;
mod mirroring;
mod orders;
mod output;
mod p95;
mod parking;
mod peers;
mod permissions;
mod pinning;
mod pool;
mod queue;
mod rates;
mod recent;
mod reconfigure;
mod registration;
mod registry;
mod results;
mod retries;
mod rng;
mod rules;
mod sessions;
mod shadow;
mod shutdown;
mod slab;
mod split;
mod standing;
mod stats;
mod streaming;
mod streams;
mod submission;
mod talk;
mod time;
mod timers;
mod traced;
mod uploading;
mod uploads;
mod usage;

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::BytesMut;
use foldhash::fast::FixedState;
use mcp_proto::{ActionName, AgentId, Hop, Message};

pub use admin::{AdminFunction, Asker};
pub use audit::Act;
pub use balancer::{Affinity, Policy};
pub use config::CoreConfig;
pub use draining::Drained;
pub use durable::{
    AcceptedTask, DeadLetter, DurableRules, DurableStats, EndedTask, Journal, Record, Restored,
    SettledTask, TaskName,
};
pub use experiments::{ArmView, Durations, Experiments, MirrorView};
pub use explain::Question;
pub use fallback::{CachedBy, Degraded, FallbackStep};
pub use health::{ActionHealth, BreakerRules, Breakers, OutlierRules};
pub use hedging::HedgeRule;
pub use histogram::Histogram;
pub use identity::Identity;
pub use metrics::{ActionMetrics, Metrics, TaskCounts};
pub use mirror::{MirrorCounts, MirrorRule};
pub use orders::Orders;
pub use output::{ConnectionId, Disconnect, Event, Level, Output};
pub use permissions::{AccessPolicy, Pattern, RoleNames, Roles};
pub use rates::RateLimit;
pub use rules::ActionRules;
pub use shadow::ShadowStats;
pub use split::{Arm, ArmMetrics};
pub use stats::{AgentState, AgentView, Stats};
pub use time::{Mono, Now};
pub use traced::{TaskTrace, TraceRules};

use balancer::Member;
use budget::Budget;
use durable::{Durable, LedgerKey};
use fallback::Answers;
use finished::Finished;
use health::Memory;
use identities::Identities;
use inflight::{Attempt, AttemptIds, AttemptKey, TaskKey, Tasks};
use metrics::Measured;
use mirror::Mirrors;
use peers::Peer;
use permissions::{Arriving, InForce, Owners};
use pool::{Pool, PoolKey};
use registry::{AgentKey, Registry};
use rng::Rng;
use rules::Rules;
use sessions::{SessionKey, Sessions};
use shadow::Shadow;
use slab::Slab;
use streams::Streams;
use timers::Timers;
use uploads::Uploads;

/// The broker's core. See the [module](self) for how to drive it.
pub struct Core {
    config: CoreConfig,
    rng: Rng,
    peers: HashMap<ConnectionId, Peer, FixedState>,
    registry: Registry,
    pools: Slab<Pool>,
    /// Of the live ones.
    pool_names: HashMap<ActionName, PoolKey, FixedState>,
    shadow: Shadow,
    mirrors: Mirrors,
    tasks: Tasks,
    attempts: Slab<Attempt>,
    attempt_ids: AttemptIds,
    sessions: Sessions,
    identities: Identities,
    finished: Finished,
    answers: Answers,
    streams: Streams,
    uploads: Uploads,
    durable: Durable,
    timers: Timers<Timer>,
    /// How often a task was queued: orders those that are else the same.
    tickets: u64,
    /// What waits, in all queues.
    waiting: queue::Totals,
    /// What waits for its time, in no queue.
    delayed: queue::Totals,
    /// Actions with waiting tasks, and a cap on how many run, of which an attempt has just ended.
    below_cap: Vec<PoolKey>,
    retry_budget: Budget,
    is_shutting_down: bool,
    rules: Rules,
    policy: InForce,
    arriving: Option<Arriving>,
    /// Whose the names are of workers that are gone.
    owners: Owners,
    /// Of workers that failed.
    memory: Memory,
    /// Actions that an operator keeps from their workers.
    degraded: HashMap<ActionName, Degraded, FixedState>,
    /// Agents, registered or not, that an operator keeps new tasks from.
    drained: BTreeMap<AgentId, Drained>,
    /// Tasks of actions that are not core are refused.
    is_shedding: bool,
    outputs: VecDeque<Output>,
    /// What is to be asked about with [`pause_ms`](Self::pause_ms).
    talks_too_much: Option<ConnectionId>,
    /// Where outcomes are encoded that are not kept.
    arena: BytesMut,
    /// Where tasks are put together.
    scratch: BytesMut,
    /// Empty, with room for the hops of the next task: nearly each gets its only one when it ends.
    spare_hops: Vec<Hop>,
    stats: Stats,
    measured: Measured,
    /// See [`traced`]: only of tasks whose hash is below this, or that come with a trace.
    sampled_below: u64,
}

/// What a timer is about.
#[derive(Debug, Clone, Copy)]
enum Timer {
    Hello(ConnectionId),
    Task(TaskKey),
    Agent(AgentKey),
    Cancel(AttemptKey),
    Session(SessionKey),
    Health(PoolKey, Member),
    Outage(PoolKey),
    SendOn(PoolKey),
    /// The retention of a durable task's outcome, or of its id.
    Forget(LedgerKey),
    /// Of a dead letter's number.
    DeadLetter(u64),
    Drain,
}

impl Core {
    /// A core without connections, workers or tasks.
    pub fn new(config: CoreConfig) -> Self {
        let mut rng = Rng::new(config.seed);
        let mut seed = || rng.next_u64();
        let hasher = FixedState::with_seed(seed());
        Self {
            peers: HashMap::with_hasher(hasher.clone()),
            rules: Rules::new(config.rules.clone(), config.actions.clone(), hasher.clone()),
            registry: Registry::new(seed()),
            pools: Slab::default(),
            mirrors: Mirrors::new(seed()),
            shadow: Shadow::new(config.retry_budget_percent, hasher.clone()),
            pool_names: HashMap::with_hasher(hasher.clone()),
            degraded: HashMap::with_hasher(hasher),
            drained: BTreeMap::new(),
            is_shedding: false,
            tasks: Tasks::new(seed()),
            attempts: Slab::default(),
            attempt_ids: AttemptIds::new(config.epoch),
            sessions: Sessions::new(seed()),
            identities: Identities::new(seed()),
            finished: Finished::new(config.kept_results, config.kept_result_bytes),
            answers: Answers::new(config.cached_answers, config.cached_answer_bytes, seed()),
            streams: Streams::new(config.stream_bytes, config.kept_results),
            uploads: Uploads::new(config.max_upload_bytes),
            durable: Durable::default(),
            timers: Timers::new(),
            tickets: 0,
            below_cap: Vec::new(),
            waiting: queue::Totals::default(),
            delayed: queue::Totals::default(),
            retry_budget: Budget::of_retries(config.retry_budget_percent),
            is_shutting_down: false,
            memory: Memory::new(seed()),
            policy: InForce::default(),
            arriving: None,
            owners: Owners::new(config.max_agents, config.seed),
            outputs: VecDeque::new(),
            talks_too_much: None,
            arena: BytesMut::new(),
            scratch: BytesMut::new(),
            spare_hops: Vec::new(),
            stats: Stats::default(),
            measured: Measured::new(seed()),
            sampled_below: Self::sampled_below(&config.tracing),
            rng,
            config,
        }
    }

    /// The configuration it was made with.
    pub fn config(&self) -> &CoreConfig {
        &self.config
    }

    /// When to call [`Core::handle_timeout`]. May move with every input.
    pub fn poll_timeout(&self) -> Option<Mono> {
        self.timers.next()
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Time has passed: does everything that is due at `now`.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(timer) = self.timers.fire(now.mono) {
            match timer {
                Timer::Hello(connection) => self.hello_is_late(now, connection),
                Timer::Task(task) => self.task_is_due(now, task),
                Timer::Agent(agent) => self.check_agent(now, agent),
                Timer::Cancel(attempt) => self.cancel_is_unconfirmed(attempt),
                Timer::Session(session) => self.end_session(now, session),
                Timer::Health(pool, member) => self.health_is_due(now, pool, member),
                Timer::Outage(pool) => self.outage_lasts(now, pool),
                Timer::SendOn(pool) => self.send_on(now, pool),
                Timer::Forget(entry) => self.forget(entry),
                Timer::DeadLetter(number) => {
                    self.drop_dead_letter(number);
                }
                Timer::Drain => self.drain_is_over(now),
            }
        }
    }

    /// Counters since the start, and gauges of now.
    pub fn stats(&self) -> Stats {
        let live = self.tasks.len() - self.shadow.tasks;
        let (waiting, delayed) = (&self.waiting, &self.delayed);
        let running = |all: usize, queued: usize, delayed: usize| (all - queued - delayed) as u64;
        Stats {
            queued: waiting.live.tasks as u64,
            delayed: delayed.live.tasks as u64,
            running: running(live, waiting.live.tasks, delayed.live.tasks),
            shadow: ShadowStats {
                queued: waiting.shadow.tasks as u64,
                delayed: delayed.shadow.tasks as u64,
                running: running(self.shadow.tasks, waiting.shadow.tasks, delayed.shadow.tasks),
                ..self.stats.shadow
            },
            in_flight: self.attempts.len() as u64,
            agents_online: self.registry.online() as u64,
            sessions: self.sessions.len() as u64,
            streams: self.streams.len() as u64,
            stream_bytes: self.streams.kept_bytes(),
            uploads: self.uploads.open().len() as u64,
            upload_bytes: self.uploads.set_aside_bytes() as u64,
            connections: self.peers.len() as u64,
            durable: self.durable_stats(),
            ..self.stats
        }
    }

    fn send(&mut self, to: ConnectionId, message: Message) {
        self.outputs.push_back(Output::Send { to, message });
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(Box::new(event)));
    }
}
