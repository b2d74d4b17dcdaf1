//! Why a task would go to a worker, or to none, and why it went where it did. To ask changes nothing:
//! no random number is drawn, no turn taken, no queue made.

mod question;
mod view;

use mcp_proto::limits::MAX_EXPLANATION_BYTES;
use mcp_proto::{Decision, ErrorCode, ErrorInfo, Explanation, Labels};

use super::admission::Newcomer;
use super::balancer::{Ask, MAX_ODDS, Member, Odds};
use super::fallback::is_want_of_worker;
use super::health::barred;
use super::inflight::{Task, TaskKey};
use super::pool::Pool;
use super::queue::{Spot, SubQueue};
use super::registry::AgentKey;
use super::submission::affinity;
use super::{Core, Now, shadow};
pub use question::Question;
use view::{Extent, View};

/// Less than a millisecond, as any answer to an operator.
const FOR_OPERATORS: Extent = Extent { listed: MAX_ODDS, looked_at: 1_000 };

/// Any client can ask for it with any task. Its length is bounded besides.
const IN_TRACES: Extent = Extent { listed: 16, looked_at: 256 };

/// How a worker is found for an attempt.
#[derive(Debug, Clone, Copy)]
pub(super) enum Found<'a> {
    /// By its action's policy.
    ByPolicy,
    /// By its action's policy, without these.
    Except(&'a [Member]),
    /// It has room, and it is the task's turn.
    WithRoom(AgentKey),
}

/// A sub-queue in which a task would be: one that there is, or as it would be made.
enum Queue<'a> {
    There(&'a SubQueue),
    Made(Box<SubQueue>),
}

/// Where a task would be, and how likely that is.
struct Branch<'a> {
    /// The arm of a split.
    arm: Option<String>,
    share: f64,
    queue: Queue<'a>,
    odds: Odds,
}

impl Queue<'_> {
    fn it(&self) -> &SubQueue {
        match self {
            Queue::There(it) => it,
            Queue::Made(it) => it,
        }
    }
}

impl Core {
    /// What would become of a task if it came now. Names at most 256 workers, and changes nothing.
    pub fn explain(&self, now: Now, question: &Question) -> Explanation {
        let action = &question.action;
        let mut required = Labels(question.labels.clone());
        if question.shadow {
            shadow::require(&mut required);
        }
        let is_shadow = shadow::is_shadow(&required);
        let ask = Ask { key: affinity(question.affinity_key.as_bytes()), avoid: None };
        let policy = self.rules.of(action.as_str()).policy.of_key(ask.key).name().to_string();
        let mut it = Explanation { policy, ..Explanation::default() };
        let pools = if is_shadow { &self.shadow.pool_names } else { &self.pool_names };
        let Some(pool) = pools.get(action).and_then(|key| self.pools.get(*key)) else {
            self.nobody(&mut it, self.nobody_for(action, &required, 0));
            if !is_shadow {
                if self.degraded.contains_key(action) {
                    refuse(&mut it, self.degraded_error(action.as_str()));
                }
                let chain = &self.rules.of(action.as_str()).fallback;
                it.fallback = chain.iter().map(|step| step.told().into()).collect();
            }
            self.refuse_any(&mut it, is_shadow);
            return it;
        };
        let branches = self.branches(pool, &required, ask);
        if branches.is_empty() {
            refuse(&mut it, pool.too_many_subqueues());
            return it;
        }
        it.queued = branches.iter().map(|branch| waiting(pool, branch.queue.it(), ask.key)).sum();
        it.candidates = branches.iter().map(|it| it.queue.it().balancer.len() as u32).sum();
        let tenant = pool.tenants.find(question.tenant.as_bytes());
        let newcomer = Newcomer {
            action: action.into(),
            is_shadow,
            required: &required,
            affinity: ask.key,
            tenant: question.tenant.as_bytes(),
            sender: None,
            priority: question.priority,
            bytes: 0,
            deadline: now.mono.plus_ms(question.ttl_ms),
            is_delayed: false,
        };
        let left_bytes = self.left_waiting_bytes(is_shadow);
        let refusals: Vec<_> = branches
            .iter()
            .map(|Branch { queue, .. }| {
                let at = (pool.home_of(queue.it(), ask.key), queue.it());
                pool.check(now.mono, at, tenant, &newcomer, left_bytes, &self.config).err()
            })
            .collect();
        // What is said of one is said of the likeliest that goes on best.
        let routes = branches.iter().position(|branch| !branch.odds.members.is_empty());
        let waits = || refusals.iter().position(Option::is_none);
        let told = routes.or_else(waits).unwrap_or(0);
        let (main, subqueue) = (&branches[told], branches[told].queue.it());
        if let Some(refusal) = &refusals[told] {
            refuse(&mut it, refusal.clone());
        } else if routes.is_some() {
            it.decision = Decision::Route;
            it.why = why(pool, &main.odds, subqueue, ask);
        } else {
            let at = (pool.home_of(subqueue, ask.key), subqueue);
            self.wait(now, &mut it, pool, at, pool.spot_of(now.mono, tenant, &newcomer));
        }
        if let Some(restriction) = self.restriction_of(pool) {
            refuse(&mut it, restriction);
        }
        self.refuse_any(&mut it, is_shadow);
        let wants_worker = match (it.decision, it.error_code) {
            (Decision::Route, _) => false,
            (_, Some(code)) => is_want_of_worker(code),
            (_, None) => {
                refusals.iter().any(Option::is_some)
                    || branches.iter().any(|branch| !branch.queue.it().has_worker())
            }
        };
        if !is_shadow && wants_worker {
            it.fallback = pool.rules.fallback.iter().map(|step| step.told().into()).collect();
        }
        if it.decision != Decision::Refuse {
            it.why = format!("{}{}", by_split(&branches, main), it.why);
        }
        let nobody = Odds::default();
        let views = branches.iter().map(|branch| {
            let odds = if it.decision == Decision::Route { &branch.odds } else { &nobody };
            let (subqueue, registry) = (branch.queue.it(), &self.registry);
            let view = View { now, pool, subqueue, registry, ask, passed_over: &[] };
            (view, odds, branch.share)
        });
        let views: Vec<_> = views.collect();
        view::list(&mut it, &views, &FOR_OPERATORS);
        it
    }

    /// Where a new task may be, the likeliest first: in one place, but for tasks that are divided
    /// among arms by chance. None where there are too many.
    fn branches<'a>(&'a self, pool: &'a Pool, required: &Labels, ask: Ask) -> Vec<Branch<'a>> {
        let branch = |required: &Labels, without_arm, arm, share| {
            let queue = match pool.find_subqueue(required, without_arm) {
                Some(index) => Queue::There(&pool.subqueues[index]),
                None => Queue::Made(pool.new_subqueue(required)?.into()),
            };
            let odds = pool.odds(queue.it(), ask, |_| false);
            Some(Branch { arm, share, queue, odds })
        };
        let arms = self.arm_odds(pool, required, ask.key);
        if arms.is_empty() {
            return branch(required, None, None, 1.0).into_iter().collect();
        }
        let of_arm = arms.iter().filter_map(|(arm, share)| {
            branch(&arm.labels(required), Some(required), Some(arm.arm().name.clone()), *share)
        });
        let mut branches: Vec<_> = of_arm.collect();
        branches.sort_by(|a, b| b.share.total_cmp(&a.share));
        branches
    }

    /// Refuses a task whatever it asks for, if any would be.
    fn refuse_any(&self, it: &mut Explanation, is_shadow: bool) {
        if self.is_shutting_down {
            refuse(it, ErrorInfo::new(ErrorCode::ShuttingDown, "the broker is shutting down"));
        } else if let Err(refusal) = self.room_for_task(is_shadow) {
            refuse(it, refusal);
        }
    }

    /// A task for which nobody has room.
    fn wait(
        &self,
        now: Now,
        it: &mut Explanation,
        pool: &Pool,
        (home, subqueue): (Option<Member>, &SubQueue),
        spot: Spot,
    ) {
        if subqueue.is_barred() {
            return self.nobody(it, barred(now.mono, pool, subqueue));
        }
        if subqueue.ready == 0 {
            let SubQueue { required, eligible, .. } = subqueue;
            return self.nobody(it, self.nobody_for(&pool.action, required, *eligible));
        }
        it.decision = Decision::Wait;
        it.predicted_wait_ms = pool.predict((home, subqueue), spot).map(|(us, _)| us / 1000);
        let workers = match subqueue.ready {
            _ if !pool.may_run() => {
                format!("as many of its tasks run as may (max_running={})", pool.rules.max_running)
            }
            _ if home.is_some() => "the worker of its key has no room".to_owned(),
            1 => "the one worker that is ready for it has no room".to_owned(),
            ready => format!("none of the {ready} workers that are ready for it has room"),
        };
        let own = home.and_then(|home| pool.pinned_lines(home));
        let lines = own.into_iter().chain([&subqueue.lines]);
        let ahead: usize = lines.map(|lines| lines.ahead_of(spot)).sum();
        it.why = match it.queued {
            0 => workers,
            queued => format!("{workers}; {queued} tasks wait, {ahead} of them before it"),
        };
    }

    /// A task that no ready worker could take.
    fn nobody(&self, it: &mut Explanation, error: ErrorInfo) {
        it.decision = Decision::Wait;
        it.error_code = Some(error.code);
        it.why = format!(
            "{}; rejected after {} ms unless that changes",
            error.message, self.config.no_worker_wait_ms
        );
    }

    /// The same of a task that may have asked for it.
    pub(super) fn explain_if_asked(&mut self, now: Now, key: TaskKey, found: Found<'_>) {
        if self.tasks.get(key).is_some_and(Task::is_explained) {
            self.explain_attempt(now, key, found);
        }
    }

    /// Notes why a task's next attempt goes where it goes, just before it does.
    #[cold]
    pub(super) fn explain_attempt(&mut self, now: Now, key: TaskKey, found: Found<'_>) {
        let Some(task) = self.tasks.get(key) else { return };
        let Some(pool) = self.pools.get(task.pool) else { return };
        let (subqueue, registry) = (&pool.subqueues[task.subqueue], &self.registry);
        let mut ask = task.ask(registry);
        let mut except = &[][..];
        if let Found::Except(members) = found {
            (except, ask.avoid) = (members, None);
        }
        let queued = waiting(pool, subqueue, ask.key);
        let odds = match found {
            Found::WithRoom(agent) => with_room(queued, registry.member(agent, task.pool)),
            _ => pool.odds(subqueue, ask, |member| except.contains(&member)),
        };
        let mut it = Explanation {
            decision: Decision::Route,
            why: match found {
                Found::WithRoom(_) => odds.how.clone(),
                _ => why(pool, &odds, subqueue, ask),
            },
            policy: pool.rules.policy.of_key(ask.key).name().to_string(),
            queued,
            candidates: subqueue.balancer.len() as u32,
            ..Explanation::default()
        };
        let passed_over: Vec<_> = except.iter().copied().chain(ask.avoid).collect();
        let view = View { now, pool, subqueue, registry, ask, passed_over: &passed_over };
        view::list(&mut it, &[(view, &odds, 1.0)], &IN_TRACES);
        it.cut(MAX_EXPLANATION_BYTES);
        let attempt = task.attempts + 1;
        if let Some(task) = self.tasks.get_mut(key) {
            task.explain(attempt, it);
        }
    }
}

fn refuse(it: &mut Explanation, error: ErrorInfo) {
    it.decision = Decision::Refuse;
    it.error_code = Some(error.code);
    it.why = error.message;
}

fn why(pool: &Pool, odds: &Odds, subqueue: &SubQueue, ask: Ask) -> String {
    match subqueue.balancer.len() {
        _ if odds.members.is_empty() => "no worker has room".to_owned(),
        _ if pool.home_of(subqueue, ask.key).is_some() => odds.how.clone(),
        1 => "the only worker with room".to_owned(),
        candidates => format!("{}, of {candidates} workers with room", odds.how),
    }
}

/// Tasks that wait for the same workers as one with this key.
fn waiting(pool: &Pool, subqueue: &SubQueue, key: u64) -> u64 {
    let own = pool.home_of(subqueue, key).and_then(|home| pool.pinned_lines(home));
    (subqueue.lines.queued + own.map_or(0, |lines| lines.queued)) as u64
}

/// What is to be said of the arms of a split, before what is said of one.
fn by_split(branches: &[Branch<'_>], main: &Branch<'_>) -> String {
    let name = |branch: &Branch<'_>| branch.arm.clone().unwrap_or_default();
    match branches {
        [] | [Branch { arm: None, .. }] => String::new(),
        [only] => format!("arm {} of its split: ", name(only)),
        [_, ..] => {
            let shares =
                branches.iter().map(|it| format!("{:.0} % {}", it.share * 100.0, name(it)));
            format!("by its split {}; in {}: ", shares.collect::<Vec<_>>().join(", "), name(main))
        }
    }
}

/// A worker with room takes the task whose turn it is.
fn with_room(queued: u64, member: Option<Member>) -> Odds {
    let how = match queued {
        0 | 1 => "it had room, and this task waited".to_owned(),
        queued => format!("it had room, and of {queued} tasks that waited it was this one's turn"),
    };
    Odds::certain(member, how)
}
