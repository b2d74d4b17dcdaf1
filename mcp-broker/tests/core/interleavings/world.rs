//! A core with its workers and clients, to which things happen.

use mcp_broker::broker::{
    ActionRules, Affinity, Arm, CachedBy, ConnectionId, FallbackStep, HedgeRule, MirrorRule, Policy,
};
use mcp_proto::{Deliver, Message, Outcome, Route, Send, Task, TaskState};

use super::client::Client;
use super::ops::{Asks, Op};
use super::sent::{Attempt, Sent};
use super::worker::{Worker, arm_labels};
use super::{CLIENTS, MAX_COPIES, SHADOW_WORKER, WORKERS};
use crate::fixture::{Fixture, task, task_id};

/// What differs from one world to another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting {
    pub(super) policy: Policy,
    pub(super) affinity: Affinity,
    pub(super) health: Health,
    pub(super) retry_budget_percent: u32,
    pub(super) stream_bytes: usize,
    /// Whether what takes longer than most is hedged.
    pub(super) hedges: bool,
    pub(super) upload_bytes: usize,
    pub(super) mirror_percent: f64,
    /// Among the first two workers.
    pub(super) is_split: bool,
    /// Attempts that may run at once; 0: any number.
    pub(super) max_running: u32,
    pub(super) max_queue_wait_ms: u64,
    pub(super) chain: Chain,
}

/// How soon workers are judged, and tasks.
#[derive(Debug, Clone, Copy)]
pub(super) enum Health {
    AsUsual,
    Hasty,
    Off,
}

impl Health {
    fn set(self, rules: &mut ActionRules) {
        match self {
            Self::AsUsual => {}
            Self::Hasty => {
                rules.breaker.failures = 2;
                rules.breaker.open_ms = 500;
                rules.outlier.min_samples = 2;
                rules.outlier.eject_ms = 2_000;
                rules.slow_start_ms = 1_000;
                rules.poison_after = 2;
            }
            Self::Off => {
                rules.breaker.failures = 0;
                rules.outlier.sigmas = 0.0;
                rules.slow_start_ms = 0;
                rules.poison_after = 0;
            }
        }
    }
}

/// What there is for a task without a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chain {
    None,
    /// Another action.
    Spare,
    /// The last good answer, another action, and then what the workers would say.
    Whole,
}

impl Chain {
    fn steps(self) -> Vec<FallbackStep> {
        let cached = FallbackStep::Cached { max_age_ms: 1_000, by: CachedBy::Action };
        let spare = FallbackStep::Action(SPARE.try_into().unwrap());
        let default = FallbackStep::Default { body: "output".into(), content_type: "".into() };
        match self {
            Chain::None => Vec::new(),
            Chain::Spare => vec![spare],
            Chain::Whole => vec![cached, spare, default],
        }
    }

    /// The actions of a worker: where there is a chain, one has only the other action, and one both.
    fn actions(self, worker: usize) -> Vec<&'static str> {
        match (self, worker) {
            (Chain::None, _) | (_, 1) => vec![WORK],
            (_, 0) => vec![SPARE],
            (_, _) => vec![WORK, SPARE],
        }
    }
}

/// What all tasks ask for.
pub(super) const WORK: &str = "work";
/// What does it when nobody else does.
const SPARE: &str = "spare";

pub(super) struct World {
    pub(super) it: Fixture,
    pub(super) stream_bytes: usize,
    /// Attempts of an action that may run at once.
    pub(super) max_running: u64,
    pub(super) hedges: bool,
    pub(super) is_split: bool,
    /// Actions that workers serve.
    pub(super) actions: u64,
    pub(super) workers: Vec<Worker>,
    pub(super) clients: Vec<Client>,
    /// Asks for tasks that must have ended, and for where the others are.
    pub(super) observer: ConnectionId,
    /// Whether the core is asked what becomes of a task before it comes.
    pub(super) is_asked: bool,
    /// All tasks; each is named by its place.
    pub(super) sent: Vec<Sent>,
    /// An operator keeps the tasks from their workers.
    is_degraded: bool,
}

impl World {
    pub(super) fn new(setting: Setting) -> Self {
        let Setting { policy, affinity, health, .. } = setting;
        let Setting { retry_budget_percent, stream_bytes, upload_bytes, .. } = setting;
        let Setting { max_running, max_queue_wait_ms, hedges, chain, .. } = setting;
        let mut it = Fixture::with(|config| {
            config.rules.policy = policy;
            config.rules.mirror =
                Some(MirrorRule { percent: setting.mirror_percent, max_running: MAX_COPIES });
            if setting.is_split {
                let arm = |index| Arm {
                    name: format!("arm-{index}"),
                    labels: arm_labels(index),
                    weight: 1,
                };
                config.rules.split = vec![arm(0), arm(1)];
            }
            config.rules.affinity = affinity;
            config.rules.max_running = max_running;
            config.rules.max_queue_wait_ms = max_queue_wait_ms;
            health.set(&mut config.rules);
            config.rules.hedge = hedges.then(|| {
                let mut rule = HedgeRule::default();
                (rule.budget_percent, rule.min_samples, rule.min_delay_ms) = (100, 1, 0);
                rule
            });
            config.retry_budget_percent = retry_budget_percent;
            config.stream_bytes = stream_bytes;
            config.max_upload_bytes = upload_bytes;
            let mut rules = config.rules.clone();
            rules.fallback = chain.steps();
            config.actions.insert(WORK.try_into().unwrap(), rules);
        });
        let mut world = World {
            observer: it.client(),
            it,
            stream_bytes,
            is_split: setting.is_split,
            max_running: if max_running > 0 { max_running.into() } else { u64::MAX },
            hedges,
            actions: if chain == Chain::None { 1 } else { 2 },
            is_asked: true,
            workers: Vec::new(),
            clients: (0..CLIENTS).map(|_| Client::default()).collect(),
            sent: Vec::new(),
            is_degraded: false,
        };
        for index in 0..WORKERS {
            let (slots, prefetch) = (index as u32 + 1, index as u32 % 2);
            let actions = chain.actions(index);
            world.workers.push(Worker { slots, prefetch, actions, ..Default::default() });
            world.connect_worker(index, false);
        }
        (0..CLIENTS).for_each(|index| world.connect_client(index, false));
        if hedges {
            world.learn();
        }
        world
    }

    /// Some tasks take no time, so that what takes any is slow.
    fn learn(&mut self) {
        for number in 0..10 {
            self.it.send(self.observer, &format!("quick-{number}"));
            for worker in &mut self.workers {
                let Some(connection) = worker.connection else { continue };
                while let Some((Message::Route(route), _)) = self.it.next_for(connection) {
                    worker.routes += 1;
                    self.it.result(connection, route.attempt_id);
                }
            }
        }
        self.it.discard();
    }

    pub(super) fn task(&mut self, id: &str) -> &mut Sent {
        self.known(id).unwrap()
    }

    /// The task of an id, unless that is of a copy.
    pub(super) fn known(&mut self, id: &str) -> Option<&mut Sent> {
        if id.starts_with("mirror-") {
            return None;
        }
        let index: usize = id[1..].parse().unwrap();
        Some(&mut self.sent[index])
    }

    pub(super) fn attempt(&mut self, id: &str, number: u32) -> &mut Attempt {
        self.task(id).attempts.get_mut(&number).unwrap()
    }

    pub(super) fn apply(&mut self, op: Op) {
        match op {
            Op::Send { client, asks } => self.send(client, None, asks),
            Op::SendChild { client, asks, worker, held } => {
                if let Some((_, parent)) = self.running(worker, held) {
                    let parent = self.workers[worker].held[&parent].task.clone();
                    let is_shadow =
                        asks.is_shadow || self.known(&parent).is_some_and(|it| it.asks.is_shadow);
                    self.send(client, Some(parent), Asks { is_shadow, ..asks });
                }
            }
            Op::SendAgain { client, task } => self.send_again(client, task),
            Op::Cancel { client, task } => self.cancel(client, task),
            Op::ClientReads { client } => self.client_reads(client),
            Op::Credit { client, task } => self.credit(client, task),
            Op::ReadOn { client, task } => self.read_on(client, task),
            Op::ClientBreaks { client } => self.client_breaks(client),
            Op::ClientLeaves { client } => self.client_leaves(client),
            Op::ClientConnects { client, resumes_later } => {
                self.connect_client(client, resumes_later);
            }
            Op::ClientResumes { client } => self.client_resumes(client),
            Op::WorkerReads { worker } => self.worker_reads(worker),
            Op::Upload { client, task, chunks, is_end } => {
                self.upload(client, task, chunks, is_end);
            }
            Op::ReadInput { worker, held } => self.read_input(worker, held),
            Op::Emit { worker, held, bytes } => self.emit(worker, held, bytes),
            Op::Finish { worker, held, how } => self.finish(worker, held, how),
            Op::HandBack { worker, held } => self.hand_back(worker, held),
            Op::PutOff { worker, held, ms } => self.put_off(worker, held, ms),
            Op::Park { worker, held, is_parked } => self.park(worker, held, is_parked),
            Op::Sign { worker, held, is_start } => self.sign(worker, held, is_start),
            Op::Forget { worker, held } => {
                if let Some((_, attempt)) = self.running(worker, held) {
                    self.workers[worker].held.remove(&attempt);
                }
            }
            Op::Ping { worker, is_draining } => self.ping(worker, is_draining),
            Op::Repeat { worker } => self.repeat(worker),
            Op::Steal { worker, from, held } => self.steal(worker, from, held),
            Op::Break { worker } => self.worker_breaks(worker),
            Op::Leave { worker } => self.worker_leaves(worker),
            Op::Connect { worker, is_new_process } => self.connect_worker(worker, is_new_process),
            Op::ChangePolicy { policy, affinity } => self.change_policy(policy, affinity),
            Op::Degrade { is_degraded } => self.degrade(is_degraded),
            Op::AllRead => self.all_read(),
            Op::AllComeBack => self.all_come_back(),
            Op::Advance { ms } => self.it.advance(ms),
        }
        self.sort();
        self.check();
    }

    fn change_policy(&mut self, policy: Policy, affinity: Affinity) {
        let action = task("any").action;
        let mut rules = (*self.it.core.rules(action.as_str())).clone();
        (rules.policy, rules.affinity) = (policy, affinity);
        self.it.core.set_rules(self.it.now, action, rules);
        self.it.collect();
    }

    /// Sorts what the core sent into its receivers' connections.
    pub(super) fn sort(&mut self) {
        for index in 0..WORKERS {
            let Some(connection) = self.workers[index].connection else { continue };
            let mut was_routed = false;
            while let Some((message, _)) = self.it.next_for(connection) {
                if let Message::Route(route) = &message {
                    was_routed = true;
                    self.note_route(index, route);
                }
                self.workers[index].unread.push_back(message);
            }
            let charged = self.it.in_flight(&format!("w{index}"));
            let worker = &mut self.workers[index];
            let goes_on = u32::from(std::mem::take(&mut worker.goes_on));
            let max = worker.slots + worker.prefetch + goes_on;
            assert!(!was_routed || charged <= max, "{charged}");
        }
        let mut cut_short = Vec::new();
        for index in 0..CLIENTS {
            let Some(connection) = self.clients[index].connection else { continue };
            while let Some((message, body)) = self.it.next_for(connection) {
                if let Message::Deliver(deliver) = &message
                    && self.note_end(index, deliver)
                {
                    cut_short.push(deliver.task_id.to_string());
                }
                self.clients[index].unread.push_back((message, body));
            }
        }
        self.it.discard();
        cut_short.iter().for_each(|parent| self.check_no_child_is_left(parent));
    }

    /// An operator degrades the action of all tasks, or restores it.
    fn degrade(&mut self, is_degraded: bool) {
        let act = if is_degraded { "degrade" } else { "restore" };
        let task = Task {
            action: format!("mcp.admin.actions.{act}").try_into().unwrap(),
            ..task("operator")
        };
        let send = Message::Send(Send::new(task.encode(), 1_000));
        self.it.give_body(self.observer, send, format!(r#"{{"action":"{WORK}"}}"#));
        match self.it.next_for(self.observer) {
            Some((Message::Deliver(it), _)) => assert_eq!(it.outcome, Outcome::Ok, "{it:?}"),
            other => panic!("{other:?}"),
        }
        self.is_degraded = is_degraded;
    }

    fn note_route(&mut self, worker: usize, route: &Route) {
        let task = route.task.decode().unwrap();
        let id = task.id.to_string();
        let is_shadow = self.known(&id).is_none_or(|sent| sent.asks.is_shadow);
        assert_eq!((is_shadow, task.shadow), (worker == SHADOW_WORKER, is_shadow), "{id}");
        let is_spare = task.action.as_str() == SPARE;
        assert!(is_spare || is_shadow || !self.is_degraded, "{id}");
        if self.known(&id).is_none() {
            assert_eq!(route.attempt, 1);
            return;
        }
        let routed = self.it.routed[&route.attempt_id];
        let reader = self.task(&id).reader;
        let read_on = reader.and_then(|index| {
            let client = &self.clients[index];
            let connection = client.connection?;
            client.reads_now().contains(&id).then_some((index, connection))
        });
        let sent = self.task(&id);
        let at_most = sent.deadline.max(routed.plus_ms(1));
        assert!(routed.plus_ms(route.ttl_ms) <= at_most, "{id}");
        assert_eq!(route.stream_window_bytes > 0, sent.asks.window_bytes > 0);
        let attempt = Attempt { routed, put_off: None, emitted: Vec::new(), read_on, is_spare };
        assert!(sent.attempts.insert(route.attempt, attempt).is_none(), "{id}");
    }

    /// An outcome is on its way. Returns whether it is one that ends the children as well.
    fn note_end(&mut self, client: usize, deliver: &Deliver) -> bool {
        let sent = self.task(deliver.task_id.as_str());
        if goes_on(deliver) {
            if sent.reader == Some(client) {
                sent.reader = None;
            }
            return false;
        }
        sent.has_ended = true;
        sent.is_rejected |= deliver.outcome == Outcome::Rejected;
        matches!(deliver.outcome, Outcome::Cancelled | Outcome::Expired)
    }

    fn check_no_child_is_left(&mut self, parent: &str) {
        let children = self.sent.iter().filter(|it| it.parent.as_deref() == Some(parent));
        for child in children {
            self.it.give(self.observer, Message::Fetch(task_id(&child.id)));
            match self.it.next_for(self.observer) {
                Some((Message::Deliver(_) | Message::Status(_, TaskState::Unknown), _)) => {}
                other => panic!("{} outlives its parent {parent}: {other:?}", child.id),
            }
        }
    }

    /// Whoever has no connection gets one: clients first, so that they give credit to workers that
    /// are away.
    fn all_come_back(&mut self) {
        for client in 0..CLIENTS {
            if self.clients[client].connection.is_none() {
                self.connect_client(client, false);
            }
        }
        self.sort();
        self.clients_read();
        for worker in 0..WORKERS {
            if self.workers[worker].connection.is_none() {
                self.connect_worker(worker, false);
            }
        }
        self.sort();
        self.all_read();
    }

    fn clients_read(&mut self) {
        for client in 0..CLIENTS {
            self.client_resumes(client);
            self.sort();
            self.client_reads(client);
            self.credit_all(client);
        }
        self.sort();
    }

    /// Everybody reads all that there is, and clients give credit for it. Then each handler can emit
    /// more, unless a client that reads its parts is away.
    fn all_read(&mut self) {
        (0..WORKERS).for_each(|worker| self.ping(worker, false));
        self.sort();
        (0..WORKERS).for_each(|worker| self.worker_reads(worker));
        self.clients_read();
        (0..WORKERS).for_each(|worker| self.worker_reads(worker));
        if self.clients.iter().all(|client| client.connection.is_some() || client.has_left) {
            self.check_nobody_lacks_credit();
        }
    }
}

/// Whether only one of several sessions has this outcome, as it cancelled.
fn goes_on(deliver: &Deliver) -> bool {
    deliver.error.as_ref().is_some_and(|error| error.message.contains("so it goes on"))
}
