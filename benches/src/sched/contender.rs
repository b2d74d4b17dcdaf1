//! What is compared: the broker's policies, and pushing.

use std::fmt;

use anyhow::{Context, Result, bail};
use mcp_broker::broker::{ActionRules, Policy};
use serde::de::value::Error as Unread;
use serde::de::{Deserializer, Error as _, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};
use serde_json::Value;

use super::pushed::{self, Next};
use super::traffic::SimTask;
use super::workload::Workload;
use super::{Run, simulation};

/// One way to deal with a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contender {
    Pushed(Next),
    /// A policy, by its name in configuration.
    Policy(&'static str),
}

impl Contender {
    /// All there are, beginning with those that know nothing of load.
    pub(super) fn all() -> Vec<Self> {
        let pushed = [Self::Pushed(Next::Random), Self::Pushed(Next::InTurn)];
        pushed.into_iter().chain(policies().iter().copied().map(Self::Policy)).collect()
    }

    pub(super) fn of(name: &str) -> Result<Self> {
        let all = Self::all();
        let Some(it) = all.iter().find(|it| it.to_string() == name) else {
            let names: Vec<_> = all.iter().map(Self::to_string).collect();
            bail!("--policies {name}: there are {}", names.join(", "));
        };
        Ok(*it)
    }

    pub(super) fn is_ours(self) -> bool {
        matches!(self, Self::Policy(_))
    }

    pub(super) fn run(self, workload: &Workload, tasks: &[SimTask], seed: u64) -> Result<Run> {
        let policy = match self {
            Self::Pushed(next) => return Ok(pushed::run(workload, next, tasks, seed)),
            Self::Policy(policy) => policy,
        };
        let mut rules = workload.rules.clone();
        rules.insert("policy".to_owned(), policy.into());
        let rules: ActionRules =
            serde_json::from_value(Value::Object(rules)).context(workload.name)?;
        Ok(simulation::run(workload, rules, tasks, seed))
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pushed(Next::Random) => "push_random",
            Self::Pushed(Next::InTurn) => "push_round_robin",
            Self::Policy(policy) => policy,
        })
    }
}

/// The names of all policies, as configuration has them.
fn policies() -> &'static [&'static str] {
    let mut names: &'static [&'static str] = &[];
    // Ends with an error: all that it is asked for are the names.
    let _ = Policy::deserialize(Names(&mut names));
    names
}

/// Notes which names an enum could have, and gives it none.
struct Names<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Names<'_> {
    type Error = Unread;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Unread> {
        Err(Unread::custom("not an enum"))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Unread> {
        *self.0 = variants;
        Err(Unread::custom("only the names were wanted"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policies_are_those_of_the_broker() {
        assert!(policies().contains(&"round_robin") && policies().contains(&"least_loaded"));
        assert_eq!(Contender::of("least_loaded").unwrap(), Contender::Policy("least_loaded"));
        assert!(Contender::of("best").is_err());
    }
}
