//! What is compared: the broker's policies, and pushing.

use std::fmt;

use anyhow::{Context, Result, bail};
use mcp_broker::broker::{ActionRules, Affinity, Policy};
use serde_json::{Value, json};

use super::pushed::{self, Next};
use super::traffic::SimTask;
use super::workload::Workload;
use super::{Run, simulation};

/// One way to deal with a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contender {
    Pushed(Next),
    Policy(Policy),
    /// `session_hash`, under which a task waits for the worker of its key.
    HardAffinity,
}

impl Contender {
    /// All there are, beginning with those that know nothing of load.
    pub(super) fn all() -> Vec<Self> {
        let pushed = [Self::Pushed(Next::Random), Self::Pushed(Next::InTurn)];
        let policies = Policy::ALL.iter().copied().map(Self::Policy);
        pushed.into_iter().chain(policies).chain([Self::HardAffinity]).collect()
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
        !matches!(self, Self::Pushed(_))
    }

    /// Those of them that are not the same as another under this workload.
    pub(super) fn of_workload(all: &[Self], workload: &Workload) -> Vec<Self> {
        let differs = |it: &&Self| **it != Self::HardAffinity || workload.has_keys();
        all.iter().filter(differs).copied().collect()
    }

    pub(super) fn run(self, workload: &Workload, tasks: &[SimTask], seed: u64) -> Result<Run> {
        let mut rules = workload.rules.clone();
        let policy = match self {
            Self::Pushed(next) => return Ok(pushed::run(workload, next, tasks, seed)),
            Self::Policy(policy) => policy,
            Self::HardAffinity => {
                rules.insert("affinity".to_owned(), json!(Affinity::Hard));
                Policy::SessionHash
            }
        };
        rules.insert("policy".to_owned(), json!(policy));
        let rules: ActionRules =
            serde_json::from_value(Value::Object(rules)).context(workload.name)?;
        Ok(simulation::run(workload, rules, tasks, seed))
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pushed(Next::Random) => f.write_str("push_random"),
            Self::Pushed(Next::InTurn) => f.write_str("push_round_robin"),
            Self::Policy(policy) => f.write_str(&policy.name()),
            Self::HardAffinity => f.write_str("session_hash_hard"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policies_are_those_of_the_broker() {
        for policy in Policy::ALL {
            assert_eq!(Contender::of(&policy.name()).unwrap(), Contender::Policy(*policy));
        }
        assert!(Contender::of("best").is_err());
    }
}
