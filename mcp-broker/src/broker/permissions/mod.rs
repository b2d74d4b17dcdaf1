//! What identities may do.
//!
//! A policy is made ready once for each set of roles that somebody has; those who have the same
//! share it. Where everybody may do everything, there is none of it, and a task costs the check of a
//! pointer.

mod checks;
mod owners;
mod pattern;
mod policy;

use std::collections::BTreeMap;
use std::sync::Arc;

use mcp_proto::Priority;

pub use pattern::Pattern;
pub use policy::{AccessPolicy, Roles};

use pattern::Patterns;
use policy::{OPERATOR, What};

pub(super) use checks::{Arriving, Scope};
pub(super) use owners::Owners;

/// Sets of roles made ready. Tokens can name any, so there is a bound; beyond it they are made anew.
const MAX_MADE: usize = 1_000;

/// Roles that a token names, as it names them.
pub type RoleNames = Arc<[Box<str>]>;

/// What somebody may do; none: everything.
pub(super) type Granted = Option<Arc<Permissions>>;

/// What those with the same roles may do.
#[derive(Debug, Clone)]
pub(super) struct Permissions {
    /// Their names, for messages; none where there is no policy of roles.
    roles: Option<Vec<Box<str>>>,
    rules: [Rule; What::ALL.len()],
    priority: Priority,
}

#[derive(Debug, Clone, Default)]
struct Rule {
    allow: Patterns,
    deny: Patterns,
}

/// What a rule says to a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Allowed,
    /// Nobody said so.
    NotAllowed,
    Denied,
}

impl Rule {
    #[inline]
    fn of(&self, name: &[u8]) -> Verdict {
        if self.deny.matches(name) {
            Verdict::Denied
        } else if self.allow.matches(name) {
            Verdict::Allowed
        } else {
            Verdict::NotAllowed
        }
    }
}

impl Permissions {
    #[inline]
    fn verdict(&self, what: What, name: &[u8]) -> Verdict {
        self.rules[what as usize].of(name)
    }

    fn may(&self, what: What, name: &[u8]) -> bool {
        self.verdict(what, name) == Verdict::Allowed
    }

    /// Of those who proved who they are, where there is no policy of roles.
    fn authenticated(is_operator: bool) -> Self {
        let mut rules: [Rule; What::ALL.len()] = Default::default();
        for what in What::ALL {
            if what != What::Admin || is_operator {
                rules[what as usize].allow = Patterns::all();
            }
        }
        Self { roles: None, rules, priority: Priority::Urgent }
    }

    fn of_roles(roles: &Roles, names: Vec<Box<str>>) -> Self {
        let mut rules: [Rule; What::ALL.len()] = Default::default();
        let mut priority = None;
        for role in names.iter().filter_map(|name| roles.roles.get(&**name)) {
            for what in What::ALL {
                rules[what as usize].allow.extend(role.allow.of(what).iter().cloned());
                rules[what as usize].deny.extend(role.deny.of(what).iter().cloned());
            }
            priority = priority.max(Some(role.allow.priority.unwrap_or(Priority::Normal)));
        }
        Self { roles: Some(names), rules, priority: priority.unwrap_or(Priority::Normal) }
    }
}

/// The policy in force.
#[derive(Debug, Default)]
pub(super) struct InForce {
    policy: AccessPolicy,
    made: BTreeMap<Vec<Box<str>>, Arc<Permissions>>,
}

impl InForce {
    fn replace(&mut self, policy: AccessPolicy) {
        self.policy = policy;
        self.made.clear();
    }

    /// What an identity may do whose token names these roles.
    pub(super) fn granted(&mut self, identity: &str, named: &[Box<str>]) -> Granted {
        let names: Vec<Box<str>> = match &self.policy {
            AccessPolicy::Open => return None,
            AccessPolicy::Authenticated => {
                named.iter().filter(|name| &***name == OPERATOR).take(1).cloned().collect()
            }
            AccessPolicy::Roles(roles) => {
                let has = |name: &str, role: &policy::Role| {
                    named.iter().any(|it| **it == *name)
                        || role.members.iter().any(|it| it.matches(identity.as_bytes()))
                };
                let has = roles.roles.iter().filter(|(name, role)| has(name, role));
                has.map(|(name, _)| name.as_str().into()).collect()
            }
        };
        if let Some(made) = self.made.get(&names) {
            return Some(made.clone());
        }
        let permissions = Arc::new(match &self.policy {
            AccessPolicy::Roles(roles) => Permissions::of_roles(roles, names.clone()),
            AccessPolicy::Open | AccessPolicy::Authenticated => {
                Permissions::authenticated(!names.is_empty())
            }
        });
        if self.made.len() >= MAX_MADE {
            self.made.clear();
        }
        self.made.insert(names, permissions.clone());
        Some(permissions)
    }

    /// The role of these that denies it.
    fn denied_by<'a>(&self, of: &'a Permissions, what: What, name: &[u8]) -> Option<&'a str> {
        let AccessPolicy::Roles(roles) = &self.policy else { return None };
        let denies = |role: &&str| {
            let role = roles.roles.get(*role);
            role.is_some_and(|role| role.deny.of(what).iter().any(|it| it.matches(name)))
        };
        of.roles.iter().flatten().map(|role| &**role).find(denies)
    }
}
