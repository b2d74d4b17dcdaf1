//! Splits: an action's tasks are divided among arms, each with workers of its own, to be compared.
//!
//! A task gets an arm when it is taken, and with it the arm's labels besides those that it requires
//! itself. An experiment refuses nothing: an arm without a ready worker gets no task, and what waits
//! for its workers when the last of them goes is served by any.

use std::sync::Arc;

use mcp_proto::limits::MAX_LABELS;
use mcp_proto::{Deliver, Labels, NodeId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::hash::{avalanche, fnv1a};
use super::metrics::{Slot, TaskCounts};
use super::pool::{Pool, PoolKey};
use super::rng::Rng;
use super::rules::ActionRules;
use super::{Core, shadow};

/// Arms of an action: each has a sub-queue for each set of labels that tasks require, of which an
/// action has 64, and a set of time series.
pub(super) const MAX_ARMS: usize = 8;

/// So that no sum overflows.
const MAX_WEIGHT: u32 = 1_000_000;

/// As a label of metrics.
const MAX_NAME_BYTES: usize = 64;

/// A part of an action's tasks, and the workers that get it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Arm {
    /// In metrics; 1 to 64 printable ASCII characters without spaces.
    pub name: String,
    /// The labels of its workers, at least one. A task that requires one of these keys by itself
    /// takes no part in the split.
    #[schemars(with = "std::collections::BTreeMap<String, String>")]
    pub labels: Labels,
    /// Its share of the tasks is its weight among those of all arms; at most 1,000,000. 0: none.
    pub weight: u32,
}

impl Arm {
    fn check(&self) -> Result<(), String> {
        let name = &self.name;
        if !(1..=MAX_NAME_BYTES).contains(&name.len())
            || !name.bytes().all(|it| it.is_ascii_graphic())
        {
            return Err(format!("name {name:?} is not 1 to {MAX_NAME_BYTES} printable characters"));
        }
        if self.labels.is_empty() || self.labels.0.len() > MAX_LABELS {
            return Err(format!("arm {name} has no labels, or more than {MAX_LABELS}"));
        }
        if shadow::is_about(&self.labels) {
            return Err(format!("arm {name} has the label shadow: its workers get no live tasks"));
        }
        if self.weight > MAX_WEIGHT {
            return Err(format!("arm {name} has weight {}; at most {MAX_WEIGHT}", self.weight));
        }
        Ok(())
    }
}

pub(super) fn check(arms: &[Arm]) -> Result<(), (&'static str, String)> {
    let wrong = |problem| Err(("split", problem));
    if arms.len() > MAX_ARMS {
        return wrong(format!("has {} arms; at most {MAX_ARMS} are allowed", arms.len()));
    }
    for (index, arm) in arms.iter().enumerate() {
        arm.check().or_else(wrong)?;
        if arms[..index].iter().any(|other| other.name == arm.name) {
            return wrong(format!("has two arms named {}", arm.name));
        }
    }
    if !arms.is_empty() && arms.iter().all(|arm| arm.weight == 0) {
        return wrong("has no arm with a weight".into());
    }
    Ok(())
}

/// What became of the tasks of an arm, since the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArmMetrics {
    /// Its name.
    pub name: String,
    /// Tasks of it that ended.
    pub counts: TaskCounts,
    /// Tasks that would have been its, and went elsewhere since it had no ready worker.
    pub moved: u64,
}

/// The arm of a task.
#[derive(Debug, Clone)]
pub(super) struct Assigned {
    rules: Arc<ActionRules>,
    index: usize,
}

impl Assigned {
    pub(super) fn arm(&self) -> &Arm {
        &self.rules.split[self.index]
    }

    /// What a worker needs for its tasks that require these labels themselves.
    pub(super) fn labels(&self, required: &Labels) -> Labels {
        let mut labels = required.clone();
        labels.0.extend(self.arm().labels.0.clone());
        labels
    }
}

/// An arm by weight, of those that are wanted.
fn draw(arms: &[Arm], rng: &mut Rng, is_wanted: impl Fn(usize) -> bool) -> Option<usize> {
    let weight =
        |(index, arm): (usize, &Arm)| if is_wanted(index) { arm.weight as usize } else { 0 };
    let total: usize = arms.iter().enumerate().map(weight).sum();
    let mut left = if total == 0 { return None } else { rng.below(total) };
    arms.iter().enumerate().position(|arm| {
        let weight = weight(arm);
        let is_it = left < weight;
        left = left.saturating_sub(weight);
        is_it
    })
}

/// Whether a task with these required labels says itself to which workers it goes.
fn chose_itself(arms: &[Arm], required: &Labels) -> bool {
    arms.iter().any(|arm| arm.labels.0.keys().any(|key| required.0.contains_key(key)))
}

/// Draws the same arms for the same affinity key: by action, or a session would be in the same arm of
/// all.
fn rng_of_key(pool: &Pool, affinity: u64) -> Rng {
    Rng::new(avalanche(affinity ^ fnv1a(pool.action.as_str().as_bytes(), 0)))
}

impl Core {
    /// The arm of a new task with these required labels, if it takes part in a split. The same for
    /// the same affinity key, as long as the weights are the same, and the arm has workers.
    pub(super) fn assign_arm(
        &mut self,
        key: PoolKey,
        required: &Labels,
        affinity: u64,
    ) -> Option<Assigned> {
        let pool = self.pools.get_mut(key)?;
        if pool.rules.split.is_empty() || pool.is_shadow {
            return None;
        }
        let rules = pool.rules.clone();
        if chose_itself(&rules.split, required) {
            return None;
        }
        let mut of_key;
        let rng = if affinity == 0 {
            &mut self.rng
        } else {
            of_key = rng_of_key(pool, affinity);
            &mut of_key
        };
        let drawn = draw(&rules.split, rng, |_| true)?;
        let assigned = |index| Assigned { rules: rules.clone(), index };
        if pool.serves_arm(&assigned(drawn), required) {
            return Some(assigned(drawn));
        }
        let served: SmallVec<[bool; MAX_ARMS]> =
            (0..rules.split.len()).map(|it| pool.serves_arm(&assigned(it), required)).collect();
        self.measured.arm(pool.slot, &rules.split, drawn).moved += 1;
        draw(&rules.split, rng, |index| served[index]).map(assigned)
    }

    /// How likely each arm is that of a new task with these required labels; none when it takes no
    /// part in a split, or no arm has a worker for it.
    pub(super) fn arm_odds(
        &self,
        pool: &Pool,
        required: &Labels,
        affinity: u64,
    ) -> Vec<(Assigned, f64)> {
        let arms = &pool.rules.split;
        if arms.is_empty() || pool.is_shadow || chose_itself(arms, required) {
            return Vec::new();
        }
        let assigned = |index| Assigned { rules: pool.rules.clone(), index };
        let is_served = |index| pool.would_serve_arm(&assigned(index), required);
        let served: SmallVec<[bool; MAX_ARMS]> = (0..arms.len()).map(is_served).collect();
        if affinity != 0 {
            let mut rng = rng_of_key(pool, affinity);
            let drawn = draw(arms, &mut rng, |_| true);
            let drawn = match drawn {
                Some(drawn) if served[drawn] => Some(drawn),
                _ => draw(arms, &mut rng, |index| served[index]),
            };
            return drawn.into_iter().map(|index| (assigned(index), 1.0)).collect();
        }
        // Those that draw an arm without workers draw again.
        let weights = arms.iter().zip(&served).map(|(arm, is_served)| match is_served {
            true => f64::from(arm.weight),
            false => 0.0,
        });
        let total: f64 = weights.clone().sum();
        let odds = weights.enumerate().map(|(index, weight)| (assigned(index), weight / total));
        odds.filter(|(_, odds)| *odds > 0.0).collect()
    }

    /// A task of an arm has ended, on the worker of this node if one had it. `is_open`: it may be
    /// one of another arm.
    pub(super) fn count_in_arm(
        &mut self,
        slot: Slot,
        assigned: &Assigned,
        is_open: bool,
        deliver: &Deliver,
        total_us: u64,
    ) {
        let node = deliver.trace.decode().hops.last().map(|hop| hop.node_id.clone());
        let has_moved = is_open && node.is_some_and(|node| !self.is_of_arm(&node, assigned));
        let arm = self.measured.arm(slot, &assigned.rules.split, assigned.index);
        if has_moved {
            arm.moved += 1;
        } else {
            arm.counts.record(deliver, total_us);
        }
    }

    fn is_of_arm(&self, node: &NodeId, assigned: &Assigned) -> bool {
        let key = self.registry.agent_at(node).and_then(|agent| self.registry.find(agent));
        let agent = key.and_then(|key| self.registry.get(key));
        agent.is_some_and(|agent| agent.labels.satisfy(&assigned.arm().labels))
    }
}

impl Pool {
    /// Whether an arm has a ready worker for tasks that require these labels themselves.
    fn serves_arm(&mut self, arm: &Assigned, required: &Labels) -> bool {
        let subqueue = self.subqueue(&arm.labels(required), Some(required));
        subqueue.is_some_and(|index| self.subqueues[index].ready > 0)
    }

    /// The same without making a sub-queue for it.
    fn would_serve_arm(&self, arm: &Assigned, required: &Labels) -> bool {
        let labels = arm.labels(required);
        match self.find_subqueue(&labels, Some(required)) {
            Some(index) => self.subqueues[index].ready > 0,
            None => self.new_subqueue(&labels).is_some_and(|subqueue| subqueue.ready > 0),
        }
    }

    /// Opens the sub-queues of arms that have tasks, and no ready worker. Returns whether there was
    /// one.
    pub(super) fn open_deserted(&mut self) -> bool {
        let mut has_opened = false;
        for index in 1..self.subqueues.len() {
            if self.subqueues[index].tasks > 0 {
                has_opened |= self.open_if_deserted(index);
            }
        }
        has_opened
    }
}
