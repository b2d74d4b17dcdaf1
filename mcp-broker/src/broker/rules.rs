//! What holds for the tasks of an action: how its workers are chosen, and what bounds them.

use std::collections::HashMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use foldhash::fast::FixedState;
use mcp_proto::ActionName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::balancer::{Affinity, Policy};
use super::fallback::{self, FallbackStep, StepKind};
use super::health::{BreakerRules, MAX_POISON_AFTER, OutlierRules};
use super::hedging::{HedgeRule, Hedging};
use super::mirror::MirrorRule;
use super::pool::{Pool, PoolKey};
use super::rates::RateLimit;
use super::split::{self, Arm};
use super::{Core, Now};

/// The rules of one action. In a configuration file they are the keys of `[scheduling]`, which hold
/// for all actions, and of `[actions."NAME"]`, which hold for one: what a key says there takes
/// precedence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ActionRules {
    /// How a worker is chosen. `"least_loaded"`.
    pub policy: Policy,
    /// Under the policy `"session_hash"`: what a task with an affinity key does while its worker has
    /// no room. `"soft"`.
    pub affinity: Affinity,
    /// A priority that no task of goes to a worker for this long, while some wait, counts as the next
    /// higher one, until one goes. Longer than a few tasks take. In ms, 0: it never does. 5,000.
    pub age_ms: u64,
    /// Tasks that wait in the action's queue; beyond them, QUEUE_FULL. Tasks of one tenant take at
    /// most 8 ÷ 9 of it, and less when others wait too. 0: `limits.max_queue_tasks`.
    pub max_queue_tasks: usize,
    /// Bytes of the tasks that wait in the action's queue, likewise. 0: `limits.max_queue_bytes`.
    pub max_queue_bytes: usize,
    /// How long a task may wait for its first worker, in ms. One that would wait longer, by what
    /// waits before it and how long tasks take, is rejected at once with OVERLOADED; one that turns out
    /// to, then, with ALL_BUSY. 0: as long as it lives; then only tasks are rejected that would not
    /// be done in their time to live. Twice what tasks take keeps workers busy and what is taken fast.
    /// 0.
    pub max_queue_wait_ms: u64,
    /// Attempts of the action at workers at once; more tasks wait. 0: as many as workers take.
    pub max_running: u32,
    /// How many of its tasks are taken in a time; beyond them, RATE_LIMITED. No limit.
    pub rate_limit: RateLimit,
    /// How many of its tasks are taken of each tenant in a time; those without a tenant are of one.
    /// No limit.
    pub tenant_rate_limit: RateLimit,
    /// When a worker that fails gets no more tasks.
    pub breaker: BreakerRules,
    /// When a worker that is much slower than the others gets no more tasks.
    pub outlier: OutlierRules,
    /// How long the policies prefer others to a worker that is new, or back, where there are others:
    /// less and less of them. 0: not at all. 10,000.
    pub slow_start_ms: u64,
    /// How many workers may panic, be lost or fall silent with a task, one after the other, before it
    /// fails with POISONED rather than being given to yet another one. 0: any number; at most 32. 3:
    /// that two workers fail by chance while they have the same task is rare.
    pub poison_after: u32,
    /// Whether an attempt that takes longer than most gets another one beside it, and how often. None.
    pub hedge: Option<HedgeRule>,
    /// Which share of the tasks is copied to shadow workers, for comparison. None.
    pub mirror: Option<MirrorRule>,
    /// Among which arms the tasks are divided, for an A/B test; at most 8. None.
    pub split: Vec<Arm>,
    /// What answers a task that would be refused for want of a worker or of room, or whose action an
    /// operator has degraded: at most 4 steps, tried in order. Where there are any, a task that no
    /// worker could take uses them at once, without waiting for one. None.
    pub fallback: Vec<FallbackStep>,
    /// Whether its tasks are taken as long as there is room. Those of the other actions take their
    /// fallbacks, or are refused, from the time on that a bound of the broker (tasks, bytes that
    /// wait, room for streams or inputs) is used to 80 %, until all are below 60 %. Yes.
    pub core: bool,
}

impl Default for ActionRules {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            affinity: Affinity::default(),
            age_ms: 5_000,
            max_queue_tasks: 0,
            max_queue_bytes: 0,
            max_queue_wait_ms: 0,
            max_running: 0,
            rate_limit: RateLimit::default(),
            tenant_rate_limit: RateLimit::default(),
            breaker: BreakerRules::default(),
            outlier: OutlierRules::default(),
            slow_start_ms: 10_000,
            poison_after: 3,
            hedge: None,
            mirror: None,
            split: Vec::new(),
            fallback: Vec::new(),
            core: true,
        }
    }
}

/// A day: beyond it, an interval is a slip of the pen, and within it no sum overflows.
pub(super) const MAX_INTERVAL_MS: u64 = 24 * 60 * 60 * 1000;

impl ActionRules {
    /// Checks every value.
    ///
    /// # Errors
    /// The key of the first value that is not allowed, and what is wrong with it.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let Self { rate_limit, tenant_rate_limit, hedge, fallback, .. } = self;
        rate_limit.check().map_err(|problem| ("rate_limit.per_s", problem))?;
        tenant_rate_limit.check().map_err(|problem| ("tenant_rate_limit.per_s", problem))?;
        self.breaker.check()?;
        self.outlier.check()?;
        within("slow_start_ms", self.slow_start_ms, 0..=MAX_INTERVAL_MS)?;
        within("poison_after", self.poison_after, 0..=MAX_POISON_AFTER)?;
        hedge.as_ref().map_or(Ok(()), HedgeRule::check)?;
        self.mirror.map_or(Ok(()), |mirror| mirror.check())?;
        split::check(&self.split)?;
        fallback::check(fallback).map_err(|problem| ("fallback", problem))
    }

    /// Checks what depends on the action that they are for.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn check_of(&self, action: &ActionName) -> Result<(), (&'static str, String)> {
        let is_itself =
            |step: &FallbackStep| matches!(step, FallbackStep::Action(it) if it == action);
        if self.fallback.iter().any(is_itself) {
            return Err(("fallback", "names the action that it is for".to_owned()));
        }
        Ok(())
    }

    fn has_cached_step(&self) -> bool {
        self.fallback.iter().any(|step| step.kind() == StepKind::Cached)
    }

    /// These rules with a part of them replaced, which is not checked: what it says takes precedence,
    /// key by key, also within tables, and a key that is null has its default again (RFC 7396, JSON
    /// Merge Patch).
    ///
    /// # Errors
    /// A key that does not exist, or a value of a wrong type.
    pub fn merged(&self, part: Value) -> Result<Self, serde_json::Error> {
        let mut whole = serde_json::to_value(self)?;
        merge(&mut whole, part);
        serde_json::from_value(whole)
    }
}

fn merge(into: &mut Value, part: Value) {
    let Value::Object(part) = part else {
        *into = part;
        return;
    };
    if !into.is_object() {
        *into = Value::Object(serde_json::Map::new());
    }
    let Value::Object(into) = into else { return };
    for (key, value) in part {
        if value.is_null() {
            into.remove(&key);
        } else {
            merge(into.entry(key).or_insert(Value::Null), value);
        }
    }
}

/// Checks the bounds of a key's value.
pub(super) fn within<T: PartialOrd + fmt::Display>(
    key: &'static str,
    value: T,
    range: RangeInclusive<T>,
) -> Result<(), (&'static str, String)> {
    if range.contains(&value) {
        return Ok(());
    }
    let problem = format!("is {value}; allowed are {} to {}", range.start(), range.end());
    Err((key, problem))
}

/// The rules of all actions. An action's pool has its own copy, and is told when they change.
#[derive(Debug)]
pub(super) struct Rules {
    others: Arc<ActionRules>,
    actions: HashMap<ActionName, Arc<ActionRules>, FixedState>,
    /// Whether any has a mirror.
    has_mirror: bool,
}

impl Rules {
    pub(super) fn new(
        others: ActionRules,
        actions: impl IntoIterator<Item = (ActionName, ActionRules)>,
        hasher: FixedState,
    ) -> Self {
        let mut by_name = HashMap::with_hasher(hasher);
        by_name.extend(actions.into_iter().map(|(name, rules)| (name, Arc::new(rules))));
        let mut it = Self { others: Arc::new(others), actions: by_name, has_mirror: false };
        it.changed();
        it
    }

    /// Gives an action rules.
    pub(super) fn set(&mut self, action: ActionName, rules: Arc<ActionRules>) {
        self.actions.insert(action, rules);
        self.changed();
    }

    fn changed(&mut self) {
        let mut all = self.actions.values().chain([&self.others]);
        self.has_mirror = all.any(|rules| rules.mirror.is_some());
    }

    /// Whether any action has a mirror.
    pub(super) fn has_mirror(&self) -> bool {
        self.has_mirror
    }

    pub(super) fn of(&self, action: &str) -> Arc<ActionRules> {
        self.actions.get(action).unwrap_or(&self.others).clone()
    }

    /// The actions with rules of their own, in no order.
    pub(super) fn actions(&self) -> impl Iterator<Item = &ActionName> {
        self.actions.keys()
    }

    pub(super) fn has(&self, action: &str) -> bool {
        self.actions.contains_key(action)
    }

    /// How many actions have rules of their own.
    pub(super) fn len(&self) -> usize {
        self.actions.len()
    }
}

impl Core {
    /// Changes the rules of an action, for what waits and for what comes; what runs goes on. They
    /// hold until they are changed again, also while the action has neither workers nor tasks.
    pub fn set_rules(&mut self, now: Now, action: ActionName, rules: ActionRules) {
        self.rules.actions.insert(action.clone(), Arc::new(rules));
        self.rules_changed(now, &action);
    }

    /// Gives an action the rules back that the configuration has for it.
    pub fn reset_rules(&mut self, now: Now, action: &ActionName) {
        match self.config.actions.get(action) {
            Some(rules) => {
                self.rules.actions.insert(action.clone(), Arc::new(rules.clone()));
            }
            None => {
                self.rules.actions.remove(action);
            }
        }
        self.rules_changed(now, action);
    }

    /// Whether an action has other rules than the configuration has for it.
    pub(super) fn is_ruled_by_operator(&self, action: &ActionName) -> bool {
        let configured = self.config.actions.get(action).unwrap_or(&self.config.rules);
        *self.rules.of(action.as_str()) != *configured
    }

    /// Changes the rules of all actions.
    pub(super) fn replace_rules(&mut self, now: Now, rules: Rules) {
        self.rules = rules;
        let names = self.pool_names.iter().chain(&self.shadow.pool_names);
        let mut pools: Vec<_> = names.map(|(action, key)| (action.clone(), *key)).collect();
        pools.sort_by(|(one, _), (other, _)| one.cmp(other));
        for (action, key) in pools {
            let rules = self.rules.of(action.as_str());
            if self.pools.get(key).is_some_and(|pool| *pool.rules != *rules) {
                self.set_pool_rules(now, key, &rules);
            }
        }
    }

    fn rules_changed(&mut self, now: Now, action: &ActionName) {
        let rules = self.rules.of(action.as_str());
        let pools = [&self.pool_names, &self.shadow.pool_names].map(|it| it.get(action).copied());
        self.rules.changed();
        for key in pools.into_iter().flatten() {
            self.set_pool_rules(now, key, &rules);
        }
    }

    fn set_pool_rules(&mut self, now: Now, key: PoolKey, rules: &Arc<ActionRules>) {
        let Some(pool) = self.pools.get_mut(key) else { return };
        let pinning = if rules.pins() { Vec::new() } else { pool.pinning() };
        pool.set_rules(rules.clone());
        for member in pinning {
            self.unpin(now, key, member);
        }
        self.health_rules_changed(now, key);
        // More may run than before.
        self.fill_pool(now, key);
    }

    /// The rules of an action.
    pub fn rules(&self, action: &str) -> Arc<ActionRules> {
        self.rules.of(action)
    }
}

impl Pool {
    fn set_rules(&mut self, rules: Arc<ActionRules>) {
        if self.rules.policy != rules.policy {
            self.set_policy(rules.policy);
        }
        if self.rules.hedge != rules.hedge {
            self.hedging = Hedging::of(&rules);
        }
        self.rules = rules;
        self.look_at_rules();
    }

    /// Whether its tasks are kept from its workers.
    pub(super) fn set_degraded(&mut self, is_degraded: bool) {
        self.is_degraded = is_degraded;
        self.look_at_rules();
    }

    /// Notes what is asked with every task, of which most have nothing.
    pub(super) fn look_at_rules(&mut self) {
        // Shadow tasks are there to try the workers.
        let is_live = !self.is_shadow;
        self.is_restricted = self.is_degraded || is_live && !self.rules.core;
        self.has_other_way = self.is_degraded || is_live && !self.rules.fallback.is_empty();
        self.keeps_answers = is_live && self.rules.has_cached_step();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_part_replaces_what_it_names_also_within_tables() {
        let merged = |mut into: Value, part| {
            merge(&mut into, part);
            into
        };
        let rules =
            json!({"policy": "p2c", "breaker": {"failures": 5, "open_ms": 30}, "list": [1]});
        assert_eq!(merged(rules.clone(), json!({})), rules);
        assert_eq!(
            merged(rules.clone(), json!({"breaker": {"failures": 3}, "list": [2, 3]})),
            json!({"policy": "p2c", "breaker": {"failures": 3, "open_ms": 30}, "list": [2, 3]})
        );
        assert_eq!(
            merged(rules, json!({"policy": null, "breaker": {"open_ms": null}, "new": {"a": 1}})),
            json!({"breaker": {"failures": 5}, "list": [1], "new": {"a": 1}})
        );
    }

    #[test]
    fn merged_rules_are_typed() {
        let rules = ActionRules { policy: Policy::RoundRobin, age_ms: 7, ..ActionRules::default() };
        assert_eq!(rules.merged(json!({})).unwrap(), rules);
        let expected = ActionRules { policy: Policy::default(), ..rules.clone() };
        assert_eq!(rules.merged(json!({"policy": null})).unwrap(), expected);
        let limited = rules.merged(json!({"rate_limit": {"per_s": 2.5}})).unwrap();
        assert_eq!(limited.rate_limit, RateLimit::new(2.5, 0));
        for (part, named) in [
            (json!({"polcy": "x"}), "polcy"),
            (json!({"policy": "dice"}), "dice"),
            (json!({"policy": 3}), "policy"),
            (json!("round_robin"), "round_robin"),
        ] {
            let error = rules.merged(part).unwrap_err().to_string();
            assert!(error.contains(named) || error.contains("invalid type"), "{named}: {error}");
        }
    }
}
