//! What operators ask of actions, and how they change the rules of one while the broker runs.

use mcp_proto::{ActionName, ErrorCode, ErrorInfo, Labels};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{limit, list};
use crate::broker::fallback::Degraded;
use crate::broker::pool::Pool;
use crate::broker::{ActionRules, Breakers, Core, Event, Now, Policy};

/// Actions that one list looks at, and workers of those that it lists: it takes about a millisecond
/// of the core, however many there are.
const LOOKED_AT: usize = 10_000;

/// Actions that operators give rules of their own, one by one; the configuration's come besides.
const MAX_RULED_ACTIONS: usize = 4_096;

/// Longest change that the log tells in full.
const MAX_TOLD_CHANGE_BYTES: usize = 1_024;

/// Which actions to list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Filter {
    /// Those whose name begins so.
    prefix: String,
    limit: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    action: ActionName,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Set {
    action: ActionName,
    /// What to change of them, as in [`ActionRules::merged`].
    rules: Map<String, Value>,
}

/// An action in a list.
#[derive(Serialize)]
struct Row<'a> {
    action: &'a ActionName,
    /// Registered for it, lost ones included.
    workers: usize,
    ready: usize,
    /// Of the workers that are online, which may serve other actions, too.
    slots: u64,
    running: usize,
    queued: usize,
    delayed: usize,
    policy: Policy,
    rules_from: RulesFrom,
    /// Its workers by the state of their breaker.
    breakers: Breakers,
    /// Besides all these, workers that get only shadow tasks.
    shadow_workers: usize,
    /// Shadow tasks without an outcome.
    shadow_tasks: usize,
    /// Who keeps its tasks from its workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    degraded: Option<&'a Degraded>,
}

/// Where the rules of an action come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum RulesFrom {
    /// The rules of all actions that have none of their own.
    Common,
    /// The configuration has rules for it.
    File,
    /// An operator changed them; they hold until the broker is started again.
    Operator,
}

/// All that is told of one action.
#[derive(Serialize)]
struct View<'a> {
    #[serde(flatten)]
    row: Row<'a>,
    rules: &'a ActionRules,
    /// How long its workers have a task, smoothed; none before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    service_us: Option<u64>,
    queues: Vec<Queue<'a>>,
    /// Whether there was no room for further queues.
    more_queues: bool,
}

/// The tasks with the same required labels.
#[derive(Serialize)]
struct Queue<'a> {
    required_labels: &'a Labels,
    queued: usize,
    /// Workers with these labels.
    workers: u32,
    ready: u32,
    /// Those of them that have room.
    with_room: usize,
}

/// The rules of an action after a change.
#[derive(Serialize)]
struct Changed<'a> {
    action: &'a ActionName,
    rules: &'a ActionRules,
    rules_from: RulesFrom,
    /// What the configuration file would have to say for them to outlive the broker.
    #[serde(skip_serializing_if = "Option::is_none")]
    toml: Option<String>,
}

impl Core {
    /// The actions with workers, tasks or rules of their own, and those that are degraded, by name.
    pub(super) fn list_actions(
        &self,
        filter: &Filter,
        max_bytes: usize,
    ) -> Result<Vec<u8>, ErrorInfo> {
        let limit = limit(filter.limit)?;
        let (live, shadow) = (&self.pool_names, &self.shadow.pool_names);
        let with_shadow = shadow.keys().filter(|action| !live.contains_key(*action));
        let is_idle = |it: &&ActionName| !live.contains_key(*it) && !shadow.contains_key(*it);
        let with_rules = self.rules.actions().filter(is_idle);
        let has_none = |it: &&ActionName| !self.rules.has(it.as_str());
        let degraded = self.degraded.keys().filter(is_idle).filter(has_none);
        let mut known = live.keys().chain(with_shadow).chain(with_rules).chain(degraded);
        let mut names: Vec<_> = known.by_ref().take(LOOKED_AT).collect();
        names.retain(|name| name.as_str().starts_with(&filter.prefix));
        names.sort_unstable();
        let mut workers = 0;
        let fits = |name: &&&ActionName| {
            let fits = workers < LOOKED_AT;
            workers += self.live_pool(name).map_or(0, Pool::workers);
            fits
        };
        let fitting = names.iter().take_while(fits).count();
        let more = known.next().is_some() || fitting < names.len();
        let rows = names[..fitting].iter().map(|name| self.row_of_action(name));
        list("actions", rows, limit, more, max_bytes)
    }

    pub(super) fn show_action(
        &self,
        named: &Named,
        max_bytes: usize,
    ) -> Result<Vec<u8>, ErrorInfo> {
        let action = &named.action;
        let pool = self.live_pool(action);
        let is_known = self.shadow.pool_names.contains_key(action)
            || self.rules.has(action.as_str())
            || self.degraded.contains_key(action);
        if pool.is_none() && !is_known {
            return super::json(&None::<View<'_>>);
        }
        let queues = pool.into_iter().flat_map(|pool| &pool.subqueues).enumerate();
        let queues = queues.filter(|(index, queue)| *index == 0 || queue.tasks > 0);
        let queues = queues.map(|(_, queue)| Queue {
            required_labels: &queue.required,
            queued: queue.lines.queued,
            workers: queue.eligible,
            ready: queue.ready,
            with_room: queue.balancer.len(),
        });
        let mut view = View {
            row: self.row_of_action(action),
            rules: &self.rules.of(action.as_str()),
            service_us: pool.and_then(|pool| pool.service.us()),
            queues: queues.collect(),
            more_queues: false,
        };
        loop {
            let json = super::json(&view)?;
            if json.len() <= max_bytes || view.queues.is_empty() {
                return Ok(json);
            }
            view.more_queues = true;
            view.queues.truncate(view.queues.len() / 2);
        }
    }

    pub(super) fn set_rules_for_operator(
        &mut self,
        now: Now,
        by: &str,
        set: Set,
    ) -> Result<Vec<u8>, ErrorInfo> {
        let Set { action, rules: part } = set;
        let invalid = |problem| ErrorInfo::new(ErrorCode::InvalidTask, problem);
        if !self.rules.has(action.as_str())
            && self.rules.len() >= self.config.actions.len() + MAX_RULED_ACTIONS
        {
            let problem = format!("operators gave {MAX_RULED_ACTIONS} actions rules, the limit");
            return Err(ErrorInfo::new(ErrorCode::LimitExceeded, problem));
        }
        let part = Value::Object(part);
        let change = part.to_string();
        let change = match change.len() {
            ..=MAX_TOLD_CHANGE_BYTES => change,
            bytes => format!("{bytes} bytes"),
        };
        let rules = self.rules.of(action.as_str()).merged(part);
        let rules = rules.map_err(|error| invalid(format!("these are no rules: {error}")))?;
        rules.check().map_err(|(key, problem)| invalid(format!("{key} {problem}")))?;
        let toml = toml_of(&action, &rules, &self.config.rules)?;
        self.set_rules(now, action.clone(), rules);
        let by = by.to_owned();
        self.event(Event::RulesChanged { action: action.clone(), change: Some(change), by });
        self.changed(&action, Some(toml))
    }

    pub(super) fn reset_rules_for_operator(
        &mut self,
        now: Now,
        by: &str,
        named: Named,
    ) -> Result<Vec<u8>, ErrorInfo> {
        let Named { action } = named;
        if self.rules_from(&action) == RulesFrom::Operator {
            let by = by.to_owned();
            self.event(Event::RulesChanged { action: action.clone(), change: None, by });
        }
        self.reset_rules(now, &action);
        self.changed(&action, None)
    }

    fn changed(&self, action: &ActionName, toml: Option<String>) -> Result<Vec<u8>, ErrorInfo> {
        let rules = &self.rules.of(action.as_str());
        super::json(&Changed { action, rules, rules_from: self.rules_from(action), toml })
    }

    fn row_of_action<'a>(&'a self, action: &'a ActionName) -> Row<'a> {
        let pool = self.live_pool(action);
        let shadow = self.shadow.pool_names.get(action).and_then(|key| self.pools.get(*key));
        let agents = pool.into_iter().flat_map(Pool::agents);
        let agents = agents.filter_map(|agent| self.registry.get(agent));
        Row {
            action,
            workers: pool.map_or(0, Pool::workers),
            ready: pool.map_or(0, Pool::ready_workers),
            slots: agents.map(|agent| agent.online_slots()).sum(),
            running: pool.map_or(0, |pool| pool.tasks - pool.queued - pool.delayed.tasks),
            queued: pool.map_or(0, |pool| pool.queued),
            delayed: pool.map_or(0, |pool| pool.delayed.tasks),
            policy: self.rules.of(action.as_str()).policy,
            rules_from: self.rules_from(action),
            breakers: pool.map(Pool::breakers).unwrap_or_default(),
            shadow_workers: shadow.map_or(0, Pool::workers),
            shadow_tasks: shadow.map_or(0, |pool| pool.tasks),
            degraded: self.degraded.get(action),
        }
    }

    fn rules_from(&self, action: &ActionName) -> RulesFrom {
        if self.is_ruled_by_operator(action) {
            RulesFrom::Operator
        } else if self.config.actions.contains_key(action) {
            RulesFrom::File
        } else {
            RulesFrom::Common
        }
    }

    fn live_pool(&self, action: &ActionName) -> Option<&Pool> {
        self.pools.get(*self.pool_names.get(action)?)
    }
}

/// The part of a configuration file that gives an action these rules, where all actions have those
/// of `common`.
fn toml_of(
    action: &ActionName,
    rules: &ActionRules,
    common: &ActionRules,
) -> Result<String, ErrorInfo> {
    let internal = |error: String| ErrorInfo::new(ErrorCode::Internal, error);
    let value = |rules| serde_json::to_value(rules).map_err(|error| internal(error.to_string()));
    let own = difference(value(rules)?, &value(common)?).unwrap_or_else(|| json!({}));
    toml::to_string(&json!({ "actions": { action.as_str(): own } }))
        .map_err(|error| internal(error.to_string()))
}

/// What of `whole` is not so in `of`, without what is null, which TOML can't say.
fn difference(whole: Value, of: &Value) -> Option<Value> {
    match (whole, of) {
        (Value::Object(whole), of) => {
            let parts = whole.into_iter().filter_map(|(key, value)| {
                let part = difference(value, of.get(&key).unwrap_or(&Value::Null))?;
                Some((key, part))
            });
            let parts: Map<_, _> = parts.collect();
            (!parts.is_empty()).then_some(Value::Object(parts))
        }
        (Value::Null, _) => None,
        (value, of) => (value != *of).then_some(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_of_a_file_says_what_is_not_common() {
        let whole = json!({"a": 1, "b": {"c": 2, "d": [3]}, "e": null, "f": {"g": 1}});
        let common = json!({"a": 1, "b": {"c": 1, "d": [3]}, "e": 5, "f": {"g": 1}});
        assert_eq!(difference(whole.clone(), &common), Some(json!({"b": {"c": 2}})));
        assert_eq!(difference(whole.clone(), &whole), None);
    }

    #[test]
    fn an_action_is_a_table_of_the_file() {
        let action = ActionName::try_from("a.b/c").unwrap();
        let rules = ActionRules { policy: Policy::RoundRobin, ..ActionRules::default() };
        let toml = toml_of(&action, &rules, &ActionRules::default()).unwrap();
        assert_eq!(toml, "[actions.\"a.b/c\"]\npolicy = \"round_robin\"\n");
        let toml = toml_of(&action, &rules, &rules).unwrap();
        assert_eq!(toml, "[actions.\"a.b/c\"]\n");
    }
}
