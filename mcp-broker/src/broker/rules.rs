//! What holds for the tasks of an action: how its workers are chosen, and what bounds them.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::FixedState;
use mcp_proto::ActionName;
use serde::{Deserialize, Serialize};

use super::balancer::Policy;
use super::mirror::MirrorRule;
use super::pool::Pool;
use super::split::{self, Arm};
use super::{Core, Now};

/// The rules of one action. In a configuration file they are the keys of `[scheduling]`, which hold
/// for all actions, and of `[actions."NAME"]`, which hold for one: what a key says there takes
/// precedence.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ActionRules {
    /// How a worker is chosen. `"least_loaded"`.
    pub policy: Policy,
    /// Which share of the tasks is copied to shadow workers, for comparison. None.
    pub mirror: Option<MirrorRule>,
    /// Among which arms the tasks are divided, for an A/B test; at most 8. None.
    pub split: Vec<Arm>,
}

impl ActionRules {
    /// Whether each value is one that is allowed.
    ///
    /// # Errors
    /// The first key whose value is not, and why.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        self.mirror.map_or(Ok(()), |mirror| mirror.check())?;
        split::check(&self.split)
    }
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
}

impl Core {
    /// Changes the rules of an action, for what waits and for what comes; what runs goes on. They
    /// hold until they are changed again, also while the action has neither workers nor tasks.
    pub fn set_rules(&mut self, _now: Now, action: ActionName, rules: ActionRules) {
        let rules = Arc::new(rules);
        for names in [&self.pool_names, &self.shadow.pool_names] {
            if let Some(pool) = names.get(&action).and_then(|key| self.pools.get_mut(*key)) {
                pool.set_rules(rules.clone());
            }
        }
        self.rules.actions.insert(action, rules);
        self.rules.changed();
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
        self.rules = rules;
    }
}
