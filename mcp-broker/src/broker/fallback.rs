//! What answers a task that gets no worker of its action: the steps of its fallback chain, in the
//! order in which they are tried.
//!
//! A task takes the chain when it would be refused for want of a worker or of room, and when an
//! operator has degraded its action. Nothing is remembered of that: each task tries the workers
//! first, so the chain is left as soon as they are back. Shadow tasks take none: they are there to try
//! the workers.

mod answers;
mod detour;
mod operator;
mod pressure;
mod search;

use mcp_proto::ActionName;
use mcp_proto::limits::{MAX_TEXT_BYTES, MAX_TTL_MS};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(super) use answers::Answers;
pub(super) use detour::Detour;
pub use operator::Degraded;
pub(super) use operator::MAX_DEGRADED;
pub(super) use search::{Seeker, is_want_of_worker};

/// Steps of one chain: more than there are kinds of them.
const MAX_STEPS: usize = 4;

/// The body of a default: it is a part of the rules, which are held and shown as a whole.
const MAX_DEFAULT_BYTES: usize = 4 * 1024;

/// A step of an action's fallback chain. In a configuration file one of
/// `{ cached = { max_age_ms = 600000, by = "body" } }`, `{ action = "NAME" }` and
/// `{ default = "TEXT", content_type = "text/plain" }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Keys", into = "Keys")]
#[schemars(with = "Keys")]
pub enum FallbackStep {
    /// The last good answer that a worker of the action gave to the same question: outcome ok, in
    /// one frame. (Results that clients take in parts are not kept.) Kept apart by identity and
    /// tenant; headers and labels of tasks are not looked at.
    Cached {
        /// It is not older than this, 1 ms to 7 days.
        max_age_ms: u64,
        /// Which questions are the same.
        by: CachedBy,
    },
    /// The workers of another action do it, such as a lighter model's. The task keeps its labels and
    /// its deadline. That action's own chain is not used.
    Action(ActionName),
    /// This is the answer.
    Default {
        /// Its body, at most 4 KiB.
        body: String,
        /// What that is.
        content_type: String,
    },
}

/// Which tasks of an action an answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CachedBy {
    /// Those with the same body. None whose input comes in chunks.
    #[default]
    Body,
    /// Those with the same affinity key. None without one.
    Affinity,
    /// All.
    Action,
}

/// Which kind of step one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StepKind {
    Cached,
    Action,
    Default,
}

impl StepKind {
    /// Every kind, in the order in which they are counted.
    pub(super) const ALL: [StepKind; 3] = [StepKind::Cached, StepKind::Action, StepKind::Default];

    pub(super) fn name(self) -> &'static str {
        match self {
            StepKind::Cached => "cached",
            StepKind::Action => "action",
            StepKind::Default => "default",
        }
    }
}

impl FallbackStep {
    pub(super) fn kind(&self) -> StepKind {
        match self {
            FallbackStep::Cached { .. } => StepKind::Cached,
            FallbackStep::Action(_) => StepKind::Action,
            FallbackStep::Default { .. } => StepKind::Default,
        }
    }

    /// What a DELIVER says that is of this step.
    pub(super) fn told(&self) -> Box<str> {
        match self {
            FallbackStep::Action(action) => format!("action:{action}").into(),
            step => step.kind().name().into(),
        }
    }
}

/// Whether a chain is one that can be used, as a whole and each step by itself.
pub(super) fn check(chain: &[FallbackStep]) -> Result<(), String> {
    if chain.len() > MAX_STEPS {
        return Err(format!("has {} steps; at most {MAX_STEPS} are allowed", chain.len()));
    }
    for (index, step) in chain.iter().enumerate() {
        let number = index + 1;
        match step {
            FallbackStep::Cached { max_age_ms, .. } if !(1..=MAX_TTL_MS).contains(max_age_ms) => {
                return Err(format!(
                    "step {number}: max_age_ms is {max_age_ms}; allowed are 1 to {MAX_TTL_MS}"
                ));
            }
            FallbackStep::Default { body, .. } if body.len() > MAX_DEFAULT_BYTES => {
                return Err(format!(
                    "step {number}: default has {} bytes; at most {MAX_DEFAULT_BYTES} are allowed",
                    body.len()
                ));
            }
            FallbackStep::Default { content_type, .. } if content_type.len() > MAX_TEXT_BYTES => {
                return Err(format!(
                    "step {number}: content_type has {} bytes; at most {MAX_TEXT_BYTES} are allowed",
                    content_type.len()
                ));
            }
            FallbackStep::Default { .. } if number < chain.len() => {
                return Err(format!("step {number}: a default always answers, so it is the last"));
            }
            FallbackStep::Cached { .. }
            | FallbackStep::Action(_)
            | FallbackStep::Default { .. } => {}
        }
    }
    Ok(())
}

/// A step as it is written.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Keys {
    #[serde(skip_serializing_if = "Option::is_none")]
    cached: Option<CachedKeys>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    action: Option<ActionName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CachedKeys {
    max_age_ms: u64,
    #[serde(default)]
    by: CachedBy,
}

impl TryFrom<Keys> for FallbackStep {
    type Error = &'static str;

    fn try_from(keys: Keys) -> Result<Self, Self::Error> {
        match keys {
            Keys { cached: Some(it), action: None, default: None, content_type: None } => {
                Ok(FallbackStep::Cached { max_age_ms: it.max_age_ms, by: it.by })
            }
            Keys { cached: None, action: Some(action), default: None, content_type: None } => {
                Ok(FallbackStep::Action(action))
            }
            Keys { cached: None, action: None, default: Some(body), content_type } => {
                let content_type = content_type.unwrap_or_default();
                Ok(FallbackStep::Default { body, content_type })
            }
            _ => Err("a step has one of the keys cached, action and default; content_type only \
                      beside default"),
        }
    }
}

impl From<FallbackStep> for Keys {
    fn from(step: FallbackStep) -> Self {
        match step {
            FallbackStep::Cached { max_age_ms, by } => {
                Self { cached: Some(CachedKeys { max_age_ms, by }), ..Self::default() }
            }
            FallbackStep::Action(action) => Self { action: Some(action), ..Self::default() },
            FallbackStep::Default { body, content_type } => Self {
                default: Some(body),
                content_type: (!content_type.is_empty()).then_some(content_type),
                ..Self::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Rules {
        fallback: Vec<FallbackStep>,
    }

    fn read(text: &str) -> Result<Vec<FallbackStep>, String> {
        toml::from_str::<Rules>(text).map(|it| it.fallback).map_err(|error| error.to_string())
    }

    #[test]
    fn a_chain_is_read_as_it_is_written() {
        let text = "fallback = [{ cached = { max_age_ms = 600000, by = 'affinity' } }, \
                    { cached = { max_age_ms = 1 } }, { action = 'generate.small' }, \
                    { default = '{}', content_type = 'application/json' }]";
        let chain = read(text).unwrap();
        let small = ActionName::try_from("generate.small").unwrap();
        assert_eq!(
            chain,
            [
                FallbackStep::Cached { max_age_ms: 600_000, by: CachedBy::Affinity },
                FallbackStep::Cached { max_age_ms: 1, by: CachedBy::Body },
                FallbackStep::Action(small),
                FallbackStep::Default {
                    body: "{}".into(),
                    content_type: "application/json".into()
                },
            ]
        );
        assert_eq!(check(&chain), Ok(()));
        let shown = serde_json::to_string(&chain).unwrap();
        assert_eq!(serde_json::from_str::<Vec<FallbackStep>>(&shown).unwrap(), chain);
    }

    #[test]
    fn a_step_is_one_thing() {
        for text in [
            "{}",
            "{ action = 'a', default = 'b' }",
            "{ action = 'a', content_type = 'b' }",
            "{ cached = { max_age_ms = 1 }, action = 'a' }",
            "{ cached = {} }",
            "{ cached = { max_age_ms = 1, by = 'moon' } }",
            "{ action = 'no spaces' }",
            "{ retry = 1 }",
        ] {
            assert!(read(&format!("fallback = [{text}]")).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_named_by_its_step() {
        let action = |_| FallbackStep::Action(ActionName::try_from("a").unwrap());
        let default = |bytes, type_bytes| FallbackStep::Default {
            body: "b".repeat(bytes),
            content_type: "t".repeat(type_bytes),
        };
        let cached = |max_age_ms| FallbackStep::Cached { max_age_ms, by: CachedBy::Body };
        for (chain, problem) in [
            ((0..5).map(action).collect(), "has 5 steps; at most 4"),
            (vec![cached(0)], "step 1: max_age_ms is 0"),
            (vec![action(0), cached(u64::MAX)], "step 2: max_age_ms is"),
            (vec![default(4097, 0)], "step 1: default has 4097 bytes"),
            (vec![default(1, 1025)], "step 1: content_type has 1025 bytes"),
            (vec![default(1, 1), action(0)], "step 1: a default always answers"),
        ] {
            let found = check(&chain).unwrap_err();
            assert!(found.contains(problem), "{problem} is not in {found}");
        }
        assert_eq!(check(&[cached(1), default(4096, 1024)]), Ok(()));
    }
}
