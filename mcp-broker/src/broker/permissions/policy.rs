//! What is written: who may do what.

use std::collections::BTreeMap;

use mcp_proto::Priority;
use serde::Deserialize;

use super::pattern::Pattern;

/// More roles than a person oversees.
const MAX_ROLES: usize = 1_000;
/// Patterns of one list: each is tried for each task where it is no plain name.
const MAX_PATTERNS: usize = 1_000;

/// Who may do what.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AccessPolicy {
    /// Everybody may do everything: nobody is asked who they are.
    #[default]
    Open,
    /// Everybody proved who they are, and may send and serve what they like; operators' acts, and
    /// tasks of others, are for those whose token has the role `operator`.
    Authenticated,
    /// What the roles say, and nothing else.
    Roles(Roles),
}

/// The role that may do what operators do where there is no policy of roles.
pub(super) const OPERATOR: &str = "operator";

/// Roles by name. An identity has those that it is a member of, and those that its token names. It
/// may do what one of them allows and none of them denies.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Roles {
    /// By name.
    #[serde(default)]
    pub(super) roles: BTreeMap<String, Role>,
}

/// What belongs together.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Role {
    /// Identities that have it, besides those whose token names it.
    pub(super) members: Vec<Pattern>,
    pub(super) allow: Allowed,
    pub(super) deny: Named,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Allowed {
    // Not flattened: that would not tell unknown keys.
    send: Vec<Pattern>,
    serve: Vec<Pattern>,
    tenants: Vec<Pattern>,
    agent_ids: Vec<Pattern>,
    admin: Vec<Pattern>,
    /// The highest of its tasks; normal when not said.
    pub(super) priority: Option<Priority>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Named {
    send: Vec<Pattern>,
    serve: Vec<Pattern>,
    tenants: Vec<Pattern>,
    agent_ids: Vec<Pattern>,
    admin: Vec<Pattern>,
}

/// What a permission is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// An action, to send tasks of.
    Send,
    /// An action, to serve.
    Serve,
    /// An account, to send tasks on.
    Tenant,
    /// A worker's name.
    AgentId,
    /// A built-in action, without `mcp.admin.`.
    Admin,
}

impl What {
    pub(super) const ALL: [Self; 5] =
        [Self::Send, Self::Serve, Self::Tenant, Self::AgentId, Self::Admin];

    /// Its key.
    pub(super) fn key(self) -> &'static str {
        match self {
            What::Send => "send",
            What::Serve => "serve",
            What::Tenant => "tenants",
            What::AgentId => "agent_ids",
            What::Admin => "admin",
        }
    }
}

impl Allowed {
    pub(super) fn of(&self, what: What) -> &[Pattern] {
        match what {
            What::Send => &self.send,
            What::Serve => &self.serve,
            What::Tenant => &self.tenants,
            What::AgentId => &self.agent_ids,
            What::Admin => &self.admin,
        }
    }
}

impl Named {
    pub(super) fn of(&self, what: What) -> &[Pattern] {
        match what {
            What::Send => &self.send,
            What::Serve => &self.serve,
            What::Tenant => &self.tenants,
            What::AgentId => &self.agent_ids,
            What::Admin => &self.admin,
        }
    }
}

impl Roles {
    /// Checks what reading it does not: how much there is of it.
    ///
    /// # Errors
    /// The key of what is too much, and what is wrong with it.
    pub fn check(&self) -> Result<(), (String, String)> {
        if self.roles.len() > MAX_ROLES {
            let problem =
                format!("has {} roles; at most {MAX_ROLES} are allowed", self.roles.len());
            return Err(("roles".to_owned(), problem));
        }
        for (name, role) in &self.roles {
            let lists = What::ALL.into_iter().flat_map(|what| {
                let key = what.key();
                [
                    (format!("allow.{key}"), role.allow.of(what)),
                    (format!("deny.{key}"), role.deny.of(what)),
                ]
            });
            for (key, list) in lists.chain([("members".to_owned(), &role.members[..])]) {
                if list.len() > MAX_PATTERNS {
                    let problem =
                        format!("has {} entries; at most {MAX_PATTERNS} are allowed", list.len());
                    return Err((format!("roles.{name}.{key}"), problem));
                }
            }
        }
        Ok(())
    }
}
