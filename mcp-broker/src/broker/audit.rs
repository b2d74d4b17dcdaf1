//! What somebody did that is to be found again later: an audit log is made of it.

use mcp_proto::{AgentId, ErrorCode, ErrorInfo};

use super::admin::{Asker, PREFIX};
use super::{AdminFunction, ConnectionId, Core, Identity, Output};

/// Longest arguments of an operator's act that are told in full.
const MAX_ARGUMENTS_BYTES: usize = 4 * 1024;

/// Something that somebody did.
#[derive(Debug, Clone, PartialEq)]
pub enum Act {
    /// A peer said HELLO and was let in.
    Connected {
        /// Its connection.
        connection: ConnectionId,
        /// Who it is.
        identity: Identity,
        /// Whether it is a client.
        is_client: bool,
        /// The worker's own name, if it is one.
        agent_id: Option<AgentId>,
    },
    /// A connection was refused, or closed for what its peer did.
    Refused {
        /// The connection.
        connection: ConnectionId,
        /// Who its peer is, as far as it was known.
        identity: Identity,
        /// Why.
        code: ErrorCode,
        /// In words.
        message: String,
    },
    /// An operator changed something, or tried to.
    Operated {
        /// The operator's connection; none when it was not over one.
        connection: Option<ConnectionId>,
        /// The operator.
        identity: Identity,
        /// Which of `mcp.admin.*`.
        function: String,
        /// What was to be changed how: the body of the task, or how long that is.
        arguments: String,
        /// Why it was not done.
        error: Option<ErrorInfo>,
    },
}

impl Act {
    /// The connection over which it was done.
    pub fn connection(&self) -> Option<ConnectionId> {
        match self {
            Act::Connected { connection, .. } | Act::Refused { connection, .. } => {
                Some(*connection)
            }
            Act::Operated { connection, .. } => *connection,
        }
    }
}

impl Core {
    pub(super) fn audit(&mut self, act: Act) {
        self.outputs.push_back(Output::Audit(Box::new(act)));
    }

    /// Notes that an operator did something, or tried to.
    pub(super) fn audit_operator(
        &mut self,
        asker: Asker<'_>,
        function: AdminFunction,
        arguments: &[u8],
        error: Option<&ErrorInfo>,
    ) {
        let arguments = match arguments.len() {
            ..=MAX_ARGUMENTS_BYTES => String::from_utf8_lossy(arguments).into_owned(),
            bytes => format!("{bytes} bytes"),
        };
        self.audit(Act::Operated {
            connection: asker.connection,
            identity: Identity::new(asker.name),
            function: format!("{PREFIX}{}", function.name()),
            arguments,
            error: error.cloned(),
        });
    }
}
