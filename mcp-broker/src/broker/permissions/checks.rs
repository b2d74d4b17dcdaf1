//! Where it is asked what somebody may do, and how it is told that they may not.

use mcp_proto::{ErrorCode, ErrorInfo, TaskHead, WorkerHello};

use super::{AccessPolicy, Granted, Permissions, RoleNames, Verdict, What};
use crate::broker::identities::IdentityKey;
use crate::broker::peers::Refusal;
use crate::broker::registry::AgentKey;
use crate::broker::sessions::SessionKey;
use crate::broker::{AdminFunction, ConnectionId, Core, Event, Identity, Now};

/// Whether a function is for everybody, about what is their own; with the permission, about all.
fn is_of_ones_own(function: AdminFunction) -> bool {
    matches!(
        function,
        AdminFunction::TasksList
            | AdminFunction::TasksShow
            | AdminFunction::TasksCancel
            | AdminFunction::DeadLettersList
            | AdminFunction::DeadLettersShow
            | AdminFunction::DeadLettersReplay
            | AdminFunction::DeadLettersDrop
    )
}

/// What the explanation in a trace needs, too.
const EXPLAIN: &str = "explain";

/// The roles that a connection's token names, until its HELLO is taken.
#[derive(Debug)]
pub(in crate::broker) struct Arriving {
    pub(in crate::broker) connection: ConnectionId,
    pub(in crate::broker) roles: RoleNames,
}

/// Of whom a built-in action tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::broker) enum Scope {
    All,
    Own { identity: IdentityKey, session: SessionKey },
}

impl Scope {
    pub(in crate::broker) fn has(self, identity: IdentityKey) -> bool {
        match self {
            Scope::All => true,
            Scope::Own { identity: own, .. } => own == identity,
        }
    }
}

impl Core {
    /// A peer has proved who it is, by its certificate or by the token in the HELLO that comes next.
    pub fn handle_authenticated(
        &mut self,
        id: ConnectionId,
        identity: &Identity,
        roles: RoleNames,
    ) {
        let identity = self.identities.key_of(identity);
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.identity = identity;
            self.arriving = Some(Arriving { connection: id, roles });
        }
    }

    /// A peer has not proved who it is, or its proof no longer holds: tells it why, and closes its
    /// connection. It may come back with a better one.
    pub fn handle_unauthenticated(&mut self, now: Now, id: ConnectionId, why: String) {
        self.refuse(now, id, (ErrorCode::Unauthenticated, why));
    }

    /// Replaces the policy. What was taken goes on; workers that may no longer serve what they serve
    /// are sent away, and what they hold ends as if they had left.
    pub fn set_policy(&mut self, now: Now, policy: AccessPolicy) {
        self.policy.replace(policy);
        for key in self.sessions.keys() {
            let Some(session) = self.sessions.get(key) else { continue };
            let identity = self.identities.get(session.identity);
            let granted = self.policy.granted(identity.as_str(), &session.roles);
            if let Some(session) = self.sessions.get_mut(key) {
                session.granted = granted;
            }
        }
        for key in self.registry.keys() {
            let Some(agent) = self.registry.get(key) else { continue };
            let identity = self.identities.get(agent.identity).clone();
            let granted = self.policy.granted(identity.as_str(), &agent.roles);
            let pools = agent.serves.iter().filter_map(|it| self.pools.get(it.pool));
            let actions = pools.map(|pool| pool.action.as_bytes());
            let checked = self.check_serving(&identity, &granted, agent.id.as_bytes(), actions);
            if let Err(refusal) = checked {
                self.expel(now, key, &refusal);
            }
        }
    }

    fn expel(&mut self, now: Now, key: AgentKey, (code, message): &Refusal) {
        let connection = self.registry.get(key).and_then(|agent| agent.connection);
        self.end_registration(now, key, "it may no longer serve what it serves");
        let Some(id) = connection else { return };
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.agent = None;
        let client = peer.client.take();
        self.stats.peers_refused += 1;
        self.event(Event::PeerRefused { connection: id, code: *code, message: message.clone() });
        self.send_away(id, *code, message, true);
        if let Some(session) = client {
            self.detach_session(now, session);
        }
    }

    /// Takes the roles that a connection came with, and what it may do.
    pub(in crate::broker) fn arrived(
        &mut self,
        connection: ConnectionId,
        identity: IdentityKey,
    ) -> (RoleNames, Granted) {
        let arriving = self.arriving.take().filter(|it| it.connection == connection);
        let roles = arriving.map(|it| it.roles).unwrap_or_default();
        let granted = self.policy.granted(self.identities.get(identity).as_str(), &roles);
        (roles, granted)
    }

    /// Whether a worker may be who it says, and serve what it says.
    pub(in crate::broker) fn check_worker(
        &self,
        now: Now,
        identity: IdentityKey,
        granted: &Granted,
        hello: &WorkerHello,
    ) -> Result<(), Refusal> {
        let agent_id = &hello.agent_id;
        let actions = hello.actions.iter().map(|action| action.as_bytes());
        let name = self.identities.get(identity);
        self.check_serving(name, granted, agent_id.as_bytes(), actions)?;
        if self.registry.find(agent_id).is_none()
            && self.owners.of(now.mono, agent_id).is_some_and(|owner| owner != identity)
        {
            let message = format!("agent {agent_id} belonged to another identity within a day");
            return Err((ErrorCode::IdentityMismatch, message));
        }
        Ok(())
    }

    fn check_serving<'a>(
        &self,
        identity: &Identity,
        granted: &Granted,
        agent_id: &'a [u8],
        actions: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(), Refusal> {
        let Some(granted) = granted else { return Ok(()) };
        let asked =
            [(What::AgentId, agent_id)].into_iter().chain(actions.map(|it| (What::Serve, it)));
        for (what, name) in asked {
            if !granted.may(what, name) {
                return Err((ErrorCode::Forbidden, self.missing(identity, granted, what, name)));
            }
        }
        Ok(())
    }

    /// Whether a session may send this task.
    #[inline]
    pub(in crate::broker) fn check_task(
        &mut self,
        session: SessionKey,
        task: &TaskHead<'_>,
    ) -> Result<(), ErrorInfo> {
        match self.sessions.get(session) {
            Some(it) if it.granted.is_some() => self.check_task_of_some(session, task),
            _ => Ok(()),
        }
    }

    fn check_task_of_some(
        &mut self,
        session: SessionKey,
        task: &TaskHead<'_>,
    ) -> Result<(), ErrorInfo> {
        let Some(session) = self.sessions.get(session) else { return Ok(()) };
        let Some(granted) = &session.granted else { return Ok(()) };
        let is_explained = task.extras.as_ref().is_some_and(|extras| extras.explain);
        let missing = if !granted.may(What::Send, task.action.as_str().as_bytes()) {
            Some((What::Send, task.action.as_str().as_bytes()))
        } else if !granted.may_charge(task.tenant) {
            Some((What::Tenant, task.tenant))
        } else if is_explained && !granted.may(What::Admin, EXPLAIN.as_bytes()) {
            Some((What::Admin, EXPLAIN.as_bytes()))
        } else if task.priority > granted.priority {
            None
        } else {
            return Ok(());
        };
        let identity = self.identities.get(session.identity);
        let message = match missing {
            Some((what, name)) => self.missing(identity, granted, what, name),
            None => format!(
                "{identity} may not send tasks of priority {asked}, {highest} at most; allow.priority \
                 of one of its roles in the policy says so",
                asked = task.priority,
                highest = granted.priority,
            ),
        };
        Err(self.denied(identity.clone(), message))
    }

    /// Of whom a built-in action tells this session.
    pub(in crate::broker) fn scope(
        &mut self,
        key: SessionKey,
        function: AdminFunction,
    ) -> Result<Scope, ErrorInfo> {
        let Some(session) = self.sessions.get(key) else {
            return Err(ErrorInfo::new(ErrorCode::Forbidden, "the session has ended"));
        };
        let Some(granted) = &session.granted else { return Ok(Scope::All) };
        let name = function.name().as_bytes();
        match granted.verdict(What::Admin, name) {
            Verdict::Allowed => return Ok(Scope::All),
            Verdict::NotAllowed if is_of_ones_own(function) => {
                return Ok(Scope::Own { identity: session.identity, session: key });
            }
            Verdict::NotAllowed | Verdict::Denied => {}
        }
        let identity = self.identities.get(session.identity);
        let message = self.missing(identity, granted, What::Admin, name);
        Err(self.denied(identity.clone(), message))
    }

    fn denied(&mut self, identity: Identity, message: String) -> ErrorInfo {
        self.event(Event::Denied { identity, message: message.clone() });
        ErrorInfo::new(ErrorCode::Forbidden, message)
    }

    /// Which permission is missing, and where it is given.
    fn missing(&self, identity: &Identity, of: &Permissions, what: What, name: &[u8]) -> String {
        let key = what.key();
        let name = String::from_utf8_lossy(name);
        let refused = match what {
            What::Send => format!("{identity} may not send tasks of action {name}"),
            What::Serve => format!("{identity} may not serve action {name}"),
            What::Tenant if name.is_empty() => {
                format!("{identity} may not send tasks that name no tenant")
            }
            What::Tenant => format!("{identity} may not send tasks of tenant {name}"),
            What::AgentId => format!("{identity} may not be agent {name}"),
            What::Admin => format!("{identity} may not use mcp.admin.{name}"),
        };
        let Some(roles) = &of.roles else {
            return format!(
                "{refused}: its token does not name the role operator, nor is there a \
                            policy that gives it the permission {key}"
            );
        };
        if let Some(role) = self.policy.denied_by(of, what, name.as_bytes()) {
            return format!("{refused}: role {role} of the policy denies it (deny.{key})");
        }
        match roles.is_empty() {
            true => format!(
                "{refused}: it has no role in the policy; make it a member of one that \
                             has {name:?} in allow.{key}"
            ),
            false => format!(
                "{refused}: none of its roles ({}) has {name:?} in allow.{key} of the \
                              policy",
                roles.join(", ")
            ),
        }
    }
}

impl Permissions {
    /// Whether tasks may be on this account; on none, where the policy names no accounts for them.
    #[inline]
    fn may_charge(&self, tenant: &[u8]) -> bool {
        match self.verdict(What::Tenant, tenant) {
            Verdict::Allowed => true,
            Verdict::NotAllowed => {
                tenant.is_empty() && self.rules[What::Tenant as usize].allow.is_empty()
            }
            Verdict::Denied => false,
        }
    }
}
