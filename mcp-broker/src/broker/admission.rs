//! Whether a task is taken: rates, bounds, and whether its turn would come in time.
//!
//! What is refused is refused at once, and told when to come again: a queue that is longer than what
//! its tasks may wait makes all of them late, and what is late is work for nothing.

use mcp_proto::{ActionRef, ErrorCode, ErrorInfo, Labels, Priority};

use super::balancer::Member;
use super::config::CoreConfig;
use super::inflight::Task;
use super::pool::{MAX_SUBQUEUES, Pool, PoolKey};
use super::queue::{Rank, Spot, SubQueue, Tenant, Total};
use super::rates::Bucket;
use super::rules::ActionRules;
use super::sessions::SessionKey;
use super::split::Assigned;
use super::{Core, Mono, Now, shadow};

/// What one tenant may hold of a queue, or one session of tasks without a tenant: so many times what is
/// free of it. Alone it gets to 8 ÷ 9 of the bound; of n that all want more, each gets 8 ÷ (8 n + 1); and
/// there is always some room for who comes next. Source: Choudhury, Hahne, "Dynamic Queue Length Thresholds
/// for Shared-Memory Packet Switches", IEEE/ACM Transactions on Networking 6(2), 1998.
const TIMES_WHAT_IS_FREE: usize = 8;

/// Bounds of when a task that would wait too long is told to come again, ms. Whoever comes every few
/// ms only adds to the load.
const RETRY_AFTER_MS: std::ops::RangeInclusive<u64> = 10..=30_000;

/// What is asked about a task that comes.
pub(super) struct Newcomer<'a> {
    pub(super) action: ActionRef<'a>,
    pub(super) is_shadow: bool,
    pub(super) required: &'a Labels,
    /// Its affinity key's hash, 0 without one.
    pub(super) affinity: u64,
    pub(super) tenant: &'a [u8],
    /// Whose task it is, if that is known.
    pub(super) sender: Option<SessionKey>,
    pub(super) priority: Priority,
    pub(super) bytes: usize,
    pub(super) deadline: Mono,
    /// It waits for its time first.
    pub(super) is_delayed: bool,
}

/// Where a task is that was taken.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) pool: PoolKey,
    pub(super) subqueue: usize,
    pub(super) tenant: Tenant,
    pub(super) arm: Option<Assigned>,
}

impl Core {
    /// Takes a task, if that can be: it counts for its rates, and for its tenant.
    pub(super) fn admit(
        &mut self,
        now: Now,
        newcomer: &Newcomer<'_>,
    ) -> Result<Admitted, ErrorInfo> {
        self.room_for_task(newcomer.is_shadow)?;
        let key = self.pool(newcomer.action, newcomer.is_shadow);
        if self.pools.get(key).is_some_and(|pool| pool.is_restricted)
            && let Some(error) = self.restriction(key)
        {
            self.drop_pool_if_unused(key);
            return Err(error);
        }
        let arm = self.assign_arm(key, newcomer.required, newcomer.affinity);
        let left_bytes = self.left_waiting_bytes(newcomer.is_shadow);
        let Some(pool) = self.pools.get_mut(key) else { unreachable!("made above") };
        let tenant = pool.tenants.enter(now.mono, newcomer.tenant);
        match pool.admit(now.mono, tenant, newcomer, arm.as_ref(), left_bytes, &self.config) {
            Ok(subqueue) => Ok(Admitted { pool: key, subqueue, tenant, arm }),
            Err(error) => {
                pool.tenants.leave(tenant);
                self.drop_pool_if_unused(key);
                Err(error)
            }
        }
    }

    /// A place among an action's live tasks for one that is not to wait there, nor to go to its
    /// workers.
    pub(super) fn enter_anyway(
        &mut self,
        now: Now,
        action: ActionRef<'_>,
        tenant: &[u8],
    ) -> Admitted {
        let key = self.pool(action, false);
        let pool = self.pools.get_mut(key);
        let tenant = pool.map_or(Tenant::NONE, |pool| pool.tenants.enter(now.mono, tenant));
        Admitted { pool: key, subqueue: 0, tenant, arm: None }
    }

    /// A place for a task that was taken before, whatever the bounds and rates.
    pub(super) fn admit_anyway(
        &mut self,
        now: Now,
        newcomer: &Newcomer<'_>,
    ) -> Result<Admitted, ErrorInfo> {
        let key = self.pool(newcomer.action, newcomer.is_shadow);
        let arm = self.assign_arm(key, newcomer.required, newcomer.affinity);
        let Some(pool) = self.pools.get_mut(key) else { unreachable!("made above") };
        let Some(subqueue) = pool.subqueue_for(newcomer.required, arm.as_ref()) else {
            return Err(pool.too_many_subqueues());
        };
        let tenant = pool.tenants.enter(now.mono, newcomer.tenant);
        Ok(Admitted { pool: key, subqueue, tenant, arm })
    }

    /// How many bytes more of tasks of a kind may wait.
    pub(super) fn left_waiting_bytes(&self, is_shadow: bool) -> usize {
        let waiting = if is_shadow { self.waiting.shadow } else { self.waiting.live };
        self.config.max_waiting_bytes.saturating_sub(waiting.bytes)
    }

    /// Refuses a task when there are as many of its kind as may be.
    pub(super) fn room_for_task(&self, is_shadow: bool) -> Result<(), ErrorInfo> {
        let (kind, tasks, max_tasks) = if is_shadow {
            let max_tasks = self.config.max_tasks / shadow::LIVE_TASKS_FOR_EACH;
            ("shadow tasks", self.shadow.tasks, max_tasks.max(1))
        } else {
            ("tasks", self.tasks.len() - self.shadow.tasks, self.config.max_tasks)
        };
        if tasks < max_tasks {
            return Ok(());
        }
        let message = format!("the broker has {tasks} {kind}, its limit");
        Err(ErrorInfo::new(ErrorCode::QueueFull, message).retry_after_ms(1_000))
    }
}

impl Pool {
    /// The sub-queue of a task that can be taken, whose rates it counts for.
    #[inline]
    fn admit(
        &mut self,
        now: Mono,
        tenant: Tenant,
        newcomer: &Newcomer<'_>,
        arm: Option<&Assigned>,
        left_bytes: usize,
        config: &CoreConfig,
    ) -> Result<usize, ErrorInfo> {
        let Some(index) = self.subqueue_for(newcomer.required, arm) else {
            return Err(self.too_many_subqueues());
        };
        let at = (self.home(index, newcomer.affinity), &self.subqueues[index]);
        let buckets = self.check(now, at, tenant, newcomer, left_bytes, config)?;
        if let Some([of_action, of_tenant]) = buckets {
            self.bucket = of_action;
            *self.tenants.bucket_mut(tenant) = of_tenant;
        }
        Ok(index)
    }

    /// The sub-queue of tasks with these labels, of an arm of a split if they are for one.
    #[inline]
    fn subqueue_for(&mut self, required: &Labels, arm: Option<&Assigned>) -> Option<usize> {
        match arm {
            Some(arm) => self.subqueue(&arm.labels(required), Some(required)),
            None => self.subqueue(required, None),
        }
    }

    /// Whether a task can be taken that is for a worker alone, or for any of a sub-queue, where so
    /// many bytes more may wait; and if its rates are limited, the buckets of its action and its
    /// tenant once it is.
    #[inline]
    pub(super) fn check(
        &self,
        now: Mono,
        at: (Option<Member>, &SubQueue),
        tenant: Tenant,
        newcomer: &Newcomer<'_>,
        left_bytes: usize,
        config: &CoreConfig,
    ) -> Result<Option<[Bucket; 2]>, ErrorInfo> {
        if newcomer.is_delayed {
            self.check_delayed(newcomer.bytes, config)?;
        } else if !self.has_room_at(at.0, at.1) {
            if newcomer.bytes > left_bytes {
                let message = format!(
                    "{} bytes of tasks wait for workers, and the broker keeps no more",
                    config.max_waiting_bytes - left_bytes
                );
                let error = ErrorInfo::new(ErrorCode::QueueFull, message);
                return Err(error.retry_after_ms(self.retry_after_ms()));
            }
            self.check_bounds(tenant, newcomer, config)?;
            self.check_wait(now, at, tenant, newcomer)?;
        }
        if self.rules.rate_limit.is_off() && self.rules.tenant_rate_limit.is_off() {
            return Ok(None);
        }
        self.taken_from_buckets(now, tenant).map(Some)
    }

    /// One more task may wait for its time: they are bounded as the queue is.
    fn check_delayed(&self, bytes: usize, config: &CoreConfig) -> Result<(), ErrorInfo> {
        let bounds = self.rules.queue_bounds(config);
        let Total { tasks, bytes: held } = self.delayed;
        if tasks < bounds.tasks && held + bytes <= bounds.bytes {
            return Ok(());
        }
        let message = format!(
            "as many tasks of {} wait for their time as may: {tasks}, {held} bytes",
            self.action
        );
        Err(ErrorInfo::new(ErrorCode::QueueFull, message).retry_after_ms(1_000))
    }

    /// Refuses a task with yet another set of required labels.
    pub(super) fn too_many_subqueues(&self) -> ErrorInfo {
        let message = format!(
            "tasks with {MAX_SUBQUEUES} different sets of required labels are in flight for {}, \
             the limit",
            self.action
        );
        ErrorInfo::new(ErrorCode::QueueFull, message).retry_after_ms(1_000)
    }

    /// One more task of this tenant, or of this session if it names none, has room in the queue.
    fn check_bounds(
        &self,
        tenant: Tenant,
        newcomer: &Newcomer<'_>,
        config: &CoreConfig,
    ) -> Result<(), ErrorInfo> {
        let bounds = self.rules.queue_bounds(config);
        let free = bounds.tasks.saturating_sub(self.queued);
        let bytes_after = self.queued_bytes.saturating_add(newcomer.bytes);
        let (held, whose) = match tenant {
            Tenant::NONE => (newcomer.sender.map(|it| self.senders.waiting(it)), " for one client"),
            _ => (Some(self.tenants.waiting(tenant)), " for one tenant"),
        };
        let held = held.unwrap_or_default();
        let is_full = free == 0 || bytes_after > bounds.bytes;
        let has_its_share = held.tasks >= free.saturating_mul(TIMES_WHAT_IS_FREE)
            || held.bytes
                > (bounds.bytes.saturating_sub(bytes_after)).saturating_mul(TIMES_WHAT_IS_FREE);
        if !is_full && !has_its_share {
            return Ok(());
        }
        let whose = if is_full { "" } else { whose };
        let message = format!(
            "the queue of {} is full{whose}: {} tasks, {} bytes",
            self.action, self.queued, self.queued_bytes
        );
        let error = ErrorInfo::new(ErrorCode::QueueFull, message);
        Err(error.retry_after_ms(self.retry_after_ms()))
    }

    /// The turn of a task that has to wait will come in time, as far as can be told.
    fn check_wait(
        &self,
        now: Mono,
        at: (Option<Member>, &SubQueue),
        tenant: Tenant,
        newcomer: &Newcomer<'_>,
    ) -> Result<(), ErrorInfo> {
        let (max_wait_ms, deadline) = (self.rules.max_queue_wait_ms, newcomer.deadline);
        let spot = self.spot_of(now, tenant, newcomer);
        let Some((wait_us, service_us)) = self.predict(at, spot) else { return Ok(()) };
        // The mean that it is made of may be some percent too small.
        let at_most_us = wait_us.saturating_add(wait_us / 8);
        let left_us = deadline.since(now);
        // It has to be done in time as well. Who gives it less than tasks take knows better, or it
        // is lost anyway.
        let rest_us = if service_us <= left_us { service_us } else { 0 };
        let of_wait_us = match max_wait_ms {
            0 => 0,
            _ => at_most_us.saturating_sub(max_wait_ms.saturating_mul(1000)),
        };
        let of_ttl_us = at_most_us.saturating_add(rest_us).saturating_sub(left_us);
        let over_us = of_wait_us.max(of_ttl_us);
        if over_us == 0 {
            return Ok(());
        }
        let why = if of_wait_us > 0 {
            format!("tasks of {} may wait for {max_wait_ms} ms", self.action)
        } else {
            format!(
                "it has {} ms to live, and tasks of {} take about {} ms",
                left_us / 1000,
                self.action,
                service_us / 1000
            )
        };
        let message = format!("it would wait for about {} ms, but {why}", wait_us / 1000);
        let after_ms = over_us.div_ceil(1000).clamp(*RETRY_AFTER_MS.start(), *RETRY_AFTER_MS.end());
        Err(ErrorInfo::new(ErrorCode::Overloaded, message).retry_after_ms(after_ms))
    }

    /// Where a new task would wait.
    pub(super) fn spot_of(&self, now: Mono, tenant: Tenant, newcomer: &Newcomer<'_>) -> Spot {
        let rank = Rank::of_newcomer(self.rules.first_wait_until(now, newcomer.deadline));
        Spot { priority: newcomer.priority, tenant, rank }
    }

    /// How long a new task waits there as things are, and how long tasks take, in µs; none while too
    /// little is known.
    ///
    /// Slots that are all busy become free every service time ÷ slots (Little's law, which holds
    /// whatever the distribution), as if its workers served nothing else; and tasks that come later
    /// and go first are not foreseen.
    pub(super) fn predict(
        &self,
        (home, subqueue): (Option<Member>, &SubQueue),
        spot: Spot,
    ) -> Option<(u64, u64)> {
        let service_us = self.service.known_us()?;
        let wait_us = |tasks: u64, slots: u64| {
            let slots = match self.rules.max_running {
                0 => slots,
                cap => slots.min(cap.into()),
            };
            tasks.saturating_mul(service_us).checked_div(slots)
        };
        let (ahead, slots) = (subqueue.lines.ahead_of(spot) as u64, subqueue.ready_slots);
        let wait_us = match home {
            None => wait_us(ahead + 1, slots)?,
            // Those that any worker may take are shared out among all.
            Some(home) => {
                let own = self.pinned_lines(home).map_or(0, |lines| lines.ahead_of(spot)) as u64;
                let own_us = wait_us(own + 1, self.ready_slots(home).into())?;
                own_us.saturating_add(wait_us(ahead, slots)?)
            }
        };
        Some((wait_us, service_us))
    }

    /// Both buckets once a task is taken from those that it needs one of.
    fn taken_from_buckets(&self, now: Mono, tenant: Tenant) -> Result<[Bucket; 2], ErrorInfo> {
        let (rules, action) = (&self.rules, &self.action);
        let refused = |whose: &str, per_s, after_ms| {
            let message = format!("{whose} may send {per_s} tasks of {action} a second");
            ErrorInfo::new(ErrorCode::RateLimited, message).retry_after_ms(after_ms)
        };
        let (mut of_action, mut of_tenant) = (self.bucket, self.tenants.bucket(tenant));
        let limit = &rules.rate_limit;
        if !limit.is_off() {
            let taken = of_action.take(now, limit);
            of_action = taken.map_err(|after_ms| refused("clients", limit.per_s, after_ms))?;
        }
        let limit = &rules.tenant_rate_limit;
        if !limit.is_off() {
            let taken = of_tenant.take(now, limit);
            of_tenant = taken.map_err(|after_ms| refused("a tenant", limit.per_s, after_ms))?;
        }
        Ok([of_action, of_tenant])
    }
}

impl ActionRules {
    /// What may wait in the action's queue.
    pub(super) fn queue_bounds(&self, config: &CoreConfig) -> Total {
        let or = |own, other| if own > 0 { own } else { other };
        Total {
            tasks: or(self.max_queue_tasks, config.max_queue_tasks),
            bytes: or(self.max_queue_bytes, config.max_queue_bytes),
        }
    }

    /// Until when a task waits for a worker. One that had a worker is not sent away for having
    /// waited.
    pub(super) fn wait_until(&self, since: Mono, task: &Task) -> Mono {
        match task.attempts {
            // It waits as long as it lives.
            _ if task.is_durable => task.deadline,
            0 => self.first_wait_until(since, task.deadline),
            _ => task.deadline,
        }
    }

    fn first_wait_until(&self, since: Mono, deadline: Mono) -> Mono {
        match self.max_queue_wait_ms {
            0 => deadline,
            max_ms => deadline.min(since.plus_ms(max_ms)),
        }
    }
}
